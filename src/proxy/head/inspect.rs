//! Which heads are refused.

use std::borrow::Cow;

use http::header::{self, HeaderValue};
use http::{Method, Request, Uri, Version};

use super::super::fields::Fields;
use super::super::framing;
use super::hop_by_hop::{is_protected, nominated_only};
use crate::problem::{Code, Problem};
use crate::uri::normalise_host;

/// The most bytes of a path and its query: twice the recommended minimum (RFC 9110, 4.1).
const MAX_TARGET: usize = 16 * 1024;

/// Refuses what cannot be forwarded safely. `is_host_right`: its authority is a valid host.
pub(in crate::proxy) fn inspect<B>(request: &Request<B>, fields: Fields, is_host_right: bool) -> Result<(), Problem> {
    let headers = request.headers();
    if request.method() == Method::CONNECT {
        return Err(Problem::new(Code::NotImplemented, "This proxy opens no tunnels (CONNECT).").close());
    }
    if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET) {
        let detail = "The path and the query of a request may have 16384 bytes.";
        return Err(Problem::new(Code::TargetTooLong, detail));
    }
    if !is_target(request.method(), request.uri()) {
        return Err(bad("This proxy is asked for paths, or for * with OPTIONS (RFC 9112, 3.2)."));
    }
    let (authority, hosts) = (request.uri().authority(), headers.get_all(header::HOST));
    if let (Version::HTTP_2, Some(authority)) = (request.version(), authority) {
        if hosts.iter().any(|host| *host != *authority.as_str()) {
            return Err(bad("Host and :authority must not differ (RFC 9113, 8.3.1)."));
        }
    } else if !matches!((hosts.iter().count(), request.version()), (1, _) | (0, Version::HTTP_10)) {
        return Err(bad("A request must have exactly one Host line (RFC 9112, 3.2)."));
    }
    // Mostly there is one, and that one was checked.
    let are_hosts_right = if authority.is_none() && request.version() != Version::HTTP_2 {
        is_host_right || hosts.iter().next().is_none()
    } else {
        let mut hosts = hosts.iter().map(HeaderValue::to_str).chain(authority.map(|authority| Ok(authority.as_str())));
        hosts.all(|host| host.is_ok_and(|host| normalise_host(host).is_some()))
    };
    if !are_hosts_right {
        return Err(bad("The host that this request is for is not the name of one (RFC 9110, 7.2)."));
    }
    if fields.has(Fields::TRANSFER_ENCODING) && !framing::is_chunked_at_most(headers) {
        let detail = "Of the transfer codings, this proxy knows only chunked (RFC 9112, 6.1).";
        return Err(Problem::new(Code::NotImplemented, detail).close());
    }
    let is_known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if fields.has(Fields::EXPECT) && !headers.get_all(header::EXPECT).iter().all(is_known) {
        return Err(Problem::new(Code::ExpectationFailed, "The only expectation known here is 100-continue."));
    }
    if fields.has(Fields::CONNECTION) && nominated_only(headers).any(|name| is_protected(&name)) {
        return Err(bad("Connection names a field that must reach the backend (RFC 9110, 7.6.1)."));
    }
    Ok(())
}

/// Origin form, absolute form or asterisk form. Authority form is for CONNECT only.
pub(super) fn is_target(method: &Method, uri: &Uri) -> bool {
    match (uri.scheme_str(), uri.path()) {
        // In HTTP/2 it has a scheme.
        (None | Some(_), "*") => *method == Method::OPTIONS,
        (None, path) => uri.authority().is_none() && path.starts_with('/'),
        (Some(scheme), _) => matches!(scheme, "http" | "https"),
    }
}

pub(in crate::proxy) fn bad(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Code::BadRequest, detail)
}
