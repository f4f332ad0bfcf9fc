//! A request that is described, and not received: what `explain` works with.

use std::time::SystemTime;

use http::{HeaderMap, Method, Uri, header};

use super::{Request, RequestedTarget, overriding_methods};
use crate::rule::LogKeys;
use crate::rule::{RouteMatch, Trust};
use crate::uri::normalise_host;

/// The request without its body.
#[derive(Debug, Clone)]
pub struct DescribedRequest<'a> {
    target: RequestedTarget<'a>,
    headers: &'a HeaderMap,
    query: Option<&'a str>,
}

impl<'a> DescribedRequest<'a> {
    /// The request with this method, URL and header lines.
    pub fn new(method: &Method, url: &'a Uri, headers: &'a HeaderMap) -> Self {
        let host = url.authority().map(http::uri::Authority::as_str);
        let host = host.or_else(|| headers.get(header::HOST)?.to_str().ok()).and_then(normalise_host);
        Self {
            target: RequestedTarget::of(method, url, host, overriding_methods(headers)),
            headers,
            query: url.query(),
        }
    }

    /// What it asks for.
    pub fn target(&self) -> &RequestedTarget<'a> {
        &self.target
    }

    /// Its facts on this route. There is no connection, so that the client's address is unknown.
    pub fn on<'r>(&'r self, found: &'r RouteMatch<'r>, trust: &'r Trust, now: SystemTime) -> Request<'r> {
        Request {
            method: self.target.effective_method(),
            headers: self.headers,
            host: self.target.host(),
            path: found.respelled.as_deref().unwrap_or(self.target.path()),
            params: &found.params,
            query: self.query,
            peer: None,
            trust,
            now,
            log_keys: LogKeys::Hashed,
        }
    }
}
