//! Fields of one connection, and those that nobody may take for such.

use http::header::{self, HeaderMap, HeaderName};

use super::super::fields::Fields;
use crate::key::{self, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::list;
use crate::rule::is_same_field;

/// Fields that concern one connection only (RFC 9110, 7.6.1), besides those that `Connection` names.
pub(super) static HOP_BY_HOP: [(Fields, HeaderName); 9] = [
    (Fields::CONNECTION, header::CONNECTION),
    (Fields::OTHER_HOPS, HeaderName::from_static("keep-alive")),
    (Fields::OTHER_HOPS, HeaderName::from_static("proxy-connection")),
    (Fields::TE, header::TE),
    (Fields::TRANSFER_ENCODING, header::TRANSFER_ENCODING),
    (Fields::UPGRADE, header::UPGRADE),
    (Fields::OTHER_HOPS, header::PROXY_AUTHENTICATE),
    (Fields::OTHER_HOPS, header::PROXY_AUTHORIZATION),
    (Fields::OTHER_HOPS, HeaderName::from_static("http2-settings")),
];

/// Fields that `Connection` must not name: without them, the request would have another caller or meaning.
pub(super) const PROTECTED: [HeaderName; 10] = [
    HeaderName::from_static("idempotency-key"),
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::COOKIE,
    header::FORWARDED,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PROTO,
];

/// Whether the request would have another caller or meaning without this field. Some backends ignore its spelling.
pub(super) fn is_protected(name: &HeaderName) -> bool {
    key::is_override(name) || PROTECTED.iter().any(|known| is_same_field(known, name))
}

/// The names in all `Connection` lines.
pub(super) fn nominated(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    options(headers).filter_map(|name| HeaderName::from_bytes(name).ok())
}

/// The same without `keep-alive`, which many servers send with every response: that field is always removed.
pub(super) fn nominated_only(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let names = options(headers).filter(|name| !name.eq_ignore_ascii_case(b"keep-alive"));
    names.filter_map(|name| HeaderName::from_bytes(name).ok())
}

/// Whether it is only `keep-alive`, as many servers send: then no other field has to be searched.
fn says_keep_alive_only(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::CONNECTION).iter();
    let is_first = lines.next().is_some_and(|line| line.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
    is_first && lines.next().is_none()
}

fn options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    list::members(headers, &header::CONNECTION)
}

/// Removes hop-by-hop fields. `kept` fields stay, even if `Connection` names them.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap, fields: Fields, kept: &[HeaderName]) {
    if fields.has(Fields::CONNECTION) && !says_keep_alive_only(headers) {
        let nominated: Vec<HeaderName> = nominated_only(headers).filter(|name| !kept.contains(name)).collect();
        for name in &nominated {
            headers.remove(name);
        }
    }
    for (field, name) in &HOP_BY_HOP {
        if fields.has(*field) {
            headers.remove(name);
        }
    }
}
