//! One who signs tokens, and publishes the keys.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use axum::Router;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A private key with a name.
pub(crate) struct SigningKey {
    pub(crate) name: String,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
}

impl SigningKey {
    /// For RS256.
    pub(crate) fn rsa(name: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        Self { name: name.to_owned(), pair: Pair::Rsa(Box::new(pair)) }
    }

    /// For ES256.
    pub(crate) fn ec(name: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self { name: name.to_owned(), pair: Pair::Ec(pair) }
    }

    /// What the world knows of it.
    pub(crate) fn public(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("a signature");
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, message).expect("a signature").as_ref().to_vec(),
        }
    }

    /// The header of its tokens.
    pub(crate) fn header(&self) -> Value {
        json!({ "typ": "JWT", "alg": self.algorithm(), "kid": self.name })
    }

    /// A token as its issuer would make it.
    pub(crate) fn token(&self, claims: &Value) -> String {
        token(&self.header(), claims, |message| self.sign(message))
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_) => "ES256",
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        let key = match &self.pair {
            Pair::Rsa(_) => (DecodingKey::from_rsa_der(&self.public()), Algorithm::RS256),
            Pair::Ec(_) => (DecodingKey::from_ec_der(&self.public()), Algorithm::ES256),
        };
        let jwk = Jwk::from_decoding_key(&key.0, Some(key.1)).expect("a public key");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        (jwk["kid"], jwk["use"]) = (json!(self.name), json!("sig"));
        jwk
    }
}

/// A token of any header, any claims and any signature.
pub(crate) fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

type Answer = (StatusCode, [(HeaderName, String); 1], String);

/// Publishes keys over HTTP, at whatever path.
pub(crate) struct Issuer {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    pub(crate) async fn start(keys: &[&SigningKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let nothing = (StatusCode::OK, [(CONTENT_TYPE, String::new())], String::new());
        let issuer = Self { address, answer: Arc::new(Mutex::new(nothing)), fetches: Arc::default() };
        issuer.publish(keys);
        let (answer, fetches) = (issuer.answer.clone(), issuer.fetches.clone());
        let reply = async move || -> Response {
            fetches.fetch_add(1, Ordering::SeqCst);
            answer.lock().unwrap().clone().into_response()
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(reply)).await });
        issuer
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// These keys and no others from now on, beside one of a kind that nobody here can use.
    pub(crate) fn publish(&self, keys: &[&SigningKey]) {
        let mut jwks: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        jwks.push(json!({ "kty": "of-tomorrow", "kid": "x" }));
        self.answer_with(StatusCode::OK, json!({ "keys": jwks }).to_string());
    }

    pub(crate) fn answer_with(&self, status: StatusCode, body: String) {
        let json = [(CONTENT_TYPE, "application/json".to_owned())];
        *self.answer.lock().unwrap() = (status, json, body);
    }

    /// Sends whoever asks to another one.
    pub(crate) fn send_to(&self, other: &Self) {
        *self.answer.lock().unwrap() = (StatusCode::FOUND, [(LOCATION, other.url())], String::new());
    }

    /// How often it was asked.
    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}
