//! The sidecar is stopped or killed.

use std::time::Duration;

use rustix::process::Signal;

use onlyonce::run::Stopped;

use crate::support::*;

on_every_lasting_store! {
    async fn work_whose_client_has_left_is_finished_and_kept(store: &Store) {
        let (backend, gate) = Backend::gated().await;
        let setup = Setup::new(&backend.url()).store(store);
        let mut process = Process::start(&setup).await;
        let client = process.begin(&order("k")).await;
        backend.has_seen(1).await;
        drop(client);
        process.signal(Signal::TERM);
        until("it does not listen any more", async || !process.listens().await).await;
        gate.open();
        assert_eq!(process.exit().await, Some(0), "{}", process.log());

        let process = Process::start(&setup).await;
        let retry = process.ask(&order("k")).await;
        assert_eq!((retry.text(), retry.is_replay()), (r#"{"order":1}"#, true));
        assert_eq!(backend.count(), 1);
    }

    async fn after_a_crash_nobody_runs_it_again(store: &Store) {
        let (backend, _gate) = Backend::gated().await;
        let setup = Setup::new(&backend.url()).store(store).route("lease = \"1s\"");
        let mut process = Process::start(&setup).await;
        let _client = process.begin(&order("k")).await;
        backend.has_seen(1).await;
        process.kill();

        let process = Process::start(&setup).await;
        until("the owner counts as lost", async || {
            let (status, code) = process.ask(&order("k")).await.problem();
            assert_eq!(status, 409);
            assert!(code == "in-flight" || code == "outcome-unknown", "{code}");
            code == "outcome-unknown"
        })
        .await;
        assert_eq!(process.ask(&order("k")).await.retry_after(), None);
        assert_eq!(backend.count(), 1);
    }

    async fn after_a_crash_a_route_may_run_it_again(store: &Store) {
        let (backend, _gate) = Backend::gated().await;
        let setup = Setup::new(&backend.url()).store(store).route("lease = \"1s\"\non_unknown = \"retry\"");
        let mut process = Process::start(&setup).await;
        let _client = process.begin(&order("k")).await;
        backend.has_seen(1).await;
        process.kill();

        let process = Process::start(&setup).await;
        until("a retry takes over", async || {
            let retry = process.ask(&order("k")).await;
            if retry.status == 409 {
                retry.refuses(409, "in-flight");
            }
            retry.status == 201
        })
        .await;
        assert_eq!(backend.count(), 2);
        assert_eq!(backend.seen()[1].value("onlyonce-attempt"), Some("2"));
        assert!(process.ask(&order("k")).await.is_replay());
    }

    async fn what_was_answered_survives_a_crash(store: &Store) {
        let backend = Backend::start().await;
        let setup = Setup::new(&backend.url()).store(store);
        let mut process = Process::start(&setup).await;
        for key in 0..20 {
            assert_eq!(process.ask(&order(&key.to_string())).await.status, 201);
        }
        process.kill();

        let process = Process::start(&setup).await;
        for key in 0..20 {
            let retry = process.ask(&order(&key.to_string())).await;
            assert_eq!((retry.text(), retry.is_replay()), (&*format!("{{\"order\":{}}}", key + 1), true));
        }
        assert_eq!(backend.count(), 20);
    }
}

#[tokio::test]
async fn a_client_that_waits_still_gets_its_answer() {
    for signal in [Signal::TERM, Signal::INT] {
        let gate = Gate::new();
        let backend = Backend::scripted([vec![Step::Answer], vec![Step::Wait(gate.clone()), Step::Answer]]).await;
        let mut process = Process::start(&Setup::new(&backend.url())).await;
        let mut idle = process.connect().await;
        idle.ask(&request("GET", "/")).await;
        let mut client = process.begin(&order("k")).await;
        backend.has_seen(2).await;
        process.signal(signal);
        // A connection without a request does not delay the stop.
        idle.ends().await;
        gate.open();
        assert_eq!(client.response().await.status, 201);
        client.ends().await;
        assert_eq!(process.exit().await, Some(0), "{}", process.log());
    }
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_still_serves() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url()).with("server", "drain_delay = \"60s\"");
    let sidecar = setup.start().await;
    assert_eq!(sidecar.admin("/readyz").await.status, 200);
    let (admin, address) = (sidecar.admin, sidecar.address);
    let _stopping = sidecar.begin_to_stop();
    let readyz = async || Wire::connect(admin).await.ask(&request("GET", "/readyz")).await;
    until("it is not ready", async || readyz().await.status == 503).await;
    assert!(readyz().await.text().contains("draining"));
    assert_eq!(Wire::connect(admin).await.ask(&request("GET", "/healthz")).await.status, 200);
    assert_eq!(Wire::connect(address).await.ask(&order("k")).await.status, 201);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_recorded_as_it_stands() {
    let store = Store::embedded();
    let (backend, _gate) = Backend::gated().await;
    let setup = Setup::new(&backend.url()).store(&store).with("server", "drain_timeout = \"100ms\"");
    let sidecar = setup.clone().start().await;
    let _client = sidecar.begin(&order("k")).await;
    backend.has_seen(1).await;
    assert_eq!(sidecar.stop().await, Stopped::Unfinished);

    let sidecar = setup.start().await;
    sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn exit_status_1_says_that_something_was_left() {
    let (backend, _gate) = Backend::gated().await;
    let setup = Setup::new(&backend.url()).with("server", "drain_timeout = \"100ms\"");
    let mut process = Process::start(&setup).await;
    let _client = process.begin(&order("k")).await;
    backend.has_seen(1).await;
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await, Some(1), "{}", process.log());
}

#[tokio::test]
async fn a_second_signal_stops_it_at_once() {
    let (backend, _gate) = Backend::gated().await;
    let setup = Setup::new(&backend.url()).with("server", "drain_delay = \"1h\"\ndrain_timeout = \"1h\"");
    let mut process = Process::start(&setup).await;
    let _client = process.begin(&order("k")).await;
    backend.has_seen(1).await;
    process.signal(Signal::TERM);
    until("it drains", async || process.admin("/readyz").await.status == 503).await;
    tokio::time::sleep(ONE_SIGNAL).await;
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await, Some(1));
}

/// Signals within this time count as one.
const ONE_SIGNAL: Duration = Duration::from_millis(1100);

#[tokio::test]
async fn signals_of_one_moment_are_one_signal() {
    // timeout(1) signals its child, and then the whole group; shells and supervisors do the same.
    for signals in [&[Signal::TERM, Signal::INT][..], &[Signal::INT, Signal::TERM, Signal::INT, Signal::TERM]] {
        let (backend, gate) = Backend::gated().await;
        let mut process = Process::start(&Setup::new(&backend.url())).await;
        let mut client = process.begin(&order("k")).await;
        backend.has_seen(1).await;
        for signal in signals {
            process.signal(*signal);
        }
        until("it does not listen any more", async || !process.listens().await).await;
        gate.open();
        assert_eq!(client.response().await.status, 201);
        assert_eq!(process.exit().await, Some(0), "{}", process.log());
    }
}

#[tokio::test]
async fn claims_that_were_given_up_are_cleaned_up_before_it_ends() {
    let (backend, redis) = (Backend::start().await, RedisServer::start());
    let setup = Setup::new(&backend.url())
        .with("store", &format!("url = \"{}\"\ntimeout = \"300ms\"", redis.url()))
        .with("server", "drain_timeout = \"15s\"");
    let mut process = Process::start(&setup).await;
    assert_eq!(process.ask(&order("another")).await.status, 201);
    // The claim is on its way, and arrives when the process has begun to stop.
    redis.freeze();
    process.ask(&order("k")).await.refuses(503, "store-unavailable");
    process.signal(Signal::TERM);
    until("it does not listen any more", async || !process.listens().await).await;
    redis.thaw();
    assert_eq!(process.exit().await, Some(0), "{}", process.log());

    let process = Process::start(&setup).await;
    let answer = process.ask(&order("k")).await;
    assert_eq!((answer.status, answer.is_replay(), backend.count()), (201, false, 2), "{answer:?}");
}

#[tokio::test]
async fn claims_that_cannot_be_cleaned_up_are_told() {
    let (backend, redis) = (Backend::start().await, RedisServer::start());
    let setup = Setup::new(&backend.url())
        .with("store", &format!("url = \"{}\"\ntimeout = \"300ms\"", redis.url()))
        .with("server", "drain_timeout = \"1s\"");
    let mut process = Process::start(&setup).await;
    assert_eq!(process.ask(&order("another")).await.status, 201);
    redis.freeze();
    process.ask(&order("k")).await.refuses(503, "store-unavailable");
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await, Some(1));
    let log = process.whole_log();
    assert!(log.contains("some claims were given up") && !log.contains("never recorded"), "{log}");
    redis.thaw();
}

