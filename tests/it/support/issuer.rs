//! An issuer of tokens. The program itself signs none.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::Value;

/// The key of an issuer.
pub enum IssuerKey {
    Secret(Vec<u8>),
    /// ES256.
    P256(Box<EcdsaKeyPair>),
}

impl IssuerKey {
    pub fn secret(secret: &[u8]) -> Self {
        Self::Secret(secret.to_vec())
    }

    pub fn p256(key: &rcgen::KeyPair) -> Self {
        let (signing, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        Self::P256(Box::new(EcdsaKeyPair::from_pkcs8(signing, &key.serialize_der(), &random).expect("a key")))
    }
}

/// A token with this head and these claims.
pub fn issue(header: &Header, claims: &Value, key: &IssuerKey) -> String {
    let head = serde_json::to_string(header).expect("JSON");
    let text = [head, claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = match key {
        IssuerKey::Secret(secret) => {
            let digest = match header.alg {
                Algorithm::HS256 => hmac::HMAC_SHA256,
                Algorithm::HS384 => hmac::HMAC_SHA384,
                other => panic!("no test signs with {other:?}"),
            };
            hmac::sign(&hmac::Key::new(digest, secret), text.as_bytes()).as_ref().to_vec()
        }
        IssuerKey::P256(key) => key.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature").as_ref().to_vec(),
    };
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
