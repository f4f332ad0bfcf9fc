//! What is allowed in a configuration, but worth a second thought.

use std::sync::Arc;

use http::{HeaderName, StatusCode, header};

use super::units::HumanDuration;
use super::{Config, Disposition, Mode, OnStoreError, OnUnknown, Policy, Rule, Selector, StoreLocation, Upstream};

/// Something that works as configured, and may surprise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The route it is about; `None` when it is about all of them. The text does not repeat it, so that the same
    /// warning about several routes can be told once.
    pub route: Option<Arc<str>>,
    /// What happens.
    pub text: String,
    /// What to do if that is not wanted.
    pub advice: String,
}

/// Everything about `config` that its operator should know, the store first, then route by route.
pub fn warnings(config: &Config) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = about_store(&config.store.location)
        .into_iter()
        .map(|(text, advice)| Warning { route: None, text, advice })
        .collect();
    for rule in config.routes.rules().iter().filter(|rule| rule.mode != Mode::Off) {
        let found = [
            about_shared_keys(rule),
            about_refreshed_tokens(rule),
            about_forwarding(rule, config.store.on_error),
            about_takeovers(rule, &config.upstream),
            about_503(rule),
        ];
        let route = || Some(Arc::clone(&rule.name));
        warnings.extend(found.into_iter().flatten().map(|(text, advice)| Warning { route: route(), text, advice }));
    }
    warnings
}

/// Text and advice.
type Note = Option<(String, String)>;

fn note(text: impl Into<String>, advice: impl Into<String>) -> Note {
    Some((text.into(), advice.into()))
}

fn about_store(location: &StoreLocation) -> Note {
    match location {
        StoreLocation::Redis(_) => None,
        StoreLocation::Embedded(_) => note(
            "the embedded store is for one sidecar: another one does not see its records",
            "with more than one, share a Redis: store.url = \"redis://host:6379/0\"",
        ),
        StoreLocation::Memory => note(
            "the memory store forgets every record when onlyonce exits",
            "to keep them, use store.url = \"embedded:/var/lib/onlyonce\" or a Redis",
        ),
    }
}

fn about_shared_keys(rule: &Rule) -> Note {
    if !rule.scope.is_empty() {
        return None;
    }
    note(
        "all callers share one space of keys: who knows a key of another caller can get that caller's answer",
        "if callers choose their own keys, name what tells them apart: scope = [\"header:Authorization\"]",
    )
}

fn about_refreshed_tokens(rule: &Rule) -> Note {
    const AUTHORIZATION: HeaderName = header::AUTHORIZATION;
    if !rule.scope.contains(&Selector::Header(AUTHORIZATION)) {
        return None;
    }
    note(
        "the whole Authorization header is the caller: a retry with a refreshed token is another caller, and runs again",
        "if tokens change between retries, take a header that stays: one with the tenant or user, set by your gateway",
    )
}

fn about_forwarding(rule: &Rule, on_error: OnStoreError) -> Note {
    if on_error != OnStoreError::Forward || rule.policy.base() != Policy::Strict {
        return None;
    }
    note(
        "the policy is strict, but while the store is out of reach requests go through unguarded and may run twice",
        "refuse them instead: store.on_error = \"reject\"",
    )
}

fn about_takeovers(rule: &Rule, upstream: &Upstream) -> Note {
    if rule.on_unknown != OnUnknown::Retry || rule.lease >= upstream.response_timeout {
        return None;
    }
    let (lease, response) = (HumanDuration(rule.lease), HumanDuration(upstream.response_timeout));
    note(
        format!(
            "when a sidecar is lost, a retry takes over after {lease} (lease), and the backend may still be at work on \
             the first: it is given {response} (response_timeout)"
        ),
        format!("lease = \"{response}\" or longer, or on_unknown = \"hold\""),
    )
}

fn about_503(rule: &Rule) -> Note {
    if rule.policy.disposition(StatusCode::SERVICE_UNAVAILABLE) != Disposition::Release {
        return None;
    }
    note(
        "a 503 frees the key; behind Envoy or a mesh it may mean that the connection broke after the request was sent",
        "if there is one between onlyonce and the backend: hold = [\"503\"]",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn found(store: &str, route: &str) -> Vec<String> {
        let text = format!(
            "[upstream]\nurl = \"http://backend:3000\"\n[store]\n{store}\n\
             [[route]]\nname = \"r\"\npath = \"/r\"\nhold = [\"503\"]\n{route}\n"
        );
        let config = parse("test.toml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let first_words = |warning: &Warning| warning.text.split(' ').take(4).collect::<Vec<_>>().join(" ");
        warnings(&config).iter().map(first_words).collect()
    }

    const REDIS: &str = "url = \"redis://redis\"";
    const TENANT: &str = "scope = [\"header:X-Tenant\"]";

    #[test]
    fn a_careful_configuration_is_left_alone() {
        assert_eq!(found(REDIS, TENANT), Vec::<String>::new());
    }

    #[test]
    fn stores_that_are_not_shared_or_not_kept_are_told() {
        assert_eq!(found("url = \"embedded:data\"", TENANT), ["the embedded store is"]);
        assert_eq!(found("url = \"memory:\"", TENANT), ["the memory store forgets"]);
    }

    #[test]
    fn scopes_that_are_too_wide_or_too_narrow_are_told() {
        assert_eq!(found(REDIS, "scope = []"), ["all callers share one"]);
        assert_eq!(found(REDIS, "scope = [\"header:authorization\"]"), ["the whole Authorization header"]);
    }

    #[test]
    fn a_strict_route_that_may_go_unguarded_is_told() {
        let store = format!("{REDIS}\non_error = \"forward\"");
        assert_eq!(found(&store, &format!("{TENANT}\npolicy = \"strict\"")), ["the policy is strict,"]);
        assert_eq!(found(&store, TENANT), Vec::<String>::new());
    }

    #[test]
    fn a_takeover_while_the_backend_works_is_told() {
        assert_eq!(found(REDIS, &format!("{TENANT}\non_unknown = \"retry\"")), ["when a sidecar is"]);
        let patient = format!("{TENANT}\non_unknown = \"retry\"\nlease = \"60s\"");
        assert_eq!(found(REDIS, &patient), Vec::<String>::new());
    }

    #[test]
    fn a_503_that_frees_the_key_is_told() {
        let config = include_str!("../../config/orders.toml");
        let config = parse("orders.toml", config, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let warnings = warnings(&config);
        let about_503 = warnings.iter().filter(|warning| warning.text.starts_with("a 503 frees the key"));
        assert_eq!(about_503.count(), 2);
    }

    #[test]
    fn a_route_that_is_off_has_nothing_to_warn_of() {
        assert_eq!(found(REDIS, "scope = []\nmode = \"off\""), Vec::<String>::new());
    }
}
