//! Requests of which a backend may make something else than we do: they cannot be guarded.

use std::borrow::Cow;

use http::HeaderMap;

use super::handle::Place;
use super::head;
use crate::config::Rule;
use crate::key;

/// Why a request cannot be guarded, if it cannot.
pub(super) fn why_ambiguous(rule: &Rule, place: &Place<'_>, headers: &HeaderMap) -> Option<Cow<'static, str>> {
    if place.is_contested {
        return Some("The methods that this request names lead to different guarded routes.".into());
    }
    if key::names_of(rule).any(|name| head::nominates(headers, name)) {
        return Some("Connection names a field that identifies the request.".into());
    }
    key::respelled(rule, headers).map(|name| {
        format!(
            "The field {name} may be taken for another one, whose name differs from it in characters such as _ and . \
             only. Send each field under its right name, or not at all."
        )
        .into()
    })
}
