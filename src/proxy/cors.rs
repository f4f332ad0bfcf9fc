//! CORS (Fetch, 3.2) for the proxy's own responses and for replays. The backend's responses stay as they are, but its
//! preflight responses also allow the key's header.
//!
//! An origin in `cors_origins` may read responses to requests with credentials too: otherwise a page that sends a
//! cookie could not tell a conflict from a broken connection.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION,
    ORIGIN, RETRY_AFTER, VARY,
};
use http::{Method, request};

use super::head::REPLAYED;
use crate::key::RequestedTarget;
use crate::list;
use crate::problem::SHOULD_RETRY;
use crate::rule::{Mode, RouteMatch, Routes, Rule, Selector};

/// The origin of a request, on a route with `cors_origins`.
pub(super) enum CorsOrigin {
    /// An origin that the route names.
    Named(HeaderValue),
    /// Another origin, or none.
    Other,
}

/// Fields that are exposed to pages.
const EXPOSED: [HeaderName; 3] = [RETRY_AFTER, LOCATION, REPLAYED];

/// Fields that are exposed too, if the response is the proxy's own and has them.
const EXPOSED_OF_OURS: [HeaderName; 2] = [LINK, SHOULD_RETRY];

impl CorsOrigin {
    /// `None` if the route names no origins.
    pub(super) fn of(rule: &Rule, request: &HeaderMap) -> Option<Self> {
        if rule.cors_origins.is_empty() {
            return None;
        }
        let named = request.get(ORIGIN).filter(|origin| rule.cors_origins.contains(origin));
        Some(named.map_or(Self::Other, |origin| Self::Named(origin.clone())))
    }

    /// Makes a response that is the proxy's own or a replay readable for this origin. A stored response may have the
    /// fields for another origin.
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

/// A preflight request for a guarded request.
pub(super) struct Preflight {
    origin: HeaderValue,
    /// The header fields that hold the key.
    keys: Vec<HeaderName>,
}

impl Preflight {
    /// `None`: it is no preflight request, or the requested route does not name the origin.
    pub(super) fn of(routes: &Routes, head: &request::Parts, asked: &RequestedTarget<'_>) -> Option<Self> {
        if head.method != Method::OPTIONS {
            return None;
        }
        let wanted = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let wanted = asked.with_method(&Method::from_bytes(wanted.as_bytes()).ok()?);
        let RouteMatch { rule, .. } = routes.find(&wanted.route())?;
        let origin = head.headers.get(ORIGIN).filter(|origin| rule.cors_origins.contains(origin))?;
        let keys = rule.key.iter().filter_map(|selector| {
            let Selector::Header(name) = selector else { return None };
            Some(name.clone())
        });
        (rule.mode == Mode::Enforce).then(|| Self { origin: origin.clone(), keys: keys.collect() })
    }

    /// Allows the key's fields too, if the backend allows this origin.
    pub(super) fn amend(self, answer: &mut HeaderMap) {
        let allowed = answer.get(ACCESS_CONTROL_ALLOW_ORIGIN);
        let all = is_for_all(answer) && !answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        if allowed.is_none_or(|allowed| *allowed != self.origin && allowed.as_bytes() != b"*") {
            return;
        }
        // With credentials, `*` is an ordinary field name (Fetch, 4.9).
        if !(all && names(answer, &ACCESS_CONTROL_ALLOW_HEADERS, "*")) {
            add(answer, ACCESS_CONTROL_ALLOW_HEADERS, &self.keys);
        }
    }
}

fn is_for_all(answer: &HeaderMap) -> bool {
    answer.get(ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|origin| origin.as_bytes() == b"*")
}

/// Adds a field to `Vary` (RFC 9110, 12.5.5), unless it is there already.
pub(super) fn vary(answer: &mut HeaderMap, by: HeaderName) {
    if !names(answer, &VARY, "*") {
        add(answer, VARY, &[by]);
    }
}

/// Adds names to a list field, unless they are there already.
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
