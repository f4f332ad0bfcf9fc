//! Warnings about a configuration that is valid, but may have surprising effects.

mod caller;
mod probe;
mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use self::caller::{
    about_addresses, about_constant_keys, about_cookies, about_edge, about_refreshed_tokens, about_rotated_keys,
    about_shared_keys, about_strangers, about_trust, about_unused_tokens,
};
use self::probe::{about_lost_owners, about_probed_callers, about_probes, about_quoted_keys, about_short_holds};
use self::store::{about_digests, about_embedded, about_eviction, about_memory};
use crate::config::{Config, ServerConfig, UpstreamConfig};
use crate::rule::{
    Disposition, Mode, OnConcurrent, OnStoreError, OnUnknown, Policy, Preset, Routes, Rule, Selector, StatusSet,
};
use crate::units::{HumanDuration, HumanSize};

/// A setting that is valid, but may have a surprising effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The name by which `accept` refers to it.
    pub name: &'static str,
    /// Its severity.
    pub weight: Weight,
    /// The route it is about; `None` for all routes. The text does not repeat it, so that the same warning about several
    /// routes is printed once.
    pub route: Option<Arc<str>>,
    /// What happens.
    pub text: String,
    /// How to avoid it.
    pub advice: String,
}

/// The severity of a [`Warning`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Safe, and good to know. `check --strict` ignores it.
    Note,
    /// A request may run twice, be refused, or be seen by another caller.
    Warning,
}

/// Warnings about all routes, then route by route, without those that the operator accepts (`accept`).
pub fn warnings(config: &Config) -> Vec<Warning> {
    by_acceptance(config).1
}

/// The warnings that the operator accepts.
pub fn accepted(config: &Config) -> Vec<Warning> {
    by_acceptance(config).0
}

/// Those that are accepted, and those that are not. A warning about all routes must be accepted by all of them, in
/// `[defaults]`.
fn by_acceptance(config: &Config) -> (Vec<Warning>, Vec<Warning>) {
    let rules = config.routes.rules();
    // There may be ten thousand of them, each with a warning.
    let by_name: HashMap<&str, &Arc<Rule>> = rules.iter().map(|rule| (&*rule.name, rule)).collect();
    let is_accepted = |warning: &Warning| match &warning.route {
        Some(route) => by_name.get(&**route).is_none_or(|rule| rule.accept.contains(&warning.name)),
        None => rules.iter().all(|rule| rule.accept.contains(&warning.name)),
    };
    advice(config).into_iter().partition(is_accepted)
}

/// All warnings, accepted or not.
fn advice(config: &Config) -> Vec<Warning> {
    let Config { server, upstream, store, trust, routes, .. } = config;
    let rules = || routes.rules().iter().filter(|rule| rule.mode != Mode::Off);
    let about_all = [
        ("embedded-single", about_embedded(&store.location)),
        ("memory-store", about_memory(&store.location)),
        ("evicting-store", about_eviction(store.accept_eviction, &store.location)),
        ("digest-key-in-store", about_digests(store)),
        ("everybody-trusted", about_trust(trust)),
        ("jwt-unused", about_unused_tokens(trust, routes)),
        ("edge-not-trusted", about_edge(trust, server)),
    ];
    let told = about_all.into_iter().filter_map(|(name, note)| Some(note?.about(name, None)));
    let mut warnings: Vec<Warning> = told.collect();
    for rule in rules() {
        let about_it = [
            ("constant-key", about_constant_keys(rule)),
            ("no-caller", about_shared_keys(rule)),
            ("authorization-as-caller", about_refreshed_tokens(rule)),
            ("cookie-as-caller", about_cookies(rule)),
            ("own-caller-rotation", about_rotated_keys(rule, trust)),
            ("address-as-caller", about_addresses(rule, trust)),
            ("anonymous-caller", about_strangers(rule)),
            ("fail-open", about_forwarding(rule)),
            ("probe-by-status", about_probes(rule)),
            ("probe-without-caller", about_probed_callers(rule)),
            ("probe-unquoted-key", about_quoted_keys(rule)),
            ("probe-owner-only", about_lost_owners(rule, store)),
            ("short-hold", about_short_holds(rule, upstream, store)),
            ("short-lease", about_takeovers(rule, upstream)),
            ("busy-503", about_503(rule)),
            ("form-reject", about_second_clicks(rule)),
            ("body-key-media-type", about_bodies(rule)),
            ("buffer-too-small", about_caps(rule, server)),
            ("short-retention", about_short_retention(rule)),
            ("default-retention", about_default_retention(rule)),
            ("hidden-methods", about_hidden_methods(rule, routes)),
            ("other-hosts", about_other_hosts(rule, routes)),
        ];
        let told = about_it.into_iter().filter_map(|(name, note)| Some(note?.about(name, Some(&rule.name))));
        warnings.extend(told);
    }
    warnings
}

/// A warning without its name and route.
struct Advice {
    weight: Weight,
    text: String,
    advice: String,
}

impl Advice {
    fn about(self, name: &'static str, route: Option<&Arc<str>>) -> Warning {
        let Self { weight, text, advice } = self;
        Warning { name, weight, route: route.cloned(), text, advice }
    }
}

