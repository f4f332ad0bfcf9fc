//! Requests without a key.

use crate::keys::{keyless, parts, refused, told_apart, with_route};
use crate::support::*;

#[tokio::test]
async fn without_a_key_every_request_runs_as_it_came() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route("max_request_body = \"1KiB\"").start().await;
    let request = keyless().body("x".repeat(100_000));
    for count in 1..=2 {
        let answer = sidecar.ask(&request).await;
        assert_eq!((answer.status, answer.is_replay(), backend.count()), (201, false, count));
    }
    assert_eq!(backend.seen()[1].body.len(), 100_000);
    assert_eq!(sidecar.metric("onlyonce_requests_total{outcome=\"unguarded\",route=\"orders\"}").await, 2.0);
}

#[tokio::test]
async fn a_keyless_body_on_a_guarded_route_is_streamed() {
    let by_hand = ByHand::start().await;
    let sidecar = Setup::new(&by_hand.url()).start().await;
    let mut client = sidecar.connect().await;
    client.send("POST /orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send(chunk(b"first")).await;
    let mut backend = by_hand.accept().await;
    assert_eq!(backend.head().await.expect("a request").first, "POST /orders HTTP/1.1");
    assert_eq!(backend.chunk().await, b"first");
    client.send(chunk(b"last")).await;
    client.send("0\r\n\r\n").await;
    assert_eq!(backend.chunk().await, b"last");
}

#[tokio::test]
async fn a_route_may_require_a_key() {
    refused("on_missing_key = \"reject\"", "missing-key", [keyless(), keyless().body("x".repeat(50_000))]).await;
    let route = "on_missing_key = \"reject\"\nkey = \"json:/id\"";
    refused(route, "missing-key", [keyless().json("{}"), keyless().json(r#"{"id":null}"#), keyless()]).await;
}

#[tokio::test]
async fn a_refusal_for_want_of_a_key_keeps_the_connection() {
    let (_backend, sidecar) = with_route("on_missing_key = \"reject\"").await;
    let mut client = sidecar.connect().await;
    client.ask(&keyless().body("x".repeat(50_000))).await.refuses(400, "missing-key");
    assert_eq!(client.ask(&order("k")).await.status, 201);
}

#[tokio::test]
async fn caller_and_content_may_stand_in_for_a_key() {
    let order = |caller: &str, body: &str| post("/orders").by(caller).json(body);
    told_apart(
        "on_missing_key = \"fingerprint\"\nfingerprint_window = \"1h\"",
        &[
            (order("alice", r#"{"item":1,"n":2}"#), order("alice", r#"{"n":2,"item":1}"#), true),
            (order("alice", r#"{"item":1}"#), order("alice", r#"{"item":2}"#), false),
            (order("alice", r#"{"item":1}"#), order("bob", r#"{"item":1}"#), false),
            (order("alice", r#"{"item":1}"#), order("alice", r#"{"item":1}"#).line("Idempotency-Key: k"), false),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_double_click_of_a_client_without_keys_runs_once() {
    let (backend, gate) = Backend::gated().await;
    let route = "on_missing_key = \"fingerprint\"\nfingerprint_window = \"1h\"\non_concurrent = \"wait\"";
    let sidecar = Setup::new(&backend.url()).route(route).start().await;
    let click = || parts("----WebKitFormBoundaryA", &[("name=\"item\"", "book")]);
    let first = sidecar.asking(&click());
    backend.has_seen(1).await;
    let second = sidecar.asking(&parts("----WebKitFormBoundaryB", &[("name=\"item\"", "book")]));
    until("the second waits", async || sidecar.metric("onlyonce_waiting{route=\"orders\"}").await == 1.0).await;
    gate.open();
    let (first, second) = (first.await.expect("an answer"), second.await.expect("an answer"));
    assert_eq!((first.status, &first.body), (201, &second.body));
    assert!(second.is_replay());
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn after_the_window_the_same_content_runs_again() {
    let (backend, sidecar) =
        with_route("on_missing_key = \"fingerprint\"\nfingerprint_window = \"1s\"\nlease = \"1s\"").await;
    let request = keyless().json("1");
    sidecar.ask(&request).await;
    until("the window is over", async || !sidecar.ask(&request).await.is_replay()).await;
    assert_eq!(backend.count(), 2);
}
