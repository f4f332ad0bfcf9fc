//! Heads: what is refused, what is removed, what is added.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version, request};

use super::client::Client;
use super::fields::Fields;
use super::framing;
use crate::config::{self, UpstreamAddress};
use crate::key::{self, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::list;
use crate::problem::{Code, Problem};
use crate::rule::{Disposition, is_same_field, may_begin_with};
use crate::trace;
use crate::uri::normalise_host;

/// Fields that concern one connection only (RFC 9110, 7.6.1), besides those that `Connection` names.
static HOP_BY_HOP: [(Fields, HeaderName); 9] = [
    (Fields::CONNECTION, header::CONNECTION),
    (Fields::OTHER_HOPS, HeaderName::from_static("keep-alive")),
    (Fields::OTHER_HOPS, HeaderName::from_static("proxy-connection")),
    (Fields::TE, header::TE),
    (Fields::TRANSFER_ENCODING, header::TRANSFER_ENCODING),
    (Fields::UPGRADE, header::UPGRADE),
    (Fields::OTHER_HOPS, header::PROXY_AUTHENTICATE),
    (Fields::OTHER_HOPS, header::PROXY_AUTHORIZATION),
    (Fields::OTHER_HOPS, HeaderName::from_static("http2-settings")),
];

/// Fields that `Connection` must not name: without them, the request would have another caller or meaning.
const PROTECTED: [HeaderName; 10] = [
    HeaderName::from_static("idempotency-key"),
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::COOKIE,
    header::FORWARDED,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PROTO,
];

/// Fields that describe a response. They are never hop-by-hop (RFC 9110, 7.6.1).
const OF_ANSWERS: [HeaderName; 9] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::CACHE_CONTROL,
    header::LOCATION,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    OUTCOME,
];

/// The most bytes of a path and its query: twice the recommended minimum (RFC 9110, 4.1).
const MAX_TARGET: usize = 16 * 1024;

/// The number of the attempt, sent upstream from the second one on.
pub(super) const ATTEMPT: HeaderName = HeaderName::from_static("onlyonce-attempt");
const OUTCOME: HeaderName = HeaderName::from_static("onlyonce-outcome");
/// Marks an answer that did not come from running the request.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const OURS: &str = "onlyonce-";

/// The head of a request, and which fields it has.
pub(super) struct Head {
    parts: request::Parts,
    pub(super) fields: Fields,
    /// Under which its parts are measured.
    pub(super) trace: trace::Parent,
}

impl Head {
    pub(super) fn new(parts: request::Parts, fields: Fields) -> Self {
        Self { parts, fields, trace: trace::Parent::default() }
    }

    /// Begins the span of this request, under which its parts are measured.
    pub(super) fn span(&mut self, route: Option<&str>) -> trace::Span {
        let span = trace::Span::server(&mut self.parts.headers, &self.parts.method, route);
        self.trace = span.parent();
        span
    }

    pub(super) fn into_parts(self) -> request::Parts {
        self.parts
    }
}

impl Deref for Head {
    type Target = request::Parts;

    fn deref(&self) -> &request::Parts {
        &self.parts
    }
}

impl DerefMut for Head {
    fn deref_mut(&mut self) -> &mut request::Parts {
        &mut self.parts
    }
}

/// How heads are rewritten for the upstream.
pub(super) struct UpstreamTarget {
    /// The upstream's own host.
    own: Authority,
    /// The same as a field.
    own_host: HeaderValue,
    /// The client's host is sent instead.
    preserve_host: bool,
    /// With HTTP/2: the scheme in its heads.
    http2: Option<Scheme>,
}

/// How the end of a request's body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length in bytes.
    Length(u64),
    /// By the fields that the client sent.
    AsItCame,
    /// By chunks.
    Chunks,
}

impl UpstreamTarget {
    pub(super) fn of(upstream: &config::UpstreamConfig) -> Self {
        let (own, scheme) = match &upstream.address {
            UpstreamAddress::Http(authority) => (authority.clone(), Scheme::HTTP),
            UpstreamAddress::Https(authority, _) => (authority.clone(), Scheme::HTTPS),
            UpstreamAddress::Unix(_) => (Authority::from_static("localhost"), Scheme::HTTP),
        };
        Self::new(own, upstream.preserve_host, upstream.http2.then_some(scheme))
    }

    /// Whether the backend gets the host that the client asked for.
    pub(super) fn preserves_host(&self) -> bool {
        self.preserve_host
    }

