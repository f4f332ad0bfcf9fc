//! Other spellings of a path that many backends treat as the same path.
//!
//! RFC 3986 distinguishes them, and so do routes. But some backends ignore the case of a path, or doubled slashes. Another
//! spelling must not reach such a backend unguarded. A request that no route matches is therefore looked up again in a
//! spelling without these differences.

use std::borrow::Cow;

use super::PathPattern;
use crate::uri;

/// Which bytes separate segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Separators {
    /// Only the slash. An encoded slash is a part of its segment.
    Slash,
    /// Encoded slashes, and backslashes, too.
    Any,
}

/// A path without doubled and trailing slashes, dot segments and parameters of segments (`;v=1`), in one percent-encoding.
/// The case of its letters is unchanged.
///
/// `None` for what is not a path: `*`.
pub(super) fn plain(path: &str, separators: Separators) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    // Where each segment of `out` begins.
    let mut starts = Vec::new();
    let mut segment = String::new();
    let mut in_parameters = false;
    for byte in bytes(path.strip_prefix('/')?) {
        match byte {
            (b'/', false) => end_segment(&mut out, &mut starts, &mut segment, &mut in_parameters),
            (b'/' | b'\\', _) if separators == Separators::Any => {
                end_segment(&mut out, &mut starts, &mut segment, &mut in_parameters);
            }
            (b';', _) => in_parameters = true,
            _ if in_parameters => {}
            (byte, _) => push(&mut segment, byte),
        }
    }
    end_segment(&mut out, &mut starts, &mut segment, &mut in_parameters);
    if out.is_empty() {
        out.push('/');
    }
    Some(out)
}

/// The bytes of a path, and whether each one was encoded.
fn bytes(path: &str) -> impl Iterator<Item = (u8, bool)> {
    let (text, mut at) = (path.as_bytes(), 0);
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        let escaped = uri::escaped_byte(text, at);
        at += if escaped.is_some() { 3 } else { 1 };
        Some((escaped.unwrap_or(byte), escaped.is_some()))
    })
}

/// Characters that a segment may contain are literal, all others encoded (RFC 3986, 3.3).
fn push(segment: &mut String, byte: u8) {
    // The slash separates segments, the semicolon parameters from a segment.
    let stands = uri::is_path_byte(byte) && !b"/;".contains(&byte);
    if stands { segment.push(char::from(byte)) } else { uri::push_escaped(segment, byte) }
}

fn end_segment(out: &mut String, starts: &mut Vec<usize>, segment: &mut String, in_parameters: &mut bool) {
    match segment.as_str() {
        "" | "." => {}
        ".." => out.truncate(starts.pop().unwrap_or(0)),
        segment => {
            starts.push(out.len());
            out.push('/');
            out.push_str(segment);
        }
    }
    segment.clear();
    *in_parameters = false;
}

/// Every plain spelling of a request's path, the closest one first. `path` is as received, `normal` in normal form.
pub(super) fn spellings<'a>(path: &'a str, normal: &'a str) -> impl Iterator<Item = String> {
    let faithful = plain(normal, Separators::Slash);
    // Otherwise both readings are the same.
    let ambiguous = path.contains(['%', '\\']) || path != normal;
    let other = move || plain(path, Separators::Any).filter(|_| ambiguous);
    let behind_host = without_host(path);
    let behind_host = [Separators::Slash, Separators::Any].into_iter().filter_map(move |separators| {
        let path = behind_host.as_deref()?;
        plain(path, separators)
    });
    faithful.into_iter().chain(std::iter::once_with(other).flatten()).chain(behind_host)
}

/// The path of a target that starts with two or more slashes. Backends that parse it as a reference (RFC 3986, 4.2; PHP's
/// `parse_url`; with backslashes, WHATWG URL in Node) take its first segment as the host.
fn without_host(path: &str) -> Option<Cow<'_, str>> {
    let host = path.trim_start_matches(['/', '\\']);
    if path.len() - host.len() < 2 {
        return None;
    }
    let path = host.find(['/', '\\']).map_or("/", |end| &host[end..]);
    Some(match path.strip_prefix('\\') {
        Some(rest) => Cow::Owned(format!("/{rest}")),
        None => Cow::Borrowed(path),
    })
}

/// A route's path in the form that other spellings are compared with.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// For the router: the plain path, with its literal parts in lower case.
    pub(super) folded: String,
    /// Bytes of `folded` before each parameter, counted from the parameter before it.
    gaps: Vec<usize>,
    /// The literal parts between the parameters, in the route's own spelling.
    literals: Vec<String>,
}

