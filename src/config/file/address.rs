//! Addresses: where to listen, and the backend.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use http::uri::Authority;
use ipnet::IpNet;

use super::super::Listen;
use super::item::{Item, Text};
use crate::tls;

/// `"127.0.0.1:8080"`, or `"unix:/run/onlyonce.sock"`
pub(super) fn listen(item: &Item<'_>) -> Option<Listen> {
    let text = item.text_like("an address and a port, in quotes: \"127.0.0.1:8080\"")?;
    match text.value.strip_prefix("unix:") {
        Some(path) => read_socket(item, &text, path).map(Listen::Unix),
        None => read_listen(item, &text).map(Listen::Tcp),
    }
}

/// The longest path of a Unix socket on Linux, without its zero byte (unix(7)).
const LONGEST: usize = 107;

fn read_socket(item: &Item<'_>, text: &Text, path: &str) -> Option<PathBuf> {
    let right = "the whole path of a socket is right, in a folder that is there: \"unix:/run/onlyonce.sock\"";
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return item.refuse(format!("{text} does not name a Unix socket"), right);
    }
    if path.len() > LONGEST {
        let message = format!("the path of this socket has {} bytes, and the system takes {LONGEST}", path.len());
        return item.refuse(message, "choose a shorter one, such as \"unix:/run/onlyonce.sock\"");
    }
    Some(PathBuf::from(path))
}

/// An address, or `"off"`.
pub(super) fn listen_or_off(item: &Item<'_>) -> Option<Option<SocketAddr>> {
    let text = item.text_like("an address and a port, in quotes: \"127.0.0.1:9464\", or \"off\"")?;
    if text.value == "off" { Some(None) } else { read_listen(item, &text).map(Some) }
}

fn read_listen(item: &Item<'_>, text: &Text) -> Option<SocketAddr> {
    if text.value.starts_with("unix:") {
        return item.refuse(
            format!("{} cannot be a Unix socket", item.name()),
            "Prometheus, probes and `onlyonce records` come over TCP: \"127.0.0.1:9464\", or \"off\"",
        );
    }
    match text.value.parse() {
        Ok(address) => Some(address),
        Err(_) => item.refuse(
            format!("{text} is not an address to listen on: {}", not_listened_on(&text.value)),
            "an IP address and a port are right: \"127.0.0.1:8080\", or \"0.0.0.0:8080\" for all interfaces",
        ),
    }
}

/// Why a text is no address with a port.
fn not_listened_on(text: &str) -> &'static str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.contains("://") {
        return "it is a URL";
    }
    if is_number(text) {
        return "it is a port alone";
    }
    let ip = text.trim_start_matches('[').trim_end_matches(']');
    match text.rsplit_once(':') {
        Some(("" | "*", port)) if is_number(port) => "it has no IP address before the port",
        Some((host, port)) if host.contains(':') && !host.starts_with('[') && is_number(port) => {
            "an IPv6 address is in brackets, as in \"[::1]:8080\""
        }
        Some((host, port)) if is_number(port) && port.parse::<u16>().is_err() && !host.contains(':') => {
            "ports go up to 65535"
        }
        Some((host, port)) if is_number(port) && !host.contains(':') => "it has a name in the place of an IP address",
        _ if ip.parse::<IpAddr>().is_ok() => "it has no port",
        _ => "no port is at its end",
    }
}

