//! Answering from the record.

use std::io::Read;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use http::Response;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, TRAILER, VARY,
    WWW_AUTHENTICATE,
};

use super::body::ResponseBody;
use super::budget::Budget;
use super::upstream::UpstreamBody;
use crate::config::Rule;
use crate::record::Reply;

/// Marks an answer that did not come from running the request.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The attempt's own answer, for the client whose request it was.
pub(super) fn own(reply: &Arc<Reply>) -> Response<ResponseBody> {
    assemble(reply, reply.headers.clone(), ResponseBody::from_reply(reply))
}

/// The same, where only the beginning of it could be held.
pub(super) fn beginning(reply: &Arc<Reply>, rest: UpstreamBody) -> Response<ResponseBody> {
    assemble(reply, reply.headers.clone(), ResponseBody::beginning(reply, rest))
}

/// The same answer for everybody else: same status, same end-to-end fields, same bytes.
///
/// Left out is what was meant for the first caller alone or for that moment: `Set-Cookie` (unless the route asks for
/// it), `WWW-Authenticate`, and `Date`, of which the server makes a fresh one.
///
/// `None` where the budget cannot take the body.
pub(super) fn replay(
    reply: &Arc<Reply>,
    rule: &Rule,
    accepted: &Accepted,
    budget: &Budget,
) -> Option<Response<ResponseBody>> {
    let mut headers = reply.headers.clone();
    headers.remove(DATE);
    headers.remove(WWW_AUTHENTICATE);
    if !rule.replay_set_cookie {
        headers.remove(SET_COOKIE);
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    match decoded(reply, accepted, rule.max_response_body) {
        None => Some(assemble(reply, headers, ResponseBody::counted(reply, budget)?)),
        Some(body) => {
            headers.remove(CONTENT_ENCODING);
            headers.remove(TRAILER);
            headers.append(VARY, HeaderValue::from_static("accept-encoding"));
            weaken_etag(&mut headers);
            Some(assemble(reply, headers, ResponseBody::from_bytes(budget.hold(body)?)))
        }
    }
}

fn assemble(reply: &Reply, headers: HeaderMap, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = headers;
    response
}

/// A strong validator names the bytes as they were encoded (RFC 9110, 8.8.3).
fn weaken_etag(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"))
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(ETAG, weak);
    }
}

/// The body without its content coding, where the request does not accept that coding and it can be undone within `cap`.
fn decoded(reply: &Reply, accepted: &Accepted, cap: u64) -> Option<Bytes> {
    let mut codings = reply.headers.get_all(CONTENT_ENCODING).iter();
    let coding = codings.next()?.to_str().ok()?.trim().to_ascii_lowercase();
    if codings.next().is_some() || accepted.names(&coding) {
        return None;
    }
    let input = reply.body.concat();
    let input = input.as_slice().reader();
    match coding.as_str() {
        "gzip" | "x-gzip" => read_all(flate2::read::MultiGzDecoder::new(input), cap),
        "deflate" => read_all(flate2::read::ZlibDecoder::new(input), cap),
        "br" => read_all(brotli_decompressor::Decompressor::new(input, 4096), cap),
        _ => None,
    }
}

fn read_all(decoder: impl Read, cap: u64) -> Option<Bytes> {
    let mut out = Vec::new();
    let read = decoder.take(cap.saturating_add(1)).read_to_end(&mut out).ok()?;
    (read as u64 <= cap).then(|| out.into())
}

/// The content codings that a request accepts (RFC 9110, 12.5.3).
pub(super) struct Accepted(Vec<HeaderValue>);

impl Accepted {
    pub(super) fn of(request: &HeaderMap) -> Self {
        Self(request.get_all(ACCEPT_ENCODING).iter().cloned().collect())
    }

    /// Whether the coding, or all, are named as acceptable. A request that names none gets the body plain: it may have
    /// been sent by another program than the first.
    fn names(&self, coding: &str) -> bool {
        let lines = self.0.iter().filter_map(|line| line.to_str().ok());
        let mut any = false;
        for member in lines.flat_map(|line| line.split(',')) {
            let (name, parameters) = member.split_once(';').unwrap_or((member, ""));
            let weight = parameters.trim().strip_prefix("q=").map_or(Some(1.0), |weight| weight.trim().parse().ok());
            let accepted = weight.is_some_and(|weight: f32| weight > 0.0);
            match name.trim() {
                "*" => any = accepted,
                name if name.eq_ignore_ascii_case(coding) => return accepted,
                _ => {}
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(line: &'static str, coding: &str) -> bool {
        Accepted(vec![HeaderValue::from_static(line)]).names(coding)
    }

    #[test]
    fn a_coding_must_be_named_to_be_accepted() {
        assert!(accepts("gzip", "gzip"));
        assert!(accepts("br;q=0.5, GZIP;q=0.1", "gzip"));
        assert!(accepts("*", "gzip"));
        assert!(!accepts("gzip;q=0, *", "gzip"));
        assert!(!accepts("br", "gzip"));
        assert!(!accepts("identity", "gzip"));
        assert!(!Accepted(vec![]).names("gzip"));
    }
}
