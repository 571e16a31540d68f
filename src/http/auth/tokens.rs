//! Signed tokens: whose signature one must bear, and what it must say.

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

use super::claims::{Claims, Rule};
use super::key_set::{KeySet, PublicKey, Unreachable};
use super::{Caller, Refusal, Role};
use crate::config::TokenConfig;

/// The issuer and the audience of the tokens that `task-processor token` makes.
const OURS: &str = "task-processor";
const GOOGLE: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// What Cloud Run puts where the signature was that it has checked.
const SIGNATURE_REMOVED: &str = "SIGNATURE_REMOVED_BY_GOOGLE";
/// Clocks differ by so many seconds.
const LEEWAY_SECONDS: u32 = 60;
const MAX_BYTES: usize = 8 * 1024;

/// All that is known of tokens.
pub(super) struct Tokens {
    secret: Option<(DecodingKey, Rule)>,
    issuers: Vec<Issuer>,
    /// Tokens that Cloud Run has checked.
    platform: Option<Rule>,
}

/// One who signs with keys of its own.
struct Issuer {
    rule: Rule,
    algorithms: &'static [Algorithm],
    keys: KeySet,
    /// All its callers are services, whatever role they claim.
    all_services: bool,
}

#[derive(Deserialize)]
struct Sender {
    iss: String,
}

impl Tokens {
    pub(super) fn new(config: &TokenConfig) -> Self {
        let mut issuers = Vec::new();
        if let Some(issuer) = &config.supabase_issuer {
            issuers.push(Issuer {
                rule: Rule { issuers: vec![issuer.clone()], ..supabase() },
                algorithms: &[Algorithm::ES256, Algorithm::RS256],
                keys: KeySet::new(format!("{issuer}/.well-known/jwks.json")),
                all_services: false,
            });
        }
        if !config.oidc_audiences.is_empty() && !config.oidc_emails.is_empty() {
            issuers.push(Issuer {
                rule: google(config),
                algorithms: &[Algorithm::RS256],
                keys: KeySet::new(config.google_keys_url.clone()),
                all_services: true,
            });
        }
        let secret = config.jwt_secret.as_ref().map(|secret| {
            let mut rule = supabase();
            rule.issuers.extend([OURS, "supabase", "supabase-demo"].map(str::to_owned));
            rule.issuers.extend(config.supabase_issuer.clone());
            rule.audiences.push(OURS.to_owned());
            (DecodingKey::from_secret(secret.expose_secret().as_bytes()), rule)
        });
        Self { secret, issuers, platform: config.is_behind_iam().then(|| google(config)) }
    }

    /// Whether no token at all can open a door.
    pub(super) fn are_unknown(&self) -> bool {
        self.secret.is_none() && self.issuers.is_empty() && self.platform.is_none()
    }

    /// Whether Cloud Run checks tokens for us.
    pub(super) fn are_checked_by_platform(&self) -> bool {
        self.platform.is_some()
    }

    /// Whose token it is, by its signature.
    pub(super) async fn verify(&self, token: &str) -> Result<Caller, Refusal> {
        let header = header(token)?;
        if header.alg == Algorithm::HS256 {
            let (key, rule) =
                self.secret.as_ref().ok_or(Refusal::Unknown("signed with a secret; we have none"))?;
            let key = PublicKey { key: key.clone(), algorithm: Algorithm::HS256 };
            return Ok(caller(&verified(token, &key, rule)?, false));
        }
        let sender: Sender = insecure_decode_claims(token).map_err(|_| Refusal::Unknown("no issuer"))?;
        let known = self.issuers.iter().find(|issuer| issuer.rule.covers(&sender.iss));
        let issuer = known.ok_or(Refusal::Unknown("wrong issuer"))?;
        if !issuer.algorithms.contains(&header.alg) {
            return Err(Refusal::Unknown("wrong algorithm"));
        }
        let name = header.kid.ok_or(Refusal::Unknown("no key is named"))?;
        let found = issuer.keys.find(&name).await.map_err(|Unreachable| Refusal::Unavailable)?;
        let key = found.ok_or(Refusal::Unknown("a key that the issuer does not have"))?;
        Ok(caller(&verified(token, &key, &issuer.rule)?, issuer.all_services))
    }

