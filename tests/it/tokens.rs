//! Signed tokens: whose open the doors, and which forgeries do not.

use std::time::Duration;

use aws_lc_rs::hmac;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use task_processor::config::{AuthMode, Config};
use task_processor::handlers;

use crate::support::{
    Instance, Issuer, KEY, SigningKey, TestApp, TestDb, answer, eventually, now, pass, token,
};

const SECRET: &str = "a-secret-of-more-than-thirty-two-characters";
const AUDIENCE: &str = "https://task-processor-abc.a.run.app";
const EMAIL: &str = "scheduler@my-project.iam.gserviceaccount.com";
const GOOGLE: &str = "https://accounts.google.com";

/// One service that knows a secret, a Supabase project and Google, each with a key of its own.
struct Doors {
    app: TestApp,
    supabase: Issuer,
    google: Issuer,
    ec: SigningKey,
    rsa: SigningKey,
    _db: TestDb,
}

impl Doors {
    async fn open(change: impl FnOnce(&mut Config)) -> Self {
        let (ec, rsa) = (SigningKey::ec("supabase-1"), SigningKey::rsa("google-1"));
        let (supabase, google) = (Issuer::start(&[&ec]).await, Issuer::start(&[&rsa]).await);
        let db = TestDb::new().await;
        let url = supabase.url();
        let mut config = db.config(&[
            ("JWT_SECRET", SECRET),
            ("SUPABASE_URL", &url),
            ("OIDC_AUDIENCES", &format!("https://other.example.com, {AUDIENCE}")),
            ("OIDC_EMAILS", EMAIL),
        ]);
        config.http.tokens.google_keys_url = google.url();
        change(&mut config);
        let app = TestApp::start_with(config, handlers::all()).await;
        Self { app, supabase, google, ec, rsa, _db: db }
    }

    async fn knock(&self, token: &str) -> u16 {
        let request = self.app.http.post(self.app.url("/trigger-poll")).bearer_auth(token);
        // A connection that idles is closed when the clock leaps.
        answer(request.header("connection", "close")).await.0
    }

    async fn knock_with(&self, headers: &[(&str, &str)]) -> u16 {
        let mut request = self.app.http.post(self.app.url("/trigger-poll"));
        for (name, token) in headers {
            request = request.header(*name, format!("Bearer {token}"));
        }
        answer(request).await.0
    }

    fn supabase_claims(&self, changes: &Value) -> Value {
        let issuer = format!("{}/auth/v1", self.supabase.url());
        let exp = now() + 600;
        with(
            json!({ "iss": issuer, "aud": "authenticated", "sub": "u", "role": "service_role", "exp": exp }),
            changes,
        )
    }
}

fn google_claims(changes: &Value) -> Value {
    let exp = now() + 600;
    with(
        json!({ "iss": GOOGLE, "aud": AUDIENCE, "sub": "1", "email": EMAIL, "email_verified": true, "exp": exp }),
        changes,
    )
}

fn secret_claims(changes: &Value) -> Value {
    with(json!({ "iss": "supabase", "role": "service_role", "exp": now() + 600 }), changes)
}

/// Null takes a claim away.
fn with(mut claims: Value, changes: &Value) -> Value {
    let all = claims.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            all.shift_remove(name);
        } else {
            all.insert(name.clone(), value.clone());
        }
    }
    claims
}

fn hs256(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    token(header, claims, |message| hmac::sign(&key, message).as_ref().to_vec())
}

fn signed_with_secret(changes: &Value) -> String {
    hs256(&json!({ "alg": "HS256", "typ": "JWT" }), &secret_claims(changes), SECRET.as_bytes())
}

/// The token without its signature, as Cloud Run hands it on.
fn stripped(token: &str) -> String {
    let (message, _) = token.rsplit_once('.').expect("a token");
    format!("{message}.SIGNATURE_REMOVED_BY_GOOGLE")
}

