use std::time::Duration;

use super::super::{Durability, StoreLocation};
use super::*;
use crate::rule::{OnConcurrent, OnMissingKey, OnUnknown, RouteTarget, Selector};
use crate::units::HumanDuration;

const REFERENCE: &str = include_str!("../../../config/onlyonce.toml");

fn config(text: &str) -> Config {
    parse("test.toml", text, &|name| (name == "NAME").then(|| "from-env".into()))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The least that a file needs, with `extra` added to its route.
fn with_route(extra: &str) -> Config {
    config(&format!("{LEAST}{extra}"))
}

const LEAST: &str = "[upstream]\nurl = \"http://127.0.0.1:3000\"\n[store]\nurl = \"redis://127.0.0.1:6379/0\"\n\
                         [[route]]\nname = \"create-order\"\npath = \"/orders\"\nscope = [\"header:Authorization\"]\n";

#[test]
fn the_reference_shows_the_defaults() {
    // Except for where the retention comes from, and for what its readers have thought of.
    let least = with_route("accept = [\"authorization-as-caller\", \"busy-503\"]");
    let least = format!("{least:#?}").replace("retention_given: false", "retention_given: true");
    assert_eq!(format!("{:#?}", config(REFERENCE)), least);
}

#[test]
fn a_route_wins_over_the_defaults() {
    let text = LEAST.replace("[[route]]", "[defaults]\nlease = \"5s\"\nretention = \"1h\"\n[[route]]\nlease = \"9s\"");
    let rule = &config(&text).routes.rules()[0].clone();
    assert_eq!((rule.lease, rule.retention), (Duration::from_secs(9), Duration::from_secs(3600)));
    assert_eq!(rule.hold_for, rule.retention);
}

/// Every choice of keys that are compared with one another, some given and some not: a file is wrong only where two
/// that are given contradict each other, and what it comes to is always in order.
#[test]
fn no_default_makes_a_file_wrong() {
    const UPSTREAM: [&[&str]; 2] = [&["", "15m"], &["", "4s"]];
    const ROUTE: [&[&str]; 5] = [&["", "20m"], &["", "30h"], &["", "1s", "400d"], &["", "2s", "4d"], &["", "4d"]];
    const NAMES: [&str; 7] =
        ["response_timeout", "attempt_timeout", "wait_timeout", "lease", "retention", "hold_for", "fingerprint_window"];
    let mut choices: Vec<Vec<&str>> = vec![Vec::new()];
    for values in UPSTREAM.iter().chain(&ROUTE) {
        let longer = |choice: &Vec<&'static str>, value: &&'static str| [&choice[..], &[*value]].concat();
        choices = choices.iter().flat_map(|choice| values.iter().map(|value| longer(choice, value))).collect();
    }
    let duration = |text: &str| text.parse().ok().map(|HumanDuration(duration)| duration);
    for choice in choices {
        let given: Vec<Option<Duration>> = choice.iter().map(|value| duration(value)).collect();
        let [response, attempt, wait, lease, retention, hold, window] = given[..] else { panic!("seven keys") };
        let fits = |short: Option<Duration>, long: Option<Duration>| short.zip(long).is_none_or(|(a, b)| a <= b);
        let is_right = fits(response, attempt)
            && fits(wait, attempt)
            && fits(lease, retention)
            && fits(lease, hold)
            && fits(hold, retention)
            && fits(window, retention);
        let lines: Vec<String> = NAMES
            .iter()
            .zip(&choice)
            .map(|(name, value)| if value.is_empty() { String::new() } else { format!("{name} = \"{value}\"\n") })
            .collect();
        let text = LEAST.replace("[store]", &format!("{}[store]", lines[..2].concat()));
        for preset in ["", "preset = \"stripe\"\n"] {
            let text = format!("{text}on_missing_key = \"fingerprint\"\n{preset}{}", lines[2..].concat());
            let config = match parse("test.toml", &text, &|_| None) {
                Ok(config) if is_right => config,
                Err(_) if !is_right => continue,
                Ok(_) => panic!("two keys contradict each other:\n{text}"),
                Err(error) => panic!("{error}\n{text}"),
            };
            let (upstream, rule) = (&config.upstream, &config.routes.rules()[0]);
            let OnMissingKey::Fingerprint(window) = rule.on_missing_key else { panic!("a window") };
            assert!(upstream.response_timeout <= upstream.attempt_timeout, "{text}");
            assert!(rule.wait_timeout <= upstream.attempt_timeout, "{text}");
            assert!(rule.lease <= rule.hold_for && rule.hold_for <= rule.retention, "{text}\n{rule:?}");
            assert!(window <= rule.retention, "{text}\n{rule:?}");
        }
    }
}

#[test]
fn defaults_give_way_to_what_the_file_says() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let of = |extra: &str| with_route(extra).routes.rules()[0].clone();
    assert_eq!(of("").retention, hours(24));
    assert_eq!(of("preset = \"stripe\"").retention, hours(72));
    assert_eq!(of("preset = \"stripe\"\nretention = \"24h\"").retention, hours(24));
    assert_eq!(of("preset = \"cloudevents\"\nhold_for = \"100h\"").retention, hours(100));
    assert_eq!(of("lease = \"20h\"").retention, hours(40));
    assert_eq!(of("key = [\"header:Number\", \"date:month\"]").retention, hours(31 * 24));
    let of_defaults = config(&LEAST.replace("[[route]]", "[defaults]\nfingerprint_window = \"48h\"\n[[route]]"));
    assert_eq!(of_defaults.routes.rules()[0].retention, hours(24), "without effect here");
    assert_eq!(of("retention = \"20s\"").lease, Duration::from_secs(10));
    assert_eq!(of("hold_for = \"5s\"").lease, Duration::from_secs(5));
    let config = config(&LEAST.replace("[store]", "attempt_timeout = \"4s\"\n[store]"));
    assert_eq!(config.routes.rules()[0].wait_timeout, Duration::from_secs(4));
    assert_eq!(config.upstream.response_timeout, Duration::from_secs(4));
}

