//! What a head says about the client: `X-Forwarded-For` and its kin, and `Forwarded`.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::super::client::Client;
use super::super::fields::Fields;
use crate::key::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};

/// Appends the client to the forwarding fields.
///
/// `Forwarded` (RFC 7239) is extended only if an earlier proxy sent it. It is not added otherwise: a backend that
/// prefers it to `X-Forwarded-For` would lose the address that only the latter has.
pub(super) fn append_forwarded(headers: &mut HeaderMap, fields: Fields, client: &Client, host: Option<&HeaderValue>) {
    let scheme = if client.secure { "https" } else { "http" };
    match &client.address {
        Some(address) if fields.has(Fields::FORWARDED_FOR) => append(headers, FORWARDED_FOR, &[address.as_bytes()]),
        Some(address) => drop(headers.insert(FORWARDED_FOR, address.clone())),
        None => {}
    }
    if fields.has(Fields::FORWARDED) {
        let is_v6 = client.peer.is_some_and(|peer| matches!(peer.ip().to_canonical(), IpAddr::V6(_)));
        let [before, behind]: [&[u8]; 2] = if is_v6 { [b"for=\"[", b"]\""] } else { [b"for=", b""] };
        let address = client.address.as_ref().map_or(&b"unknown"[..], HeaderValue::as_bytes);
        // A valid host needs no escape.
        let host = host.and_then(|host| host.to_str().ok()).map(str::as_bytes);
        let [name, host, end] = host.map_or([&b""[..]; 3], |host| [b";host=\"", host, b"\""]);
        let member = [before, address, behind, name, host, end, b";proto=", scheme.as_bytes()];
        append(headers, header::FORWARDED, &member);
    }
    if let Some(host) = host
        && !fields.has(Fields::FORWARDED_HOST)
    {
        headers.insert(FORWARDED_HOST, host.clone());
    }
    if !fields.has(Fields::FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
}

/// Appends a member to a list field, joined into one line. The member is given in pieces.
pub(super) fn append(headers: &mut HeaderMap, name: HeaderName, member: &[&[u8]]) {
    let mut line = Vec::new();
    for known in headers.get_all(&name) {
        line.extend_from_slice(known.as_bytes());
        line.extend_from_slice(b", ");
    }
    member.iter().for_each(|piece| line.extend_from_slice(piece));
    if let Ok(line) = HeaderValue::from_bytes(&line) {
        headers.insert(name, line);
    }
}
