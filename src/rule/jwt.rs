//! How bearer tokens are verified before their claims are used.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::words::words;

/// Seconds by which the clock of a token's issuer may differ from ours.
const LEEWAY: u64 = 30;

/// `[jwt]`
#[derive(Debug, Clone)]
pub struct Jwt {
    /// Which tokens count as verified.
    pub verification: Verification,
    /// What to do with a request whose token is not verified.
    pub unverified: Unverified,
}

/// Which tokens count as verified.
#[derive(Debug, Clone)]
pub enum Verification {
    /// `verified_by_edge`: a gateway in front of the proxy has verified them. Accepted only from loopback, Unix sockets
    /// and [trusted proxies](super::TrustedProxies).
    ByEdge,
    /// Tokens that one of these keys has signed, and that have not expired.
    Keys(Arc<[TokenKey]>),
}

words! {
    /// `jwt.unverified`: what to do with a token that does not verify, or lacks the claim.
    pub enum Unverified {
        /// Use the `Authorization` lines themselves as the caller.
        OwnCaller = "own-caller",
        /// 401 `invalid-token`.
        Reject = "reject",
    }
}

/// A key that issuers sign with, and the other requirements on a token.
pub struct TokenKey {
    id: Option<String>,
    key: DecodingKey,
    validation: Validation,
}

impl TokenKey {
    /// `algorithms` are those of the key's own family, and not empty.
    pub fn new(id: Option<String>, key: DecodingKey, algorithms: Vec<Algorithm>, expected: &ExpectedClaims) -> Self {
        let mut validation = Validation {
            algorithms,
            leeway: LEEWAY,
            validate_nbf: true,
            // A token without `exp` does not expire.
            required_spec_claims: HashSet::new(),
            ..Validation::default()
        };
        match &expected.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            None => validation.validate_aud = false,
        }
        if let Some(issuer) = &expected.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Self { id, key, validation }
    }

    /// Whether it can have signed a token that names the key `id`.
    pub fn is_named(&self, id: Option<&str>) -> bool {
        match (&self.id, id) {
            (Some(own), Some(id)) => own == id,
            (None, _) | (_, None) => true,
        }
    }

    /// The key.
    pub fn key(&self) -> &DecodingKey {
        &self.key
    }

    /// The requirements on a token.
    pub fn validation(&self) -> &Validation {
        &self.validation
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({:?}, …)", self.validation.algorithms)
    }
}

/// The expected issuer and audience, where they are configured.
#[derive(Debug, Clone, Default)]
pub struct ExpectedClaims {
    /// `issuer`
    pub issuer: Option<String>,
    /// `audience`
    pub audience: Option<String>,
}
