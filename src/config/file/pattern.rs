//! What a route matches: `path` and `host`.

use std::net::Ipv6Addr;

use super::item::Item;
use super::uri::normalised;

/// A path pattern: a normalised path, some of its segments `{param}`, the last one perhaps `{*rest}`.
pub(super) fn path(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let path = &text.value;
    let right = |right: &str| if text.is_literal() { format!(": {right:?}") } else { String::new() };
    if !path.starts_with('/') {
        let advice = format!("paths begin with a slash{}", right(&format!("/{path}")));
        return item.refuse(format!("{text} is not a path"), advice);
    }
    if let Some(end) = path.find(['?', '#']) {
        let advice = format!("a route goes by the path alone{}", right(&path[..end]));
        return item.refuse(format!("{text} is more than a path"), advice);
    }
    let Some(plain) = normalised_pattern(path) else {
        return item.refuse(format!("the braces in {text} do not fit"), BRACES);
    };
    if plain != *path {
        let advice = format!("paths are compared in normalised form{}", right(&plain));
        return item.refuse(format!("{text} would never match"), advice);
    }
    Some(text.value)
}

/// What braces are for.
pub(super) const BRACES: &str = "a segment may hold one parameter, as {order}, and a path may end in {*rest}";

/// The pattern with everything outside its braces normalised. `None` when the braces are not those of parameters.
fn normalised_pattern(pattern: &str) -> Option<String> {
    // Parameters keep out of the way as characters that the normal form leaves alone.
    let mut literal = String::new();
    let mut parameters = Vec::new();
    let mut rest = pattern;
    while let Some(open) = rest.find(['{', '}']) {
        let (before, tail) = rest.split_at(open);
        let (name, after) = tail.strip_prefix('{')?.split_once('}')?;
        let word = name.strip_prefix('*').unwrap_or(name);
        if word.is_empty() || !word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            return None;
        }
        parameters.push(name);
        literal.push_str(before);
        literal.push_str(PLACEHOLDER);
        rest = after;
    }
    literal.push_str(rest);
    let plain = normalised(&literal);
    let mut pieces = plain.split(PLACEHOLDER);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for (name, piece) in parameters.iter().zip(pieces) {
        out.push_str(&format!("{{{name}}}{piece}"));
    }
    Some(out)
}

/// The names of a pattern's parameters.
pub(super) fn parameters(pattern: &str) -> impl Iterator<Item = &str> {
    let names = pattern.split('{').skip(1).filter_map(|tail| tail.split('}').next());
    names.map(|name| name.trim_start_matches('*'))
}

/// Unreserved, so that it stays as it is; and nobody's path.
const PLACEHOLDER: &str = "~onlyonce~parameter~";

/// A host's name as requests are compared: lower case, without port.
pub(super) fn host(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let lower = text.value.to_ascii_lowercase();
    // The dot of a fully qualified name is not compared.
    let host = lower.strip_suffix('.').unwrap_or(&lower);
    let address = |host: &str| host.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if address(host).is_some() || (!host.is_empty() && host.chars().all(name)) {
        return Some(host.to_owned());
    }
    let advice = match host.rsplit_once(':') {
        Some((before, port)) if text.is_literal() && before.chars().all(name) && port.parse::<u16>().is_ok() => {
            format!("ports are not compared: {before:?}")
        }
        _ => "one name without scheme, port, path or wildcard: \"api.example.com\"".to_owned(),
    };
    item.refuse(format!("{text} is not the name of a host"), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_literal_parts_of_a_pattern_are_normalised() {
        let same = |pattern: &str| assert_eq!(normalised_pattern(pattern).as_deref(), Some(pattern));
        same("/orders");
        same("/tenants/{tenant}/orders/{id}.json");
        same("/v1/{*rest}");
        assert_eq!(normalised_pattern("/%61/{b}/../c").as_deref(), Some("/a/c"));
        assert_eq!(normalised_pattern("/{a}/{b}/é").as_deref(), Some("/{a}/{b}/%C3%A9"));
    }

    #[test]
    fn braces_hold_one_name() {
        for pattern in ["/{", "/}", "/{}", "/{a", "/{{a}}", "/{a b}", "/{*}", "/{a{b}}"] {
            assert_eq!(normalised_pattern(pattern), None, "{pattern}");
        }
    }
}
