//! Who may see and change records.
//!
//! Records contain stored answers, so that reading them is protected like changing them. If tokens are configured, every
//! call must present one, which tells what it may do, and by which name the audit calls its owner. Without one, only calls
//! from this machine are served, but not those of a browser or through a proxy on it: DNS rebinding shows in the `Host`
//! field, and a proxy sends forwarding fields. And a call from this machine must say that it is meant so: see
//! [`BY_OPERATOR`]. It never gets a stored body.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, FORWARDED, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Uri};

use super::error::{AdminError, AdminErrorKind};
use crate::config::{AdminRight, AdminToken};
use crate::key::FORWARDED_FOR;

/// The access rules of one listener.
pub struct Access {
    /// With a random key, comparing digests takes the same time for every wrong token.
    key: [u8; 32],
    /// Without any, this machine is served.
    tokens: Vec<KnownToken>,
}

struct KnownToken {
    digest: blake3::Hash,
    name: Arc<str>,
    may: AdminRight,
}

/// One who may see records, and by which right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operator {
    /// Has the token of this name.
    Token(Arc<str>, AdminRight),
    /// Is on this machine, and no token is set.
    ThisMachine,
}

/// Sent by the status page and by `onlyonce records`, whatever its value. In a pod, loopback is shared: a backend that can
/// be made to fetch a URL is on this machine too, and cannot be made to send this.
pub const BY_OPERATOR: HeaderName = HeaderName::from_static("onlyonce-admin");

impl Access {
    /// For those who have one of these tokens.
    pub fn new(tokens: &[AdminToken]) -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the operating system gives random bytes");
        let known = |AdminToken { name, token, may }: &AdminToken| KnownToken {
            digest: blake3::keyed_hash(&key, token.expose().as_bytes()),
            name: name.as_str().into(),
            may: *may,
        };
        Self { key, tokens: tokens.iter().map(known).collect() }
    }

    /// Who this is. `peer` is `None` on a Unix socket, whose peer is always on this machine.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Operator, AdminError> {
        let host = uri.authority().map(Authority::as_str).or_else(|| headers.get(HOST)?.to_str().ok());
        if headers.get_all(ORIGIN).iter().any(|origin| !is_own(origin.as_bytes(), host)) {
            return forbidden("This request comes from a page of another origin.");
        }
        if self.tokens.is_empty() {
            return from_this_machine(host, headers, peer).map(|()| Operator::ThisMachine);
        }
        self.owner(headers).ok_or_else(|| {
            let detail = "Records are shown and changed for those who have a token (admin.token, or one of \
                          [admin.tokens]): send it as Authorization: Bearer TOKEN.";
            AdminError::new(AdminErrorKind::Unauthorized, detail)
        })
    }

    /// Whose token the request brings.
    fn owner(&self, headers: &HeaderMap) -> Option<Operator> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        let (scheme, given) = line.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let digest = blake3::keyed_hash(&self.key, given.trim().as_bytes());
        // blake3 compares its hashes in constant time, and all are looked at.
        let same = |found: Option<Operator>, known: &KnownToken| match known.digest == digest {
            true => Some(Operator::Token(Arc::clone(&known.name), known.may)),
            false => found,
        };
        self.tokens.iter().fold(None, same)
    }
}