#[test]
fn a_form_waits_by_default() {
    let of = |extra: &str| with_route(extra).routes.rules()[0].on_concurrent;
    assert_eq!(of("key = \"form:order\""), OnConcurrent::Wait);
    assert_eq!(of("key = [\"header:X-Shop\", \"form:order\"]"), OnConcurrent::Wait);
    assert_eq!(of("key = \"form:order\"\non_concurrent = \"reject\""), OnConcurrent::Reject);
    assert_eq!(of("key = \"form:order\"\nwait_timeout = \"0s\""), OnConcurrent::Reject);
    assert_eq!(of("key = \"form:order\"\nmax_waiters = 0"), OnConcurrent::Reject);
    assert_eq!(of("key = \"json:/order\""), OnConcurrent::Reject);
}

#[test]
fn a_lenient_policy_retries_unless_told_otherwise() {
    let of = |extra: &str| with_route(extra).routes.rules()[0].on_unknown;
    assert_eq!(of(""), OnUnknown::Hold);
    assert_eq!(of("policy = \"lenient\""), OnUnknown::Retry);
    assert_eq!(of("policy = \"lenient\"\non_unknown = \"hold\""), OnUnknown::Hold);
    assert_eq!(of("on_unknown = \"retry\""), OnUnknown::Retry);
}

#[test]
fn the_lists_of_a_route_win_over_those_of_the_defaults() {
    let text = LEAST.replace("[[route]]", "[defaults]\nhold = [\"503\", \"500\"]\n[[route]]\nrelease = [\"503\"]");
    let rule = &config(&text).routes.rules()[0].clone();
    let of = |status| rule.policy.disposition(http::StatusCode::from_u16(status).expect("a status"));
    assert_eq!(of(503), crate::rule::Disposition::Release);
    assert_eq!(of(500), crate::rule::Disposition::Hold);
}

#[test]
fn cookies_are_replayed_where_one_names_the_caller() {
    let text = LEAST.replace("header:Authorization", "cookie:session");
    assert!(config(&text).routes.rules()[0].replay_set_cookie);
    assert!(!config(&format!("{text}replay_set_cookie = false")).routes.rules()[0].replay_set_cookie);
}