    /// Whose token it is, by its claims alone: Cloud Run has checked the signature and removed it. `None`: not such a
    /// token, or nobody checks for us.
    pub(super) fn read(&self, token: &str) -> Option<Result<Caller, Refusal>> {
        let rule = self.platform.as_ref()?;
        let (_, signature) = token.rsplit_once('.')?;
        (signature == SIGNATURE_REMOVED).then(|| {
            if header(token)?.alg != Algorithm::RS256 {
                return Err(Refusal::Unknown("wrong algorithm"));
            }
            let claims: Claims =
                insecure_decode_claims(token).map_err(|_| Refusal::Unknown("claims that cannot be read"))?;
            if claims.exp < now() - f64::from(LEEWAY_SECONDS) {
                return Err(Refusal::Unknown("expired"));
            }
            accept(&claims, rule)?;
            Ok(caller(&claims, true))
        })
    }
}

/// A token signed with `JWT_SECRET`, as `task-processor token` makes it.
pub fn mint(secret: &SecretString, subject: &str, role: &str, lifetime: Duration) -> anyhow::Result<String> {
    let now = jsonwebtoken::get_current_timestamp();
    let claims = json!({
        "iss": OURS,
        "aud": OURS,
        "sub": subject,
        "role": role,
        "iat": now,
        "exp": now.saturating_add(lifetime.as_secs()),
    });
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    Ok(encode(&Header::new(Algorithm::HS256), &claims, &key)?)
}

/// The header of a token that is whole and plain: not encrypted, not packed, with nothing in it that must be understood
/// and is not, and not wrapped around another.
fn header(token: &str) -> Result<Header, Refusal> {
    if token.len() > MAX_BYTES {
        return Err(Refusal::Unknown("too long"));
    }
    let header =
        decode_header(token).map_err(|_| Refusal::Unknown("not a token, or of an algorithm unknown here"))?;
    let plain = header.crit.is_none() && header.cty.is_none() && header.enc.is_none() && header.zip.is_none();
    let kind = header.typ.as_deref().unwrap_or("JWT");
    if plain && (kind.eq_ignore_ascii_case("jwt") || kind.eq_ignore_ascii_case("at+jwt")) {
        Ok(header)
    } else {
        Err(Refusal::Unknown("a kind of token that is unknown here"))
    }
}

/// The claims, once signature, times, issuer, audience and e-mail address are found right.
fn verified(token: &str, key: &PublicKey, rule: &Rule) -> Result<Claims, Refusal> {
    use jsonwebtoken::errors::ErrorKind;
    // The key's algorithm, whatever the token says.
    let mut validation = Validation::new(key.algorithm);
    validation.leeway = LEEWAY_SECONDS.into();
    validation.validate_nbf = true;
    // By the rule.
    validation.validate_aud = false;
    let claims: Claims = decode(token, &key.key, &validation)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => Refusal::Unknown("wrong signature"),
            ErrorKind::ExpiredSignature => Refusal::Unknown("expired"),
            ErrorKind::ImmatureSignature => Refusal::Unknown("not valid yet"),
            ErrorKind::InvalidAlgorithm => Refusal::Unknown("another algorithm than the key's"),
            _ => Refusal::Unknown("claims that cannot be read"),
        })?
        .claims;
    accept(&claims, rule)?;
    Ok(claims)
}

/// What the library does not look at.
fn accept(claims: &Claims, rule: &Rule) -> Result<(), Refusal> {
    if !claims.is_of_our_time(now() + f64::from(LEEWAY_SECONDS)) {
        return Err(Refusal::Unknown("made in the future, or without an end"));
    }
    rule.check(claims).map_err(Refusal::Unknown)
}

/// Seconds since 1970.
#[expect(clippy::cast_precision_loss, reason = "they are few")]
fn now() -> f64 {
    jsonwebtoken::get_current_timestamp() as f64
}

fn caller(claims: &Claims, service: bool) -> Caller {
    let role = if service || claims.is_service() { Role::Service } else { Role::Viewer };
    Caller { subject: claims.subject().to_owned(), role }
}

fn supabase() -> Rule {
    Rule {
        issuers: Vec::new(),
        audiences: vec!["authenticated".to_owned()],
        emails: Vec::new(),
        may_be_silent: true,
    }
}

fn google(config: &TokenConfig) -> Rule {
    Rule {
        issuers: GOOGLE.map(str::to_owned).to_vec(),
        audiences: config.oidc_audiences.clone(),
        emails: config.oidc_emails.clone(),
        may_be_silent: false,
    }
}
