//! `application/x-www-form-urlencoded` (WHATWG URL, 5.1), as bytes: a form need not be UTF-8, and decoding it to
//! text would make different bytes equal.

use std::borrow::Cow;

use crate::uri;

use super::lookalike::is_lookalike;

/// The pairs of a form, in the order of the body.
#[derive(Debug)]
pub(super) struct UrlEncodedForm<'a> {
    pairs: Vec<Pair<'a>>,
    /// The names of pairs that some parsers split at semicolons (HTML 4.01, B.2.2; Rack, until 3.0).
    split: Vec<Cow<'a, [u8]>>,
}

type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The value of a form's field.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FormField<'f> {
    Absent,
    Once(&'f [u8]),
    Repeated,
    /// There is another field that backends may take for it.
    Lookalike,
    /// In a multipart form, in a charset that parsers may decode differently.
    Charset,
    /// In a multipart form, a file.
    File,
}

impl<'a> UrlEncodedForm<'a> {
    /// `None` where a percent sign starts no escape. Parsers differ in how they decode it.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let decoded = pairs(body).map(|(name, value)| Some((decode(name)?, decode(value)?))).collect::<Option<_>>()?;
        let split = split_at_semicolons(body).filter_map(decode).collect();
        Some(Self { pairs: decoded, split })
    }

    pub(super) fn field(&self, name: &str) -> FormField<'_> {
        let is_it = |found: &[u8]| found == name.as_bytes();
        let is_split = self.split.iter().any(|found| is_it(found) || is_lookalike(found, name));
        if is_split || self.pairs().any(|(found, _)| is_lookalike(found, name)) {
            return FormField::Lookalike;
        }
        let mut values = self.pairs().filter(|(found, _)| is_it(found));
        match (values.next(), values.next()) {
            (None, _) => FormField::Absent,
            (Some((_, value)), None) => FormField::Once(value),
            (Some(_), Some(_)) => FormField::Repeated,
        }
    }

    /// Whether it is ASCII in every charset.
    pub(super) fn is_ascii(&self) -> bool {
        self.pairs().all(|(name, value)| name.is_ascii() && value.is_ascii())
    }

    /// Whether a field declares another charset than UTF-8 (WHATWG HTML, 4.10.18.1).
    pub(super) fn names_other_charset(&self) -> bool {
        let is_right = |value: &[u8]| value.eq_ignore_ascii_case(b"utf-8") || value.eq_ignore_ascii_case(b"utf8");
        self.pairs().any(|(name, value)| name == b"_charset_" && !is_right(value))
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// Whether the query has another parameter that backends may take for this one.
pub(super) fn has_lookalikes(query: &[u8], name: &str) -> bool {
    let is_it = |found: &[u8]| found == name.as_bytes();
    let split = |found: &[u8]| decode(found).is_some_and(|found| is_it(&found) || is_lookalike(&found, name));
    let whole = |found: &[u8]| decode(found).is_some_and(|found| is_lookalike(&found, name));
    split_at_semicolons(query).any(split) || pairs(query).any(|(found, _)| whole(found))
}

/// The names of pairs that some parsers split at semicolons.
fn split_at_semicolons(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let with_semicolons = text.split(|byte| *byte == b'&').filter(|pair| pair.contains(&b';'));
    with_semicolons.flat_map(|pair| pair.split(|byte| *byte == b';')).flat_map(pairs).map(|(name, _)| name)
}

/// Names and values as sent.
pub(super) fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[][..]),
    })
}

/// `None` where a percent sign starts no escape.
pub(super) fn decode(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let (byte, length) = match byte {
            b'+' => (b' ', 1),
            b'%' => (uri::escaped_byte(text, at)?, 3),
            byte => (byte, 1),
        };
        out.push(byte);
        at += length;
    }
    Some(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_found() {
        let form = UrlEncodedForm::parse(b"a=1&b=x+y%26%3D&&%63=&d&e=1&%65=2&f=%ff").expect("a form");
        assert_eq!(form.field("a"), FormField::Once(b"1"));
        assert_eq!(form.field("b"), FormField::Once(b"x y&="));
        assert_eq!(form.field("c"), FormField::Once(b""));
        assert_eq!(form.field("d"), FormField::Once(b""));
        assert_eq!(form.field("e"), FormField::Repeated);
        assert_eq!(form.field("f"), FormField::Once(b"\xff"));
        assert_eq!(form.field("g"), FormField::Absent);
        assert_eq!(form.pairs().count(), 7);
    }

    #[test]
    fn a_broken_escape_makes_no_form() {
        for body in ["a=%", "a=%4", "a=%zz", "%=1", "a=1&b=%+1"] {
            assert!(UrlEncodedForm::parse(body.as_bytes()).is_none(), "{body}");
        }
        assert!(UrlEncodedForm::parse(b"").is_some_and(|form| form.pairs().next().is_none()));
    }
}