fn warn(text: impl Into<String>, advice: impl Into<String>) -> Option<Advice> {
    Some(Advice { weight: Weight::Warning, text: text.into(), advice: advice.into() })
}

/// Two clicks on a button are two requests, and the browser shows the answer to the second.
fn about_second_clicks(rule: &Rule) -> Option<Advice> {
    let is_of_form = rule.key.iter().any(|selector| matches!(selector, Selector::Form(_)));
    if !is_of_form || rule.on_concurrent != OnConcurrent::Reject {
        return None;
    }
    warn(
        "the key is in a form: whoever clicks twice sees the answer to the second click, and that is 409 while the first \
         is at work",
        "have the second one wait for the first one's answer: on_concurrent = \"wait\"",
    )
}

fn about_forwarding(rule: &Rule) -> Option<Advice> {
    if rule.on_error != OnStoreError::Forward || rule.policy.base() != Policy::Strict {
        return None;
    }
    warn(
        "the policy is strict, but while the store is out of reach requests go through unguarded and may run twice",
        "refuse them instead: on_error = \"reject\"",
    )
}

/// HTML forms can only be sent with GET and POST, so some frameworks read another method from a field (`_method`). Fields
/// are not read before the route is known.
fn about_hidden_methods(rule: &Rule, routes: &Routes) -> Option<Advice> {
    let posted = |other: &Arc<Rule>| other.mode != Mode::Off && other.methods.contains(&Method::POST);
    // First itself: that is nearly all of them.
    if rule.methods.contains(&Method::POST)
        || routes.rules().iter().any(|other| posted(other) && other.path == rule.path && other.host == rule.host)
    {
        return None;
    }
    let methods: Vec<String> = rule.methods.iter().map(|method| format!("\"{method}\"")).collect();
    let methods = methods.join(", ");
    Some(Advice {
        weight: Weight::Note,
        text: format!(
            "POST is not guarded on {}: a backend that takes a form's _method field for the method (Rails, Laravel, \
             Symfony) is reached by it past the guard",
            rule.path
        ),
        advice: format!("if yours is one of them: methods = [\"POST\", {methods}]"),
    })
}

fn about_other_hosts(rule: &Rule, routes: &Routes) -> Option<Advice> {
    let host = rule.host.as_deref()?;
    let everywhere = |other: &Arc<Rule>| other.mode != Mode::Off && other.host.is_none() && other.path == rule.path;
    if routes.rules().iter().any(everywhere) {
        return None;
    }
    Some(Advice {
        weight: Weight::Note,
        text: format!("requests for another host than {host} are not guarded, and a client can send any Host it likes"),
        advice: "if the backend serves this path whatever Host says, leave host out".to_owned(),
    })
}

fn about_takeovers(rule: &Rule, upstream: &UpstreamConfig) -> Option<Advice> {
    if rule.on_unknown != OnUnknown::Retry || rule.lease >= upstream.response_timeout {
        return None;
    }
    let (lease, response) = (HumanDuration(rule.lease), HumanDuration(upstream.response_timeout));
    warn(
        format!(
            "when a sidecar is lost, a retry takes over after {lease} (lease), and the backend may still be at work on \
             the first: it is given {response} (upstream.response_timeout)"
        ),
        format!("lease = \"{response}\" or longer, or on_unknown = \"hold\""),
    )
}

/// Not for routes that list 503 explicitly, or that let a repeat take over a lost attempt.
fn about_503(rule: &Rule) -> Option<Advice> {
    const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    let is_named = rule.policy.overrides().iter().any(|(set, _)| *set == StatusSet::Status(UNAVAILABLE.as_u16()));
    if is_named || rule.on_unknown == OnUnknown::Retry || rule.policy.disposition(UNAVAILABLE) != Disposition::Release {
        return None;
    }
    warn(
        "a 503 frees the key; behind Envoy or a mesh it may mean that the connection broke after the request was sent",
        "if there is one between onlyonce and the backend: hold = [\"503\"]; if there is none, say so: \
         release = [\"503\"]",
    )
}

/// JSON is sent with many media types, and without one.
fn about_bodies(rule: &Rule) -> Option<Advice> {
    let in_json = |selector: &&Selector| matches!(selector, Selector::Json(_));
    let selector = rule.key.iter().chain(&rule.scope).find(in_json)?;
    let cap = HumanSize(rule.max_request_body);
    Some(Advice {
        weight: Weight::Note,
        text: format!(
            "{selector} is looked for in every body, whatever its Content-Type: one of more than {cap} \
             (max_request_body) gets 413, but for multipart, image, audio and video, which have no JSON and pass \
             unguarded"
        ),
        advice: "give large uploads of other types a route of their own".to_owned(),
    })
}

