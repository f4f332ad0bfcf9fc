//! Requests that a backend may read differently than this proxy. They cannot be guarded.

use std::borrow::Cow;

use super::context::RequestContext;
use super::fields::Fields;
use super::head::{self, Head};
use crate::key;
use crate::rule::{Rule, is_foldable};

/// Why a request cannot be guarded, if it cannot.
pub(super) fn why_ambiguous(rule: &Rule, context: &RequestContext<'_>, head: &Head) -> Option<Cow<'static, str>> {
    if context.is_contested {
        return Some("The methods that this request names lead to different guarded routes.".into());
    }
    // Two names that differ only in such characters: at least one of them contains one.
    let mut may_be_respelled = head.fields.has(Fields::RESPELLED);
    for name in key::names_of(rule) {
        if head::nominates(head, name) {
            return Some("Connection names a field that identifies the request.".into());
        }
        may_be_respelled |= is_foldable(name);
    }
    if !may_be_respelled {
        return None;
    }
    key::respelled(rule, &head.headers).map(|name| {
        format!(
            "The field {name} may be taken for another one, whose name differs from it in characters such as _ and . \
             only. Send each field under its right name, or not at all."
        )
        .into()
    })
}
