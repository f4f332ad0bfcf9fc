//! A request that is described, and not received: what `explain` goes by.

use std::time::SystemTime;

use http::{HeaderMap, Method, Uri, header};

use super::{Request, normalise_host, normalise_method, normalise_path, overriding_methods};
use crate::config::{LogKeys, RouteMatch, RouteTarget, Trust};

/// All of it but the body.
#[derive(Debug, Clone)]
pub struct DescribedRequest {
    method: Method,
    /// Methods that a backend may take instead.
    overriding: Vec<Method>,
    headers: HeaderMap,
    host: Option<String>,
    url: Uri,
    /// In normal form.
    path: String,
}

impl DescribedRequest {
    /// The request with this method, URL and header lines.
    pub fn new(method: &Method, url: Uri, headers: HeaderMap) -> Self {
        let host = url.authority().map(http::uri::Authority::as_str);
        let host = host.or_else(|| headers.get(header::HOST)?.to_str().ok()).and_then(normalise_host);
        Self {
            method: normalise_method(method),
            overriding: overriding_methods(&headers),
            host: host.map(std::borrow::Cow::into_owned),
            path: normalise_path(url.path()).into_owned(),
            headers,
            url,
        }
    }

    /// What routes go by.
    pub fn target(&self) -> RouteTarget<'_> {
        let Self { method, overriding, host, url, path, .. } = self;
        RouteTarget { method, overriding, host: host.as_deref(), path: url.path(), normal: path }
    }

    /// Its facts, on this route. Nobody is connected: the address of the client is not among them.
    pub fn on<'a>(&'a self, found: &'a RouteMatch<'a>, trust: &'a Trust, now: SystemTime) -> Request<'a> {
        Request {
            method: self.overriding.first().unwrap_or(&self.method),
            headers: &self.headers,
            host: self.host.as_deref(),
            path: found.respelled.as_deref().unwrap_or(&self.path),
            params: &found.params,
            query: self.url.query(),
            peer: None,
            trust,
            now,
            log_keys: LogKeys::Hashed,
        }
    }
}
