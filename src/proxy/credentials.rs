//! The fields of a request that tell who its caller is: they go with questions of our own that are asked on its behalf.

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};

use super::head;
use crate::rule::{Rule, Selector, is_per_hop, is_same_field};

/// A W3C trace context. It passes as it does to the backend, and grants nothing.
pub(super) const TRACE_CONTEXT: [HeaderName; 2] =
    [HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate")];

/// `Authorization`, `Cookie`, and the headers of the route's scope, but for those that the question has itself: `own`.
pub(super) fn credentials(rule: &Rule, own: &[HeaderName]) -> Vec<HeaderName> {
    let mut names = vec![AUTHORIZATION, COOKIE];
    for part in &rule.scope {
        if let Selector::Header(name) = part
            && !is_per_hop(name)
            && !own.iter().chain(&TRACE_CONTEXT).any(|own| is_same_field(own, name))
            && !head::is_ours(name)
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    }
    names
}
