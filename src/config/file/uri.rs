//! The little of RFC 3986 that a configuration needs.

/// Every `%XX` replaced by its byte. `None` when one is cut short or the result is not UTF-8.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            bytes.push(hex(digits)?);
            rest = tail;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// `path` as RFC 3986, 6.2.2 has it: unreserved characters are not encoded, hexadecimal digits are capital, and dot
/// segments are gone. Characters that no path may hold become encoded.
pub(super) fn normalised(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match tail.split_at_checked(2).and_then(|(digits, tail)| Some((hex(digits)?, tail))) {
            Some((decoded, tail)) if byte == b'%' => {
                rest = tail;
                if is_unreserved(decoded) { out.push(char::from(decoded)) } else { encode(&mut out, decoded) }
            }
            _ if is_path_byte(byte) => out.push(char::from(byte)),
            _ => encode(&mut out, byte),
        }
    }
    without_dot_segments(&out)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match digits {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    }
}

fn encode(out: &mut String, byte: u8) {
    out.push_str(&format!("%{byte:02X}"));
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// `pchar` or `/`, RFC 3986, 3.3.
fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@/".contains(&byte)
}

/// RFC 3986, 5.2.4, for an absolute path.
fn without_dot_segments(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_dots = false;
    for segment in path.split('/').skip(1) {
        ends_in_dots = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    if ends_in_dots {
        segments.push("");
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding_refuses_what_is_cut_short() {
        assert_eq!(percent_decoded("a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(percent_decoded("%C3%A9").as_deref(), Some("é"));
        assert_eq!(percent_decoded("a%2"), None);
        assert_eq!(percent_decoded("%zz"), None);
        assert_eq!(percent_decoded("%ff"), None);
    }

    #[test]
    fn paths_are_normalised() {
        assert_eq!(normalised("/orders"), "/orders");
        assert_eq!(normalised("/a/./b/../c"), "/a/c");
        assert_eq!(normalised("/a/.."), "/");
        assert_eq!(normalised("/%6Frders/%2f"), "/orders/%2F");
        assert_eq!(normalised("/%2e%2E/x"), "/x");
        assert_eq!(normalised("/é b"), "/%C3%A9%20b");
        assert_eq!(normalised("/100%"), "/100%25");
        assert_eq!(normalised("/a//b/"), "/a//b/");
    }
}
