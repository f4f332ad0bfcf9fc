//! Requests that say how far they may go (RFC 9110, 7.6.2).

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, MAX_FORWARDS};
use http::{Method, Response, request};

use super::body::ResponseBody;
use super::handle::ProxyResponse;
use crate::problem::{Code, Problem};

/// Counts this hop. The answer to a request that goes no further: what is asked with TRACE, all that came with the
/// request, is told to nobody.
pub(super) fn count(head: &mut request::Parts) -> Option<Result<ProxyResponse, Problem>> {
    if !matches!(head.method, Method::OPTIONS | Method::TRACE) {
        return None;
    }
    match left(&head.headers)? {
        0 if head.method == Method::OPTIONS => Some(Ok(Response::new(ResponseBody::from_bytes(Bytes::new())))),
        0 => {
            Some(Err(Problem::new(Code::MethodNotAllowed, "This proxy does not say what came with a request (TRACE).")))
        }
        left => {
            head.headers.insert(MAX_FORWARDS, HeaderValue::from(left - 1));
            None
        }
    }
}

/// How often it may be forwarded: the least of what is said, where several lines say so.
fn left(headers: &HeaderMap) -> Option<u64> {
    let lines = headers.get_all(MAX_FORWARDS).iter();
    let digits =
        lines.filter_map(|line| line.to_str().ok()).filter(|line| line.bytes().all(|byte| byte.is_ascii_digit()));
    // What is too large for a number is far away.
    digits.filter(|digits| !digits.is_empty()).map(|digits| digits.parse().unwrap_or(u64::MAX)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once_for_each_hop() {
        for (lines, forwarded) in [
            (&[][..], Some(None)),
            (&["0"], None),
            (&["00"], None),
            (&["5", "0"], None),
            (&["1"], Some(Some("0"))),
            (&["10"], Some(Some("9"))),
            (&["7", "3"], Some(Some("2"))),
            (&["99999999999999999999"], Some(Some("18446744073709551614"))),
            (&["-1"], Some(Some("-1"))),
            (&["+0"], Some(Some("+0"))),
            (&[""], Some(Some(""))),
        ] {
            for method in [Method::OPTIONS, Method::TRACE] {
                let mut request = http::Request::builder().method(&method);
                for line in lines {
                    request = request.header(MAX_FORWARDS, *line);
                }
                let (mut head, ()) = request.body(()).expect("a head").into_parts();
                let answered = count(&mut head);
                assert_eq!(answered.is_none(), forwarded.is_some(), "{lines:?}");
                let Some(forwarded) = forwarded else { continue };
                let left: Vec<_> = head.headers.get_all(MAX_FORWARDS).iter().collect();
                assert_eq!(left, forwarded.into_iter().collect::<Vec<_>>(), "{lines:?}");
            }
        }
    }
}
