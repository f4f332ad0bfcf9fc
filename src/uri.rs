//! Percent-encoding and normal forms of paths and hosts (RFC 3986).
//!
//! Paths are normalised only here, so that configuration, routes and fingerprints agree.

use std::borrow::Cow;

/// The path for matching routes and for fingerprints: percent-encoded unreserved characters are decoded, the hex of all
/// other escapes is upper case (RFC 3986, 6.2.2.1 and 6.2.2.2), dot segments are removed (5.2.4). `%2F` is kept: it is
/// not a separator.
///
/// A percent sign that starts no escape becomes `%25`; otherwise the result could contain a new escape, and would not
/// be normal.
pub fn normalise_path(path: &str) -> Cow<'_, str> {
    match normalise_escapes(path) {
        Cow::Borrowed(path) => remove_dot_segments(path),
        Cow::Owned(path) => Cow::Owned(remove_dot_segments(&path).into_owned()),
    }
}

/// The value of a path parameter for comparisons: characters that are allowed in a segment (RFC 3986, 3.3) are literal,
/// all others encoded. `a:b` and `a%3Ab` are two paths with the same value for a backend. `%2F` is kept.
pub fn normalise_value(value: &str) -> Cow<'_, str> {
    if value.bytes().all(is_path_byte) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len());
    let mut at = 0;
    while let Some(&byte) = value.as_bytes().get(at) {
        let escaped = escaped_byte(value.as_bytes(), at);
        match escaped.unwrap_or(byte) {
            b'/' if escaped.is_some() => out.push_str("%2F"),
            byte if is_path_byte(byte) => out.push(char::from(byte)),
            byte => push_escaped(&mut out, byte),
        }
        at += if escaped.is_some() { 3 } else { 1 };
    }
    Cow::Owned(out)
}

/// Escapes the characters that are not allowed in a path, and keeps all others.
pub fn escape_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte == b'%' || is_path_byte(byte) { out.push(char::from(byte)) } else { push_escaped(&mut out, byte) }
    }
    out
}

/// Escapes all but the unreserved characters (RFC 3986, 2.3).
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => push_escaped(&mut out, byte),
        }
    }
    out
}

/// Every `%XX` replaced by its byte. `None` if a percent sign starts no escape.
pub fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let (byte, length) = if byte == b'%' { (escaped_byte(text, at)?, 3) } else { (byte, 1) };
        out.push(byte);
        at += length;
    }
    Some(out)
}

/// The byte that the escape at `at` stands for, if there is one.
pub fn escaped_byte(text: &[u8], at: usize) -> Option<u8> {
    let &[b'%', high, low] = text.get(at..at + 3)? else { return None };
    let value = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(value(high)? * 16 + value(low)?).ok()
}

/// `%XX`, with capital digits (RFC 3986, 2.1).
pub fn push_escaped(out: &mut String, byte: u8) {
    out.push('%');
    for digit in [byte >> 4, byte & 15] {
        out.push(char::from_digit(digit.into(), 16).unwrap_or_default().to_ascii_uppercase());
    }
}

/// Appends a text of which only unreserved characters are literal (RFC 3986, 2.3), so that it is one value wherever it
/// stands.
pub fn push_component(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if is_unreserved(byte) { out.push(char::from(byte)) } else { push_escaped(out, byte) }
    }
}

/// The host of a `Host` value (RFC 9110, 7.2): lower case, without port and without the dot of a fully qualified name.
/// An IPv6 literal keeps its brackets. `None` for what is not a host (RFC 3986, 3.2.2).
pub fn normalise_host(value: &str) -> Option<Cow<'_, str>> {
    plain_host(value).map(Cow::Borrowed).or_else(|| any_host(value))
}

/// The common case: a host in lower case, with or without a port.
fn plain_host(value: &str) -> Option<&str> {
    let stands = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let (host, port) = value.split_at(value.bytes().position(|byte| !stands(byte)).unwrap_or(value.len()));
    let is_port = port.is_empty()
        || port
            .as_bytes()
            .split_first()
            .is_some_and(|(colon, digits)| *colon == b':' && digits.iter().all(u8::is_ascii_digit));
    (is_port && !host.is_empty() && !host.ends_with('.')).then_some(host)
}

