use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method};

use crate::config::is_same_field;

/// The path by which routes match and fingerprints are made: percent-encoded unreserved characters are decoded, the
/// hex of all other escapes is upper case (RFC 3986, 6.2.2.1 and 6.2.2.2), dot segments are gone (5.2.4). `%2F` stays
/// what it is: it is not a separator.
///
/// A percent sign that starts no escape becomes `%25`; else what follows it could turn into one, and the result would
/// not be normal.
pub fn normalise_path(path: &str) -> Cow<'_, str> {
    match normalise_escapes(path) {
        Cow::Borrowed(path) => remove_dot_segments(path),
        Cow::Owned(path) => Cow::Owned(remove_dot_segments(&path).into_owned()),
    }
}

/// What stands for a parameter of a path in its normal form, for those who compare it as a value: the characters that a
/// segment may hold (RFC 3986, 3.3) stand as they are, all others are encoded. `a:b` and `a%3Ab` are two paths, and a
/// backend reads the same from both. `%2F` stays what it is.
pub(super) fn normalise_value(value: &str) -> Cow<'_, str> {
    let stands = |byte: u8| is_unreserved(byte) || b"!$&'()*+,;=:@/".contains(&byte);
    if value.bytes().all(stands) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len());
    let mut at = 0;
    while let Some(&byte) = value.as_bytes().get(at) {
        let escaped = if byte == b'%' { escaped_byte(value, at) } else { None };
        match escaped.unwrap_or(byte) {
            b'/' if escaped.is_some() => out.push_str("%2F"),
            byte if stands(byte) => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
        at += if escaped.is_some() { 3 } else { 1 };
    }
    Cow::Owned(out)
}

/// The host of a `Host` value (RFC 9110, 7.2): lower case, without port and without the dot of a fully qualified name.
/// An IPv6 literal keeps its brackets. `None` for what is not a host (RFC 3986, 3.2.2).
pub fn normalise_host(value: &str) -> Option<Cow<'_, str>> {
    plain_host(value).map(Cow::Borrowed).or_else(|| any_host(value))
}

/// What most requests name: a host in lower case that has nothing to be taken off but a port.
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

/// Fields by which a client that can send GET and POST only asks for another method.
const OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// Whether a field asks for another method, in any spelling.
pub fn is_override(name: &HeaderName) -> bool {
    OVERRIDES.iter().any(|known| is_same_field(known, name))
}

/// The methods that a backend may take instead of the request's own, in upper case as backends read them.
pub fn overriding_methods(headers: &HeaderMap) -> Vec<Method> {
    let mut fields: Vec<&HeaderName> = headers.keys().filter(|name| is_override(name)).collect();
    // The first one counts in a fingerprint, in whatever order they came.
    fields.sort_by_key(|name| (OVERRIDES.iter().position(|known| is_same_field(known, name)), name.as_str()));
    let lines = fields.into_iter().flat_map(|name| headers.get_all(name));
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    names.filter_map(|name| Method::from_bytes(&name.trim_ascii().to_ascii_uppercase()).ok()).collect()
}

/// A method as backends take it that do not mind its case.
pub fn normalise_method(method: &Method) -> Method {
    if !method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
        return method.clone();
    }
    Method::from_bytes(method.as_str().to_ascii_uppercase().as_bytes()).unwrap_or_else(|_| method.clone())
}

