//! The client's address and the requested host, by the trusted proxies.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

use super::Request;
use crate::list;
use crate::uri::normalise_host;

/// The addresses of the client and of all proxies but the last.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The host that the client asked for.
pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The scheme that the client used.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client's address; `None` on a Unix socket, unless a proxy there reports it.
///
/// Each proxy appends the address of its peer, so that the list is read from its end, as long as each address is a trusted
/// proxy. An entry that is no address ends it: the entries before it may be forged.
pub fn client(request: &Request<'_>) -> Option<IpAddr> {
    let proxies = &request.trust.proxies;
    let mut client = request.peer.map(|address| address.to_canonical());
    if !proxies.contain_peer(client) {
        return client;
    }
    for entry in from_the_end(request.headers, &FORWARDED_FOR) {
        let Some(address) = entry.and_then(address) else { break };
        client = Some(address);
        if !proxies.contain(address) {
            break;
        }
    }
    client
}

/// The host that the client asked for: that of a trusted peer's `X-Forwarded-Host`, else that of the request.
pub(super) fn host<'a>(request: &Request<'a>) -> Option<Cow<'a, str>> {
    let forwarded = forwarded(request, &FORWARDED_HOST).and_then(normalise_host);
    forwarded.or(request.host.map(Cow::Borrowed))
}

/// The host and the scheme that the client asked for, as far as a trusted peer tells them (`X-Forwarded-Host`,
/// `X-Forwarded-Proto`).
pub fn forwarded_host_and_scheme<'a>(request: &Request<'a>) -> (Option<Cow<'a, str>>, Option<&'a str>) {
    (forwarded(request, &FORWARDED_HOST).and_then(normalise_host), forwarded(request, &FORWARDED_PROTO))
}

/// The last entry of a list, if the peer is trusted.
fn forwarded<'a>(request: &Request<'a>, name: &HeaderName) -> Option<&'a str> {
    let is_trusted = request.trust.proxies.contain_peer(request.peer);
    is_trusted.then(|| from_the_end(request.headers, name).next()).flatten().flatten()
}

/// The entries of all lines of a list, the last one first; `None` for one that is not text.
fn from_the_end<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Option<&'a str>> {
    list::members(headers, name).rev().map(|entry| str::from_utf8(entry).ok())
}

/// An address, perhaps with a port, as some load balancers write it.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse().or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip())).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;
    use crate::rule::{PathParams, Trust, TrustedProxies};

    fn with<T>(
        trusted: &[&str],
        peer: Option<&str>,
        lines: &[(&'static str, &'static str)],
        read: impl FnOnce(&Request<'_>) -> T,
    ) -> T {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let networks = trusted.iter().map(|network| network.parse().expect("a network")).collect();
        let trust = Trust { proxies: TrustedProxies::new(networks), jwt: None };
        let peer = peer.map(|peer| peer.parse().expect("an address"));
        let (host, params) = (Some("sent.test"), PathParams::default());
        read(&Request { host, peer, trust: &trust, ..Request::plain(&Method::POST, &headers, &params) })
    }

    #[test]
    fn only_what_trusted_proxies_tell_is_believed() {
        const FOR: &str = "x-forwarded-for";
        let proxies = &["10.0.0.0/8", "fd00::/8"];
        for (trusted, peer, lines, client) in [
            (&[][..], Some("192.0.2.1"), &[][..], Some("192.0.2.1")),
            (&[], Some("192.0.2.1"), &[(FOR, "198.51.100.1")], Some("192.0.2.1")),
            (proxies, Some("192.0.2.1"), &[(FOR, "198.51.100.1")], Some("192.0.2.1")),
            (proxies, Some("10.0.0.1"), &[], Some("10.0.0.1")),
            (proxies, Some("10.0.0.1"), &[(FOR, "198.51.100.1")], Some("198.51.100.1")),
            // The client wrote the first one itself.
            (proxies, Some("10.0.0.1"), &[(FOR, "203.0.113.9, 198.51.100.1")], Some("198.51.100.1")),
            (proxies, Some("10.0.0.1"), &[(FOR, "203.0.113.9"), (FOR, "198.51.100.1,10.0.0.2")], Some("198.51.100.1")),
            (proxies, Some("10.0.0.1"), &[(FOR, "10.0.0.3, 10.0.0.2")], Some("10.0.0.3")),
            (proxies, Some("10.0.0.1"), &[(FOR, "198.51.100.1, nobody, 10.0.0.2")], Some("10.0.0.2")),
            (proxies, Some("10.0.0.1"), &[(FOR, "nobody")], Some("10.0.0.1")),
            (proxies, Some("10.0.0.1"), &[(FOR, "198.51.100.1:4711")], Some("198.51.100.1")),
            (proxies, Some("fd00::1"), &[(FOR, "[2001:db8::1]:4711")], Some("2001:db8::1")),
            (proxies, Some("fd00::1"), &[(FOR, "[2001:DB8:0::1]")], Some("2001:db8::1")),
            // IPv4 addresses in the dress of IPv6.
            (proxies, Some("::ffff:10.0.0.1"), &[(FOR, "::ffff:198.51.100.1")], Some("198.51.100.1")),
            (&[], Some("::ffff:192.0.2.1"), &[], Some("192.0.2.1")),
            // A Unix socket.
            (&[], None, &[(FOR, "198.51.100.1")], None),
            (proxies, None, &[], None),
            (proxies, None, &[(FOR, "203.0.113.9, 198.51.100.1, 10.0.0.2")], Some("198.51.100.1")),
        ] {
            let found = with(trusted, peer, lines, |request| super::client(request).map(|client| client.to_string()));
            assert_eq!(found.as_deref(), client, "{trusted:?} {peer:?} {lines:?}");
        }
    }

    #[test]
    fn a_trusted_proxy_tells_the_host_that_it_was_asked_for() {
        const HOST: &str = "x-forwarded-host";
        for (peer, lines, host) in [
            ("192.0.2.1", &[(HOST, "told.test")][..], "sent.test"),
            ("10.0.0.1", &[], "sent.test"),
            ("10.0.0.1", &[(HOST, "Told.test:8443")], "told.test"),
            ("10.0.0.1", &[(HOST, "forged.test, told.test")], "told.test"),
            ("10.0.0.1", &[(HOST, "forged.test"), (HOST, "told.test")], "told.test"),
            ("10.0.0.1", &[(HOST, "no host")], "sent.test"),
        ] {
            let found = with(&["10.0.0.0/8"], Some(peer), lines, |request| super::host(request).map(Cow::into_owned));
            assert_eq!(found.as_deref(), Some(host), "{peer} {lines:?}");
        }
    }
}
