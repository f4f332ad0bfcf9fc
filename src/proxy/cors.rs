//! What browsers of other origins may read and send (Fetch, 3.2): of our own answers and of replays. What the backend
//! itself answers is left as it is, but that its preflight answers allow the key's header.
//!
//! An origin that the route names may read answers to requests with credentials too: without that, a page that sends a
//! cookie could not tell a conflict from a broken connection.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION,
    ORIGIN, RETRY_AFTER, VARY,
};
use http::{Method, request};

use super::replay::REPLAYED;
use crate::config::{Mode, RouteMatch, RouteTarget, Routes, Rule, Selector};
use crate::key;
use crate::list;
use crate::problem::SHOULD_RETRY;

/// Who reads the answer to a request, on a route that browsers of other origins use.
pub(super) enum CorsOrigin {
    /// A page of an origin that the route names.
    Named(HeaderValue),
    /// A page of another one, or no browser.
    Other,
}

/// What is told to a page besides the fields that every page may read.
const EXPOSED: [HeaderName; 3] = [RETRY_AFTER, LOCATION, REPLAYED];

/// What is told too, where it is ours and there.
const EXPOSED_OF_OURS: [HeaderName; 2] = [LINK, SHOULD_RETRY];

impl CorsOrigin {
    /// `None` where the route names no origins: nothing is done then.
    pub(super) fn of(rule: &Rule, request: &HeaderMap) -> Option<Self> {
        if rule.cors_origins.is_empty() {
            return None;
        }
        let named = request.get(ORIGIN).filter(|origin| rule.cors_origins.contains(origin));
        Some(named.map_or(Self::Other, |origin| Self::Named(origin.clone())))
    }

    /// Makes an answer that did not come from running this request readable for its reader. A stored answer may carry
    /// what was said to a reader of another origin.
    pub(super) fn apply(self, answer: &mut HeaderMap) {
        vary(answer, ORIGIN);
        match self {
            Self::Named(origin) => {
                answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                add(answer, ACCESS_CONTROL_EXPOSE_HEADERS, &EXPOSED);
                if !answer.contains_key(REPLAYED) {
                    let ours = EXPOSED_OF_OURS.into_iter().filter(|field| answer.contains_key(field));
                    add(answer, ACCESS_CONTROL_EXPOSE_HEADERS, &ours.collect::<Vec<_>>());
                }
            }
            Self::Other if is_for_all(answer) => {}
            Self::Other => {
                answer.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
                answer.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
            }
        }
    }
}

/// A browser's question whether it may send a guarded request.
pub(super) struct Preflight {
    origin: HeaderValue,
    /// The header fields that hold the key.
    keys: Vec<HeaderName>,
}

impl Preflight {
    /// `None`: the request is something else, or the origin is not named by the route that is asked for.
    pub(super) fn of(routes: &Routes, head: &request::Parts, host: Option<&str>, normal: &str) -> Option<Self> {
        if head.method != Method::OPTIONS {
            return None;
        }
        let wanted = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let method = &key::normalise_method(&Method::from_bytes(wanted.as_bytes()).ok()?);
        let overriding = key::overriding_methods(&HeaderMap::new());
        let target = RouteTarget { method, overriding: &overriding, host, path: head.uri.path(), normal };
        let RouteMatch { rule, .. } = routes.find(&target)?;
        let origin = head.headers.get(ORIGIN).filter(|origin| rule.cors_origins.contains(origin))?;
        let keys = rule.key.iter().filter_map(|selector| {
            let Selector::Header(name) = selector else { return None };
            Some(name.clone())
        });
        (rule.mode == Mode::Enforce).then(|| Self { origin: origin.clone(), keys: keys.collect() })
    }

    /// Allows the key's fields too, where the backend allows this origin anything.
    pub(super) fn amend(self, answer: &mut HeaderMap) {
        let allowed = answer.get(ACCESS_CONTROL_ALLOW_ORIGIN);
        let all = is_for_all(answer) && !answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        if allowed.is_none_or(|allowed| *allowed != self.origin && allowed.as_bytes() != b"*") {
            return;
        }
        // With credentials, a star is a field's name like any other (Fetch, 4.9).
        if !(all && names(answer, &ACCESS_CONTROL_ALLOW_HEADERS, "*")) {
            add(answer, ACCESS_CONTROL_ALLOW_HEADERS, &self.keys);
        }
    }
}

fn is_for_all(answer: &HeaderMap) -> bool {
    answer.get(ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|origin| origin.as_bytes() == b"*")
}

/// Says that an answer varies by this field of the request (RFC 9110, 12.5.5), unless it says so already.
pub(super) fn vary(answer: &mut HeaderMap, by: HeaderName) {
    if !names(answer, &VARY, "*") {
        add(answer, VARY, &[by]);
    }
}

/// Adds names to a field that is a list of them, unless they are in it.
fn add(headers: &mut HeaderMap, field: HeaderName, wanted: &[HeaderName]) {
    let missing: Vec<&str> =
        wanted.iter().map(HeaderName::as_str).filter(|name| !names(headers, &field, name)).collect();
    if missing.is_empty() {
        return;
    }
    let mut line = Vec::new();
    for known in headers.get_all(&field).iter().map(HeaderValue::as_bytes).filter(|line| !line.is_empty()) {
        line.extend_from_slice(known);
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(missing.join(", ").as_bytes());
    if let Ok(line) = HeaderValue::from_bytes(&line) {
        headers.insert(field, line);
    }
}

fn names(headers: &HeaderMap, field: &HeaderName, name: &str) -> bool {
    list::names(headers, field, name)
}