#[tokio::test]
async fn what_is_only_observed_is_no_work_that_was_left() {
    let (backend, redis) = (Backend::start().await, RedisServer::start());
    let setup = Setup::new(&backend.url())
        .route("mode = \"observe\"")
        .with("store", &format!("url = \"{}\"\ntimeout = \"2s\"", redis.url()))
        .with("server", "drain_timeout = \"500ms\"");
    let mut process = Process::start(&setup).await;
    redis.freeze();
    // The response needs no store; the observation waits for the store.
    assert_eq!(process.ask(&order("k")).await.status, 201);
    process.signal(Signal::TERM);
    let exit = process.exit().await;
    redis.thaw();
    let log = process.whole_log();
    assert_eq!(exit, Some(0), "{log}");
    assert!(!log.contains("never recorded"), "{log}");
}

#[tokio::test]
async fn half_a_head_does_not_hold_it_up() {
    let backend = Backend::start().await;
    let times = "header_timeout = \"200ms\"\ndrain_timeout = \"15s\"";
    let sidecar = Setup::new(&backend.url()).with("server", times).start().await;
    let mut fresh = sidecar.connect().await;
    fresh.send("POST /orders HTTP/1.1\r\n").await;
    let mut kept = sidecar.connect().await;
    kept.ask(&order("k")).await;
    kept.send("POST /orders HTTP/1.1\r\n").await;
    assert_eq!(sidecar.stop().await, Stopped::Clean);
    fresh.ends().await;
    kept.ends().await;
}
