//! Signatures of tokens (RFC 7518, 3; RFC 8037, 3.1), verified by ring, which TLS brings anyway.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::hmac;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::de::IgnoredAny;

use crate::rule::TokenKey;

/// Whether the token's signature is this key's, and its claims are what they must be.
pub(super) fn verifies(token: &str, key: &TokenKey) -> bool {
    // The library has one provider for the whole process. Nobody else sets one.
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let _ = PROVIDER.install_default();
    });
    jsonwebtoken::decode::<IgnoredAny>(token, key.key(), key.validation()).is_ok()
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| Ok(Box::new(Signatures::of(*algorithm, key)?)),
    // For thumbprints and private keys.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Signatures of one algorithm and key.
struct Signatures {
    algorithm: Algorithm,
    key: VerificationKey,
}

enum VerificationKey {
    Secret(hmac::Key),
    /// A point, or an RSA key in PKCS #1.
    Public(UnparsedPublicKey<Vec<u8>>),
    /// An RSA key of a JSON Web Key.
    Rsa(&'static RsaParameters, RsaPublicKeyComponents<Vec<u8>>),
}

impl Signatures {
    fn of(algorithm: Algorithm, key: &DecodingKey) -> Result<Self> {
        if algorithm.family() != key.family() {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        let bytes = || key.try_get_as_bytes();
        let secret =
            |digest| -> Result<VerificationKey> { Ok(VerificationKey::Secret(hmac::Key::new(digest, bytes()?))) };
        let point = |curve: &'static dyn VerificationAlgorithm| {
            Ok(VerificationKey::Public(UnparsedPublicKey::new(curve, bytes()?.to_vec())))
        };
        let rsa = |parameters: &'static RsaParameters| -> Result<VerificationKey> {
            Ok(match key.kind() {
                DecodingKeyKind::SecretOrDer(der) => {
                    VerificationKey::Public(UnparsedPublicKey::new(parameters, der.clone()))
                }
                DecodingKeyKind::RsaModulusExponent { n, e } => {
                    let [n, e] = [n, e].map(|number| without_leading_zeros(number).to_vec());
                    VerificationKey::Rsa(parameters, RsaPublicKeyComponents { n, e })
                }
            })
        };
        let key = match algorithm {
            Algorithm::HS256 => secret(hmac::HMAC_SHA256),
            Algorithm::HS384 => secret(hmac::HMAC_SHA384),
            Algorithm::HS512 => secret(hmac::HMAC_SHA512),
            Algorithm::RS256 => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => point(&signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => point(&signature::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => point(&signature::ED25519),
            _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
        }?;
        Ok(Self { algorithm, key })
    }
}

/// Some issuers write them (RFC 7518, 2, says not to), and ring refuses them.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    &number[first..]
}

impl Verifier<Vec<u8>> for Signatures {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let verified = match &self.key {
            VerificationKey::Secret(key) => hmac::verify(key, message, signature),
            VerificationKey::Public(key) => key.verify(message, signature),
            VerificationKey::Rsa(parameters, key) => key.verify(parameters, message, signature),
        };
        verified.map_err(|_| Error::new())
    }
}

impl JwtVerifier for Signatures {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
