//! Where a head is sent.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{Request, Uri, Version, request};

use crate::config::{self, UpstreamAddress};

/// How heads are rewritten for the upstream.
pub(in crate::proxy) struct UpstreamTarget {
    /// The upstream's own host.
    pub(super) own: Authority,
    /// The same as a field.
    pub(super) own_host: HeaderValue,
    /// The client's host is sent instead.
    pub(super) preserve_host: bool,
    /// With HTTP/2: the scheme in its heads.
    pub(super) http2: Option<Scheme>,
}

impl UpstreamTarget {
    pub(in crate::proxy) fn of(upstream: &config::UpstreamConfig) -> Self {
        let (own, scheme) = match &upstream.address {
            UpstreamAddress::Http(authority) => (authority.clone(), Scheme::HTTP),
            UpstreamAddress::Https(authority, _) => (authority.clone(), Scheme::HTTPS),
            UpstreamAddress::Unix(_) => (Authority::from_static("localhost"), Scheme::HTTP),
        };
        Self::new(own, upstream.preserve_host, upstream.http2.then_some(scheme))
    }

    /// Whether the backend gets the host that the client asked for.
    pub(in crate::proxy) fn preserves_host(&self) -> bool {
        self.preserve_host
    }

    pub(super) fn new(own: Authority, preserve_host: bool, http2: Option<Scheme>) -> Self {
        // An authority has only characters that a field value may have (RFC 3986, 3.2).
        let own_host = HeaderValue::from_str(own.as_str()).unwrap_or(HeaderValue::from_static(""));
        Self { own, own_host, preserve_host, http2 }
    }
}

/// The backend comes from the configuration, never from the request: only path and query are kept, and `host` with
/// `preserve_host`.
pub(super) fn address(head: &mut request::Parts, host: Option<HeaderValue>, target: &UpstreamTarget) {
    let path = || head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let Some(scheme) = &target.http2 else {
        let is_absolute = head.uri.scheme().is_some() || head.uri.authority().is_some();
        if is_absolute {
            head.uri = Uri::from(path());
        }
        match host {
            // It is there already.
            Some(_) if !is_absolute => {}
            host => drop(head.headers.insert(header::HOST, host.unwrap_or_else(|| target.own_host.clone()))),
        }
        head.version = Version::HTTP_11;
        return;
    };
    let path = path();
    // In HTTP/2 the host is in `:authority`; a `Host` field could contradict it (RFC 9113, 8.3.1).
    head.headers.remove(header::HOST);
    let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = uri::Parts::default();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(host.unwrap_or_else(|| target.own.clone()));
    parts.path_and_query = Some(path);
    head.uri = Uri::from_parts(parts).expect("it has all three parts");
    head.version = Version::HTTP_2;
}

/// The head of a request of the proxy's own: GET of this target. `host` is the one that it names; `None`: the target's own.
pub(in crate::proxy) fn own_request(
    path: PathAndQuery,
    headers: HeaderMap,
    host: Option<HeaderValue>,
    target: &UpstreamTarget,
) -> request::Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    head.uri = Uri::from(path);
    head.headers = headers;
    if let Some(host) = &host {
        head.headers.insert(header::HOST, host.clone());
    }
    address(&mut head, host, target);
    head
}
