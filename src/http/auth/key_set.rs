//! The public keys of an issuer, fetched when a token asks for one, and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as Quick};
use std::time::Duration;

use anyhow::{Context, bail};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::clients::{Guard, check_url, guarded, read_body};
use crate::config::is_loopback;

/// A key that was taken back is accepted no longer than this. Supabase's own cache holds it as long.
const FRESH: Duration = Duration::from_mins(10);
/// While the issuer cannot be reached, keys are accepted for so long.
const KEPT: Duration = Duration::from_hours(1);
/// A fetch that did not bring what was asked for is not repeated for so long: anybody can ask for a key that is not there.
const PAUSE: Duration = Duration::from_secs(10);
const FETCH_WITHIN: Duration = Duration::from_secs(3);
const MAX_BYTES: usize = 64 * 1024;
const MAX_KEYS: usize = 32;

/// A key, and the one algorithm it is for.
#[derive(Clone)]
pub(super) struct PublicKey {
    pub(super) key: DecodingKey,
    pub(super) algorithm: Algorithm,
}

/// There are no keys: the issuer could not be reached.
pub(super) struct Unreachable;

/// The keys at one address. Cheap to clone.
#[derive(Clone)]
pub(super) struct KeySet(Arc<Inner>);

struct Inner {
    url: String,
    known: Quick<Known>,
    /// Held while fetching, so that one fetch serves all who wait: when a fetch last brought nothing.
    fruitless: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    keys: HashMap<String, PublicKey>,
    fetched: Option<Instant>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    pub(super) fn new(url: String) -> Self {
        Self(Arc::new(Inner { url, known: Quick::default(), fruitless: Mutex::default() }))
    }

    /// The key of that name, if there is one.
    pub(super) async fn find(&self, name: &str) -> Result<Option<PublicKey>, Unreachable> {
        if let Some(key) = self.0.known(name, FRESH) {
            return Ok(Some(key));
        }
        let (inner, name) = (self.0.clone(), name.to_owned());
        // On its own: a caller who hangs up must not keep the others from their keys.
        match tokio::spawn(async move { inner.refreshed(&name).await }).await {
            Ok(found) => found,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl Inner {
    fn known(&self, name: &str, no_older_than: Duration) -> Option<PublicKey> {
        let known = self.known.lock().expect("never poisoned");
        let fetched = known.fetched.filter(|fetched| fetched.elapsed() < no_older_than);
        fetched.and_then(|_| known.keys.get(name).cloned())
    }

    async fn refreshed(&self, name: &str) -> Result<Option<PublicKey>, Unreachable> {
        let mut fruitless = self.fruitless.lock().await;
        // Somebody may have fetched it while we waited.
        if let Some(key) = self.known(name, FRESH) {
            return Ok(Some(key));
        }
        if fruitless.is_none_or(|last| last.elapsed() > PAUSE) {
            match fetch(&self.url).await {
                Ok(keys) => {
                    *self.known.lock().expect("never poisoned") =
                        Known { keys, fetched: Some(Instant::now()) };
                }
                Err(error) => {
                    tracing::warn!(
                        url = self.url,
                        error = format!("{error:#}"),
                        "cannot fetch the keys of tokens"
                    );
                }
            }
            let found = self.known(name, FRESH);
            *fruitless = found.is_none().then(Instant::now);
        }
        let key = self.known(name, KEPT);
        let kept = |fetched: Instant| fetched.elapsed() < KEPT;
        let reached = self.known.lock().expect("never poisoned").fetched.is_some_and(kept);
        if reached { Ok(key) } else { Err(Unreachable) }
    }
}

/// All keys that can be used, by name.
async fn fetch(url: &str) -> anyhow::Result<HashMap<String, PublicKey>> {
    let url = Url::parse(url)?;
    check_url(&url)?;
    // Built anew each time, which is rarely: where a machine has no certificates it fails, and nobody need be told before.
    let mut client = guarded(Guard::new()).timeout(FETCH_WITHIN);
    if is_loopback(&url) {
        client = client.no_proxy();
    }
    let response = client.build()?.get(url).send().await?;
    if response.status() != reqwest::StatusCode::OK {
        bail!("the answer is {}", response.status());
    }
    let body = read_body(response, MAX_BYTES).await?;
    let document: Document = serde_json::from_slice(&body).context("the answer is no set of keys")?;
    Ok(document.keys.into_iter().take(MAX_KEYS).filter_map(usable).collect())
}

/// Keys of other kinds may stand beside ours, and are passed over.
fn usable(key: Value) -> Option<(String, PublicKey)> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        _ => return None,
    };
    let for_signatures =
        jwk.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let for_it =
        jwk.common.key_algorithm.as_ref().is_none_or(|named| *named == KeyAlgorithm::from(algorithm));
    let name = jwk.common.key_id.clone()?;
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    (for_signatures && for_it).then_some((name, PublicKey { key, algorithm }))
}
