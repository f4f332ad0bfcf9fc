//! The admin listener: probes and metrics.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::*;

/// The labels of each metric.
fn series(exposition: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in exposition.lines().filter(|line| line.starts_with("onlyonce_")) {
        let (series, _value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let name = of_histogram.filter(|name| name.ends_with("_seconds")).unwrap_or(name);
        let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split('=').next());
        found.entry(name).or_default().extend(labels.filter(|label| !label.is_empty() && *label != "le"));
    }
    found
}

#[tokio::test]
async fn the_metrics_have_the_names_and_labels_that_dashboards_rely_on() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    sidecar.ask(&order("k")).await;
    sidecar.ask(&order("k")).await;
    let answer = sidecar.admin("/metrics").await;
    assert_eq!(answer.value("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let found = series(answer.text());
    for (name, labels) in [
        ("onlyonce_requests_total", &["outcome", "route"][..]),
        ("onlyonce_request_duration_seconds", &["outcome", "route"]),
        ("onlyonce_upstream_duration_seconds", &["route"]),
        ("onlyonce_store_duration_seconds", &["op"]),
        ("onlyonce_store_errors_total", &["op"]),
        ("onlyonce_store_up", &[]),
        ("onlyonce_in_flight", &["route"]),
        ("onlyonce_waiting", &["route"]),
        ("onlyonce_lease_lost_total", &["route"]),
        ("onlyonce_records_total", &["route", "state"]),
        ("onlyonce_connections", &[]),
        ("onlyonce_buffered_bytes", &[]),
        ("onlyonce_build_info", &["version"]),
    ] {
        let labels = labels.iter().copied().collect();
        assert_eq!(found.get(name), Some(&labels), "{name}");
    }
}

#[tokio::test]
async fn every_outcome_is_counted_under_its_name() {
    let (backend, gate) = Backend::gated().await;
    let setup = Setup::new(&backend.url()).route("max_request_body = \"1KiB\"");
    let setup = setup.with("server", "body_timeout = \"100ms\"");
    let sidecar = setup
        .another_route("name = \"json\"\npath = \"/json\"\nkey = \"json:/id\"\nscope = []\non_missing_key = \"reject\"")
        .start()
        .await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    sidecar.ask(&order("k")).await.refuses(409, "in-flight");
    gate.open();
    first.await.expect("an answer");
    sidecar.ask(&order("k")).await;
    sidecar.ask(&order("k").body("another")).await;
    sidecar.ask(&order("")).await;
    sidecar.ask(&order("large").body("x".repeat(2000))).await;
    let mut broken = sidecar.connect().await;
    broken
        .send("POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: b\r\nTransfer-Encoding: chunked\r\n\r\nno chunk")
        .await;
    broken.response().await.refuses(400, "bad-request");
    sidecar.ask(&post("/orders")).await;
    sidecar.ask(&request("GET", "/")).await;
    sidecar.ask(&post("/json").json("{")).await;
    sidecar.ask(&post("/json").json("{}")).await;
    backend.then(vec![Step::Reset]);
    sidecar.ask(&order("lost")).await;
    sidecar.ask(&order("lost")).await;
    backend.then(vec![say("HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n"), Step::Close]);
    sidecar.ask(&order("half")).await;
    sidecar.ask(&order("half")).await;
    let mut slow = sidecar.connect().await;
    slow.send("POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: slow\r\nContent-Length: 9\r\n\r\n").await;
    slow.response().await.refuses(408, "request-timeout");

    for (route, outcome, count) in [
        ("orders", "executed", 1.0),
        ("orders", "replayed", 1.0),
        ("orders", "in_flight", 1.0),
        ("orders", "key_reused", 1.0),
        ("orders", "invalid_key", 1.0),
        ("orders", "too_large", 1.0),
        ("orders", "bad_request", 1.0),
        ("orders", "unguarded", 1.0),
        ("orders", "unknown", 1.0),
        ("orders", "unreplayable", 1.0),
        ("orders", "upstream_error", 2.0),
        ("orders", "request_timeout", 1.0),
        ("unmatched", "unguarded", 1.0),
        ("json", "invalid_body", 1.0),
        ("json", "missing_key", 1.0),
    ] {
        let series = format!("onlyonce_requests_total{{outcome=\"{outcome}\",route=\"{route}\"}}");
        assert_eq!(sidecar.metric(&series).await, count, "{series}");
    }
    for (state, count) in [("completed", 1.0), ("unknown", 1.0), ("unreplayable", 1.0), ("released", 0.0)] {
        let series = format!("onlyonce_records_total{{route=\"orders\",state=\"{state}\"}}");
        assert_eq!(sidecar.metric(&series).await, count, "{series}");
    }
}

#[tokio::test]
async fn labels_never_come_from_a_request() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    sidecar.ask(&post("/strange-path").line("Idempotency-Key: strange-key").by("strange-caller")).await;
    sidecar.ask(&request("STRANGE", "/strange")).await;
    assert!(!sidecar.admin("/metrics").await.text().to_lowercase().contains("strange"));
}

#[tokio::test]
async fn work_at_hand_is_shown_while_it_lasts() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let series = "onlyonce_in_flight{route=\"orders\"}";
    assert_eq!(sidecar.metric(series).await, 0.0);
    let client = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    assert_eq!(sidecar.metric(series).await, 1.0);
    gate.open();
    client.await.expect("an answer");
    until("it is over", async || sidecar.metric(series).await == 0.0).await;
    assert_eq!(sidecar.metric("onlyonce_upstream_duration_seconds_count{route=\"orders\"}").await, 1.0);
}

#[tokio::test]
async fn health_and_readiness_are_told() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for (target, status) in
        [("/healthz", 200), ("/readyz", 200), ("/readyz?store=1", 200), ("/readyz?x&store=1", 200), ("/nothing", 404)]
    {
        assert_eq!(sidecar.admin(target).await.status, status, "{target}");
    }
    assert!(sidecar.admin("/readyz").await.text().contains("store: up"));
    let refused = Wire::connect(sidecar.admin).await.ask(&post("/metrics")).await;
    assert_eq!((refused.status, refused.value("allow")), (405, Some("GET, HEAD")));
    let head = Wire::connect(sidecar.admin).await.ask(&request("HEAD", "/healthz")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn operators_and_clients_have_listeners_of_their_own() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    assert_eq!(sidecar.ask(&request("GET", "/metrics")).await.text(), r#"{"order":1}"#);
    assert_eq!(sidecar.admin("/orders").await.status, 404);
    assert_eq!(backend.count(), 1);
}
