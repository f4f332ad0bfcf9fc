use http::{HeaderMap, HeaderName, header};

use crate::rule::{Rule, Selector, is_foldable, is_same_field, may_begin_with};

/// A field that is another spelling of one that matters on this route: a backend may take the one for the other. Few
/// requests have a name that is not of letters, digits and hyphens.
pub fn respelled<'h>(rule: &Rule, headers: &'h HeaderMap) -> Option<&'h HeaderName> {
    let any = names_of(rule).any(is_foldable);
    headers.keys().filter(|name| any || is_foldable(name)).find(|name| is_respelled(rule, name))
}

fn is_respelled(rule: &Rule, name: &HeaderName) -> bool {
    // It is what the operator wrote.
    if names_of(rule).any(|own| own == name) {
        return false;
    }
    let is_one_of = |names: &[HeaderName]| names.iter().any(|own| own != name && is_same_field(own, name));
    let is_ours = || is_foldable(name) && (may_begin_with(name, "x-forwarded-") || may_begin_with(name, OURS));
    names_of(rule).any(|own| is_same_field(own, name))
        || is_ours()
        || is_one_of(&OF_MESSAGES)
        || rule.reads_body() && is_one_of(&OF_BODIES)
}

/// Fields between us and the backend.
const OURS: &str = "onlyonce-";
/// What frames a message.
const OF_MESSAGES: [HeaderName; 2] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
/// What says how a body is read.
const OF_BODIES: [HeaderName; 2] = [header::CONTENT_TYPE, header::CONTENT_ENCODING];

/// The fields that hold a part of the key or the scope.
pub fn names_of(rule: &Rule) -> impl Iterator<Item = &HeaderName> {
    rule.key.iter().chain(&rule.scope).filter_map(|selector| match selector {
        Selector::Header(name) => Some(name),
        Selector::Cookie(_) | Selector::Query(_) | Selector::Json(_) | Selector::Form(_) => None,
        Selector::Path(_) | Selector::Host | Selector::Jwt(_) | Selector::Ip | Selector::Date(_) => None,
    })
}
