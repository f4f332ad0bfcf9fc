use http::Method;

use super::client::Client;
use super::head::Head;
use crate::rule::{LogKeys, PathParams, Trust};
use crate::{clock, key};

/// The route target of a request, and its client.
pub(super) struct RequestContext<'a> {
    /// The method as the backend may read it.
    pub(super) method: &'a Method,
    pub(super) host: Option<&'a str>,
    /// The path in the route's spelling.
    pub(super) path: &'a str,
    pub(super) params: &'a PathParams<'a>,
    pub(super) client: &'a Client,
    pub(super) trust: &'a Trust,
    pub(super) log_keys: LogKeys,
    /// Its own method and one that overrides it lead to different guarded routes.
    pub(super) is_contested: bool,
}

impl RequestContext<'_> {
    /// The part of a head that identifies the operation.
    pub(super) fn request<'a>(&'a self, head: &'a Head) -> key::Request<'a> {
        key::Request {
            method: self.method,
            headers: &head.headers,
            host: self.host,
            path: self.path,
            params: self.params,
            query: head.uri.query(),
            peer: self.client.peer.map(|peer| peer.ip()),
            trust: self.trust,
            now: clock::wall(),
            log_keys: self.log_keys,
        }
    }
}
