//! Observe mode changes nothing, and reports what enforcing would do.

use crate::support::*;

const OBSERVE: &str = "mode = \"observe\"";

async fn would(sidecar: &Sidecar, what: &str) -> f64 {
    sidecar.metric(&format!("onlyonce_duplicates_observed_total{{route=\"orders\",would=\"{what}\"}}")).await
}

const ALL: [&str; 6] = ["replay", "in_flight", "key_reused", "missing_key", "invalid_key", "too_large"];

/// Waits until these counts are reached, and fails if others change.
async fn counts(sidecar: &Sidecar, expected: [f64; 6]) {
    let mut found = [0.0; 6];
    let counted = async || {
        for (found, what) in found.iter_mut().zip(ALL) {
            *found = would(sidecar, what).await;
        }
        found == expected
    };
    until(&format!("{ALL:?} are {expected:?}"), counted).await;
}

async fn unobserved(sidecar: &Sidecar) -> f64 {
    sidecar.metric("onlyonce_unobserved_total{route=\"orders\"}").await
}

/// Waits until a repeat of this key would be replayed: the observation is recorded after the response.
async fn settled(sidecar: &Sidecar, request: &Request) -> usize {
    let mut repeats = 0;
    until("settled", async || {
        let before = would(sidecar, "replay").await;
        let counted = async || {
            let mut all = 0.0;
            for what in ALL {
                all += would(sidecar, what).await;
            }
            all
        };
        let all = counted().await;
        sidecar.ask(request).await;
        repeats += 1;
        until("counted", async || counted().await > all).await;
        would(sidecar, "replay").await > before
    })
    .await;
    repeats
}

#[tokio::test]
async fn a_double_click_reaches_the_backend_twice_and_each_gets_its_own_answer() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).route(OBSERVE).start().await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    until("the first is noted", async || {
        sidecar.metric("onlyonce_store_duration_seconds_count{op=\"claim\"}").await == 1.0
    })
    .await;
    let second = sidecar.ask(&order("k")).await;
    assert_eq!((second.status, second.text()), (201, "{\"order\":2}"));
    counts(&sidecar, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]).await;
    gate.open();
    let first = first.await.expect("an answer");
    assert_eq!((first.status, first.text()), (201, "{\"order\":1}"));

    let repeats = settled(&sidecar, &order("k")).await;
    assert_eq!(backend.count(), 2 + repeats);
    assert!(backend.seen().iter().all(|seen| seen.value("idempotency-key") == Some("k")));
    let unguarded = "onlyonce_requests_total{outcome=\"unguarded\",route=\"orders\"}";
    assert_eq!(sidecar.metric(unguarded).await, 2.0 + repeats as f64);
    assert_eq!(sidecar.metric("onlyonce_requests_total{outcome=\"executed\",route=\"orders\"}").await, 0.0);
}

#[tokio::test]
async fn what_would_be_refused_passes_and_is_counted() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route("mode = \"observe\"\nmax_request_body = \"64B\"").start().await;
    let large = "x".repeat(65);
    for (index, request) in [
        order("k"),
        order("k").line("X: y"),
        post("/orders").by("alice").body("no key"),
        order("not one").body("x"),
        order("a").line("Idempotency-Key: b"),
        order("announced").body(&large),
        order("in-chunks").body(&large).chunked(),
        order("empty").body(""),
        // As Java's client offers HTTP/2: enforcing would execute it.
        order("offer")
            .line("Connection: Upgrade, HTTP2-Settings")
            .line("Upgrade: h2c")
            .line("HTTP2-Settings: AAEAAEAA"),
        order("k").by("bob"),
    ]
    .iter()
    .enumerate()
    {
        let answer = sidecar.ask(request).await;
        assert_eq!((answer.status, answer.text()), (201, &*format!("{{\"order\":{}}}", index + 1)), "{request:?}");
    }
    assert_eq!(backend.seen()[6].body, large.as_bytes());
    let other = sidecar.ask(&order("k").json(r#"{"item":"pen"}"#)).await;
    assert_eq!(other.status, 201);
    until("a repeat", async || would(&sidecar, "replay").await + would(&sidecar, "in_flight").await == 1.0).await;
    until("another use", async || would(&sidecar, "key_reused").await == 1.0).await;
    for (what, times) in [("missing_key", 1.0), ("invalid_key", 2.0), ("too_large", 2.0)] {
        until(what, async || would(&sidecar, what).await == times).await;
    }
    assert_eq!(unobserved(&sidecar).await, 0.0);
}

#[tokio::test]
async fn what_the_policy_releases_is_no_duplicate_when_it_comes_again() {
    let failing = || vec![answer("422 Unprocessable Content\r\nOnlyonce-Outcome: store", "no")];
    let backend = Backend::scripted([vec![answer("500 Oops", "no")], failing()]).await;
    let sidecar = Setup::new(&backend.url()).route(OBSERVE).start().await;
    let released = "onlyonce_store_duration_seconds_count{op=\"release\"}";
    assert_eq!(sidecar.ask(&order("k")).await.status, 500);
    until("released", async || sidecar.metric(released).await == 1.0).await;
    let told = sidecar.ask(&order("k")).await;
    assert_eq!((told.status, told.has("onlyonce-outcome")), (422, false));
    until("settled", async || sidecar.metric("onlyonce_store_duration_seconds_count{op=\"settle\"}").await == 1.0)
        .await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    counts(&sidecar, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]).await;
}

