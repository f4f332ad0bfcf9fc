//! Replays the recorded response.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, TRAILER,
    WWW_AUTHENTICATE,
};
use http::{Response, StatusCode, Version};

use super::body::replayed::{NoReplay, ReplayBody};
use super::body::response::{ProxyResponse, ResponseBody};
use super::cors;
use super::decode::{Coding, DecodeOutcome};
use super::event::Event;
use super::fields::Fields;
use super::head::{Head, REPLAYED};
use super::refusal;
use super::replay_auth::ask::ReplayRefusal;
use super::state::Proxy;
use super::upstream::UpstreamBody;
use crate::guard::{OriginalAnswer, ReplayPermission, Sealed};
use crate::list;
use crate::metrics::RequestOutcome;
use crate::problem::Problem;
use crate::record::{RecordName, Reply, ReplyBody};
use crate::rule::Rule;
use crate::store::StoredBody;

/// The attempt's own response, for the client whose request it was. Mostly there is no other reference to it, and
/// nothing is copied.
pub(super) fn own_response(reply: Arc<Reply>) -> ProxyResponse {
    let Reply { status, headers, body, trailers } = Arc::unwrap_or_clone(reply);
    assemble(status, headers, ResponseBody::buffered(held(body), trailers))
}

/// The same, if only its beginning was kept in memory.
pub(super) fn partial_response(reply: Arc<Reply>, rest: UpstreamBody) -> ProxyResponse {
    let Reply { status, headers, body, trailers } = Arc::unwrap_or_clone(reply);
    assemble(status, headers, ResponseBody::buffered_then(held(body), trailers, rest))
}

/// The body of an attempt's own response is in memory.
fn held(body: ReplyBody) -> Vec<Bytes> {
    match body {
        ReplyBody::Held(pieces) => pieces,
        ReplyBody::Compressed(_) | ReplyBody::Apart(_) => Vec::new(),
    }
}

/// Fields for the first caller or that exchange only: challenges, authentication results (RFC 9110, 11.6.3; RFC 8053),
/// and `Date`, which the server sets anew.
static FIRST_EXCHANGE_FIELDS: [HeaderName; 6] = [
    DATE,
    WWW_AUTHENTICATE,
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("authentication-control"),
    HeaderName::from_static("optional-www-authenticate"),
];

