//! The sidecar is told to stop, or dies.

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
        // A connection without a request does not hold it up.
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
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await, Some(1));
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