#[tokio::test]
async fn tokens_of_services_open_the_door_whoever_has_signed_them() {
    let doors = Doors::open(|_| ()).await;
    let many = json!({ "aud": ["https://elsewhere.example.com", AUDIENCE] });
    let late = json!({ "exp": now() - 30, "nbf": now() + 30, "iat": now() + 30 });
    let ours = json!({ "iss": "task-processor", "aud": "task-processor", "role": "service" });
    for (what, token) in [
        ("Supabase's own service key", signed_with_secret(&json!({}))),
        ("one that names no issuer", signed_with_secret(&json!({ "iss": null }))),
        ("one of `task-processor token`", signed_with_secret(&ours)),
        ("Supabase's signing key", doors.ec.token(&doors.supabase_claims(&json!({})))),
        ("no audience, no issuer of users", doors.ec.token(&doors.supabase_claims(&json!({ "aud": null })))),
        ("Cloud Scheduler", doors.rsa.token(&google_claims(&json!({})))),
        (
            "Google's other spelling",
            doors.rsa.token(&google_claims(&json!({ "iss": "accounts.google.com" }))),
        ),
        ("several audiences", doors.rsa.token(&google_claims(&many))),
        ("another clock", doors.rsa.token(&google_claims(&late))),
    ] {
        assert_eq!(doors.knock(&token).await, 200, "{what}");
    }
    assert_eq!((doors.supabase.fetches(), doors.google.fetches()), (1, 1), "keys are kept");
    doors.app.stop().await;
}

#[tokio::test]
async fn users_are_known_and_may_not_do_what_services_do() {
    let doors = Doors::open(|_| ()).await;
    for role in [json!("authenticated"), json!("anon"), json!("SERVICE_ROLE"), json!(null)] {
        let changes = json!({ "role": role });
        for token in [doors.ec.token(&doors.supabase_claims(&changes)), signed_with_secret(&changes)] {
            let request = doors.app.http.post(doors.app.url("/trigger-poll")).bearer_auth(token);
            assert_eq!(
                answer(request).await,
                (403, json!({ "error": "Only a service may do this" })),
                "{role}"
            );
        }
    }
    doors.app.stop().await;
}

#[tokio::test]
async fn claims_that_are_not_for_us_open_nothing_however_well_they_are_signed() {
    let doors = Doors::open(|_| ()).await;
    let google = |changes: Value| doors.rsa.token(&google_claims(&changes));
    let supabase = |changes: Value| doors.ec.token(&doors.supabase_claims(&changes));
    for (what, token) in [
        ("expired", google(json!({ "exp": now() - 120 }))),
        ("expired, by the secret", signed_with_secret(&json!({ "exp": now() - 120 }))),
        ("without an end", signed_with_secret(&json!({ "exp": null }))),
        ("an end that is no number", google(json!({ "exp": "never" }))),
        ("an end in milliseconds", google(json!({ "exp": (now() + 600) * 1000 }))),
        ("an end beyond all times", signed_with_secret(&json!({ "exp": u64::MAX }))),
        ("an end beyond all numbers", signed_with_secret(&json!({ "exp": 1e300 }))),
        ("an end before all times", supabase(json!({ "exp": -1 }))),
        ("made in the future", google(json!({ "iat": now() + 120 }))),
        ("made in the future, by the secret", signed_with_secret(&json!({ "iat": now() + 120 }))),
        ("made at no time", supabase(json!({ "iat": "now" }))),
        ("not valid yet", supabase(json!({ "nbf": now() + 120 }))),
        ("a wrong audience", google(json!({ "aud": format!("{AUDIENCE}/") }))),
        ("no audience", google(json!({ "aud": null }))),
        ("an audience that is no text", google(json!({ "aud": 7 }))),
        ("Supabase for somebody else", supabase(json!({ "aud": "other" }))),
        ("the secret for somebody else", signed_with_secret(&json!({ "aud": "other" }))),
        ("a wrong issuer", google(json!({ "iss": "https://accounts.google.com.example.com" }))),
        ("no issuer", google(json!({ "iss": null }))),
        ("the secret with a wrong issuer", signed_with_secret(&json!({ "iss": "https://example.com" }))),
        ("an address not verified", google(json!({ "email_verified": false }))),
        ("an address verified by a text", google(json!({ "email_verified": "true" }))),
        ("an address of which nothing is said", google(json!({ "email_verified": null }))),
        ("an address not listed", google(json!({ "email": "other@my-project.iam.gserviceaccount.com" }))),
        ("no address", google(json!({ "email": null }))),
        ("too long", google(json!({ "x": "x".repeat(9_000) }))),
    ] {
        assert_eq!(doors.knock(&token).await, 401, "{what}: {token}");
    }
    doors.app.stop().await;
}

