//! What a rule means, in plain words.

use std::time::Duration;

use crate::rule::{
    AuthServer, FingerprintMode, Mode, OnConcurrent, OnMismatch, OnMissingKey, OnUnknown, Period, Rule, Selector,
};
use crate::units::HumanDuration;

/// Two or three sentences for people who have not written the configuration.
pub(super) fn of(rule: &Rule) -> String {
    match rule.mode {
        Mode::Off => "Not guarded: requests pass as if there were no rule.".to_owned(),
        Mode::Observe => {
            format!("Only observed: every request passes. Enforced, the rule would mean: {}", promise(rule))
        }
        Mode::Enforce => format!("{} {} {}", promise(rule), repeats(rule), unknown(rule)),
    }
}

/// `One create-order for each Idempotency-Key of each caller (Authorization), for a day.`
fn promise(rule: &Rule) -> String {
    let key = listed(&rule.key);
    let caller = match &rule.scope[..] {
        [] => ", whoever sends it,".to_owned(),
        scope => format!(" of each caller ({}),", listed(scope)),
    };
    format!("One {} for each {key}{caller} for {}.", rule.name, lasting(rule.retention))
}

fn repeats(rule: &Rule) -> String {
    let early = match rule.on_concurrent {
        OnConcurrent::Reject => "while the first is running, it gets 409".to_owned(),
        OnConcurrent::Wait => {
            format!("while the first is running, it waits for it, up to {}", spelt(rule.wait_timeout))
        }
    };
    let other = match (&rule.fingerprint, rule.on_mismatch) {
        (FingerprintMode::None, _) | (_, OnMismatch::Replay) => "whatever its body",
        (_, OnMismatch::Reject) => "but with another body 422",
        (_, OnMismatch::Conflict) => "but with another body 409",
    };
    let without = match rule.on_missing_key {
        OnMissingKey::Forward => "A request without a key passes unguarded.".to_owned(),
        OnMissingKey::Reject => "A request without a key gets 400.".to_owned(),
        OnMissingKey::Fingerprint(window) => {
            format!("Without a key, the same content from the same caller within {} is a repeat.", spelt(window))
        }
    };
    let asked = match rule.replay_auth.as_ref().map(|auth| &auth.server) {
        None => "",
        Some(AuthServer::Backend) => {
            " Before a repeat gets anything, the backend is asked whether its caller may see it."
        }
        Some(AuthServer::Http(_) | AuthServer::Https(_)) => {
            " Before a repeat gets anything, an authorization server is asked whether its caller may see it."
        }
    };
    format!("A repeat gets the first one's answer, {other}; {early}.{asked} {without}")
}

fn unknown(rule: &Rule) -> String {
    match (rule.on_unknown, &rule.probe) {
        (OnUnknown::Hold, Some(probe)) => format!(
            "If nobody knows whether a request took effect, the backend is asked (GET {}); until it can tell, the key is \
             held, for {} or until an operator decides.",
            probe.path,
            lasting(rule.hold_for)
        ),
        (OnUnknown::Hold, None) => format!(
            "If nobody knows whether a request took effect, its key is held for {}, or until an operator decides.",
            lasting(rule.hold_for)
        ),
        (OnUnknown::Retry, _) => {
            "If nobody knows whether a request took effect, a repeat runs it again, and it may take effect twice."
                .to_owned()
        }
    }
}

fn listed(selectors: &[Selector]) -> String {
    let words: Vec<String> = selectors.iter().map(named).collect();
    match &words[..] {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        _ => words.concat(),
    }
}

fn named(selector: &Selector) -> String {
    match selector {
        Selector::Header(name) => title_case(name.as_str()),
        Selector::Cookie(name) => format!("cookie {name}"),
        Selector::Query(name) => format!("{name} of the query"),
        Selector::Json(pointer) => format!("{} of the JSON body", pointer.tokens().join(".")),
        Selector::Form(field) => format!("form field {field}"),
        Selector::Path(param) => format!("{param} of the path"),
        Selector::Host => "host".to_owned(),
        Selector::Jwt(claim) => format!("{} of the bearer token", claim.tokens().join(".")),
        Selector::Ip => "client address".to_owned(),
        Selector::Date(Period::Day) => "day".to_owned(),
        Selector::Date(Period::Month) => "month".to_owned(),
        Selector::Date(Period::Year) => "year".to_owned(),
    }
}

