//! Comma-separated lists in field values (RFC 9110, 5.6.1).

use http::{HeaderMap, HeaderName, HeaderValue};

/// The members of all lines of a field, without white space around them. An empty one is empty.
pub fn members<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'h [u8]> + use<'h> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Whether one of the members is this word, in any case.
pub fn names(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    members(headers, name).any(|member| member.eq_ignore_ascii_case(word.as_bytes()))
}

/// The same for members that are text. A line that is not text is left out.
pub fn texts<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> + use<'h> {
    texts_of(headers.get_all(name))
}

/// The same for lines that were copied from a head.
pub fn texts_of<'h, L: IntoIterator<Item = &'h HeaderValue>>(lines: L) -> impl Iterator<Item = &'h str> + use<'h, L> {
    let lines = lines.into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The members with their weights in thousandths: `gzip;q=0.5` is `("gzip", Some(500))` (RFC 9110, 12.4.2). A weight that
/// is none is `None`.
pub fn weighted<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = (&'h str, Option<u16>)> + use<'h> {
    weighted_of(headers.get_all(name))
}

/// The same for lines that were copied from a head.
pub fn weighted_of<'h, L: IntoIterator<Item = &'h HeaderValue>>(
    lines: L,
) -> impl Iterator<Item = (&'h str, Option<u16>)> + use<'h, L> {
    texts_of(lines).map(|member| {
        let (name, parameters) = member.split_once(';').unwrap_or((member, ""));
        let mut parameters = parameters.split(';').map(str::trim);
        let weight = parameters.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        (name.trim_end(), weight.map_or(Some(1000), thousandths))
    })
}

/// From 0 to 1, with three digits behind the point at most (RFC 9110, 12.4.2).
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let whole = match whole {
        "0" | "" => 0,
        "1" => 1000,
        _ => return None,
    };
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().map(|digit| u16::from(digit - b'0'));
    let fraction: u16 = digits.zip([100, 10, 1]).map(|(digit, place)| digit * place).sum();
    Some(whole + fraction).filter(|weight| *weight <= 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_number_from_0_to_1_in_thousandths() {
        let of = |line: &'static str| {
            let line = HeaderValue::from_static(line);
            weighted_of([&line]).map(|(name, weight)| (name.to_owned(), weight)).collect::<Vec<_>>()
        };
        let one = |name: &str, weight| vec![(name.to_owned(), weight)];
        for (line, name, weight) in [
            ("gzip", "gzip", Some(1000)),
            ("gzip ; q=0.5", "gzip", Some(500)),
            ("gzip;Q=0.001", "gzip", Some(1)),
            ("text/html;level=1;q=1.000", "text/html", Some(1000)),
            ("*;q=0", "*", Some(0)),
            ("br;q=0.", "br", Some(0)),
            ("br;q=.5", "br", Some(500)),
            ("br;q=", "br", Some(0)),
            ("br;q=inf", "br", None),
            ("br;q=1.001", "br", None),
            ("br;q=2", "br", None),
            ("br;q=-1", "br", None),
            ("br;q=0.1234", "br", None),
            ("br;q=1e3", "br", None),
            ("", "", Some(1000)),
        ] {
            assert_eq!(of(line), one(name, weight), "{line}");
        }
        assert_eq!(of("a;q=0.1, b"), [("a".to_owned(), Some(100)), ("b".to_owned(), Some(1000))]);
    }
}