    fn new(own: Authority, preserve_host: bool, http2: Option<Scheme>) -> Self {
        // An authority has only characters that a field value may have (RFC 3986, 3.2).
        let own_host = HeaderValue::from_str(own.as_str()).unwrap_or(HeaderValue::from_static(""));
        Self { own, own_host, preserve_host, http2 }
    }
}

/// Refuses what cannot be forwarded safely. `is_host_right`: its [authority] is a valid host.
pub(super) fn inspect<B>(request: &Request<B>, fields: Fields, is_host_right: bool) -> Result<(), Problem> {
    let headers = request.headers();
    if request.method() == Method::CONNECT {
        return Err(Problem::new(Code::NotImplemented, "This proxy opens no tunnels (CONNECT).").close());
    }
    if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET) {
        let detail = "The path and the query of a request may have 16384 bytes.";
        return Err(Problem::new(Code::TargetTooLong, detail));
    }
    if !is_target(request.method(), request.uri()) {
        return Err(bad("This proxy is asked for paths, or for * with OPTIONS (RFC 9112, 3.2)."));
    }
    let (authority, hosts) = (request.uri().authority(), headers.get_all(header::HOST));
    if let (Version::HTTP_2, Some(authority)) = (request.version(), authority) {
        if hosts.iter().any(|host| *host != *authority.as_str()) {
            return Err(bad("Host and :authority must not differ (RFC 9113, 8.3.1)."));
        }
    } else if !matches!((hosts.iter().count(), request.version()), (1, _) | (0, Version::HTTP_10)) {
        return Err(bad("A request must have exactly one Host line (RFC 9112, 3.2)."));
    }
    // Mostly there is one, and that one was checked.
    let are_hosts_right = if authority.is_none() && request.version() != Version::HTTP_2 {
        is_host_right || hosts.iter().next().is_none()
    } else {
        let mut hosts = hosts.iter().map(HeaderValue::to_str).chain(authority.map(|authority| Ok(authority.as_str())));
        hosts.all(|host| host.is_ok_and(|host| normalise_host(host).is_some()))
    };
    if !are_hosts_right {
        return Err(bad("The host that this request is for is not the name of one (RFC 9110, 7.2)."));
    }
    if fields.has(Fields::TRANSFER_ENCODING) && !framing::is_chunked_at_most(headers) {
        let detail = "Of the transfer codings, this proxy knows only chunked (RFC 9112, 6.1).";
        return Err(Problem::new(Code::NotImplemented, detail).close());
    }
    let is_known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if fields.has(Fields::EXPECT) && !headers.get_all(header::EXPECT).iter().all(is_known) {
        return Err(Problem::new(Code::ExpectationFailed, "The only expectation known here is 100-continue."));
    }
    if fields.has(Fields::CONNECTION) && nominated_only(headers).any(|name| is_protected(&name)) {
        return Err(bad("Connection names a field that must reach the backend (RFC 9110, 7.6.1)."));
    }
    Ok(())
}

/// Origin form, absolute form or asterisk form. Authority form is for CONNECT only.
fn is_target(method: &Method, uri: &Uri) -> bool {
    match (uri.scheme_str(), uri.path()) {
        // In HTTP/2 it has a scheme.
        (None | Some(_), "*") => *method == Method::OPTIONS,
        (None, path) => uri.authority().is_none() && path.starts_with('/'),
        (Some(scheme), _) => matches!(scheme, "http" | "https"),
    }
}

/// Whether the request would have another caller or meaning without this field. Some backends ignore its spelling.
fn is_protected(name: &HeaderName) -> bool {
    key::is_override(name) || PROTECTED.iter().any(|known| is_same_field(known, name))
}

/// Whether `Connection` names this field.
pub(super) fn nominates(head: &Head, name: &HeaderName) -> bool {
    head.fields.has(Fields::CONNECTION) && nominated(&head.headers).any(|nominated| is_same_field(&nominated, name))
}

pub(super) fn bad(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Code::BadRequest, detail)
}

/// The names in all `Connection` lines.
fn nominated(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    options(headers).filter_map(|name| HeaderName::from_bytes(name).ok())
}

/// The same without `keep-alive`, which many servers send with every response: that field is always removed.
fn nominated_only(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let names = options(headers).filter(|name| !name.eq_ignore_ascii_case(b"keep-alive"));
    names.filter_map(|name| HeaderName::from_bytes(name).ok())
}

