//! The framing of a response, reduced to one statement of its length.
//!
//! hyper uses the field that counts (RFC 9112, 6.3) and leaves others in the head. A client that uses those would take
//! a part of a response for all of it, or the rest of it for the next response.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{StatusCode, response};

use super::fields::Fields;
use crate::list;

/// Whether the connection of a response may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionReuse {
    /// The next request may go over it.
    Allowed,
    /// The backend may have meant another end of the response.
    Forbidden,
}

/// Why the end of a response cannot be determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum Unframed {
    /// A transfer coding that was not requested and is not decoded here.
    #[error("a transfer coding other than chunked")]
    Coding,
    /// Different lengths, or one that is not a number of bytes.
    #[error("a Content-Length that is not one number")]
    Length,
}

/// Reduces the framing fields of a response to the one that counts, in its canonical form.
///
/// `fields` is the set of fields in the head.
pub(super) fn settle(head: &mut response::Parts, fields: Fields) -> Result<ConnectionReuse, Unframed> {
    let headers = &mut head.headers;
    if fields.has(Fields::TRANSFER_ENCODING) && !is_chunked_at_most(headers) {
        return Err(Unframed::Coding);
    }
    // Such a response has no body, and must not have a Content-Length (RFC 9110, 8.6).
    if head.status == StatusCode::NO_CONTENT || head.status.is_informational() {
        let is_empty = headers.remove(CONTENT_LENGTH).is_none_or(|length| length == "0");
        // A backend that announces a body may send one, which would be read as the next response.
        let is_over = is_empty && !headers.contains_key(TRANSFER_ENCODING);
        return Ok(if is_over { ConnectionReuse::Allowed } else { ConnectionReuse::Forbidden });
    }
    if !fields.has(Fields::CONTENT_LENGTH) {
        return Ok(ConnectionReuse::Allowed);
    }
    if fields.has(Fields::TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
        return Ok(ConnectionReuse::Forbidden);
    }
    let Some(plainest) = length(headers)? else { return Ok(ConnectionReuse::Allowed) };
    headers.insert(CONTENT_LENGTH, plainest);
    Ok(ConnectionReuse::Allowed)
}

/// Whether a body has no transfer coding but chunked.
pub(super) fn is_chunked_at_most(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    codings.next().is_none_or(is_chunked) && codings.next().is_none()
}

/// The length that all lines agree on, if it is not in canonical form yet (RFC 9110, 8.6).
fn length(headers: &HeaderMap) -> Result<Option<HeaderValue>, Unframed> {
    let lines = || headers.get_all(CONTENT_LENGTH).iter();
    let mut first_two = lines();
    if let (Some(line), None) = (first_two.next(), first_two.next())
        && line.as_bytes().iter().all(u8::is_ascii_digit)
    {
        return number(line.as_bytes()).map_or(Err(Unframed::Length), |_| Ok(None));
    }
    let mut members = list::members(headers, &CONTENT_LENGTH);
    let Some(first) = members.next() else { return Ok(None) };
    let length = number(first).ok_or(Unframed::Length)?;
    let mut is_plain = lines().all(|line| line.as_bytes().iter().all(u8::is_ascii_digit));
    for other in members {
        if number(other) != Some(length) {
            return Err(Unframed::Length);
        }
        is_plain = false;
    }
    Ok((!is_plain).then(|| HeaderValue::from(length)))
}

/// Digits, and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    // The standard library accepts a sign, too.
    digits.iter().all(u8::is_ascii_digit).then(|| str::from_utf8(digits).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(status: u16, lines: &[(&str, &str)]) -> Result<(ConnectionReuse, Vec<String>), Unframed> {
        let mut response = http::Response::builder().status(status);
        for (name, value) in lines {
            response = response.header(*name, *value);
        }
        let (mut head, ()) = response.body(()).expect("a head").into_parts();
        let fields = Fields::of(&head.headers);
        let after = settle(&mut head, fields)?;
        let lengths = head.headers.get_all(CONTENT_LENGTH).iter();
        Ok((after, lengths.map(|length| length.to_str().expect("text").to_owned()).collect()))
    }

    #[test]
    fn lengths_that_agree_are_one_and_others_are_none() {
        for status in [200, 201, 304, 404] {
            for (lines, said) in [
                (&[][..], Some(&[][..])),
                (&["5"], Some(&["5"])),
                (&["5", "5"], Some(&["5"])),
                (&["5, 5"], Some(&["5"])),
                (&["5 ,\t5", "05"], Some(&["5"])),
                (&["18446744073709551615"], Some(&["18446744073709551615"])),
                (&["5", "6"], None),
                (&["5, 6"], None),
                (&["+5"], None),
                (&["-5"], None),
                (&["5", "+5"], None),
                (&["5,"], None),
                (&[""], None),
                (&["5 5"], None),
                (&["0x5"], None),
                (&["18446744073709551616"], None),
            ] {
                let lines: Vec<_> = lines.iter().map(|line| ("content-length", *line)).collect();
                let expected =
                    said.map(|said| (ConnectionReuse::Allowed, said.iter().map(ToString::to_string).collect()));
                assert_eq!(settled(status, &lines), expected.ok_or(Unframed::Length), "{status}: {lines:?}");
            }
        }
    }

    #[test]
    fn a_length_beside_chunks_goes_and_its_connection_with_it() {
        let chunked = ("transfer-encoding", "Chunked");
        for length in ["10", "+5", "5, 6"] {
            assert_eq!(settled(200, &[("content-length", length), chunked]), Ok((ConnectionReuse::Forbidden, vec![])));
        }
        assert_eq!(settled(200, &[chunked]), Ok((ConnectionReuse::Allowed, vec![])));
        for coding in ["gzip, chunked", "gzip", "identity", ""] {
            assert_eq!(settled(200, &[("transfer-encoding", coding)]), Err(Unframed::Coding), "{coding}");
        }
        assert_eq!(settled(200, &[chunked, chunked]), Err(Unframed::Coding));
    }

    #[test]
    fn an_answer_that_never_has_a_body_says_no_length() {
        for status in [101, 204] {
            assert_eq!(settled(status, &[]), Ok((ConnectionReuse::Allowed, vec![])));
            assert_eq!(settled(status, &[("content-length", "0")]), Ok((ConnectionReuse::Allowed, vec![])));
            // The backend may send it nevertheless.
            assert_eq!(settled(status, &[("content-length", "5")]), Ok((ConnectionReuse::Forbidden, vec![])));
        }
    }
}