/// A network (`"10.0.0.0/8"`) or a single address.
pub(super) fn network(item: &Item<'_>) -> Option<IpNet> {
    let text = item.text()?;
    let network = match (text.value.parse::<IpNet>(), text.value.parse::<IpAddr>()) {
        (Ok(network), _) => network,
        (_, Ok(address)) => IpNet::from(address),
        (Err(_), Err(_)) => {
            let advice =
                "a network is an address and the length of its prefix: \"10.0.0.0/8\", \"fd00::/8\", \"192.0.2.7\"";
            return item.refuse(format!("{text} is not a network"), advice);
        }
    };
    let right = |right: IpNet| if text.is_literal() { format!(": \"{right}\"") } else { String::new() };
    if network.trunc() != network {
        let advice = format!("the bits behind the prefix are zero{}", right(network.trunc()));
        return item.refuse(format!("{text} is an address within a network"), advice);
    }
    match network.addr().to_canonical() {
        address if address == network.addr() => Some(network),
        address => {
            // A prefix shorter than 96 bits includes more than the IPv4-mapped addresses.
            let right = IpNet::new(address, network.prefix_len().saturating_sub(96)).map(right).unwrap_or_default();
            item.refuse(format!("{text} is an IPv4 network in the dress of IPv6"), format!("write it as one{right}"))
        }
    }
}

/// `upstream.url`, without the TLS settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UpstreamUrl {
    Http(Authority),
    Https(Authority),
    Unix(PathBuf),
}

/// `"http://host:port"`, `"https://host:port"` or `"unix:/path"`
pub(super) fn upstream(item: &Item<'_>) -> Option<UpstreamUrl> {
    let advice = "name host and port, and nothing else: \"http://127.0.0.1:3000\"";
    let text = item.text_like("one backend, in quotes: \"http://127.0.0.1:3000\"; several have a load balancer")?;
    if let Some(path) = text.value.strip_prefix("unix:") {
        return unix(item, path);
    }
    let Some((scheme, rest)) = text.value.split_once("://") else {
        return item.refuse("upstream.url does not say how to speak to the backend", advice);
    };
    let kind = match scheme.to_ascii_lowercase().as_str() {
        "http" => UpstreamUrl::Http,
        "https" => UpstreamUrl::Https,
        _ => {
            let advice = "one of these is right: \"http://host:port\", \"https://host\", \"unix:/run/backend.sock\"";
            return item.refuse("upstream.url is none of http://, https:// and unix:", advice);
        }
    };
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
    let authority = match rest.parse() {
        Ok(authority) if is_right(&authority) => kind(authority),
        _ => return item.refuse("upstream.url has no valid host and port", advice),
    };
    match &authority {
        UpstreamUrl::Https(name) if tls::server_name(name.host()).is_none() => item.refuse(
            "upstream.url has a host that no certificate can be made for",
            "with https, the host is a domain name or an IP address: \"https://backend.example.com\"",
        ),
        UpstreamUrl::Http(_) | UpstreamUrl::Https(_) | UpstreamUrl::Unix(_) => Some(authority),
    }
}

/// The path of a Unix socket. It is not quoted, because a URL may hold a password.
fn unix(item: &Item<'_>, path: &str) -> Option<UpstreamUrl> {
    if !path.starts_with('/') || path.starts_with("//") {
        let advice = "the whole path follows the colon: \"unix:/run/backend.sock\"";
        return item.refuse("upstream.url names no path of a Unix socket", advice);
    }
    if path.len() > LONGEST || path.contains('\0') {
        let advice = format!("it may have {LONGEST} bytes");
        return item.refuse("the path of a Unix socket in upstream.url is too long", advice);
    }
    Some(UpstreamUrl::Unix(PathBuf::from(path)))
}

/// The address of a backend that is obviously on this machine.
pub(super) fn local(upstream: &UpstreamUrl) -> Option<SocketAddr> {
    let (authority, port) = match upstream {
        UpstreamUrl::Http(authority) => (authority, 80),
        UpstreamUrl::Https(authority) => (authority, 443),
        UpstreamUrl::Unix(_) => return None,
    };
    let ip = match authority.host().trim_matches(['[', ']']) {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host.parse().ok()?,
    };
    let port = authority.port_u16().unwrap_or(port);
    (ip.is_loopback() || ip.is_unspecified()).then_some(SocketAddr::new(ip, port))
}

/// Whether two listeners would conflict.
pub(super) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (any || a.ip() == b.ip())
}