#[tokio::test]
async fn signatures_of_others_open_nothing_nor_do_keys_taken_for_what_they_are_not() {
    let doors = Doors::open(|_| ()).await;
    let (ec, rsa) = (&doors.ec, &doors.rsa);
    let unheard_of = SigningKey::ec("google-ec");
    doors.google.publish(&[rsa, &unheard_of]);
    let (for_supabase, for_google) = (doors.supabase_claims(&json!({})), google_claims(&json!({})));
    let by_secret = secret_claims(&json!({}));
    let unsigned = |algorithm: &str| token(&json!({ "alg": algorithm }), &by_secret, |_| vec![]);
    let secret = |claims: &Value, secret: &[u8]| hs256(&json!({ "alg": "HS256" }), claims, secret);
    let confused = |key: &SigningKey, claims: &Value| {
        hs256(&json!({ "alg": "HS256", "kid": key.name }), claims, &key.public())
    };
    for (what, token) in [
        ("no algorithm", unsigned("none")),
        ("no algorithm, in capitals", unsigned("NONE")),
        ("no algorithm, half in capitals", unsigned("None")),
        ("no algorithm, in a mixture", unsigned("nOnE")),
        ("no algorithm, and a signature", token(&json!({ "alg": "none" }), &by_secret, |_| vec![1; 32])),
        ("an empty algorithm", unsigned("")),
        ("our algorithm without a signature", unsigned("HS256")),
        ("an algorithm that is nothing", token(&json!({ "alg": null }), &by_secret, |_| vec![])),
        ("no word of an algorithm", token(&json!({ "typ": "JWT" }), &by_secret, |_| vec![])),
        ("the RSA key as text taken for a secret", {
            let pem = URL_SAFE_NO_PAD.encode(rsa.public());
            hs256(&json!({ "alg": "HS256", "kid": rsa.name }), &for_google, pem.as_bytes())
        }),
        ("an algorithm we do not take", unsigned("HS512")),
        ("another secret", secret(&by_secret, b"guess")),
        ("an empty secret", secret(&by_secret, b"")),
        ("the RSA key taken for a secret", confused(rsa, &for_google)),
        ("the EC key taken for a secret", confused(ec, &for_supabase)),
        ("the secret, for Google", secret(&for_google, SECRET.as_bytes())),
        ("Supabase's key for Google", ec.token(&for_google)),
        ("Google's key for Supabase", rsa.token(&for_supabase)),
        ("a key of Google's for what Google does not use", unheard_of.token(&for_google)),
        ("another key of that name", SigningKey::rsa(&rsa.name).token(&for_google)),
        ("another key of that name, for Supabase", SigningKey::ec(&ec.name).token(&for_supabase)),
        ("another algorithm that Supabase may use", {
            let header = json!({ "alg": "RS256", "kid": ec.name });
            token(&header, &for_supabase, |message| ec.sign(message))
        }),
    ] {
        assert_eq!(doors.knock(&token).await, 401, "{what}: {token}");
    }
    doors.app.stop().await;
}

#[tokio::test]
async fn tokens_that_are_cut_wrapped_or_headed_strangely_open_nothing() {
    let doors = Doors::open(|_| ()).await;
    let (rsa, claims) = (&doors.rsa, google_claims(&json!({})));
    let headed = |changes: Value| token(&with(rsa.header(), &changes), &claims, |message| rsa.sign(message));
    let whole = rsa.token(&claims);
    let (message, signature) = whole.rsplit_once('.').expect("a token");
    let others = token(&rsa.header(), &google_claims(&json!({ "sub": "2" })), |_| vec![]);
    for (what, token) in [
        ("a key of another name", headed(json!({ "kid": "google-2" }))),
        ("no key named", headed(json!({ "kid": null }))),
        (
            "a key it brings along",
            headed(json!({ "jwk": { "kty": "RSA", "n": "AQ", "e": "AQAB" }, "kid": "own" })),
        ),
        ("another algorithm of the key's family", headed(json!({ "alg": "RS512" }))),
        ("another family's algorithm", headed(json!({ "alg": "ES256" }))),
        ("a token in a token", headed(json!({ "cty": "JWT" }))),
        ("another type", headed(json!({ "typ": "logout+jwt" }))),
        ("something critical", headed(json!({ "crit": ["b64"], "b64": false }))),
        ("packed", headed(json!({ "zip": "DEF" }))),
        ("half a signature", whole[..whole.len() - 8].to_owned()),
        ("no signature", format!("{message}.")),
        ("no third part", message.to_owned()),
        ("a fourth part", format!("{whole}.x")),
        ("a signature removed", stripped(&whole)),
        ("a signature of other claims", format!("{others}{signature}")),
        ("rubbish", "a.b.c".to_owned()),
    ] {
        assert_eq!(doors.knock(&token).await, 401, "{what}: {token}");
    }
    assert_eq!(doors.knock(&whole).await, 200, "the whole one");
    doors.app.stop().await;
}

