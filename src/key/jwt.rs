//! The claims of a bearer token (RFC 7519, RFC 6750).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use serde::de::IgnoredAny;

use super::Request;
use crate::config::{Jwt, Rule, Selector, TokenKey};

/// The claims, where a selector of the rule asks for one.
pub(super) fn asked(rule: &Rule, request: &Request<'_>) -> Option<Vec<u8>> {
    let asks = |selector: &Selector| matches!(selector, Selector::Jwt(_));
    let jwt = request.trust.jwt.as_ref().filter(|_| rule.key.iter().chain(&rule.scope).any(asks))?;
    claims(request.headers, jwt)
}

/// The JSON of the claims; `None` without a token, and for one that does not verify: its sender is anonymous, and the
/// backend says what it thinks of it.
fn claims(headers: &HeaderMap, jwt: &Jwt) -> Option<Vec<u8>> {
    let token = bearer(headers)?;
    let believed = match jwt {
        Jwt::VerifiedByEdge => true,
        Jwt::Verified(keys) => verifies(token, keys),
    };
    // A token has three parts (RFC 7515, 7.1); five are an encrypted one.
    let [_, claims, _] = token.split('.').collect::<Vec<_>>().try_into().ok()?;
    believed.then(|| URL_SAFE_NO_PAD.decode(claims).ok()).flatten()
}

fn verifies(token: &str, keys: &[TokenKey]) -> bool {
    let Ok(head) = jsonwebtoken::decode_header(token) else { return false };
    // Whoever does not know an extension must not believe the token (RFC 7515, 4.1.11), and we know none.
    if head.crit.is_some() {
        return false;
    }
    let mut named = keys.iter().filter(|key| key.is_named(head.kid.as_deref()));
    named.any(|key| jsonwebtoken::decode::<IgnoredAny>(token, key.key(), key.validation()).is_ok())
}

/// The token of the only `Authorization` line. Of two, nobody knows which one the backend believes.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let line = lines.next().filter(|_| lines.next().is_none())?.to_str().ok()?;
    let (scheme, token) = line.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
