//! Parameters of a field value (RFC 9110, 5.6.6; RFC 2183, 2), and charsets.

/// One `name=value`, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameter<'v> {
    pub(super) name: &'v str,
    /// Without the quotes around it, and with all escapes in it.
    pub(super) value: &'v str,
    pub(super) quoted: bool,
}

impl Parameter<'_> {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether all parsers read the same value.
    pub(super) fn is_plain(&self) -> bool {
        if self.quoted {
            !self.value.contains('\\')
        } else {
            !self.value.is_empty() && self.value.bytes().all(is_token)
        }
    }
}

/// Parsers differ in whether a backslash in quotes escapes the next quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// It does (RFC 9110, 5.6.4).
    Escaped,
    /// It does not: browsers send backslashes of file names as they are.
    Plain,
}

/// The text after the first semicolon. Nothing is refused: text between a value and the next semicolon is skipped.
pub(super) fn parameters(value: &str, quotes: Quotes) -> impl Iterator<Item = Parameter<'_>> {
    let mut rest = value.split_once(';').map_or("", |(_, rest)| rest);
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(['=', ';']).unwrap_or(rest.len());
        let name = rest[..end].trim_matches([' ', '\t']);
        let Some(after) = rest[end..].strip_prefix('=') else {
            rest = &rest[end..];
            return Some(Parameter { name, value: "", quoted: false });
        };
        let after = after.trim_start_matches([' ', '\t']);
        let (value, quoted, behind) = match after.strip_prefix('"') {
            Some(inner) => {
                let end = closing_quote(inner, quotes);
                (&inner[..end], true, inner.get(end + 1..).unwrap_or_default())
            }
            None => {
                let (value, behind) = after.split_at(after.find(';').unwrap_or(after.len()));
                (value.trim_end_matches([' ', '\t']), false, behind)
            }
        };
        rest = &behind[behind.find(';').unwrap_or(behind.len())..];
        Some(Parameter { name, value, quoted })
    })
}

fn closing_quote(text: &str, quotes: Quotes) -> usize {
    let mut hidden = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if hidden => hidden = false,
            b'\\' => hidden = quotes == Quotes::Escaped,
            b'"' => return at,
            _ => {}
        }
    }
    text.len()
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&*+-.^_`|~".contains(&byte)
}

/// How often a word occurs, in any case.
pub(super) fn occurrences(text: &str, word: &str) -> usize {
    text.as_bytes().windows(word.len()).filter(|window| window.eq_ignore_ascii_case(word.as_bytes())).count()
}

/// Whether all parsers decode a text to the same characters: it is UTF-8, or ASCII in a charset that includes ASCII.
pub(super) fn is_read_alike(content_type: &str, is_ascii: bool) -> bool {
    let mut charsets = parameters(content_type, Quotes::Escaped).filter(|parameter| parameter.is("charset"));
    let one = charsets.next();
    // Lenient parsers find a charset even in the quotes of another parameter.
    if charsets.next().is_some() || occurrences(content_type, "charset") != usize::from(one.is_some()) {
        return false;
    }
    let Some(Parameter { value, .. }) = one else { return true };
    let is_one_of = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(value));
    const SUPERSETS_OF_ASCII: [&str; 5] = ["us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252"];
    is_one_of(&["utf-8", "utf8"]) || is_ascii && is_one_of(&SUPERSETS_OF_ASCII)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(value: &str, quotes: Quotes) -> Vec<(&str, &str)> {
        parameters(value, quotes).map(|parameter| (parameter.name, parameter.value)).collect()
    }

    #[test]
    fn parameters_are_taken_apart() {
        for (value, expected) in [
            ("form-data", &[][..]),
            ("form-data; name=\"a\"", &[("name", "a")]),
            ("form-data;name = a ;filename=\"b;c\";", &[("name", "a"), ("filename", "b;c")]),
            ("x; a; b=; c", &[("a", ""), ("b", ""), ("c", "")]),
            ("x; a=\"b\" junk; c=d", &[("a", "b"), ("c", "d")]),
            ("x; a=\"b", &[("a", "b")]),
            ("x; A*=UTF-8''b", &[("A*", "UTF-8''b")]),
        ] {
            assert_eq!(all(value, Quotes::Escaped), expected, "{value}");
            assert_eq!(all(value, Quotes::Plain), expected, "{value}");
        }
        let disputed = r#"form-data; filename="a\"; name="k""#;
        assert_eq!(all(disputed, Quotes::Escaped), [("filename", r#"a\"; name="#)]);
        assert_eq!(all(disputed, Quotes::Plain), [("filename", "a\\"), ("name", "k")]);
    }

    #[test]
    fn utf_8_and_plain_ascii_are_read_alike() {
        for (content_type, with_ascii, with_more) in [
            ("application/json", true, true),
            ("application/json; charset=utf-8", true, true),
            ("application/json;charset=\"UTF-8\"", true, true),
            ("text/plain; charset=ISO-8859-1", true, false),
            ("text/plain; charset=us-ascii", true, false),
            ("application/json; charset=utf-7", false, false),
            ("application/json; charset=utf-16", false, false),
            ("application/json; charset=", false, false),
            ("application/json; charset=utf-8; charset=utf-7", false, false),
            ("application/json; CHARSET=utf-7", false, false),
            ("application/json; charset='utf-8'", false, false),
            ("application/json; x=\"; charset=utf-7\"", false, false),
            ("application/json; charset*=utf-7", false, false),
        ] {
            let both = (is_read_alike(content_type, true), is_read_alike(content_type, false));
            assert_eq!(both, (with_ascii, with_more), "{content_type}");
        }
    }
}
