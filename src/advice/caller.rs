//! Whose key it is: callers that may be taken for one another, or for new ones.

use std::sync::Arc;

use http::{HeaderName, header};

use super::{Advice, warn};
use crate::config::{Listen, ServerConfig};
use crate::rule::{OnMissingKey, Preset, Routes, Rule, Selector, Trust, Unverified, Verification};
use crate::units::HumanDuration;

pub(super) fn about_trust(trust: &Trust) -> Option<Advice> {
    if !trust.proxies.contain_everybody() {
        return None;
    }
    warn(
        "server.trusted_proxies holds every address there is: any client can say which address and host it has, by \
         sending X-Forwarded-For",
        "list the networks of your own proxies only: trusted_proxies = [\"10.0.0.0/8\"]",
    )
}

pub(super) fn about_unused_tokens(trust: &Trust, routes: &Routes) -> Option<Advice> {
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
pub(super) fn about_edge(trust: &Trust, server: &ServerConfig) -> Option<Advice> {
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

/// What says who sends a request, from where and when, says not which request it is.
pub(super) fn about_constant_keys(rule: &Rule) -> Option<Advice> {
    const AUTHORIZATION: HeaderName = header::AUTHORIZATION;
    let is_constant = |part: &Selector| match part {
        Selector::Host | Selector::Ip | Selector::Date(_) => true,
        Selector::Header(name) => *name == AUTHORIZATION,
        Selector::Cookie(_) | Selector::Query(_) | Selector::Json(_) | Selector::Form(_) => false,
        Selector::Path(_) | Selector::Jwt(_) => false,
    };
    if !rule.key.iter().all(is_constant) {
        return None;
    }
    let key: Vec<String> = rule.key.iter().map(|part| format!("\"{part}\"")).collect();
    warn(
        format!(
            "no part of the key differs from request to request (key = [{}]): all requests of a caller are taken for \
             repeats of the first, and get its answer",
            key.join(", ")
        ),
        "name what the client makes anew for each request: key = \"header:Idempotency-Key\"",
    )
}

/// The id of an event is unique at its sender, so that events need no scope.
pub(super) fn about_shared_keys(rule: &Rule) -> Option<Advice> {
    let is_event = match rule.preset {
        Some(Preset::StandardWebhooks | Preset::StripeWebhook | Preset::GithubWebhook) => true,
        Some(Preset::ShopifyWebhook | Preset::Cloudevents) => true,
        Some(Preset::Ietf | Preset::Stripe | Preset::Square | Preset::Paypal | Preset::Gocardless) | None => false,
    };
    // A part of the key that is in scope, too, tells no callers with the same key apart.
    let tells_apart = rule.scope.iter().any(|part| !rule.key.contains(part));
    if is_event || tells_apart {
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

pub(super) fn about_refreshed_tokens(rule: &Rule) -> Option<Advice> {
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
pub(super) fn about_cookies(rule: &Rule) -> Option<Advice> {
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
pub(super) fn about_rotated_keys(rule: &Rule, trust: &Trust) -> Option<Advice> {
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

pub(super) fn about_addresses(rule: &Rule, trust: &Trust) -> Option<Advice> {
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
pub(super) fn about_strangers(rule: &Rule) -> Option<Advice> {
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