/// As people write names of fields.
fn title_case(name: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        first.to_ascii_uppercase() + rest
    };
    name.split('-').map(capital).collect::<Vec<_>>().join("-")
}

/// `a day`, `3 days`
fn lasting(span: Duration) -> String {
    const UNITS: [(u64, &str, &str); 3] = [(86_400, "a", "day"), (3_600, "an", "hour"), (60, "a", "minute")];
    let seconds = span.as_secs();
    let whole = |(unit, article, noun): (u64, &str, &str)| {
        let count = seconds / unit;
        let is_whole = count > 0 && seconds.is_multiple_of(unit) && span.subsec_nanos() == 0;
        is_whole.then(|| if count == 1 { format!("{article} {noun}") } else { format!("{count} {noun}s") })
    };
    UNITS.into_iter().find_map(whole).unwrap_or_else(|| spelt(span))
}

fn spelt(span: Duration) -> String {
    HumanDuration(span).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn sentence(route: &str) -> String {
        let text = format!(
            "upstream.url = \"http://127.0.0.1:1\"\nstore.url = \"memory:\"\n[[route]]\nname = \"create-order\"\n\
             path = \"/tenants/{{tenant}}/orders\"\n{route}"
        );
        let config = config::parse("test", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        of(&config.routes.rules()[0])
    }

    #[test]
    fn a_rule_is_said_in_plain_words() {
        let said = sentence("scope = [\"header:Authorization\"]");
        assert_eq!(
            said,
            "One create-order for each Idempotency-Key of each caller (Authorization), for a day. A repeat gets the first \
             one's answer, but with another body 422; while the first is running, it gets 409. A request without a key \
             passes unguarded. If nobody knows whether a request took effect, its key is held for a day, or until an \
             operator decides."
        );
    }

    #[test]
    fn what_a_rule_says_otherwise_is_said_otherwise() {
        for (route, said) in [
            ("scope = []", "for each Idempotency-Key, whoever sends it, for a day."),
            ("scope = [\"cookie:s\", \"path:tenant\"]", "of each caller (cookie s and tenant of the path), for a day."),
            (
                "scope = []\nkey = [\"json:/invoice/number\", \"query:q\", \"date:year\"]\nretention = \"400d\"",
                "One create-order for each invoice.number of the JSON body, q of the query and year, whoever sends it, \
                 for 400 days.",
            ),
            ("scope = []\nretention = \"90s\"\nlease = \"1s\"", "for 90s."),
            ("scope = []\nretention = \"1h\"", "for an hour."),
            ("scope = []\non_concurrent = \"wait\"", "it waits for it, up to 10s."),
            ("scope = []\non_mismatch = \"conflict\"", "but with another body 409;"),
            ("scope = []\non_mismatch = \"replay\"", "whatever its body;"),
            ("scope = []\nfingerprint = \"none\"", "whatever its body;"),
            ("scope = []\non_missing_key = \"reject\"", "A request without a key gets 400."),
            (
                "scope = []\non_missing_key = \"fingerprint\"\nlease = \"1s\"",
                "the same content from the same caller within 10s is a repeat.",
            ),
            (
                "scope = []\nreplay_auth = \"/verify\"",
                "it gets 409. Before a repeat gets anything, the backend is asked whether its caller may see it. A request",
            ),
            ("scope = []\nreplay_auth = \"http://auth:4180/v\"", "an authorization server is asked whether"),
            ("scope = []\non_unknown = \"retry\"", "a repeat runs it again, and it may take effect twice."),
            (
                "scope = []\nprobe = { path = \"/o?k={key}\", found = { status = [\"200\"], json = \"/id\" }, absent = { \
                 status = [\"404\"], json = \"/error\" } }",
                "the backend is asked (GET /o?k={key}); until it can tell, the key is held, for a day or until",
            ),
            ("scope = []\nhold_for = \"1h\"", "its key is held for an hour, or until"),
            (
                "scope = []\nmode = \"observe\"",
                "Only observed: every request passes. Enforced, the rule would mean: One",
            ),
            ("scope = []\nmode = \"off\"", "Not guarded"),
        ] {
            let sentence = sentence(route);
            assert!(sentence.contains(said), "{route}\n{sentence}");
        }
    }
}