/// Whether it is only `keep-alive`, as many servers send: then no other field has to be searched.
fn says_keep_alive_only(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::CONNECTION).iter();
    let is_first = lines.next().is_some_and(|line| line.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
    is_first && lines.next().is_none()
}

fn options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    list::members(headers, &header::CONNECTION)
}

/// Removes hop-by-hop fields. `kept` fields stay, even if `Connection` names them.
fn remove_hop_by_hop(headers: &mut HeaderMap, fields: Fields, kept: &[HeaderName]) {
    if fields.has(Fields::CONNECTION) && !says_keep_alive_only(headers) {
        let nominated: Vec<HeaderName> = nominated_only(headers).filter(|name| !kept.contains(name)).collect();
        for name in &nominated {
            headers.remove(name);
        }
    }
    for (field, name) in &HOP_BY_HOP {
        if fields.has(*field) {
            headers.remove(name);
        }
    }
}

/// Removes fields that must not be in trailers (RFC 9110, 6.5.1): framing, routing, description of the message,
/// credentials, and the proxy's own fields.
pub(super) fn cross_trailers(trailers: &mut HeaderMap) {
    let is_for_heads = |name: &HeaderName| {
        let hops = HOP_BY_HOP.iter().map(|(_, known)| known);
        [&PROTECTED[..], &OF_ANSWERS, &[header::TRAILER, header::EXPECT, header::MAX_FORWARDS]]
            .into_iter()
            .flatten()
            .chain(hops)
            .any(|known| is_same_field(known, name))
            || key::is_override(name)
            || may_begin_with(name, OURS)
    };
    let names: Vec<HeaderName> = trailers.keys().filter(|name| is_for_heads(name)).cloned().collect();
    for name in &names {
        trailers.remove(name);
    }
}

/// The authority of the request: absolute form takes precedence over `Host` (RFC 9112, 3.2.2).
pub(super) fn authority(uri: &Uri, headers: &HeaderMap) -> Option<HeaderValue> {
    let absolute = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    absolute.or_else(|| headers.get(header::HOST).cloned())
}

/// Turns the client's head into the one that is sent upstream.
pub(super) fn cross_request(head: &mut Head, client: &Client, target: &UpstreamTarget, framing: Framing) {
    let original_host = authority(&head.uri, &head.headers);
    let fields = head.fields;
    let wants_trailers = fields.has(Fields::TE) && accepts_trailers(&head.headers);
    let version = head.version;
    let headers = &mut head.headers;
    remove_hop_by_hop(headers, fields, &[]);
    if fields.has(Fields::EXPECT) {
        // hyper answers it: it sends 100 when the body is first read.
        headers.remove(header::EXPECT);
    }
    if fields.has(Fields::OURS | Fields::RESPELLED) {
        let ours: Vec<HeaderName> = headers.keys().filter(|name| may_begin_with(name, OURS)).cloned().collect();
        ours.iter().for_each(|name| {
            headers.remove(name);
        });
    }

    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    match framing {
        // Mostly it is there already.
        Framing::Length(length) if says_length(headers, fields, length) => {}
        Framing::Length(length) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        // Otherwise hyper sends no body of unknown length with GET and HEAD.
        Framing::Chunks if target.http2.is_none() => {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        Framing::Chunks | Framing::AsItCame => {}
    }
    append_forwarded(headers, fields, client, original_host.as_ref());
    headers.append(header::VIA, via(version));
    address(head, original_host.filter(|_| target.preserve_host), target);
}

/// Whether a head has exactly this Content-Length.
fn says_length(headers: &HeaderMap, fields: Fields, length: u64) -> bool {
    if !fields.has(Fields::CONTENT_LENGTH) {
        return false;
    }
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
    let (Some(digits), None) = (lines.next(), lines.next()) else { return false };
    // No sign and no leading zeros.
    let is_plain = digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits.first() != Some(&b'0'));
    is_plain && str::from_utf8(digits).is_ok_and(|digits| digits.parse() == Ok(length))
}

/// The backend comes from the configuration, never from the request: only path and query are kept, and `host` with
/// `preserve_host`.
fn address(head: &mut request::Parts, host: Option<HeaderValue>, target: &UpstreamTarget) {
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

/// The head of a request of the proxy's own: GET of this target. `host` is the client's.
pub(super) fn own_request(
    path: PathAndQuery,
    headers: HeaderMap,
    host: Option<HeaderValue>,
    target: &UpstreamTarget,
) -> request::Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    head.uri = Uri::from(path);
    head.headers = headers;
    let host = host.filter(|_| target.preserve_host);
    if let Some(host) = &host {
        head.headers.insert(header::HOST, host.clone());
    }
    address(&mut head, host, target);
    head
}