fn any_host(value: &str) -> Option<Cow<'_, str>> {
    let value = value.trim_matches([' ', '\t']);
    let (host, port) = match value.find(']') {
        Some(end) => value.split_at(end + 1),
        None => value.split_at(value.find(':').unwrap_or(value.len())),
    };
    let port_is_right =
        port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    let host_is_right = match host.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']').is_some_and(|l| !l.is_empty() && l.bytes().all(is_in_literal)),
        None => host.bytes().all(is_in_name),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || !host_is_right || !port_is_right {
        None
    } else if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Some(Cow::Owned(host.to_ascii_lowercase()))
    } else {
        Some(Cow::Borrowed(host))
    }
}

fn normalise_escapes(path: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut kept = 0;
    for (at, _) in path.match_indices('%') {
        let mut normal = [0; 3];
        let (written, normal) = match escaped_byte(path.as_bytes(), at) {
            Some(byte) if is_unreserved(byte) => (3, char::from(byte).encode_utf8(&mut normal)),
            Some(_) if !path[at..at + 3].bytes().any(|b| b.is_ascii_lowercase()) => continue,
            Some(_) => {
                normal.copy_from_slice(&path.as_bytes()[at..at + 3]);
                normal.make_ascii_uppercase();
                (3, std::str::from_utf8_mut(&mut normal).expect("an escape is ASCII"))
            }
            None => {
                normal.copy_from_slice(b"%25");
                (1, std::str::from_utf8_mut(&mut normal).expect("an escape is ASCII"))
            }
        };
        out.push_str(&path[kept..at]);
        out.push_str(normal);
        kept = at + written;
    }
    if kept == 0 {
        return Cow::Borrowed(path);
    }
    out.push_str(&path[kept..]);
    Cow::Owned(out)
}

/// RFC 3986, 5.2.4, for a path that starts with a slash; any other (`*`) has no segments.
fn remove_dot_segments(path: &str) -> Cow<'_, str> {
    let is_dots = |segment: &str| segment == "." || segment == "..";
    let Some(segments) = path.strip_prefix('/').filter(|path| path.split('/').any(is_dots)) else {
        return Cow::Borrowed(path);
    };
    let mut kept = Vec::new();
    for segment in segments.split('/') {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    // A path that ends in a dot segment names a folder.
    if segments.rsplit('/').next().is_some_and(is_dots) {
        kept.push("");
    }
    Cow::Owned(format!("/{}", kept.join("/")))
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// `pchar` or a slash (RFC 3986, 3.3).
pub fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@/".contains(&byte)
}

/// RFC 3986, 3.2.2, `reg-name`.
fn is_in_name(byte: u8) -> bool {
    is_unreserved(byte) || b"%!$&'()*+,;=".contains(&byte)
}

/// RFC 3986, 3.2.2, `IP-literal`.
fn is_in_literal(byte: u8) -> bool {
    is_unreserved(byte) || b":!$&'()*+,;=".contains(&byte)
}