/// Fields that describe the encoded bytes of a body (RFC 9530; RFC 3230; RFC 2616, 14.15), and `Trailer`: a decoded
/// body has no trailers.
static ENCODED_BODY_FIELDS: [HeaderName; 6] = [
    CONTENT_ENCODING,
    TRAILER,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

impl Proxy {
    /// The recorded response for a repeat: same status, same end-to-end fields, same bytes. The one way on which the response
    /// to another request leaves. Without the permission, its caller gets the answer to that.
    ///
    /// Omitted are [`FIRST_EXCHANGE_FIELDS`], `Set-Cookie` unless the route replays it, and the fields in
    /// `replay_omit`.
    ///
    /// A body that is stored apart is sent while it is read. Its first chunk is in memory when this returns, so that a
    /// body that cannot be read gets an error status.
    pub(super) async fn replay(
        &self,
        rule: &Rule,
        record: &RecordName,
        reply: Sealed<Arc<Reply>>,
        permission: Result<ReplayPermission, ReplayRefusal>,
        accepted: &Accepted,
        event: &mut Event,
    ) -> Result<ProxyResponse, Problem> {
        let reply = match permission {
            Ok(permission) => reply.open(permission),
            Err(refused) => return refused.answer(event),
        };
        let coding = match Coding::of(&reply.headers) {
            Some((coding, name)) if !accepted.names(name) => Some(coding),
            Some(_) | None => None,
        };
        let prepared = match (&reply.body, coding) {
            (ReplyBody::Held(_), None) => None,
            // Boxed: it is rare, and the future is large.
            (ReplyBody::Compressed(_) | ReplyBody::Apart(_), _) | (_, Some(_)) => {
                Box::pin(self.prepare(rule, record, &reply, coding, accepted.trailers))
                    .await
                    .map_err(refusal::not_replayed)?
            }
        };
        let Reply { status, mut headers, body, trailers } = Arc::unwrap_or_clone(reply);
        while let Some(name) = headers.keys().find(|name| is_left_out(rule, name)).cloned() {
            headers.remove(name);
        }
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        let body = match prepared {
            None => ResponseBody::counted(held(body), trailers, &self.budget)
                .ok_or_else(|| refusal::not_replayed(NoReplay::NoRoom))?,
            Some(PreparedBody::FromStore(body)) => ResponseBody::Replayed(body),
            Some(PreparedBody::Decoded(body)) => {
                ENCODED_BODY_FIELDS.iter().for_each(|name| {
                    headers.remove(name);
                });
                cors::vary(&mut headers, ACCEPT_ENCODING);
                weaken_etag(&mut headers);
                ResponseBody::from_chunks(body)
            }
        };
        event.answer(RequestOutcome::Replayed, status);
        Ok(assemble(status, headers, body))
    }

    /// Reads the part of a body that is needed before the head is sent. `None`: the body is in memory, and sent as it
    /// is.
    async fn prepare(
        &self,
        rule: &Rule,
        record: &RecordName,
        reply: &Arc<Reply>,
        coding: Option<Coding>,
        with_trailers: bool,
    ) -> Result<Option<PreparedBody>, NoReplay> {
        if let Some(coding) = coding {
            match self.decode(rule, record, reply, coding).await? {
                DecodeOutcome::AsStored => {}
                DecodeOutcome::NoRoom => return Err(NoReplay::NoRoom),
                DecodeOutcome::Plain(body) => return Ok(Some(PreparedBody::Decoded(body))),
            }
        }
        let trailers = if with_trailers { reply.trailers.clone() } else { HeaderMap::new() };
        let body = ReplayBody::begin(&*self.store, record, &reply.body, trailers, &self.budget).await?;
        Ok(body.map(|body| PreparedBody::FromStore(Box::new(body))))
    }

    /// Decodes the body of a response, which is read into memory for that.
    async fn decode(
        &self,
        rule: &Rule,
        record: &RecordName,
        reply: &Arc<Reply>,
        coding: Coding,
    ) -> Result<DecodeOutcome, NoReplay> {
        let mut reservation = self.budget.reserve();
        let whole = match &reply.body {
            ReplyBody::Held(_) => Arc::clone(reply),
            body @ (ReplyBody::Compressed(_) | ReplyBody::Apart(_)) => {
                if !usize::try_from(reply.body_len()).is_ok_and(|length| reservation.grow(length)) {
                    return Err(NoReplay::NoRoom);
                }
                let body = match StoredBody::of(&*self.store, record, body).await? {
                    Some(body) => body.rest().await?,
                    None => Vec::new(),
                };
                Arc::new(Reply { body: body.into(), ..Reply::clone(reply) })
            }
        };
        Ok(self.decoders.decode(coding, record, &whole, rule.max_response_body, &self.budget).await)
    }
}

/// The request took effect, and its response is not stored. A caller without the permission learns nothing of that response.
pub(super) fn already_completed(
    rule: &Rule,
    original: Sealed<OriginalAnswer>,
    permission: Option<ReplayPermission>,
) -> Problem {
    let problem = refusal::already_completed(rule);
    match permission {
        Some(permission) => {
            let OriginalAnswer { status, location } = original.open(permission);
            problem.original(status, location)
        }
        None => problem,
    }
}

/// A body that is not sent from the record as it is.
enum PreparedBody {
    /// Decoded, with its reservation.
    Decoded(Vec<Bytes>),
    /// Read from the store; its first chunk is in memory.
    FromStore(Box<ReplayBody>),
}

/// Compared one by one: a response has few names, and mostly none of these.
fn is_left_out(rule: &Rule, name: &HeaderName) -> bool {
    FIRST_EXCHANGE_FIELDS.contains(name)
        || rule.replay_omit.contains(name)
        || *name == SET_COOKIE && !rule.replay_set_cookie
}

fn assemble(status: StatusCode, headers: HeaderMap, body: ResponseBody) -> ProxyResponse {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A strong validator identifies the encoded bytes (RFC 9110, 8.8.3).
fn weaken_etag(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"))
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(ETAG, weak);
    }
}

/// What a client accepts.
pub(super) struct Accepted {
    /// The content codings that it accepts (RFC 9110, 12.5.3).
    codings: Vec<HeaderValue>,
    /// Whether its version has trailers. HTTP/1.0 has none, and there a body without a length ends with the connection:
    /// an aborted one would look complete.
    trailers: bool,
}

impl Accepted {
    pub(super) fn by(head: &Head) -> Self {
        let is_there = head.fields.has(Fields::ACCEPT_ENCODING);
        let codings =
            if is_there { head.headers.get_all(ACCEPT_ENCODING).iter().cloned().collect() } else { Vec::new() };
        Self { codings, trailers: head.version >= Version::HTTP_11 }
    }

    /// Whether the coding, or `*`, is named as acceptable. A request that names none gets the decoded body: it may come
    /// from another program than the first request.
    fn names(&self, coding: &str) -> bool {
        let mut any = false;
        for (name, weight) in list::weighted_of(&self.codings) {
            let accepted = weight.is_some_and(|weight| weight > 0);
            match name {
                "*" => any = accepted,
                name if is_same_coding(name, coding) => return accepted,
                _ => {}
            }
        }
        any
    }
}

/// `x-gzip` is another name of `gzip` (RFC 9110, 8.4.1.3).
fn is_same_coding(one: &str, other: &str) -> bool {
    let is_old = |name: &str| name.eq_ignore_ascii_case("x-gzip");
    one.eq_ignore_ascii_case(other)
        || is_old(one) && other.eq_ignore_ascii_case("gzip")
        || is_old(other) && one.eq_ignore_ascii_case("gzip")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(line: &'static str, coding: &str) -> bool {
        Accepted { codings: vec![HeaderValue::from_static(line)], trailers: true }.names(coding)
    }

    #[test]
    fn a_coding_must_be_named_to_be_accepted() {
        assert!(accepts("gzip", "gzip"));
        assert!(accepts("br;q=0.5, GZIP;q=0.1", "gzip"));
        assert!(accepts("*", "gzip"));
        assert!(!accepts("gzip;q=0, *", "gzip"));
        assert!(!accepts("br", "gzip"));
        assert!(!accepts("identity", "gzip"));
        assert!(!accepts("gzip;q=0.000, *", "gzip"));
        assert!(!accepts("gzip;q=inf", "gzip"));
        assert!(!accepts("gzip;Q=0, *", "gzip"));
        assert!(!Accepted { codings: vec![], trailers: true }.names("gzip"));
    }
}