/// Whether the name is one of this proxy's own, in any spelling.
pub(super) fn is_ours(name: &HeaderName) -> bool {
    may_begin_with(name, OURS)
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    list::names(headers, &header::TE, "trailers")
}

/// Appends the client to the forwarding fields.
///
/// `Forwarded` (RFC 7239) is extended only if an earlier proxy sent it. It is not added otherwise: a backend that
/// prefers it to `X-Forwarded-For` would lose the address that only the latter has.
fn append_forwarded(headers: &mut HeaderMap, fields: Fields, client: &Client, host: Option<&HeaderValue>) {
    let scheme = if client.secure { "https" } else { "http" };
    match &client.address {
        Some(address) if fields.has(Fields::FORWARDED_FOR) => append(headers, FORWARDED_FOR, &[address.as_bytes()]),
        Some(address) => drop(headers.insert(FORWARDED_FOR, address.clone())),
        None => {}
    }
    if fields.has(Fields::FORWARDED) {
        let is_v6 = client.peer.is_some_and(|peer| matches!(peer.ip().to_canonical(), IpAddr::V6(_)));
        let [before, behind]: [&[u8]; 2] = if is_v6 { [b"for=\"[", b"]\""] } else { [b"for=", b""] };
        let address = client.address.as_ref().map_or(&b"unknown"[..], HeaderValue::as_bytes);
        // A valid host needs no escape.
        let host = host.and_then(|host| host.to_str().ok()).map(str::as_bytes);
        let [name, host, end] = host.map_or([&b""[..]; 3], |host| [b";host=\"", host, b"\""]);
        let member = [before, address, behind, name, host, end, b";proto=", scheme.as_bytes()];
        append(headers, header::FORWARDED, &member);
    }
    if let Some(host) = host
        && !fields.has(Fields::FORWARDED_HOST)
    {
        headers.insert(FORWARDED_HOST, host.clone());
    }
    if !fields.has(Fields::FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
}

/// Appends a member to a list field, joined into one line. The member is given in pieces.
fn append(headers: &mut HeaderMap, name: HeaderName, member: &[&[u8]]) {
    let mut line = Vec::new();
    for known in headers.get_all(&name) {
        line.extend_from_slice(known.as_bytes());
        line.extend_from_slice(b", ");
    }
    member.iter().for_each(|piece| line.extend_from_slice(piece));
    if let Ok(line) = HeaderValue::from_bytes(&line) {
        headers.insert(name, line);
    }
}

/// The `Via` of this version (RFC 9110, 7.6.3). Responses get none: a gateway may omit it.
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 onlyonce",
        Version::HTTP_2 => "2 onlyonce",
        _ => "1.1 onlyonce",
    })
}

/// Removes from a response what is not for the client, and returns what the backend says about the record.
///
/// `fields` is the set of fields that the head had at first.
pub(super) fn cross_response(headers: &mut HeaderMap, fields: Fields) -> Option<Disposition> {
    remove_hop_by_hop(headers, fields, &OF_ANSWERS);
    if !fields.has(Fields::OURS) || !headers.contains_key(OUTCOME) {
        return None;
    }
    let told = list::members(headers, &OUTCOME).map(disposition).reduce(|one, other| match (one, other) {
        (Some(one), Some(other)) if one == other => Some(one),
        (None, None) => None,
        // Contradictory or unknown words: the key stays blocked until an operator decides.
        _ => {
            tracing::warn!("the backend sent contradicting words in Onlyonce-Outcome; the outcome is taken as unknown");
            Some(Disposition::Hold)
        }
    });
    headers.remove(OUTCOME);
    let told = told.flatten();
    if told.is_none() {
        tracing::warn!("the backend sent an Onlyonce-Outcome other than store, release or hold");
    }
    told
}

fn disposition(word: &[u8]) -> Option<Disposition> {
    match word {
        b"store" => Some(Disposition::Store),
        b"release" => Some(Disposition::Release),
        b"hold" => Some(Disposition::Hold),
        _ => None,
    }
}

/// Removes the framing fields: hyper makes them from the body that is sent.
pub(super) fn remove_framing(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_LENGTH);
}

#[cfg(test)]
mod tests;
