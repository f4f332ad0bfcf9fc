//! Warnings about a configuration that is valid, but may have surprising effects.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode, header};

use crate::config::{
    Config, Disposition, HumanDuration, HumanSize, Listen, Mode, OnConcurrent, OnMissingKey, OnStoreError, OnUnknown,
    Policy, Preset, Routes, Rule, Selector, ServerConfig, StatusSet, StoreLocation, Trust, Unverified, UpstreamConfig,
    Verification,
};

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
    advice(config).into_iter().filter(|warning| !is_accepted(config, warning)).collect()
}

/// The warnings that the operator accepts.
pub fn accepted(config: &Config) -> Vec<Warning> {
    advice(config).into_iter().filter(|warning| is_accepted(config, warning)).collect()
}

/// A warning about all routes must be accepted by all of them, in `[defaults]`.
fn is_accepted(config: &Config, warning: &Warning) -> bool {
    let mut rules =
        config.routes.rules().iter().filter(|rule| warning.route.as_ref().is_none_or(|of| *of == rule.name));
    rules.all(|rule| rule.accept.contains(&warning.name))
}

/// All warnings, accepted or not.
fn advice(config: &Config) -> Vec<Warning> {
    let Config { server, upstream, store, trust, routes, .. } = config;
    let rules = || routes.rules().iter().filter(|rule| rule.mode != Mode::Off);
    let about_all = [
        ("embedded-single", about_embedded(&store.location)),
        ("memory-store", about_memory(&store.location)),
        ("evicting-store", about_eviction(store.accept_eviction, &store.location)),
        ("everybody-trusted", about_trust(trust)),
        ("jwt-unused", about_unused_tokens(trust, routes)),
        ("edge-not-trusted", about_edge(trust, server)),
    ];
    let told = about_all.into_iter().filter_map(|(name, note)| Some(note?.about(name, None)));
    let mut warnings: Vec<Warning> = told.collect();
    for rule in rules() {
        let about_it = [
            ("no-caller", about_shared_keys(rule)),
            ("authorization-as-caller", about_refreshed_tokens(rule)),
            ("cookie-as-caller", about_cookies(rule)),
            ("own-caller-rotation", about_rotated_keys(rule, trust)),
            ("address-as-caller", about_addresses(rule, trust)),
            ("anonymous-caller", about_strangers(rule)),
            ("fail-open", about_forwarding(rule)),
            ("short-lease", about_takeovers(rule, upstream)),
            ("busy-503", about_503(rule)),
            ("form-reject", about_second_clicks(rule)),
            ("body-key-media-type", about_bodies(rule)),
            ("buffer-too-small", about_caps(rule, server)),
            ("short-retention", about_retries_of_payments(rule)),
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

fn about_embedded(location: &StoreLocation) -> Option<Advice> {
    match location {
        StoreLocation::Redis(_) | StoreLocation::Memory => None,
        StoreLocation::Embedded(_) => Some(Advice {
            weight: Weight::Note,
            text: "the embedded store is for one sidecar: another one does not see its records".to_owned(),
            advice: "with more than one, share a Redis: store.url = \"redis://host:6379/0\"".to_owned(),
        }),
    }
}

fn about_memory(location: &StoreLocation) -> Option<Advice> {
    match location {
        StoreLocation::Redis(_) | StoreLocation::Embedded(_) => None,
        StoreLocation::Memory => warn(
            "the memory store forgets every record when onlyonce exits, and the next repeats run again",
            "to keep them, use store.url = \"embedded:/var/lib/onlyonce\" or a Redis",
        ),
    }
}

fn about_eviction(is_accepted: bool, location: &StoreLocation) -> Option<Advice> {
    if !is_accepted || !matches!(location, StoreLocation::Redis(_)) {
        return None;
    }
    warn(
        "store.accept_eviction lets Redis throw records away when its memory is full, and their requests run again when \
         they are repeated",
        "give Redis room, have it refuse writes instead (maxmemory-policy noeviction), and leave accept_eviction out",
    )
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

fn about_unused_tokens(trust: &Trust, routes: &Routes) -> Option<Advice> {
    let reads_token = |rule: &Arc<Rule>| rule.key.iter().chain(&rule.scope).any(is_claim);
    if trust.jwt.is_none() || routes.rules().iter().any(reads_token) {
        return None;
    }
    warn(
        "no route takes anything from a bearer token, so [jwt] has no effect, and no token is verified",
        "leave it out, or name a claim: scope = [\"jwt:sub\"]",
    )
}

/// Without trusted proxies, tokens verified by the edge are accepted from this machine only.
fn about_edge(trust: &Trust, server: &ServerConfig) -> Option<Advice> {
    let by_edge = trust.jwt.as_ref().is_some_and(|jwt| matches!(jwt.verification, Verification::ByEdge));
    let from_elsewhere = |listen: &Listen| match listen {
        Listen::Tcp(address) => !address.ip().is_loopback(),
        Listen::Unix(_) => false,
    };
    if !by_edge || !trust.proxies.is_empty() || !server.listen.iter().any(from_elsewhere) {
        return None;
    }
    warn(
        "jwt.verified_by_edge believes tokens from this machine only, as there are no trusted proxies: the claims of all \
         that come from another one are not read",
        "name the network of the gateway that verifies them: server.trusted_proxies = [\"10.0.0.0/8\"]",
    )
}

fn is_claim(selector: &Selector) -> bool {
    matches!(selector, Selector::Jwt(_))
}

fn about_trust(trust: &Trust) -> Option<Advice> {
    if !trust.proxies.contain_everybody() {
        return None;
    }
    warn(
        "server.trusted_proxies holds every address there is: any client can say which address and host it has, by \
         sending X-Forwarded-For",
        "list the networks of your own proxies only: trusted_proxies = [\"10.0.0.0/8\"]",
    )
}

/// The id of an event is unique at its sender, so that events need no scope.
fn about_shared_keys(rule: &Rule) -> Option<Advice> {
    let is_event = match rule.preset {
        Some(Preset::StandardWebhooks | Preset::StripeWebhook | Preset::GithubWebhook) => true,
        Some(Preset::ShopifyWebhook | Preset::Cloudevents) => true,
        Some(Preset::Ietf | Preset::Stripe | Preset::Square | Preset::Paypal | Preset::Gocardless) | None => false,
    };
    if is_event || !rule.scope.is_empty() {
        return None;
    }
    let advice = "if callers choose their own keys, name what tells them apart: scope = [\"header:Authorization\"]";
    match rule.on_missing_key {
        OnMissingKey::Fingerprint(window) => {
            let window = HumanDuration(window);
            warn(
                format!(
                    "all callers share one space of keys, and where there is none the request itself is the key: two \
                     callers who send the same within {window} are taken for one, and the second gets the first one's \
                     answer"
                ),
                "name what tells callers apart: scope = [\"header:Authorization\"]",
            )
        }
        OnMissingKey::Forward | OnMissingKey::Reject => warn(
            "all callers share one space of keys: who knows a key of another caller can get that caller's answer",
            advice,
        ),
    }
}

fn about_refreshed_tokens(rule: &Rule) -> Option<Advice> {
    const AUTHORIZATION: HeaderName = header::AUTHORIZATION;
    if !rule.scope.contains(&Selector::Header(AUTHORIZATION)) {
        return None;
    }
    warn(
        "the whole Authorization header is the caller: a retry with a refreshed token is another caller, and runs again; \
         so is one with a new signature (AWS SigV4, Digest)",
        "if it changes between retries, take what stays: a claim of the token (scope = [\"jwt:sub\"]), or a header with the \
         tenant or user, set by your gateway",
    )
}

/// Some frameworks store the session in the cookie itself.
fn about_cookies(rule: &Rule) -> Option<Advice> {
    let is_cookie = |selector: &&Selector| matches!(selector, Selector::Cookie(_));
    let cookie = rule.scope.iter().find(is_cookie)?;
    warn(
        format!(
            "{cookie} is the caller: where the session itself is kept in it (Rails, Flask, Express' cookie-session), or \
             the backend renews it, its value may change with each answer, and a retry is another caller, and runs again"
        ),
        "take a cookie whose value stays for as long as clients retry, or a header with the user, set by your gateway",
    )
}

/// Until a rotated key is loaded, its tokens do not verify, and each is a caller of its own.
fn about_rotated_keys(rule: &Rule, trust: &Trust) -> Option<Advice> {
    let jwt = trust.jwt.as_ref().filter(|_| rule.scope.iter().any(is_claim))?;
    let may_rotate = matches!(jwt.verification, Verification::Keys(_)) && jwt.unverified == Unverified::OwnCaller;
    if !may_rotate {
        return None;
    }
    warn(
        "a token that does not verify is a caller of its own: when the issuer rotates its keys, a retry that comes after \
         the new ones are loaded is another caller than the first try, and runs again",
        "to refuse such tokens with 401 instead: jwt.unverified = \"reject\"",
    )
}

fn about_addresses(rule: &Rule, trust: &Trust) -> Option<Advice> {
    if !rule.scope.contains(&Selector::Ip) {
        return None;
    }
    if trust.proxies.is_empty() {
        return warn(
            "the caller is the address that connects: behind a load balancer or a proxy that is always the same one, \
             and all callers share one space of keys",
            "if there is one in front of onlyonce, name its network: server.trusted_proxies = [\"10.0.0.0/8\"]",
        );
    }
    let is_alone = rule.scope.iter().all(|selector| matches!(selector, Selector::Ip | Selector::Host));
    if !is_alone {
        return None;
    }
    warn(
        "the caller is an address: people behind one router share it, and a phone that changes networks has another, \
         so that its retry runs again",
        "name what the caller sends with each try: a cookie, or a header with the tenant or user",
    )
}

/// Anonymous callers share one key space. This is harmless with random keys, as those of the presets are.
fn about_strangers(rule: &Rule) -> Option<Advice> {
    if rule.preset.is_some() {
        return None;
    }
    let may_be_shared = |selector: &Selector| match selector {
        Selector::Json(_) | Selector::Form(_) | Selector::Path(_) => true,
        Selector::Host | Selector::Ip | Selector::Date(_) => true,
        Selector::Jwt(_) => true,
        Selector::Header(_) | Selector::Cookie(_) | Selector::Query(_) => false,
    };
    let may_be_absent = |selector: &Selector| match selector {
        Selector::Header(_) | Selector::Cookie(_) | Selector::Query(_) | Selector::Json(_) | Selector::Form(_) => true,
        Selector::Jwt(_) => true,
        Selector::Path(_) | Selector::Host | Selector::Ip | Selector::Date(_) => false,
    };
    if rule.scope.is_empty() || !rule.scope.iter().all(may_be_absent) || !rule.key.iter().all(may_be_shared) {
        return None;
    }
    let scope = rule.scope.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let key = rule.key.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ");
    warn(
        format!(
            "requests without {scope} are one and the same anonymous caller, and two of them may well have the same \
             key, since it is no random one ({key}): the second gets the first one's answer"
        ),
        "let only requests with a known caller come this far, or take the caller from what is always there, such as \
         \"path:tenant\" or \"host\"",
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
    if routes.rules().iter().any(|other| posted(other) && other.path == rule.path && other.host == rule.host) {
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
    use crate::config::{WARNINGS, parse};

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
        let code = include_str!("advice.rs");
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