/// The store is slower than every timeout, and the responses are not delayed.
#[tokio::test]
async fn a_store_that_hangs_slows_no_request() {
    let backend = Backend::start().await;
    let store = Store::redis();
    let Store::Redis(redis) = &store else { unreachable!() };
    let sidecar =
        Setup::new(&backend.url()).store(&store).with("server", "max_in_flight = 2").route(OBSERVE).start().await;
    sidecar.ask(&order("first")).await;
    until("settled", async || sidecar.metric("onlyonce_store_duration_seconds_count{op=\"settle\"}").await == 1.0)
        .await;
    redis.freeze();
    for index in 0..5 {
        let answer = sidecar.ask(&order("k")).await;
        assert_eq!(answer.text(), format!("{{\"order\":{}}}", index + 2));
    }
    // Two are being observed; the others are not observed.
    until("given up", async || unobserved(&sidecar).await == 3.0).await;
    redis.thaw();
    until("told", async || would(&sidecar, "in_flight").await + would(&sidecar, "replay").await == 1.0).await;
    assert_eq!(unobserved(&sidecar).await, 3.0);
}

#[tokio::test]
async fn a_store_that_is_gone_is_no_reason_to_refuse() {
    let backend = Backend::start().await;
    let mut store = Store::redis();
    let sidecar = Setup::new(&backend.url()).store(&store).route(OBSERVE).start().await;
    let Store::Redis(redis) = &mut store else { unreachable!() };
    redis.kill();
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    until("given up", async || unobserved(&sidecar).await == 1.0).await;
}

on_every_lasting_store! {
    async fn enforce_mode_does_not_see_what_was_observed_nor_the_other_way_round(store: &Store) {
        let backend = Backend::start().await;
        let setup = Setup::new(&backend.url()).store(store);
        let observing = setup.clone().route(OBSERVE).start().await;
        observing.ask(&order("k")).await;
        settled(&observing, &order("k")).await;
        observing.stop().await;

        let enforcing = setup.clone().start().await;
        let before = backend.count();
        let (first, second) = (enforcing.ask(&order("k")).await, enforcing.ask(&order("k")).await);
        assert_eq!((first.status, first.is_replay(), second.is_replay()), (201, false, true));
        assert_eq!(backend.count(), before + 1);
        enforcing.ask(&order("other")).await;
        enforcing.stop().await;

        let observing = setup.route(OBSERVE).start().await;
        observing.ask(&order("other")).await;
        observing.ask(&order("k")).await;
        counts(&observing, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]).await;
    }
}

#[tokio::test]
async fn bodies_pass_as_they_come_both_ways() {
    let by_hand = ByHand::start().await;
    let sidecar = Setup::new(&by_hand.url()).route(OBSERVE).start().await;
    let mut client = sidecar.connect().await;
    client.send("POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 10\r\n\r\nfirst").await;
    let mut backend = by_hand.accept().await;
    backend.head().await.expect("a request");
    assert_eq!(backend.exactly(5).await, b"first");
    client.send("after").await;
    assert_eq!(backend.exactly(5).await, b"after");
    backend.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    backend.send(chunk(b"begun")).await;
    client.head().await.expect("an answer");
    assert_eq!(client.chunk().await, b"begun");
    // It is in flight until its response has ended.
    until("noted", async || sidecar.metric("onlyonce_store_duration_seconds_count{op=\"claim\"}").await == 1.0).await;
    assert_eq!(sidecar.metric("onlyonce_store_duration_seconds_count{op=\"settle\"}").await, 0.0);
    assert_eq!(sidecar.metric("onlyonce_buffered_bytes").await, 0.0);
    backend.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, b"");
    until("settled", async || sidecar.metric("onlyonce_store_duration_seconds_count{op=\"settle\"}").await == 1.0)
        .await;
}

#[tokio::test]
async fn each_request_is_told_in_one_line_without_its_credentials() {
    let backend = Backend::start().await;
    let mut process = Process::start(&Setup::new(&backend.url()).route(OBSERVE)).await;
    process.ask(&order("secret-key")).await;
    until("told", async || process.log().matches("\"observed\"").count() == 1).await;
    process.ask(&order("secret-key")).await;
    until("told", async || process.log().matches("\"observed\"").count() == 2).await;
    process.ask(&post("/orders")).await;
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.exit().await, Some(0));
    let log = process.whole_log();
    let events: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<_> = events.iter().filter(|event| event["message"] == "observed").collect();
    let of = |name: &str| told.iter().map(|event| event[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("would"), ["executed", "replay", "missing_key"]);
    assert_eq!(of("status"), [201, 201, 201]);
    assert_eq!(of("route"), ["orders", "orders", "orders"]);
    assert!(told[0]["record"].is_string() && told[0]["record"] == told[1]["record"], "{told:?}");
    assert!(!log.contains("secret-key") && !log.contains("alice"), "{log}");
    assert!(events.iter().all(|event| event["message"] != "request"), "{log}");
}

#[tokio::test]
async fn a_route_is_switched_on_while_it_serves() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let process = Process::start(&setup.clone().route(OBSERVE)).await;
    process.ask(&order("k")).await;
    process.ask(&order("k")).await;
    process.rewrite(&setup);
    until("reloaded", async || process.metric("onlyonce_config_reloads_total{result=\"ok\"}").await == 1.0).await;
    assert!(!process.ask(&order("k")).await.is_replay());
    assert!(process.ask(&order("k")).await.is_replay());
    assert_eq!(backend.count(), 3);
}
