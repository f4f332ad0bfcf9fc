//! What the claims of bearer tokens are believed on.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};

/// Seconds by which the clock of a token's issuer may differ from ours.
const LEEWAY: u64 = 30;

/// `[jwt]`
#[derive(Debug, Clone)]
pub struct Jwt {
    /// Which tokens are believed.
    pub verification: Verification,
    /// What becomes of a request whose token is not.
    pub unverified: Unverified,
}

/// Which tokens are believed.
#[derive(Debug, Clone)]
pub enum Verification {
    /// `verified_by_edge`: a gateway in front of us has verified them. Believed from loopback, Unix sockets and
    /// [trusted proxies](super::TrustedProxies) only.
    ByEdge,
    /// The signature of a token is one of these keys', and it is in force.
    Keys(Arc<[TokenKey]>),
}

/// `jwt.unverified`: what becomes of a token that does not verify, or lacks the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unverified {
    /// The `Authorization` lines themselves are the caller.
    OwnCaller,
    /// 401 `invalid-token`.
    Reject,
}

/// A key that issuers sign with, and what else a token signed with it must be.
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
            // A token without an end does not expire.
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

    /// What a token must be.
    pub fn validation(&self) -> &Validation {
        &self.validation
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({:?}, …)", self.validation.algorithms)
    }
}

/// Whom a token must be from and for, where the operator says so.
#[derive(Debug, Clone, Default)]
pub struct ExpectedClaims {
    /// `issuer`
    pub issuer: Option<String>,
    /// `audience`
    pub audience: Option<String>,
}
