//! Heads: what is refused, what is removed, what is added.

mod forwarded;
mod hop_by_hop;
mod inspect;
mod target;

use std::ops::{Deref, DerefMut};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Uri, Version, request};

pub(super) use self::inspect::{bad, inspect};
pub(super) use self::target::{UpstreamTarget, own_request};

use self::forwarded::append_forwarded;
use self::hop_by_hop::{HOP_BY_HOP, PROTECTED, nominated, remove_hop_by_hop};
use self::target::address;
use super::client::Client;
use super::fields::Fields;
use crate::rule::{Disposition, is_same_field, may_begin_with};
use crate::trace;
use crate::{key, list};

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

/// Whether `Connection` names this field.
pub(super) fn nominates(head: &Head, name: &HeaderName) -> bool {
    head.fields.has(Fields::CONNECTION) && nominated(&head.headers).any(|nominated| is_same_field(&nominated, name))
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

/// Whether the name is one of this proxy's own, in any spelling.
pub(super) fn is_ours(name: &HeaderName) -> bool {
    may_begin_with(name, OURS)
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    list::names(headers, &header::TE, "trailers")
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
