//! Answering from the record.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, TRAILER,
    WWW_AUTHENTICATE,
};
use http::{Response, StatusCode, Version};

use super::body::ResponseBody;
use super::decode::{Coding, DecodeOutcome};
use super::fields::Fields;
use super::handle::ProxyResponse;
use super::head::Head;
use super::replay_body::ReplayBody;
use super::upstream::UpstreamBody;
use super::{Proxy, cors};
use crate::config::Rule;
use crate::record::{RecordName, Reply, ReplyBody};
use crate::store::{StoreError, StoredBody};

/// Marks an answer that did not come from running the request.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The attempt's own answer, for the client whose request it was. Nobody else has it, mostly, and then nothing is copied.
pub(super) fn own_response(reply: Arc<Reply>) -> Response<ResponseBody> {
    let Reply { status, headers, body, trailers } = Arc::unwrap_or_clone(reply);
    assemble(status, headers, ResponseBody::buffered(held(body), trailers))
}

/// The same, where only the beginning of it could be held.
pub(super) fn partial_response(reply: Arc<Reply>, rest: UpstreamBody) -> Response<ResponseBody> {
    let Reply { status, headers, body, trailers } = Arc::unwrap_or_clone(reply);
    assemble(status, headers, ResponseBody::buffered_then(held(body), trailers, rest))
}

/// What an attempt has brought is here.
fn held(body: ReplyBody) -> Vec<Bytes> {
    match body {
        ReplyBody::Held(pieces) => pieces,
        ReplyBody::Apart(_) => Vec::new(),
    }
}

/// What was meant for the first caller alone, or for that exchange: challenges, what a server says of the credentials that
/// it was shown (RFC 9110, 11.6.3; RFC 8053), and `Date`, of which the server makes a fresh one.
static FIRST_EXCHANGE_FIELDS: [HeaderName; 6] = [
    DATE,
    WWW_AUTHENTICATE,
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("authentication-control"),
    HeaderName::from_static("optional-www-authenticate"),
];

/// What is said about a body's bytes as they were encoded (RFC 9530; RFC 3230; RFC 2616, 14.15), and of trailers that a
/// decoded body has none of.
static ENCODED_BODY_FIELDS: [HeaderName; 6] = [
    CONTENT_ENCODING,
    TRAILER,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

impl Proxy {
    /// The same answer for everybody else: same status, same end-to-end fields, same bytes.
    ///
    /// Left out is what was meant for the first caller alone or for that moment: see [`FIRST_EXCHANGE_FIELDS`],
    /// `Set-Cookie` unless the route asks for it, and what the route leaves out (`replay_omit`).
    ///
    /// A body that lies apart in the store is passed on as it is read. The first of it is here when this returns: one
    /// that cannot be read is told with a status.
    pub(super) async fn replay(
        &self,
        rule: &Rule,
        record: &RecordName,
        reply: Arc<Reply>,
        accepted: &Accepted,
    ) -> Result<ProxyResponse, NoReplay> {
        let coding = match Coding::of(&reply.headers) {
            Some((coding, name)) if !accepted.names(name) => Some(coding),
            Some(_) | None => None,
        };
        let prepared = match (&reply.body, coding) {
            (ReplyBody::Held(_), None) => None,
            // Rare, and large.
            (ReplyBody::Apart(_), _) | (_, Some(_)) => {
                Box::pin(self.prepare(rule, record, &reply, coding, accepted.trailers)).await?
            }
        };
        let Reply { status, mut headers, body, trailers } = Arc::unwrap_or_clone(reply);
        while let Some(name) = headers.keys().find(|name| is_left_out(rule, name)).cloned() {
            headers.remove(name);
        }
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        let body = match prepared {
            None => ResponseBody::counted(held(body), trailers, &self.budget).ok_or(NoReplay::NoRoom)?,
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
        Ok(assemble(status, headers, body))
    }

    /// Reads what must be read of a body before its head can be sent. `None`: the body is here, and sent as it is.
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
        let ReplyBody::Apart(body) = reply.body else { return Ok(None) };
        let trailers = if with_trailers { reply.trailers.clone() } else { HeaderMap::new() };
        let body = ReplayBody::begin(&*self.store, record, body, trailers, &self.budget).await?;
        Ok(Some(PreparedBody::FromStore(Box::new(body))))
    }

    /// Decodes the body of an answer, which is all in memory for that.
    async fn decode(
        &self,
        rule: &Rule,
        record: &RecordName,
        reply: &Arc<Reply>,
        coding: Coding,
    ) -> Result<DecodeOutcome, NoReplay> {
        let mut reservation = self.budget.reserve();
        let whole = match reply.body {
            ReplyBody::Held(_) => Arc::clone(reply),
            ReplyBody::Apart(body) => {
                if !usize::try_from(body.cut.length()).is_ok_and(|length| reservation.grow(length)) {
                    return Err(NoReplay::NoRoom);
                }
                let body = StoredBody::open(&*self.store, record, body).await?.rest().await?;
                Arc::new(Reply { body: body.into(), ..Reply::clone(reply) })
            }
        };
        Ok(self.decoders.decode(coding, record, &whole, rule.max_response_body, &self.budget).await)
    }
}

/// A body that is not simply here.
enum PreparedBody {
    /// Without its coding, and counted.
    Decoded(Vec<Bytes>),
    /// Its first chunk is here.
    FromStore(Box<ReplayBody>),
}

/// Why an answer cannot be replayed now.
#[derive(Debug)]
pub(super) enum NoReplay {
    /// The budget cannot take its body.
    NoRoom,
    /// Its body did not come from the store, or is not the one that was stored.
    Store(StoreError),
}

impl From<StoreError> for NoReplay {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Compared one by one: an answer has few names, and most of these are not among them.
fn is_left_out(rule: &Rule, name: &HeaderName) -> bool {
    FIRST_EXCHANGE_FIELDS.contains(name)
        || rule.replay_omit.contains(name)
        || *name == SET_COOKIE && !rule.replay_set_cookie
}

fn assemble(status: StatusCode, headers: HeaderMap, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
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

/// What a client understands of an answer.
pub(super) struct Accepted {
    /// The content codings that it accepts (RFC 9110, 12.5.3).
    codings: Vec<HeaderValue>,
    /// Whether its version knows trailers. HTTP/1.0 does not, and without a length the end of the connection is the end of
    /// the body there: one that broke off would look whole.
    trailers: bool,
}

impl Accepted {
    pub(super) fn by(head: &Head) -> Self {
        let is_there = head.fields.has(Fields::ACCEPT_ENCODING);
        let codings =
            if is_there { head.headers.get_all(ACCEPT_ENCODING).iter().cloned().collect() } else { Vec::new() };
        Self { codings, trailers: head.version >= Version::HTTP_11 }
    }

    /// Whether the coding, or all, are named as acceptable. A request that names none gets the body plain: it may have
    /// been sent by another program than the first.
    fn names(&self, coding: &str) -> bool {
        let lines = self.codings.iter().filter_map(|line| line.to_str().ok());
        let mut any = false;
        for member in lines.flat_map(|line| line.split(',')) {
            let (name, parameters) = member.split_once(';').unwrap_or((member, ""));
            let weight = parameters.trim().strip_prefix("q=").map_or(Some(1.0), |weight| weight.trim().parse().ok());
            let accepted = weight.is_some_and(|weight: f32| weight > 0.0);
            match name.trim() {
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
        assert!(!Accepted { codings: vec![], trailers: true }.names("gzip"));
    }
}