fn from_this_machine(host: Option<&str>, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<(), AdminError> {
    if peer.is_some_and(|peer| !peer.to_canonical().is_loopback()) {
        return forbidden("No admin.token is set, so records are shown and changed on the sidecar's own machine only.");
    }
    if headers.contains_key(FORWARDED) || headers.contains_key(FORWARDED_FOR) {
        return forbidden(
            "No admin.token is set, so records are shown and changed on the sidecar's own machine only, and this request \
             came through a proxy.",
        );
    }
    if !headers.contains_key(BY_OPERATOR) {
        return forbidden(
            "No admin.token is set, so records are shown and changed for the status page and for the command line, which \
             send a field that nothing else does: Onlyonce-Admin: 1.",
        );
    }
    if !host.is_none_or(is_this_machine) {
        return forbidden(
            "No admin.token is set, so records are shown and changed on the sidecar's own machine only, under an address \
             of loopback or as localhost.",
        );
    }
    Ok(())
}

fn forbidden<T>(detail: &'static str) -> Result<T, AdminError> {
    Err(AdminError::new(AdminErrorKind::Forbidden, detail))
}

impl Operator {
    /// As the audit calls them.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Token(name, _) => name,
            Self::ThisMachine => "this machine",
        }
    }

    pub(super) fn may_change(&self) -> Result<(), AdminError> {
        match self {
            Self::Token(_, AdminRight::Change) | Self::ThisMachine => Ok(()),
            Self::Token(name, AdminRight::Read) => Err(AdminError::new(
                AdminErrorKind::ReadOnly,
                format!(
                    "The token {name} may read and no more. Records are released and completed with a token whose may is \
                     \"change\", or with admin.token."
                ),
            )),
        }
    }

    /// Without a token nobody may: other programs on this machine, and in a pod other containers, come from loopback too.
    pub(super) fn may_see_bodies(&self) -> Result<(), AdminError> {
        match self {
            Self::Token(_, AdminRight::Read | AdminRight::Change) => Ok(()),
            Self::ThisMachine => Err(AdminError::new(
                AdminErrorKind::NeedsToken,
                "No admin.token is set, so stored bodies and the values of Set-Cookie are shown to nobody, not even on the \
                 sidecar's own machine. Without the body the record is shown.",
            )),
        }
    }
}

/// Whether the origin is this listener.
fn is_own(origin: &[u8], host: Option<&str>) -> bool {
    let own = host.map(|host| [&b"http://"[..], host.as_bytes()].concat());
    own.is_some_and(|own| origin.eq_ignore_ascii_case(&own))
}

fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(|_| name.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::Secret;

    fn nobody() -> Access {
        Access::new(&[])
    }

    fn with(tokens: &[(&str, &str, AdminRight)]) -> Access {
        let token = |(name, token, may): &(&str, &str, AdminRight)| AdminToken {
            name: (*name).to_owned(),
            token: Secret::new(*token),
            may: *may,
        };
        Access::new(&tokens.iter().map(token).collect::<Vec<_>>())
    }

    const LOOPBACK: [&str; 3] = ["127.0.0.1", "::1", "::ffff:127.0.0.1"];
    const ELSEWHERE: [&str; 3] = ["192.0.2.1", "172.17.0.1", "::ffff:192.0.2.1"];

    fn may(access: &Access, peer: &str, lines: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        let usual = [("host", "127.0.0.1:9464"), ("onlyonce-admin", "1")];
        for (name, value) in usual.iter().chain(lines) {
            let value = HeaderValue::from_str(value).expect("a value");
            if *name == "host" {
                headers.insert(*name, value);
            } else {
                headers.append(*name, value);
            }
        }
        access.check(&Uri::from_static("/records"), &headers, Some(peer.parse().expect("an address"))).is_ok()
    }

    #[test]
    fn without_a_token_only_this_machine_is_served() {
        let access = nobody();
        for peer in LOOPBACK {
            assert!(may(&access, peer, &[]), "{peer}");
            assert!(may(&access, peer, &[("authorization", "Bearer any")]), "{peer}");
        }
        for peer in ELSEWHERE {
            assert!(!may(&access, peer, &[]), "{peer}");
            assert!(!may(&access, peer, &[("authorization", "Bearer any")]), "{peer}");
            assert!(!may(&access, peer, &[("x-forwarded-for", "127.0.0.1")]), "{peer}");
        }
    }

    #[test]
    fn without_a_token_nobody_else_is_served_through_this_machine() {
        let access = nobody();
        for host in ["localhost", "LOCALHOST:80", "127.9.9.9:1", "[::1]:9464"] {
            assert!(may(&access, "127.0.0.1", &[("host", host)]), "{host}");
        }
        for host in ["evil.example", "evil.example:9464", "localhost.evil.example", "192.0.2.1", "", "a b"] {
            assert!(!may(&access, "127.0.0.1", &[("host", host)]), "{host}");
        }
        assert!(!may(&access, "127.0.0.1", &[("x-forwarded-for", "192.0.2.1")]));
        assert!(!may(&access, "127.0.0.1", &[("forwarded", "for=192.0.2.1")]));
    }

    #[test]
    fn a_backend_that_is_made_to_fetch_a_url_reads_no_records() {
        let peer = Some(std::net::IpAddr::from([127, 0, 0, 1]));
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("127.0.0.1:9464"))]);
        let uri = Uri::from_static("/records");
        assert!(nobody().check(&uri, &headers, peer).is_err());
        headers.insert(BY_OPERATOR, HeaderValue::from_static(""));
        assert!(nobody().check(&uri, &headers, peer).is_ok());
    }

    #[test]
    fn with_a_token_everybody_needs_it() {
        let access = with(&[("admin.token", "open-sesame", AdminRight::Change)]);
        for peer in LOOPBACK.into_iter().chain(ELSEWHERE) {
            assert!(may(&access, peer, &[("authorization", "Bearer open-sesame"), ("host", "any")]), "{peer}");
            assert!(may(&access, peer, &[("authorization", "bearer open-sesame")]), "{peer}");
            for wrong in
                ["Bearer open-sesam", "Bearer open-sesame2", "Bearer ", "Bearer", "open-sesame", "Basic open-sesame"]
            {
                assert!(!may(&access, peer, &[("authorization", wrong)]), "{wrong}");
            }
            let twice = [("authorization", "Bearer open-sesame"), ("authorization", "Bearer open-sesame")];
            assert!(!may(&access, peer, &twice), "two lines");
            assert!(!may(&access, peer, &[]) && !may(&access, peer, &[("cookie", "token=open-sesame")]), "{peer}");
        }
    }

    #[test]
    fn a_token_tells_who_it_is_and_what_they_may() {
        let access = with(&[
            ("admin.token", "all", AdminRight::Change),
            ("alice", "a", AdminRight::Read),
            ("bob@example.com", "b", AdminRight::Change),
        ]);
        let who = |token: &str| {
            let line = HeaderValue::from_str(&format!("Bearer {token}")).expect("a value");
            access.check(&Uri::from_static("/records"), &HeaderMap::from_iter([(AUTHORIZATION, line)]), None).ok()
        };
        for (token, name, changes) in
            [("all", "admin.token", true), ("a", "alice", false), ("b", "bob@example.com", true)]
        {
            let operator = who(token).expect("an operator");
            assert_eq!((operator.name(), operator.may_change().is_ok()), (name, changes), "{token}");
            assert!(operator.may_see_bodies().is_ok(), "{token}");
        }
        for none in ["c", "", "alice", "ab"] {
            assert_eq!(who(none), None, "{none}");
        }
    }

    #[test]
    fn bodies_are_never_shown_without_a_token() {
        assert!(Operator::ThisMachine.may_change().is_ok() && Operator::ThisMachine.may_see_bodies().is_err());
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        for (access, token) in [
            (nobody(), ("x-any", "any")),
            (with(&[("admin.token", "t", AdminRight::Change)]), ("authorization", "Bearer t")),
        ] {
            for origin in
                ["http://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1:9464", "127.0.0.1:9464"]
            {
                assert!(!may(&access, "127.0.0.1", &[token, ("origin", origin)]), "{origin}");
            }
            assert!(may(&access, "127.0.0.1", &[token, ("origin", "http://127.0.0.1:9464")]));
        }
    }
}
