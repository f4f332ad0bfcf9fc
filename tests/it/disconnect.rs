//! The client leaves early.

use crate::support::*;

on_every_store! {
    async fn a_client_that_leaves_changes_nothing(store: &Store) {
        let (backend, gate) = Backend::gated().await;
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        let client = sidecar.begin(&order("k")).await;
        backend.has_seen(1).await;
        drop(client);
        sidecar.ask(&order("k")).await.refuses(409, "in-flight");
        gate.open();
        until("the answer is kept", async || sidecar.ask(&order("k")).await.is_replay()).await;
        assert_eq!(sidecar.ask(&order("k")).await.text(), r#"{"order":1}"#);
        assert_eq!(backend.count(), 1);
    }

    async fn a_client_that_reads_nothing_holds_up_neither_its_record_nor_its_attempt(store: &Store) {
        reads_nothing(store, "buffer").await;
    }

    async fn a_client_that_reads_nothing_of_a_streamed_answer_holds_up_neither(store: &Store) {
        reads_nothing(store, "stream").await;
    }

    async fn a_hundred_clients_that_leave_make_one_order(store: &Store) {
        let (backend, gate) = Backend::gated().await;
        let sidecar = Setup::new(&backend.url()).store(store).route("on_concurrent = \"wait\"").start().await;
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(sidecar.begin(&order("k")).await);
        }
        backend.has_seen(1).await;
        for client in clients {
            client.reset();
        }
        gate.open();
        assert_eq!(sidecar.ask(&order("k")).await.text(), r#"{"order":1}"#);
        assert_eq!(backend.count(), 1);
    }
}

async fn reads_nothing(store: &Store, delivery: &str) {
    let gate = Gate::new();
    let half = "x".repeat(900_000);
    let head = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n", 2 * half.len());
    let script = vec![say(head), say(&half), Step::Wait(gate.clone()), say(&half)];
    let backend = Backend::scripted([script]).await;
    let route = format!("response = \"{delivery}\"\nmax_response_body = \"4MiB\"");
    let sidecar = Setup::new(&backend.url()).store(store).route(&route).start().await;
    let client = sidecar.begin(&order("k")).await;
    backend.has_seen(1).await;
    gate.open();
    let at_work = "onlyonce_in_flight{route=\"orders\"}";
    until("it is recorded", async || sidecar.metric(at_work).await == 0.0).await;
    let retry = sidecar.ask(&order("k")).await;
    assert_eq!((retry.is_replay(), retry.text().len(), backend.count()), (true, 2 * half.len(), 1));
    drop(client);
}

#[tokio::test]
async fn a_client_that_has_said_all_it_has_to_say_still_gets_its_answer() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = sidecar.begin(&order("k")).await;
    client.finish().await;
    backend.has_seen(1).await;
    gate.open();
    assert_eq!(client.response().await.text(), r#"{"order":1}"#);
}

/// As `nc -N` does, and some clients in Go and Java.
#[tokio::test]
async fn a_repeat_that_has_said_all_it_has_to_say_waits_as_any_other() {
    let waits = "on_concurrent = \"wait\"\nwait_timeout = \"15s\"";
    for (route, repeat) in [
        (waits, order("k")),
        (waits, order("k").chunked()),
        ("wait_timeout = \"15s\"", order("k").line("Prefer: wait=15")),
    ] {
        let (backend, gate) = Backend::gated().await;
        // A connection that waits for its response is not idle.
        let times = "idle_timeout = \"300ms\"\nheader_timeout = \"300ms\"";
        let sidecar = Setup::new(&backend.url()).route(route).with("server", times).start().await;
        let mut first = sidecar.begin(&order("k")).await;
        first.finish().await;
        backend.has_seen(1).await;
        let mut waiting = sidecar.begin(&repeat).await;
        waiting.finish().await;
        until("it waits", async || sidecar.metric("onlyonce_waiting{route=\"orders\"}").await == 1.0).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(sidecar.metric("onlyonce_waiting{route=\"orders\"}").await, 1.0);
        gate.open();
        assert_eq!(first.response().await.text(), r#"{"order":1}"#);
        let replay = waiting.response().await;
        assert_eq!((replay.is_replay(), replay.text()), (true, r#"{"order":1}"#));
        waiting.ends().await;
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_body_holds_no_key() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let request = order("k").bytes();
    let mut client = sidecar.connect().await;
    client.send(&request[..request.len() - 1]).await;
    sidecar.ask(&order("other")).await;
    drop(client);
    assert_eq!(sidecar.ask(&order("k")).await.text(), r#"{"order":2}"#);
    assert_eq!(backend.count(), 2);
}

#[tokio::test]
async fn a_slow_body_holds_no_key() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let request = order("k").bytes();
    let mut slow = sidecar.connect().await;
    slow.send(&request[..request.len() - 1]).await;
    assert!(!sidecar.ask(&order("k")).await.is_replay());
    slow.send(&request[request.len() - 1..]).await;
    assert!(slow.response().await.is_replay());
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_a_long_answer_leaves_the_record_as_it_is() {
    let gate = Gate::new();
    let long = "x".repeat(100_000);
    let head = "HTTP/1.1 201 Created\r\nLocation: /orders/7\r\nContent-Length: 200000\r\n\r\n";
    let script = vec![say(head), say(&long), Step::Wait(gate.clone()), say(&long)];
    let backend = Backend::scripted([script]).await;
    let sidecar = Setup::new(&backend.url()).route("max_response_body = \"4KiB\"").start().await;
    let mut client = sidecar.begin(&order("k")).await;
    client.head().await.expect("an answer");
    client.reset();
    gate.open();
    sidecar.ask(&order("k")).await.refuses(409, "already-completed");
    assert_eq!(backend.count(), 1);
}
