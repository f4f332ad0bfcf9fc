//! `Max-Forwards` (RFC 9110, 7.6.2).

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, MAX_FORWARDS};
use http::{Method, Response, request};

use super::body::response::{ProxyResponse, ResponseBody};
use crate::problem::{Code, Problem};

/// Counts this hop. Returns the response to a request that may not be forwarded. TRACE is refused: it would disclose
/// the fields of the request.
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

/// How often it may be forwarded: the least value of all lines.
fn left(headers: &HeaderMap) -> Option<u64> {
    let lines = headers.get_all(MAX_FORWARDS).iter();
    let digits =
        lines.filter_map(|line| line.to_str().ok()).filter(|line| line.bytes().all(|byte| byte.is_ascii_digit()));
    // A number that is too large counts as the largest.
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
