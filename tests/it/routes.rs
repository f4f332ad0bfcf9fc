//! Which requests are guarded.

use crate::support::*;

/// Whether a request that begins like this, sent twice, runs once.
async fn is_guarded(sidecar: &Sidecar, request: &str) -> bool {
    let mut client = sidecar.connect().await;
    let mut answers = Vec::new();
    // A key of its own for each.
    let key: String = request.bytes().map(|byte| format!("{byte:02x}")).collect();
    for _ in 0..2 {
        client.send(format!("{request}\r\nIdempotency-Key: {key}\r\nContent-Length: 2\r\n\r\n{{}}")).await;
        answers.push(client.response().await);
    }
    assert!(answers.iter().all(|answer| answer.status == 201), "{request}: {answers:?}");
    answers[1].is_replay()
}

#[tokio::test]
async fn no_spelling_of_a_path_gets_around_its_route() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for (target, expected) in [
        ("/orders", true),
        ("/orders?", true),
        ("/orders?a=b", true),
        ("/%6frders", true),
        ("/./orders", true),
        ("/a/../orders", true),
        ("/a/%2e%2E/orders", true),
        ("http://a/orders", true),
        ("/orders/", false),
        ("//orders", false),
        ("/ORDERS", false),
        ("/orders%2F", false),
        ("/orders/7", false),
    ] {
        let request = format!("POST {target} HTTP/1.1\r\nHost: a");
        assert_eq!(is_guarded(&sidecar, &request).await, expected, "{target}");
    }
}

#[tokio::test]
async fn a_route_may_be_for_one_host() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route("host = \"api.example.com\"").start().await;
    for (line, host, expected) in [
        ("/orders", "api.example.com", true),
        ("/orders", "API.example.COM:8080", true),
        ("http://api.example.com/orders", "other.example.com", true),
        ("/orders", "example.com", false),
        ("http://other.example.com/orders", "api.example.com", false),
    ] {
        let request = format!("POST {line} HTTP/1.1\r\nHost: {host}");
        assert_eq!(is_guarded(&sidecar, &request).await, expected, "{line} at {host}");
    }
}

#[tokio::test]
async fn the_most_specific_route_wins() {
    let backend = Backend::start().await;
    let route = |name: &str, path: &str| format!("name = \"{name}\"\npath = \"{path}\"\nscope = []");
    let sidecar = Setup::new(&backend.url())
        .another_route(&route("rest", "/{*rest}"))
        .another_route(&route("one", "/orders/{order}"))
        .another_route(&route("drafts", "/orders/drafts"))
        .start()
        .await;
    for (path, expected) in [
        ("/orders", "orders"),
        ("/orders/7", "one"),
        ("/orders/drafts", "drafts"),
        ("/orders/7/x", "rest"),
        ("/x", "rest"),
    ] {
        let order = |body: &str| post(path).line(&format!("Idempotency-Key: {path}")).body(body);
        sidecar.ask(&order("1")).await;
        assert_eq!(sidecar.ask(&order("2")).await.json()["route"], expected, "{path}");
    }
}