fn about_caps(rule: &Rule, server: &ServerConfig) -> Option<Advice> {
    let over = |cap: u64| cap > server.max_buffered;
    let all = HumanSize(server.max_buffered);
    if over(rule.max_request_body) {
        let cap = HumanSize(rule.max_request_body);
        return warn(
            format!(
                "max_request_body is {cap}, but all bodies together may take {all} (server.max_buffered): a larger \
                 request never finds room, and gets 503"
            ),
            format!("server.max_buffered = \"{cap}\" or more, or max_request_body = \"{all}\" at most"),
        );
    }
    if !over(rule.max_response_body) {
        return None;
    }
    let cap = HumanSize(rule.max_response_body);
    warn(
        format!(
            "max_response_body is {cap}, but all bodies together may take {all} (server.max_buffered): a larger \
             answer is never kept for repeats"
        ),
        format!("server.max_buffered = \"{cap}\" or more, or max_response_body = \"{all}\" at most"),
    )
}

/// The default was three days in earlier versions.
fn about_default_retention(rule: &Rule) -> Option<Advice> {
    const BEFORE: Duration = Duration::from_secs(72 * 60 * 60);
    if rule.retention_given || rule.retention >= BEFORE {
        return None;
    }
    let (retention, before) = (HumanDuration(rule.retention), HumanDuration(BEFORE));
    Some(Advice {
        weight: Weight::Note,
        text: format!("records are kept for {retention}, as retention is not given; before, the default was {before}"),
        advice: "if clients try again for longer, say for how long: retention = \"72h\"".to_owned(),
    })
}

/// Clients that wait between their tries wait for seconds, queues for minutes and more.
fn about_short_retention(rule: &Rule) -> Option<Advice> {
    const MINUTE: Duration = Duration::from_secs(60);
    about_retries_of_payments(rule).or_else(|| {
        if rule.retention >= MINUTE {
            return None;
        }
        let retention = HumanDuration(rule.retention);
        warn(
            format!("records are kept for {retention} (retention): a repeat that comes later runs again"),
            "keep them for as long as clients may try again: retention = \"24h\"",
        )
    })
}

fn about_retries_of_payments(rule: &Rule) -> Option<Advice> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let sender = match rule.preset? {
        preset @ (Preset::Stripe | Preset::Square | Preset::Paypal | Preset::Gocardless) => preset.word(),
        Preset::Ietf | Preset::StandardWebhooks | Preset::StripeWebhook => return None,
        Preset::GithubWebhook | Preset::ShopifyWebhook | Preset::Cloudevents => return None,
    };
    if rule.retention >= DAY {
        return None;
    }
    let retention = HumanDuration(rule.retention);
    warn(
        format!(
            "records are kept for {retention} (retention), and clients of preset \"{sender}\" may try a payment again \
             for a day: a later retry pays twice"
        ),
        "retention = \"24h\" or longer",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::rule::WARNINGS;

    fn found(file: &str) -> Vec<(Weight, String)> {
        let config = parse("test.toml", file, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let first_words = |warning: &Warning| warning.text.split(' ').take(4).collect::<Vec<_>>().join(" ");
        warnings(&config).iter().map(|warning| (warning.weight, first_words(warning))).collect()
    }

    /// Each has a file in `tests/config/` that shows its text; here is what must not be warned of.
    fn with_route(route: &str) -> String {
        format!(
            "[upstream]\nurl = \"http://backend:3000\"\n[store]\nurl = \"redis://redis\"\n\
             [defaults]\nretention = \"24h\"\n[[route]]\nname = \"r\"\npath = \"/r\"\n{route}\n"
        )
    }

    #[test]
    fn every_warning_can_be_accepted() {
        let code = include_str!("mod.rs");
        let given: Vec<&str> = code
            .split("            (\"")
            .chain(code.split("        (\""))
            .filter_map(|rest| rest.split_once("\", about_").map(|(name, _)| name))
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'))
            .collect();
        assert!(given.len() > 15, "{given:?}");
        for name in given {
            assert!(WARNINGS.contains(&name), "{name} is not in WARNINGS");
        }
    }

    #[test]
    fn a_careful_configuration_is_left_alone() {
        for route in [
            "scope = [\"header:X-Tenant\"]\nhold = [\"503\"]",
            "preset = \"standard-webhooks\"\nlease = \"60s\"",
            "scope = [\"header:X-Tenant\"]\nrelease = [\"503\"]",
            "scope = [\"header:X-Tenant\"]\nstore = [\"503\"]",
            "scope = [\"header:X-Tenant\"]\non_unknown = \"retry\"\nlease = \"60s\"",
            "scope = [\"host\"]\nkey = \"form:number\"\nhold = [\"503\"]",
            "scope = [\"header:X-Tenant\"]\nkey = [\"form:number\", \"header:X-Request\"]\nhold = [\"503\"]",
        ] {
            assert_eq!(found(&with_route(route)), [], "{route}");
        }
    }

    #[test]
    fn a_route_that_is_off_has_nothing_to_warn_of() {
        assert_eq!(found(&with_route("scope = []\nmode = \"off\"")), []);
    }

    #[test]
    fn one_store_for_one_sidecar_is_no_mistake() {
        let file = with_route("scope = [\"header:X-Tenant\"]\nhold = [\"503\"]").replace("redis://redis", "embedded:a");
        assert_eq!(found(&file), [(Weight::Note, "the embedded store is".to_owned())]);
    }
}
