//! The grammar of a key in a header.

use std::borrow::Cow;

use super::KeyFault;

/// The key in the value of a header: a quoted string (RFC 9651, 3.3.3), whose parameters are ignored, or a bare word of
/// visible ASCII without quotes and commas. `"abc"` and `abc` are the same key.
///
/// A comma outside of quotes means several keys that an intermediary has combined into one line (RFC 9110, 5.3).
pub(super) fn key(value: &[u8]) -> Result<Cow<'_, str>, KeyFault> {
    // Most keys are bare words.
    if value.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x2B | 0x2D..=0x7E)) {
        return str::from_utf8(value).map(Cow::Borrowed).map_err(|_| KeyFault::Characters);
    }
    let value = str::from_utf8(value).map_err(|_| KeyFault::Characters)?.trim_matches([' ', '\t']);
    if value.bytes().any(|byte| !matches!(byte, 0x20..=0x7E)) {
        return Err(KeyFault::Characters);
    }
    match value.strip_prefix('"') {
        Some(quoted) => {
            let (key, rest) = string(quoted)?;
            parameters(rest)?;
            Ok(key)
        }
        None if value.contains([' ', '"', ',']) => Err(KeyFault::Characters),
        None => Ok(Cow::Borrowed(value)),
    }
}

/// The string up to its closing quote, and what follows it.
fn string(text: &str) -> Result<(Cow<'_, str>, &str), KeyFault> {
    let mut unescaped = String::new();
    let mut rest = text;
    loop {
        let end = rest.find(['"', '\\']).ok_or(KeyFault::Characters)?;
        let (plain, special) = rest.split_at(end);
        if let Some(after) = special.strip_prefix('"') {
            let whole = if unescaped.is_empty() { Cow::Borrowed(plain) } else { Cow::Owned(unescaped + plain) };
            return Ok((whole, after));
        }
        let escaped =
            special.get(1..2).filter(|escaped| matches!(*escaped, "\"" | "\\")).ok_or(KeyFault::Characters)?;
        unescaped.push_str(plain);
        unescaped.push_str(escaped);
        rest = &special[2..];
    }
}

/// Nothing, or parameters up to the end of the line.
fn parameters(rest: &str) -> Result<(), KeyFault> {
    let mut rest = rest.trim_start_matches([' ', '\t']);
    if !rest.is_empty() && !rest.starts_with(';') {
        return Err(KeyFault::Characters);
    }
    while let Some(at) = rest.find(['"', ',']) {
        rest = match &rest[at..=at] {
            "\"" => string(&rest[at + 1..])?.1,
            _ => return Err(KeyFault::Characters),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quoted_and_bare_values_are_the_same_key() {
        for (value, expected) in [
            ("abc", "abc"),
            (" \tabc\t ", "abc"),
            ("\"abc\"", "abc"),
            (" \"abc\" ", "abc"),
            ("\"abc\";a=1;b", "abc"),
            ("\"abc\" ; a", "abc"),
            ("\"abc\";a=\"x,\\\"y\"", "abc"),
            ("\"a \\\"b\\\\ c, d\"", "a \"b\\ c, d"),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("a;b=c\\'{}~!", "a;b=c\\'{}~!"),
            ("", ""),
            ("\"\"", ""),
        ] {
            assert_eq!(key(value.as_bytes()).as_deref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for value in [
            "\"abc",
            "abc\"",
            "\"",
            "\"abc\\",
            "\"a\\bc\"",
            "\"abc\"x",
            "\"abc\", \"def\"",
            "\"abc\";a, \"def\"",
            "\"abc\";a=\"x",
            "a b",
            "a,b",
            "a\tb",
            "\"a\tb\"",
            "a\u{7f}",
            "\u{1}a",
            "é",
            "\"é\"",
        ] {
            assert_eq!(key(value.as_bytes()), Err(KeyFault::Characters), "{value}");
        }
        assert_eq!(key(b"a\xff"), Err(KeyFault::Characters));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = key(&value);
        }

        #[test]
        fn quoting_hides_nothing(text in "[ -~]{0,64}") {
            let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let read = key(quoted.as_bytes());
            prop_assert_eq!(read.as_deref(), Ok(&*text));
        }
    }
}