#[tokio::test]
async fn a_token_names_neither_its_own_key_nor_where_to_look_for_it() {
    let doors = Doors::open(|_| ()).await;
    let own = SigningKey::rsa("own");
    let elsewhere = Issuer::start(&[&own, &SigningKey::rsa("google-1")]).await;
    let claims = google_claims(&json!({}));
    let url = elsewhere.url();
    let headed = |changes: Value| token(&with(own.header(), &changes), &claims, |message| own.sign(message));
    for header in [
        json!({ "jku": url }),
        json!({ "jku": format!("{url}/.well-known/jwks.json"), "kid": "google-1" }),
        json!({ "x5u": url }),
        json!({ "x5u": url, "kid": null }),
        json!({ "x5c": [URL_SAFE_NO_PAD.encode(own.public())], "kid": "google-1" }),
        json!({ "jwk": own.jwk() }),
        json!({ "jwk": own.jwk(), "kid": "google-1" }),
        json!({ "jwk": own.jwk(), "kid": null }),
        json!({ "kid": url }),
        json!({ "kid": "../../../../dev/null" }),
        json!({ "kid": "/proc/self/environ" }),
        json!({ "kid": "google-1' or '1'='1" }),
        json!({ "kid": "x' union select 'secret" }),
        json!({ "kid": "google-1\0" }),
        json!({ "kid": "" }),
        json!({ "kid": ["google-1"] }),
        json!({ "kid": "k".repeat(5_000) }),
    ] {
        let refused = doors.knock(&headed(header.clone())).await;
        assert_eq!(refused, 401, "{header}");
    }
    assert_eq!(elsewhere.fetches(), 0, "nobody goes where a token says");
    assert!(doors.google.fetches() <= 1, "nor back to the issuer for every name");
    assert_eq!(doors.knock(&doors.rsa.token(&claims)).await, 200);
    // A name that stands there twice is none.
    let twice = "{\"alg\":\"RS256\",\"kid\":\"google-1\",\"kid\":\"own\"}";
    let whole = doors.rsa.token(&claims);
    let rest = whole.split_once('.').expect("a token").1;
    assert_eq!(doors.knock(&format!("{}.{rest}", URL_SAFE_NO_PAD.encode(twice))).await, 401);
    doors.app.stop().await;
}

#[tokio::test]
async fn new_keys_are_fetched_when_a_token_names_one_and_names_made_up_cause_no_storm() {
    let doors = Doors::open(|_| ()).await;
    let claims = google_claims(&json!({}));
    assert_eq!(doors.knock(&doors.rsa.token(&claims)).await, 200);
    let new = SigningKey::rsa("google-2");
    assert_eq!(doors.google.fetches(), 1);
    doors.google.publish(&[&new]);
    assert_eq!(doors.knock(&new.token(&claims)).await, 200, "the keys have changed");
    assert_eq!(doors.knock(&doors.rsa.token(&claims)).await, 401, "this one was taken back");
    let fetches = doors.google.fetches();
    for number in 0..20 {
        let header = with(new.header(), &json!({ "kid": format!("made-up-{number}") }));
        assert_eq!(doors.knock(&token(&header, &claims, |message| new.sign(message))).await, 401);
    }
    assert_eq!(doors.google.fetches(), fetches, "a name that was not found is not looked for again at once");
    assert_eq!(doors.knock(&new.token(&claims)).await, 200, "known keys are as good as ever");
    doors.app.stop().await;
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_told_from_tokens_that_are_wrong() {
    let key = SigningKey::rsa("google-1");
    let elsewhere = Issuer::start(&[&key]).await;
    let many_bytes = format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(100_000));
    let answers = [
        ("an error", Some((StatusCode::INTERNAL_SERVER_ERROR, "{\"keys\": []}".to_owned()))),
        ("rubbish", Some((StatusCode::OK, "rubbish".to_owned()))),
        ("more than anybody has", Some((StatusCode::OK, many_bytes))),
        ("go elsewhere", None),
    ];
    for (what, reply) in answers {
        let doors = Doors::open(|_| ()).await;
        match reply {
            Some((status, body)) => doors.google.answer_with(status, body),
            None => doors.google.send_to(&elsewhere),
        }
        let token = key.token(&google_claims(&json!({})));
        let (code, answer) =
            answer(doors.app.http.post(doors.app.url("/trigger-poll")).bearer_auth(&token)).await;
        let error = "The keys that tokens are signed with cannot be fetched";
        assert_eq!((code, answer), (503, json!({ "error": error })), "{what}");
        assert_eq!(doors.knock(&token).await, 503);
        assert_eq!(doors.google.fetches(), 1, "nor are they asked for again at once");
        assert_eq!(doors.knock(KEY).await, 200, "keys of ours need nobody else");
        doors.app.stop().await;
    }
    assert_eq!(elsewhere.fetches(), 0);
}

