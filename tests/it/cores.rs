//! Several threads serve requests and share all limits and records.

use crate::support::*;

on_every_store! {
    async fn repeats_on_other_threads_get_the_answer_of_the_first(store: &Store) {
        let (backend, gate) = Backend::gated().await;
        let setup = Setup::new(&backend.url()).store(store).route("on_concurrent = \"wait\"\nwait_timeout = \"60s\"");
        let sidecar = setup.with("server", "threads = 4").start().await;
        // Connections that stay open, spread over the threads.
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = sidecar.connect().await;
            client.send(order("k").bytes()).await;
            clients.push(client);
        }
        backend.has_seen(1).await;
        let waiting = async || sidecar.metric("onlyonce_waiting{route=\"orders\"}").await;
        until("seven wait", async || waiting().await == 7.0).await;
        gate.open();
        let mut replays = 0;
        for client in &mut clients {
            let answer = client.response().await;
            assert_eq!((answer.status, answer.text()), (201, "{\"order\":1}"));
            replays += usize::from(answer.is_replay());
        }
        assert_eq!((backend.count(), replays), (1, 7));
    }
}

#[tokio::test]
async fn limits_are_those_of_all_threads_together() {
    let gate = Gate::new();
    let backend = Backend::scripted(vec![vec![Step::Wait(gate.clone()), Step::Answer]; 3]).await;
    let setup = Setup::new(&backend.url()).with("server", "threads = 4\nmax_in_flight = 3\nmax_connections = 6");
    let sidecar = setup.start().await;
    let mut at_work = Vec::new();
    for number in 0..3 {
        at_work.push(sidecar.begin(&order(&number.to_string())).await);
    }
    backend.has_seen(3).await;
    let mut others = Vec::new();
    for number in 3..6 {
        let mut client = sidecar.connect().await;
        client.ask(&order(&number.to_string())).await.refuses(503, "overloaded");
        others.push(client);
    }
    // All places are taken: a new connection waits until another one is closed.
    let seventh = sidecar.asking(&request("GET", "/"));
    assert_eq!(sidecar.metric("onlyonce_connections").await, 6.0);
    drop(others);
    assert_eq!(seventh.await.expect("an answer").status, 201);
    gate.open();
    for client in &mut at_work {
        assert_eq!(client.response().await.status, 201);
    }
}

/// A JSON list of at least this length.
fn json(length: usize, last: &str) -> String {
    format!("{{\"numbers\":[{}0],\"last\":{last}}}", "1,".repeat(length / 2))
}

#[tokio::test]
async fn a_long_body_that_is_read_holds_up_no_other_request_of_its_thread() {
    const LENGTH: usize = 1 << 20;
    let backend = Backend::scripted([vec![Step::Answer]]).await;
    let setup = Setup::new(&backend.url()).route("max_request_body = \"2MiB\"").with("server", "threads = 1");
    let sidecar = setup.start().await;
    let mut other = sidecar.connect().await;
    let long = sidecar.asking(&post("/orders").line("Idempotency-Key: k").by("alice").json(&json(LENGTH, "1")));
    let buffered = async || sidecar.metric("onlyonce_buffered_bytes").await;
    until("all of it is here", async || buffered().await >= LENGTH as f64).await;
    assert_eq!(other.ask(&request("GET", "/")).await.status, 201);
    assert_eq!(long.await.expect("an answer").status, 201);
    let targets: Vec<_> = backend.seen().iter().map(|seen| seen.head.first.clone()).collect();
    assert_eq!(targets, ["GET / HTTP/1.1", "POST /orders HTTP/1.1"]);
}

#[tokio::test]
async fn a_long_body_is_what_a_short_one_would_be() {
    for (length, name) in [(1000, "short"), (200_000, "long")] {
        let backend = Backend::scripted([vec![Step::Answer]]).await;
        let sidecar = Setup::new(&backend.url()).start().await;
        let order = |last: &str| post("/orders").line("Idempotency-Key: k").by("alice").json(&json(length, last));
        assert!(!sidecar.ask(&order("1")).await.is_replay(), "{name}");
        assert!(sidecar.ask(&order("1")).await.is_replay(), "{name}");
        // The same number.
        assert!(sidecar.ask(&order("1.0")).await.is_replay(), "{name}");
        sidecar.ask(&order("2")).await.refuses(422, "key-reused");

        let in_body =
            Setup::new(&backend.url()).route("key = \"json:/last\"\non_missing_key = \"reject\"").start().await;
        let order = |last: &str| post("/orders").by("alice").json(&json(length, last));
        assert!(!in_body.ask(&order("\"k\"")).await.is_replay(), "{name}");
        assert!(in_body.ask(&order("\"k\"")).await.is_replay(), "{name}");
        in_body.ask(&order("null")).await.refuses(400, "missing-key");
        in_body.ask(&order("true,\"last\":1")).await.refuses(400, "invalid-body");
        let forward = Setup::new(&backend.url()).route("key = \"json:/last\"").start().await;
        assert_eq!(forward.ask(&order("null")).await.status, 201, "{name}");
    }
}
