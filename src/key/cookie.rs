//! Cookies, as a server reads them (RFC 6265, 5.4).

use http::{HeaderMap, header};

/// The values of all cookies of this name, in the order of the request, as sent. Names are case-sensitive.
/// There may be several `Cookie` lines (RFC 9113, 8.2.3).
pub(super) fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| Some((pair, pair.iter().position(|byte| *byte == b'=')?)))
        .filter(move |(pair, at)| pair[..*at].trim_ascii() == name.as_bytes())
        .map(|(pair, at)| pair[at + 1..].trim_ascii())
}

/// The value without the quotes around it (RFC 6265, 4.1.1, `cookie-value`).
pub(super) fn unquote(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn cookies_are_found_by_their_exact_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; sid = x=y ;SID=2;sid;; b=\"3\""));
        headers.append(header::COOKIE, HeaderValue::from_static("sid="));
        let all = |name| values(&headers, name).collect::<Vec<_>>();
        assert_eq!(all("sid"), [b"x=y".as_slice(), b""]);
        assert_eq!(all("SID"), [b"2"]);
        assert_eq!(all("b"), [b"\"3\""]);
        assert!(all("c").is_empty());
    }

    #[test]
    fn only_a_pair_of_quotes_is_taken_off() {
        for (value, bare) in [("\"3\"", "3"), ("\"\"", ""), ("\"", "\""), ("\"3", "\"3"), ("3", "3"), ("", "")] {
            assert_eq!(unquote(value.as_bytes()), bare.as_bytes());
        }
    }
}