fn normalise_escapes(path: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut kept = 0;
    for (at, _) in path.match_indices('%') {
        let mut normal = [0; 3];
        let (written, normal) = match escaped_byte(path, at) {
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

fn escaped_byte(path: &str, at: usize) -> Option<u8> {
    let digits = path.as_bytes().get(at + 1..at + 3)?;
    let value = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(value(digits[0])? * 16 + value(digits[1])?).ok()
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

/// RFC 3986, 3.2.2, `reg-name`.
fn is_in_name(byte: u8) -> bool {
    is_unreserved(byte) || b"%!$&'()*+,;=".contains(&byte)
}

/// RFC 3986, 3.2.2, `IP-literal`.
fn is_in_literal(byte: u8) -> bool {
    is_unreserved(byte) || b":!$&'()*+,;=".contains(&byte)
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
    fn a_method_may_be_overridden_in_several_ways() {
        let mut headers = HeaderMap::new();
        assert_eq!(overriding_methods(&headers), Vec::<Method>::new());
        for (name, value) in [("x-method-override", "delete"), ("x-http-method-override", "PUT, not a method")] {
            headers.append(name, http::HeaderValue::from_static(value));
        }
        assert_eq!(overriding_methods(&headers), [Method::PUT, Method::DELETE]);
    }

    /// The routes that other spellings are tried on.
    fn routes() -> crate::config::Routes {
        let mut text = "[upstream]\nurl = \"http://b\"\n[store]\nurl = \"memory:\"\n".to_owned();
        for (name, path) in
            [("orders", "/orders"), ("lines", "/tenants/{tenant}/Orders/{order}/lines"), ("v1", "/v1/{*rest}")]
        {
            text.push_str(&format!("[[route]]\nname = \"{name}\"\npath = \"{path}\"\nscope = []\n"));
        }
        text.push_str("[[route]]\nname = \"off\"\npath = \"/orders/off\"\nscope = []\nmode = \"off\"\n");
        crate::config::parse("test.toml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}")).routes
    }

    /// The route that guards a path, and the path by which requests are compared.
    fn found(routes: &crate::config::Routes, path: &str) -> Option<(String, String)> {
        let normal = normalise_path(path);
        let target =
            crate::config::RouteTarget { method: &Method::POST, overriding: &[], host: None, path, normal: &normal };
        let found = routes.find(&target)?;
        let path = found.respelled.unwrap_or_else(|| normal.to_string());
        Some((found.rule.name.to_string(), path))
    }

    /// One segment, in one of the ways in which a backend may be asked for it. Letters of parameters stay as they are.
    fn respelled(segment: &str, is_literal: bool, ways: &mut impl Iterator<Item = u8>) -> String {
        let mut out = String::new();
        for c in segment.chars() {
            match ways.next() {
                Some(0..=1) if c.is_ascii_alphanumeric() => out.push_str(&format!("%{:02x}", u32::from(c))),
                Some(2..=4) if is_literal => {
                    out.push(if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() });
                }
                _ => out.push(c),
            }
        }
        match ways.next() {
            Some(0) => out.push_str(";jsessionid=A1"),
            Some(1) => out.push_str("%3Bv=1"),
            _ => {}
        }
        out
    }

    proptest! {
        #[test]
        fn no_spelling_of_a_guarded_path_is_unguarded(
            tenant in "[a-zA-Z0-9:@+_-]{1,6}",
            which in 0..3_usize,
            ways in proptest::collection::vec(0..12_u8, 80),
        ) {
            let segments = [
                vec![("orders", true)],
                vec![("tenants", true), (tenant.as_str(), false), ("Orders", true), ("A7", false), ("lines", true)],
                vec![("v1", true), (tenant.as_str(), false), ("B", false)],
            ][which].clone();
            let own: String = segments.iter().map(|(segment, _)| format!("/{segment}")).collect();
            let mut ways = ways.into_iter();
            let mut other = String::new();
            for (segment, is_literal) in &segments {
                let separator = match ways.next() {
                    Some(0) => "//",
                    Some(1) => "%2f",
                    Some(2) => "\\",
                    Some(3) => "/./",
                    Some(4) => "/x/../",
                    Some(5) => "/x/..;y/",
                    _ => "/",
                };
                // The first one is a slash in any request.
                other.push_str(if other.is_empty() && !separator.starts_with('/') { "/" } else { separator });
                other.push_str(&respelled(segment, *is_literal, &mut ways));
            }
            if ways.next() == Some(0) {
                other.push('/');
            }
            let routes = routes();
            let (expected, got) = (found(&routes, &own), found(&routes, &other));
            let route = |found: &Option<(String, String)>| found.as_ref().map(|(route, _)| route.clone());
            prop_assert!(expected.is_some() && route(&expected) == route(&got), "{own} {other} {got:?}");
            // What a route matches as it is stays as it is.
            let as_it_is = normalise_path(&other) == got.as_ref().map_or("", |(_, path)| path);
            // What separates the segments of a `{*rest}` is a part of it.
            if !as_it_is && which < 2 {
                prop_assert_eq!(expected, got, "{}", other);
            }
        }
    }

    #[test]
    fn an_exact_match_wins_and_may_opt_out() {
        let routes = routes();
        let of = |path: &str| found(&routes, path).map(|(route, path)| format!("{route} {path}"));
        for (path, expected) in [
            ("/orders", Some("orders /orders")),
            ("/ORDERS/", Some("orders /orders")),
            ("/orders/off", Some("off /orders/off")),
            ("/orders/OFF", None),
            ("/orders/7", None),
            ("/Tenants/a%2Fb/orders/7/LINES/", Some("lines /tenants/a%2Fb/Orders/7/lines")),
            ("/tenants/a%3Ab/Orders/7/lines", Some("lines /tenants/a%3Ab/Orders/7/lines")),
            ("*", None),
        ] {
            assert_eq!(of(path).as_deref(), expected, "{path}");
        }
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
