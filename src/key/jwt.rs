//! The claims of a bearer token (RFC 7519, RFC 6750).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};

use super::Request;
use super::json::Json;
use super::signature;
use crate::rule::{Jwt, Rule, Selector, TokenKey, Verification};

/// The content of a request's `Authorization` lines.
pub(super) enum Credential {
    /// There is no line, or no selector of the rule reads one.
    Absent,
    /// One verified token: its claims, not yet parsed.
    Token(Vec<u8>),
    /// Anything else.
    Unverified,
}

/// The same, parsed.
pub(super) enum Claims<'c> {
    /// There is no line: the caller is anonymous.
    Absent,
    /// The claims of a verified token.
    Verified(Json<'c>),
    /// There is a line, but no verified token.
    Unverified,
}

impl Credential {
    /// Reads the lines, where a selector of the rule asks for a claim.
    pub(super) fn of(rule: &Rule, request: &Request<'_>) -> Self {
        let asks = |selector: &Selector| matches!(selector, Selector::Jwt(_));
        let Some(jwt) = request.trust.jwt.as_ref().filter(|_| rule.key.iter().chain(&rule.scope).any(asks)) else {
            return Self::Absent;
        };
        if !request.headers.contains_key(header::AUTHORIZATION) {
            return Self::Absent;
        }
        believed(jwt, request).map_or(Self::Unverified, Self::Token)
    }

    pub(super) fn claims(&self) -> Claims<'_> {
        match self {
            Self::Absent => Claims::Absent,
            Self::Token(claims) => Json::parse(claims).map_or(Claims::Unverified, Claims::Verified),
            Self::Unverified => Claims::Unverified,
        }
    }
}

/// The JSON of the claims.
fn believed(jwt: &Jwt, request: &Request<'_>) -> Option<Vec<u8>> {
    let token = bearer(request.headers)?;
    let is_believed = match &jwt.verification {
        Verification::ByEdge => is_from_edge(request),
        Verification::Keys(keys) => verifies(token, keys),
    };
    // A token has three parts (RFC 7515, 7.1); five are an encrypted one.
    let [_, claims, _] = token.split('.').collect::<Vec<_>>().try_into().ok()?;
    is_believed.then(|| URL_SAFE_NO_PAD.decode(claims).ok()).flatten()
}

/// A gateway connects from this machine or is a trusted proxy. Any other peer has bypassed it.
fn is_from_edge(request: &Request<'_>) -> bool {
    let Some(peer) = request.peer else { return true };
    peer.to_canonical().is_loopback() || request.trust.proxies.contain_peer(Some(peer))
}

fn verifies(token: &str, keys: &[TokenKey]) -> bool {
    let Ok(head) = jsonwebtoken::decode_header(token) else { return false };
    // A token with an unknown critical extension is invalid (RFC 7515, 4.1.11), and none is known here.
    if head.crit.is_some() {
        return false;
    }
    let mut named = keys.iter().filter(|key| key.is_named(head.kid.as_deref()));
    named.any(|key| signature::verifies(token, key))
}

/// The token of the only `Authorization` line. Backends differ in which one of two they use.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let line = lines.next().filter(|_| lines.next().is_none())?.to_str().ok()?;
    let (scheme, token) = line.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;
    use crate::rule::{PathParams, Trust, TrustedProxies, Unverified};

    #[test]
    fn what_a_gateway_has_verified_is_believed_from_gateways() {
        let claims = URL_SAFE_NO_PAD.encode(br#"{"sub":"alice"}"#);
        let mut headers = HeaderMap::new();
        let line = HeaderValue::from_str(&format!("Bearer e30.{claims}.x")).expect("a value");
        headers.insert(header::AUTHORIZATION, line);
        let params = PathParams::default();
        let jwt = Jwt { verification: Verification::ByEdge, unverified: Unverified::OwnCaller };
        for (trusted, peer, is_believed) in [
            (&[][..], None, true),
            (&[], Some("127.0.0.1"), true),
            (&[], Some("127.8.0.1"), true),
            (&[], Some("::1"), true),
            (&[], Some("::ffff:127.0.0.1"), true),
            (&[], Some("10.0.0.1"), false),
            (&["10.0.0.0/8"], Some("10.0.0.1"), true),
            (&["10.0.0.0/8"], Some("::ffff:10.0.0.1"), true),
            (&["10.0.0.0/8"], Some("192.0.2.1"), false),
            (&["10.0.0.0/8"], Some("127.0.0.1"), true),
            (&["10.0.0.0/8"], None, true),
        ] {
            let networks = trusted.iter().map(|network| network.parse().expect("a network")).collect();
            let trust = Trust { proxies: TrustedProxies::new(networks), jwt: Some(jwt.clone()) };
            let peer = peer.map(|peer| peer.parse().expect("an address"));
            let request = Request { peer, trust: &trust, ..Request::plain(&Method::POST, &headers, &params) };
            assert_eq!(believed(&jwt, &request).is_some(), is_believed, "{trusted:?} {peer:?}");
        }
    }
}