#[tokio::test]
async fn keys_are_not_looked_for_at_a_metadata_server() {
    let db = TestDb::new().await;
    let process =
        Instance::start(&db, &[("SUPABASE_URL", "https://169.254.169.254"), ("RUST_LOG", "info")]).await;
    let claims = json!({ "iss": "https://169.254.169.254/auth/v1", "exp": now() + 60 });
    let token = SigningKey::ec("x").token(&claims);
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    assert_eq!(answer(client.post(process.url("/trigger-poll")).bearer_auth(token)).await.0, 503);
    eventually("the log says why", async || process.log().contains("it is never asked")).await;
}

#[tokio::test]
async fn keys_outlive_their_issuer_for_an_hour_and_are_looked_for_again_when_it_is_back() {
    let doors = Doors::open(|_| ()).await;
    let old = doors.rsa.token(&google_claims(&json!({})));
    let new = SigningKey::rsa("google-2");
    let later = new.token(&google_claims(&json!({})));
    assert_eq!(doors.knock(&old).await, 200);
    doors.google.answer_with(StatusCode::BAD_GATEWAY, String::new());
    pass(Duration::from_mins(11)).await;
    assert_eq!(doors.knock(&old).await, 200, "no longer fresh, but the issuer is away");
    assert_eq!(doors.google.fetches(), 2);
    pass(Duration::from_mins(50)).await;
    assert_eq!(doors.knock(&old).await, 503, "who knows whether it still holds");
    doors.google.publish(&[&new]);
    assert_eq!(doors.knock(&later).await, 503, "not asked for so soon");
    pass(Duration::from_secs(11)).await;
    assert_eq!(doors.knock(&later).await, 200);
    assert_eq!(doors.knock(&old).await, 401);
    doors.app.stop().await;
}

#[tokio::test]
async fn behind_iam_claims_are_believed_without_a_signature_and_nowhere_else() {
    let behind = |config: &mut Config| {
        config.http.tokens.mode = AuthMode::CloudRunIam;
        config.http.tokens.on_cloud_run = true;
    };
    let doors = Doors::open(behind).await;
    let checked = |changes: Value| stripped(&doors.rsa.token(&google_claims(&changes)));
    let good = checked(json!({}));
    assert_eq!(doors.knock(&good).await, 200);
    for (what, token) in [
        ("expired", checked(json!({ "exp": now() - 120 }))),
        ("a wrong issuer", checked(json!({ "iss": "https://example.com" }))),
        ("a wrong audience", checked(json!({ "aud": "https://example.com" }))),
        ("an address not listed", checked(json!({ "email": "other@example.com" }))),
        ("an address not verified", checked(json!({ "email_verified": false }))),
        ("an empty signature", good.replace("SIGNATURE_REMOVED_BY_GOOGLE", "")),
        ("no algorithm", stripped(&token(&json!({ "alg": "none" }), &google_claims(&json!({})), |_| vec![]))),
    ] {
        assert_eq!(doors.knock(&token).await, 401, "{what}");
    }

    let (to_us, to_platform) = ("authorization", "x-serverless-authorization");
    assert_eq!(doors.knock_with(&[(to_platform, &good)]).await, 200);
    assert_eq!(doors.knock_with(&[(to_platform, &good), (to_us, KEY)]).await, 200);
    let unchecked = [(to_platform, good.as_str()), (to_us, good.as_str())];
    assert_eq!(doors.knock_with(&unchecked).await, 401, "Cloud Run looks at one header only");
    let user = signed_with_secret(&json!({ "role": "authenticated" }));
    assert_eq!(doors.knock_with(&[(to_platform, &good), (to_us, &user)]).await, 403, "it is for the user");
    let http = doors.app.http.clone();
    doors.app.stop().await;

    for (mode, service, code) in [
        ("cloud_run_iam", "task-processor", 200),
        ("cloud_run_iam", "", 401),
        ("verify", "task-processor", 401),
    ] {
        let db = TestDb::new().await;
        let process = Instance::start(&db, &[("AUTH_MODE", mode), ("K_SERVICE", service)]).await;
        for header in [to_us, to_platform] {
            let request = http.post(process.url("/trigger-poll")).header(header, format!("Bearer {good}"));
            assert_eq!(answer(request).await.0, code, "{mode}, service {service:?}, {header}");
        }
    }
}