/// Whether the path of a target has a segment that is `.` or `..`, which a server may resolve (RFC 3986, 5.2.4).
pub fn has_dot_segment(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_take_their_normal_form() {
        for (path, normal) in [
            ("/orders", "/orders"),
            ("/", "/"),
            ("", ""),
            ("*", "*"),
            ("/%6frders", "/orders"),
            ("/%7Euser/%2d%2E%5f", "/~user/-._"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a/b/c/./../../g", "/a/g"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/a//../b", "/a/b"),
            ("/a//b/", "/a//b/"),
            ("//..", "/"),
            ("/.hidden/..x/...", "/.hidden/..x/..."),
            ("/%", "/%25"),
            ("/%4", "/%254"),
            ("/%zz", "/%25zz"),
            ("/%%34%31", "/%2541"),
            ("/%é", "/%25é"),
        ] {
            assert_eq!(normalise_path(path), normal, "{path}");
        }
    }

    #[test]
    fn values_of_parameters_have_one_spelling() {
        for (value, normal) in [
            ("acme", "acme"),
            ("", ""),
            ("a:b", "a:b"),
            ("a%3Ab%3ac", "a:b:c"),
            ("%C3%A9", "%C3%A9"),
            ("é", "%C3%A9"),
            ("a%2Fb/c", "a%2Fb/c"),
            ("a%2fb", "a%2Fb"),
            ("a%252Fb", "a%252Fb"),
            ("a b%20c%", "a%20b%20c%25"),
        ] {
            assert_eq!(normalise_value(value), normal, "{value}");
            assert_eq!(normalise_value(&normalise_value(value)), normal, "{value}");
        }
    }

    #[test]
    fn a_normal_path_is_not_copied() {
        for path in ["/orders", "/a%2Fb/c%C3%A9", "/a//b/", "/.x"] {
            assert!(matches!(normalise_path(path), Cow::Borrowed(_)), "{path}");
        }
    }

    #[test]
    fn hosts_compare_without_case_port_and_last_dot() {
        for (value, host) in [
            ("example.com", Some("example.com")),
            ("API.Example.com:8443", Some("api.example.com")),
            (" example.com. ", Some("example.com")),
            ("example.com.:80", Some("example.com")),
            ("example.com:", Some("example.com")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[2001:DB8::1]:8080", Some("[2001:db8::1]")),
            ("[::1]", Some("[::1]")),
            ("", None),
            (".", None),
            (":80", None),
            ("a:b", None),
            ("a:80:90", None),
            ("::1", None),
            ("[::1", None),
            ("[]", None),
            ("[::1]x", None),
            ("x[::1]", None),
            ("a b", None),
            ("user@example.com", None),
            ("example.com/path", None),
        ] {
            assert_eq!(normalise_host(value).as_deref(), host, "{value}");
        }
    }

    #[test]
    fn percent_decoding_refuses_what_is_cut_short() {
        let decoded = |text: &str| percent_decode(text.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok());
        assert_eq!(decoded("a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(decoded("%C3%A9").as_deref(), Some("é"));
        assert_eq!(decoded("a%2"), None);
        assert_eq!(decoded("%zz"), None);
        assert_eq!(decoded("%ff"), None);
    }

    #[test]
    fn a_path_of_any_characters_has_a_normal_form_that_a_request_may_have() {
        let normalised = |path: &str| normalise_path(&escape_path(path)).into_owned();
        assert_eq!(normalised("/orders"), "/orders");
        assert_eq!(normalised("/a/./b/../c"), "/a/c");
        assert_eq!(normalised("/a/.."), "/");
        assert_eq!(normalised("/%6Frders/%2f"), "/orders/%2F");
        assert_eq!(normalised("/%2e%2E/x"), "/x");
        assert_eq!(normalised("/é b"), "/%C3%A9%20b");
        assert_eq!(normalised("/100%"), "/100%25");
        assert_eq!(normalised("/a//b/"), "/a//b/");
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(path in "/([./%a-fA-F0-9é]|%2[eE]|%[0-9a-f]{2}){0,24}") {
            let once = normalise_path(&path).into_owned();
            prop_assert!(matches!(normalise_path(&once), Cow::Borrowed(_)), "{path} {once}");
        }

        #[test]
        fn a_plain_host_is_what_any_host_would_be(text in "[a-c0-1.:A\\-\\[ ]{0,6}") {
            if let Some(host) = plain_host(&text) {
                prop_assert!(matches!(any_host(&text), Some(Cow::Borrowed(any)) if any == host), "{text}");
            }
        }

        #[test]
        fn any_text_has_a_normal_form(text in "\\PC{0,40}") {
            normalise_path(&text);
            normalise_host(&text);
        }
    }
}
