//! Stored answers in the form in which operators read and write them.

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::shape::{BodyContent, CompleteRequest, StoredAnswer};
use crate::record::{Reply, State};

/// Fields of one connection, or of each single answer. They are never stored.
const NOT_STORED: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::CONTENT_LENGTH,
    header::DATE,
    HeaderName::from_static("idempotent-replayed"),
];

/// Limits for the fields of an answer by an operator: what clients accept (docs/records.md).
const MAX_LINES: usize = 1000;
const MAX_HEAD: usize = 64 * 1024;

/// The stored answer of a record, or its remaining parts.
pub(super) fn shown(state: &State, with_body: bool) -> Option<StoredAnswer> {
    match state {
        State::InFlight | State::Unknown { .. } => None,
        State::Unreplayable { status, location, .. } => {
            let location = location.as_ref().map(|location| (header::LOCATION.to_string(), text(location)));
            Some(StoredAnswer {
                status: status.as_u16(),
                headers: location.into_iter().collect(),
                trailers: Vec::new(),
                body_bytes: None,
                body: BodyContent::default(),
            })
        }
        State::Completed { reply, .. } => Some(StoredAnswer {
            status: reply.status.as_u16(),
            headers: fields(&reply.headers, with_body),
            trailers: fields(&reply.trailers, with_body),
            body_bytes: Some(reply.body_len()),
            body: if with_body { BodyContent::of(&reply.body.pieces().concat()) } else { BodyContent::default() },
        }),
    }
}

fn fields(fields: &HeaderMap, with_secrets: bool) -> Vec<(String, String)> {
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        // A session cookie is as secret as the body.
        let hidden = *name == header::SET_COOKIE && !with_secrets;
        (name.to_string(), if hidden { "(not shown)".to_owned() } else { text(value) })
    };
    fields.iter().map(field).collect()
}

/// UTF-8, or Latin-1 where it is not.
fn text(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|byte| char::from(*byte)).collect(), str::to_owned)
}

/// The answer of an operator, or why it is invalid.
pub(super) fn given(wanted: CompleteRequest) -> Result<Reply, String> {
    let CompleteRequest { status, headers: lines, body, body_base64, force: _, reason: _, was: _ } = wanted;
    let status = StatusCode::from_u16(status).ok().filter(|status| (200..600).contains(&status.as_u16()));
    let status = status.ok_or("The status of a final answer is 200 to 599.")?;
    let body = BodyContent { body, body_base64 }.bytes()?;
    let bodiless = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    if bodiless && !body.is_empty() {
        return Err(format!("An answer of {} has no body.", status.as_u16()));
    }
    if lines.len() > MAX_LINES {
        return Err(format!("An answer has {MAX_LINES} header lines at most, and this one {}.", lines.len()));
    }
    let size: usize = lines.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MAX_HEAD {
        return Err(format!("The header lines of an answer have {MAX_HEAD} bytes at most, and these {size}."));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = name.parse::<HeaderName>().map_err(|_| format!("'{name}' is no header name."))?;
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| format!("The value of {name} has characters that no header may hold."))?;
        if NOT_STORED.contains(&name) {
            return Err(format!("{name} belongs to each answer anew, and cannot be given."));
        }
        headers.append(name, value);
    }
    let body = if body.is_empty() { Vec::new() } else { vec![body] };
    Ok(Reply { status, headers, body: body.into(), trailers: HeaderMap::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(status: u16, header: (&str, &str), body: &str) -> CompleteRequest {
        let headers = vec![(header.0.to_owned(), header.1.to_owned())];
        CompleteRequest {
            status,
            headers,
            body: Some(body.to_owned()),
            body_base64: None,
            force: false,
            reason: String::new(),
            was: None,
        }
    }

    #[test]
    fn what_is_given_is_shown_again() {
        let reply = given(wanted(201, ("Location", "/orders/ü"), "{}")).expect("an answer");
        let state = State::Completed { settled_at: 0, reply: reply.into() };
        let told = shown(&state, true).expect("an answer");
        assert_eq!((told.status, told.body_bytes), (201, Some(2)));
        assert_eq!(told.headers, [("location".to_owned(), "/orders/ü".to_owned())]);
        assert_eq!(told.body, BodyContent::of(b"{}"));
        assert_eq!(shown(&state, false).expect("an answer").body, BodyContent::default());
    }

    #[test]
    fn no_session_is_shown_without_being_asked_for() {
        let reply = given(wanted(201, ("set-cookie", "session=secret"), "")).expect("an answer");
        let state = State::Completed { settled_at: 0, reply: reply.into() };
        for (with_body, value) in [(false, "(not shown)"), (true, "session=secret")] {
            let told = shown(&state, with_body).expect("an answer");
            assert_eq!(told.headers, [("set-cookie".to_owned(), value.to_owned())]);
        }
    }

    #[test]
    fn what_no_answer_may_hold_is_refused() {
        for (status, header, body) in [
            (100, ("a", "b"), ""),
            (199, ("a", "b"), ""),
            (600, ("a", "b"), ""),
            (204, ("a", "b"), "body"),
            (200, ("a b", "c"), ""),
            (200, ("a", "b\r\nc: d"), ""),
            (200, ("Content-Length", "7"), ""),
            (200, ("transfer-encoding", "chunked"), ""),
        ] {
            assert!(given(wanted(status, header, body)).is_err(), "{status} {header:?}");
        }
        let with = |headers| given(CompleteRequest { headers, ..wanted(200, ("a", "b"), "") });
        let names = |count: usize| (0..count).map(|number| (format!("x-{number}"), "1".to_owned())).collect();
        assert!(with(names(MAX_LINES)).is_ok_and(|reply| reply.headers.len() == MAX_LINES));
        for headers in [names(MAX_LINES + 1), names(40_000), vec![("a".to_owned(), "b".to_owned()); 70_000]] {
            assert!(with(headers).is_err_and(|why| why.contains("1000 header lines")));
        }
        assert!(with(vec![("a".to_owned(), "b".repeat(MAX_HEAD))]).is_err_and(|why| why.contains("65536 bytes")));
        assert!(
            given(CompleteRequest { body_base64: Some("e30=".to_owned()), ..wanted(200, ("a", "b"), "") }).is_err()
        );
        let reply =
            given(CompleteRequest { body: None, body_base64: Some("/w==".to_owned()), ..wanted(200, ("a", "b"), "") });
        assert_eq!(reply.expect("an answer").body.pieces().concat(), b"\xff");
    }
}
