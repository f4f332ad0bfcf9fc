//! A route's `host`.

use std::net::Ipv6Addr;

use super::item::Item;

/// A host name in the form in which requests are compared: lower case, without port.
pub(super) fn host(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let lower = text.value.to_ascii_lowercase();
    // The trailing dot of a fully qualified name is ignored.
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