impl Pattern {
    /// Reads `/orders`, `/tenants/{tenant}/orders`, `/v1/{*rest}`.
    pub(super) fn new(path: &str) -> Option<Self> {
        let pattern = PathPattern::parse(path)?;
        // A path cannot contain DEL.
        let folded = plain(&pattern.literals.join("\u{7f}"), Separators::Slash)?.to_ascii_lowercase();
        let literals = || folded.split("%7f");
        let gaps = literals().map(str::len).collect();
        let own = pattern.literals.iter().map(|literal| (*literal).to_owned()).collect();
        Some(Self { folded: pattern.with_parameters(literals()), gaps, literals: own })
    }

    /// The values of the parameters in their original case. `lengths` are those that the router matched.
    pub(super) fn values(&self, plain: &str, lengths: impl Iterator<Item = usize>) -> Vec<String> {
        let mut rest = plain;
        let value = |(gap, length): (&usize, usize)| {
            let (value, after) = rest.get(*gap..)?.split_at_checked(length)?;
            rest = after;
            Some(value.to_owned())
        };
        self.gaps.iter().zip(lengths).map_while(value).collect()
    }

    /// The route's own spelling, with these values.
    pub(super) fn canonical(&self, values: &[String]) -> String {
        let after = values.iter().map(String::as_str).chain(std::iter::once(""));
        self.literals.iter().zip(after).flat_map(|(literal, value)| [literal, value]).collect()
    }
}

/// How the router looks it up.
pub(super) fn folded(plain: &str) -> Cow<'_, str> {
    if plain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(plain.to_ascii_lowercase())
    } else {
        Cow::Borrowed(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_count_is_gone() {
        use Separators::{Any, Slash};
        for (path, separators, expected) in [
            ("/orders", Slash, "/orders"),
            ("/", Slash, "/"),
            ("//", Slash, "/"),
            ("//Orders//7/", Slash, "/Orders/7"),
            ("/a/./b/../c", Slash, "/a/c"),
            ("/../a", Slash, "/a"),
            ("/a//../b", Slash, "/b"),
            ("/orders;v=1/7;w", Slash, "/orders/7"),
            ("/x/..;/orders", Slash, "/orders"),
            ("/a%3Bb", Slash, "/a"),
            ("/a%2Fb", Slash, "/a%2Fb"),
            ("/a%2fb", Any, "/a/b"),
            ("/a\\b%5c%5Cc", Any, "/a/b/c"),
            ("/a\\b", Slash, "/a%5Cb"),
            ("/x%2f..%2forders", Any, "/orders"),
            ("/a%3Ab%40c%20d", Slash, "/a:b@c%20d"),
            ("/%6f%", Slash, "/o%25"),
            ("/é", Slash, "/%C3%A9"),
        ] {
            assert_eq!(plain(path, separators).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(plain("*", Slash), None);
        assert_eq!(plain("", Slash), None);
    }

    #[test]
    fn two_slashes_may_begin_a_host() {
        for (path, expected) in [
            ("//x/orders", Some("/orders")),
            ("//x:80/orders", Some("/orders")),
            ("//user:password@x:80/Orders/7", Some("/Orders/7")),
            ("///x/orders", Some("/orders")),
            ("/\\x\\orders", Some("/orders")),
            ("//orders", Some("/")),
            ("//", Some("/")),
            ("/x/orders", None),
            ("/", None),
            ("*", None),
        ] {
            assert_eq!(without_host(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_pattern_puts_parameters_into_the_route_s_own_spelling() {
        for (pattern, folded, plain, lengths, canonical) in [
            ("/Orders/", "/orders", "/ORDERS", &[][..], "/Orders/"),
            ("/tenants/{t}/orders", "/tenants/{t}/orders", "/Tenants/Acme/ORDERS", &[4], "/tenants/Acme/orders"),
            ("/a/{x}.JSON/{y}/", "/a/{x}.json/{y}", "/A/B.json/C", &[1, 1], "/a/B.JSON/C/"),
            ("/v1/{*rest}", "/v1/{*rest}", "/V1/A/b", &[3], "/v1/A/b"),
            ("/caf%C3%A9/{x}", "/caf%c3%a9/{x}", "/Caf%C3%A9/y", &[1], "/caf%C3%A9/y"),
        ] {
            let pattern = Pattern::new(pattern).expect("a pattern");
            assert_eq!(pattern.folded, folded);
            assert_eq!(pattern.canonical(&pattern.values(plain, lengths.iter().copied())), canonical);
        }
    }
}
