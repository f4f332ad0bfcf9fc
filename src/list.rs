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
