//! Addresses: where to listen, and the backend.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::uri::Authority;

use super::item::{Item, Text};

/// `"127.0.0.1:8080"`
pub(super) fn listen(item: &Item<'_>) -> Option<SocketAddr> {
    let text = item.text()?;
    read_listen(item, &text)
}

/// The same, or `"off"`.
pub(super) fn listen_or_off(item: &Item<'_>) -> Option<Option<SocketAddr>> {
    let text = item.text()?;
    if text.value == "off" { Some(None) } else { read_listen(item, &text).map(Some) }
}

fn read_listen(item: &Item<'_>, text: &Text) -> Option<SocketAddr> {
    if text.value.starts_with("unix:") {
        return item.not_built("listening on a Unix socket is", "listen on an address: \"127.0.0.1:8080\"");
    }
    match text.value.parse() {
        Ok(address) => Some(address),
        Err(_) => item.refuse(
            format!("{text} is not an address to listen on"),
            "an IP address and a port are right: \"127.0.0.1:8080\", or \"0.0.0.0:8080\" for all interfaces",
        ),
    }
}

/// `"http://host:port"`
pub(super) fn upstream(item: &Item<'_>) -> Option<Authority> {
    let advice = "name host and port, and nothing else: \"http://127.0.0.1:3000\"";
    let text = item.text()?;
    if text.value.starts_with("unix:") {
        return item.not_built("an upstream on a Unix socket is", "let the backend listen on an address");
    }
    let Some((scheme, rest)) = text.value.split_once("://") else {
        return item.refuse("upstream.url does not say how to speak to the backend", advice);
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => {
            return item.not_built("https to the upstream is", "use a backend that takes plain HTTP: \"http://…\"");
        }
        _ => return item.refuse("upstream.url is not an http:// address", advice),
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return item.refuse("upstream.url holds a user or a password", advice);
    }
    if rest.contains(['/', '?', '#']) {
        let advice = "requests keep their own path: name host and port only, \"http://127.0.0.1:3000\"";
        return item.refuse("upstream.url holds more than host and port", advice);
    }
    let names_port = rest.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let is_right = |authority: &Authority| {
        let port = authority.port_u16();
        !authority.host().is_empty() && port != Some(0) && port.is_some() == names_port
    };
    match rest.parse() {
        Ok(authority) if is_right(&authority) => Some(authority),
        _ => item.refuse("upstream.url has no valid host and port", advice),
    }
}

/// The address of a backend on this very machine, if that is plain to see.
pub(super) fn local(authority: &Authority) -> Option<SocketAddr> {
    let ip = match authority.host().trim_matches(['[', ']']) {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host.parse().ok()?,
    };
    let port = authority.port_u16().unwrap_or(80);
    (ip.is_loopback() || ip.is_unspecified()).then_some(SocketAddr::new(ip, port))
}
