//! What an answer to a probe means. Pure.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AGE;

use crate::key::{JsonAnswer, JsonMember, NotJson};
use crate::record::Reply;
use crate::record::probe::ProbeVerdict;
use crate::rule::{ProbeRule, ProbeSign, ProbeWitness};

/// What came of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeReading {
    /// The attempt took effect. The backend's answer to the question.
    Found(Arc<Reply>),
    /// There is no trace of it.
    Absent,
    /// It tells neither.
    Inconclusive(Inconclusive),
}

/// Why an answer tells neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Inconclusive {
    /// No answer.
    #[error("the backend did not answer")]
    Unanswered,
    /// No answer in time (`probe.timeout`).
    #[error("the backend did not answer in time")]
    TimedOut,
    /// It is longer than what is kept (`max_response_body`, `max_buffered`).
    #[error("the answer is too long")]
    TooLong,
    /// It broke off.
    #[error("the answer broke off")]
    BrokenOff,
    /// A redirect, which is not followed.
    #[error("the answer is a redirect ({0})")]
    Redirect(u16),
    /// A status that neither `found` nor `absent` names.
    #[error("neither found nor absent names its status ({0})")]
    Status(u16),
    /// A status that is named, without its witness.
    #[error("it has the status ({0}), but not the witness that goes with it")]
    Witness(u16),
    /// A witness is looked for in JSON, and this is something else.
    #[error("{0}")]
    Json(NotJson),
    /// `absent` fits, and the answer was made before it was asked for.
    #[error("the answer comes from a cache (Age), and tells what was absent before")]
    Cached,
    /// Both `found` and `absent` fit.
    #[error("both found and absent fit it")]
    Both,
    /// Its path cannot be written, or its connection not be made.
    #[error("the question could not be sent")]
    Unsent,
}

impl ProbeReading {
    /// Decides by the status and the witnesses. An answer that is not whole tells nothing.
    pub fn of(probe: &ProbeRule, reply: Reply, is_whole: bool) -> Self {
        let status = reply.status.as_u16();
        if !is_whole {
            return Self::Inconclusive(Inconclusive::TooLong);
        }
        if reply.status.is_redirection() {
            return Self::Inconclusive(Inconclusive::Redirect(status));
        }
        let (found, absent) = (probe.found.has(reply.status), probe.absent.has(reply.status));
        if !found && !absent {
            return Self::Inconclusive(Inconclusive::Status(status));
        }
        let body = reply.body.pieces().concat();
        let json = JsonAnswer::parse(&reply.headers, &body);
        let is = |sign: &ProbeSign, named: bool| named && sign.witnesses.iter().all(|one| has(one, &reply, &json));
        match (is(&probe.found, found), is(&probe.absent, absent)) {
            (true, true) => Self::Inconclusive(Inconclusive::Both),
            (true, false) => Self::Found(Arc::new(reply)),
            (false, true) if is_from_cache(&reply.headers) => Self::Inconclusive(Inconclusive::Cached),
            (false, true) => Self::Absent,
            (false, false) => Self::Inconclusive(match &json {
                Err(why) if (found && probe.found.reads_json()) || (absent && probe.absent.reads_json()) => {
                    Inconclusive::Json(*why)
                }
                Ok(_) | Err(_) => Inconclusive::Witness(status),
            }),
        }
    }

    /// The same without its contents.
    pub fn verdict(&self) -> ProbeVerdict {
        match self {
            Self::Found(_) => ProbeVerdict::Found,
            Self::Absent => ProbeVerdict::Absent,
            Self::Inconclusive(_) => ProbeVerdict::Inconclusive,
        }
    }
}

/// The field says that the answer was neither made nor validated for this question (RFC 9111, 5.1), but for the zero that some
/// caches add to what they pass on.
fn is_from_cache(headers: &HeaderMap) -> bool {
    headers.get_all(AGE).iter().any(|age| age.as_bytes().trim_ascii() != b"0")
}