#[test]
fn a_fingerprint_for_a_key_has_a_window() {
    let rule = with_route("on_missing_key = \"fingerprint\"\nfingerprint_window = \"2m\"").routes.rules()[0].clone();
    assert_eq!(rule.on_missing_key, OnMissingKey::Fingerprint(Duration::from_secs(120)));
}

#[test]
fn keys_may_be_given_with_their_default() {
    with_route("refuse_expired_keys = false\nresponse = \"buffer\"");
    let tables = "[server]\ntrusted_proxies = []\n[upstream]\nhttp2 = false\nurl = \"http://backend\"\n";
    config(&format!("{tables}{}", LEAST.replace("[upstream]\nurl = \"http://127.0.0.1:3000\"\n", "")));
    config(&LEAST.replace("[store]", "[store]\nreplica_acks = 0\nencryption_keys = []"));
}

#[test]
fn any_string_may_come_from_the_environment() {
    let config = with_route("message = \"env:NAME\"");
    assert_eq!(config.routes.rules()[0].message.as_deref(), Some("from-env"));
    let text = LEAST.replace("redis://127.0.0.1:6379/0", "env:URL");
    let config = parse("t", &text, &|_| Some("redis://u:p%40@[::1]/3".into())).expect("a configuration");
    let StoreLocation::Redis(address) = config.store.location else { panic!("not a Redis") };
    assert_eq!(address.to_string(), "redis://[::1]:6379/3");
    assert_eq!(address.password, Some(crate::config::StorePassword::Fixed(crate::config::Secret::new("p@"))));
}

#[test]
fn the_admin_listener_can_be_off() {
    assert!(config(&format!("[admin]\nlisten = \"off\"\n{LEAST}")).admin.listen.is_none());
    let admin = config(LEAST).admin;
    assert!(admin.listen.is_some() && admin.tokens.is_empty());
}

#[test]
fn stores_are_told_apart_by_their_url() {
    let of = |url: &str| config(&LEAST.replace("redis://127.0.0.1:6379/0", url)).store;
    assert_eq!(of("embedded:data").location, StoreLocation::Embedded("data".into()));
    assert_eq!(of("memory:").location, StoreLocation::Memory);
    assert_eq!(of("memory:").durability, Durability::Disk);
    for url in ["redis://cache:7000/1", "valkey://cache:7000/1", "REDIS://cache:7000/1", "Valkey://cache:7000/1"] {
        let StoreLocation::Redis(address) = of(url).location else { panic!("{url}") };
        assert_eq!(address.to_string(), "redis://cache:7000/1");
    }
    for (url, shown) in [
        ("redis+unix:///run/redis.sock?db=2", "redis+unix:///run/redis.sock?db=2"),
        ("unix://app:pw@/run/redis.sock", "redis+unix:///run/redis.sock"),
        ("redis+sentinel://:pw@a,[::1]:7/orders/3", "redis+sentinel://a:26379,[::1]:7/orders/3"),
        ("rediss://a", "rediss://a:6379/0"),
        ("rediss+sentinel://a/orders", "rediss+sentinel://a:26379/orders/0"),
    ] {
        assert_eq!(of(url).location.to_string(), shown, "{url}");
    }
}

#[test]
fn hosts_and_selectors_are_read_without_regard_to_case_where_they_have_none() {
    let rule = with_route("host = \"API.Example.com\"\nkey = \"header:IDEMPOTENCY-KEY\"").routes.rules()[0].clone();
    assert_eq!(rule.host.as_deref(), Some("api.example.com"));
    assert_eq!(rule.key, [Selector::Header(http::HeaderName::from_static("idempotency-key"))]);
}

#[test]
fn the_most_specific_route_wins_and_methods_do_not_hide_one_another() {
    let second = "[[route]]\nname = \"b\"\npath = \"/{*rest}\"\nscope = []\nmethods = [\"POST\", \"PUT\"]\n";
    let config = with_route(second);
    let of = |method: http::Method| {
        let path = "/orders";
        let target = RouteTarget { method: &method, overriding: &[], host: None, path, normal: path };
        config.routes.find(&target).map(|found| found.rule.name.to_string())
    };
    assert_eq!(of(http::Method::POST).as_deref(), Some("create-order"));
    assert_eq!(of(http::Method::PUT).as_deref(), Some("b"));
    assert_eq!(of(http::Method::PATCH), None);
}