fn has(witness: &ProbeWitness, reply: &Reply, json: &Result<JsonAnswer<'_>, NotJson>) -> bool {
    let member = |pointer| json.as_ref().ok().map(|json| json.member(pointer));
    match witness {
        ProbeWitness::Json(pointer) => member(pointer) == Some(JsonMember::Something),
        ProbeWitness::JsonEmpty(pointer) => member(pointer) == Some(JsonMember::Empty),
        ProbeWitness::Header(name) => {
            let mut lines = reply.headers.get_all(name).iter();
            lines.any(|line| !line.as_bytes().trim_ascii().is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
    use http::{HeaderName, HeaderValue, StatusCode};
    use proptest::prelude::*;

    use super::*;
    use crate::rule::{JsonPointer, ProbeAnswer, ProbePath, ProbePiece, StatusSet};

    fn probe(found: (&[u16], &[ProbeWitness]), absent: (&[u16], &[ProbeWitness])) -> ProbeRule {
        let sign = |(status, witnesses): (&[u16], &[ProbeWitness])| ProbeSign {
            status: status.iter().map(|status| StatusSet::Status(*status)).collect(),
            witnesses: witnesses.to_vec(),
        };
        ProbeRule {
            path: ProbePath::parse("/o?{key}", |_| Ok::<_, ()>(ProbePiece::Key)).expect("a path"),
            authorization: None,
            found: sign(found),
            absent: sign(absent),
            after: std::time::Duration::from_secs(30),
            timeout: std::time::Duration::from_secs(2),
            answer: ProbeAnswer::AlreadyCompleted,
        }
    }

    fn pointer(text: &str) -> JsonPointer {
        JsonPointer::parse(text).expect("a pointer")
    }

    /// A search: `{"data":[{"id":7}]}` or `{"data":[]}`.
    fn search() -> ProbeRule {
        let (json, empty) = (ProbeWitness::Json(pointer("/data/0/id")), ProbeWitness::JsonEmpty(pointer("/data")));
        probe((&[200], &[json]), (&[200], &[empty]))
    }

    fn reply(status: u16, lines: &[(HeaderName, &str)], body: &[u8]) -> Reply {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        // In two pieces.
        let (one, other) = body.split_at(body.len() / 2);
        let body = vec![one.to_vec().into(), other.to_vec().into()].into();
        Reply { status, headers, body, trailers: HeaderMap::new() }
    }

    fn json(status: u16, body: &str) -> Reply {
        reply(status, &[(CONTENT_TYPE, "application/json; charset=utf-8")], body.as_bytes())
    }

    fn read(probe: &ProbeRule, reply: Reply) -> Result<ProbeVerdict, Inconclusive> {
        match ProbeReading::of(probe, reply, true) {
            ProbeReading::Inconclusive(why) => Err(why),
            reading @ (ProbeReading::Found(_) | ProbeReading::Absent) => Ok(reading.verdict()),
        }
    }

    #[test]
    fn a_member_that_holds_something_is_found_and_one_that_holds_nothing_is_absent() {
        for (body, read_as) in [
            (r#"{"data":[{"id":7}]}"#, Ok(ProbeVerdict::Found)),
            (r#"{"data":[{"id":"a"}]}"#, Ok(ProbeVerdict::Found)),
            (r#"{"data":[{"id":{"x":1}}]}"#, Ok(ProbeVerdict::Found)),
            (r#"{"data":[]}"#, Ok(ProbeVerdict::Absent)),
            (r#"{"data":{}}"#, Ok(ProbeVerdict::Absent)),
            (r#"{"data":null}"#, Err(Inconclusive::Witness(200))),
            (r#"{"data":null,"error":"the search is not available"}"#, Err(Inconclusive::Witness(200))),
            (r#"{"data":""}"#, Err(Inconclusive::Witness(200))),
            (r#"{"data":0}"#, Err(Inconclusive::Witness(200))),
            (r#"{"data":false}"#, Err(Inconclusive::Witness(200))),
            (r#"{"data":[{"id":0}]}"#, Err(Inconclusive::Witness(200))),
            (r#"{"data":[{"id":-0.0e9}]}"#, Err(Inconclusive::Witness(200))),
            (r#"{"data":[{"id":false}]}"#, Err(Inconclusive::Witness(200))),
            (r#"{"data":[{"id":null}]}"#, Err(Inconclusive::Witness(200))),
            (r#"{"data":[{}]}"#, Err(Inconclusive::Witness(200))),
            (r#"{"data":[],"data":[]}"#, Err(Inconclusive::Witness(200))),
            ("[]", Err(Inconclusive::Witness(200))),
            ("{}", Err(Inconclusive::Witness(200))),
            ("", Err(Inconclusive::Json(NotJson::Invalid))),
            (r#"{"data":["#, Err(Inconclusive::Json(NotJson::Invalid))),
            (r#"{"data":[]}x"#, Err(Inconclusive::Json(NotJson::Invalid))),
        ] {
            assert_eq!(read(&search(), json(200, body)), read_as, "{body}");
        }
    }

    /// A search that answers with a bare list.
    #[test]
    fn an_answer_that_is_an_empty_list_is_absent_where_the_whole_is_named() {
        let (json_id, empty) = (ProbeWitness::Json(pointer("/0/id")), ProbeWitness::JsonEmpty(JsonPointer::whole()));
        let list = probe((&[200], &[json_id]), (&[200], &[empty]));
        for (body, read_as) in [
            ("[]", Ok(ProbeVerdict::Absent)),
            (r#"[{"id":7}]"#, Ok(ProbeVerdict::Found)),
            (r#"[{"name":"x"}]"#, Err(Inconclusive::Witness(200))),
            (r#"{"error":"x"}"#, Err(Inconclusive::Witness(200))),
            ("null", Err(Inconclusive::Witness(200))),
            ("\"\"", Err(Inconclusive::Witness(200))),
            ("0", Err(Inconclusive::Witness(200))),
            ("[", Err(Inconclusive::Json(NotJson::Invalid))),
            ("", Err(Inconclusive::Json(NotJson::Invalid))),
        ] {
            assert_eq!(read(&list, json(200, body)), read_as, "{body}");
        }
        assert_eq!(read(&list, json(404, "[]")), Err(Inconclusive::Status(404)));
    }

    #[test]
    fn an_answer_that_is_not_declared_as_json_has_no_members() {
        let body = br#"{"data":[]}"#;
        for lines in [
            &[][..],
            &[(CONTENT_TYPE, "text/html")],
            &[(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, "gzip")],
            &[(CONTENT_TYPE, "application/json"), (CONTENT_TYPE, "application/json")],
        ] {
            let read_as = Err(Inconclusive::Json(NotJson::MediaType));
            assert_eq!(read(&search(), reply(200, lines, body)), read_as, "{lines:?}");
        }
        let problem = [(CONTENT_TYPE, "application/vnd.orders+json")];
        assert_eq!(read(&search(), reply(200, &problem, body)), Ok(ProbeVerdict::Absent));
    }

    #[test]
    fn a_status_counts_only_with_its_witnesses_and_never_as_a_redirect() {
        const WITNESS: HeaderName = HeaderName::from_static("x-order");
        let (error, header) = (ProbeWitness::Json(pointer("/error")), ProbeWitness::Header(WITNESS));
        let probe = probe((&[200], std::slice::from_ref(&header)), (&[404], &[error, header.clone()]));
        for (answer, read_as) in [
            (reply(200, &[(WITNESS, "7")], b""), Ok(ProbeVerdict::Found)),
            (reply(200, &[(WITNESS, " ")], b""), Err(Inconclusive::Witness(200))),
            (reply(200, &[], b""), Err(Inconclusive::Witness(200))),
            (json(404, r#"{"error":"none"}"#), Err(Inconclusive::Witness(404))),
            (reply(404, &[(WITNESS, "7")], b"<h1>404</h1>"), Err(Inconclusive::Json(NotJson::MediaType))),
            (reply(302, &[(LOCATION, "/login"), (WITNESS, "7")], b""), Err(Inconclusive::Redirect(302))),
            (reply(500, &[(WITNESS, "7")], b""), Err(Inconclusive::Status(500))),
        ] {
            assert_eq!(read(&probe, answer.clone()), read_as, "{answer:?}");
        }
        let both = [(CONTENT_TYPE, "application/json"), (WITNESS, "7")];
        assert_eq!(read(&probe, reply(404, &both, br#"{"error":"none"}"#)), Ok(ProbeVerdict::Absent));
        let loose = super::tests::probe((&[200], &[]), (&[200], &[ProbeWitness::JsonEmpty(pointer("/data"))]));
        assert_eq!(read(&loose, json(200, r#"{"data":[]}"#)), Err(Inconclusive::Both));
    }

    #[test]
    fn what_is_absent_from_a_cache_tells_nothing_of_now() {
        for (age, absent) in [
            ("0", Ok(ProbeVerdict::Absent)),
            ("1", Err(Inconclusive::Cached)),
            ("86400", Err(Inconclusive::Cached)),
            ("old", Err(Inconclusive::Cached)),
        ] {
            let of = |body: &[u8]| reply(200, &[(CONTENT_TYPE, "application/json"), (AGE, age)], body);
            assert_eq!(read(&search(), of(br#"{"data":[]}"#)), absent, "{age}");
            // What was there once has taken effect.
            assert_eq!(read(&search(), of(br#"{"data":[{"id":7}]}"#)), Ok(ProbeVerdict::Found), "{age}");
        }
    }

    #[test]
    fn what_is_not_whole_tells_nothing() {
        for body in [r#"{"data":[{"id":7}]}"#, r#"{"data":[]}"#] {
            let reading = ProbeReading::of(&search(), json(200, body), false);
            assert_eq!(reading, ProbeReading::Inconclusive(Inconclusive::TooLong));
        }
    }

    proptest! {
        /// No answer without its witness is a sign, whatever else it is.
        #[test]
        fn only_the_witness_is_a_sign(status in 200_u16..600, body in any::<Vec<u8>>(), is_json in any::<bool>()) {
            let kind = if is_json { "application/json" } else { "text/plain" };
            let reading = ProbeReading::of(&search(), reply(status, &[(CONTENT_TYPE, kind)], &body), true);
            let is_sign = status == 200 && is_json && body.windows(6).any(|window| window == br#""data""#);
            prop_assert!(is_sign || reading.verdict() == ProbeVerdict::Inconclusive);
        }

        /// Of one answer, never both.
        #[test]
        fn what_is_found_is_not_absent(ids in prop::collection::vec(prop::option::of("[a-z0-9]{0,3}"), 0..3)) {
            let orders: Vec<String> =
                ids.iter().map(|id| id.as_ref().map_or("null".into(), |id| format!("{{\"id\":\"{id}\"}}"))).collect();
            let body = format!("{{\"data\":[{}]}}", orders.join(","));
            let reading = ProbeReading::of(&search(), json(200, &body), true);
            let has_first = matches!(ids.first(), Some(Some(id)) if !id.is_empty());
            let expected = match ids.len() {
                0 => ProbeVerdict::Absent,
                _ if has_first => ProbeVerdict::Found,
                _ => ProbeVerdict::Inconclusive,
            };
            prop_assert_eq!(reading.verdict(), expected);
        }
    }
}
