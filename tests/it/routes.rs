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
        ("/orders/", true),
        ("//orders", true),
        ("/ORDERS", true),
        ("/orders%2F", true),
        ("/a\\..%5corders", true),
        ("/x/..;/orders", true),
        ("/orders;jsessionid=1", true),
        ("/orders/7", false),
        ("/orders.json", false),
        ("/%256frders", false),
    ] {
        let request = format!("POST {target} HTTP/1.1\r\nHost: a");
        assert_eq!(is_guarded(&sidecar, &request).await, expected, "{target}");
    }
}

#[tokio::test]
async fn another_spelling_is_the_same_request_and_reaches_the_backend_as_it_came() {
    let backend = Backend::start().await;
    let tenant = "name = \"tenant\"\npath = \"/tenants/{tenant}/orders\"\nscope = []";
    let shop = "name = \"shop\"\npath = \"/shops/{shop}/orders\"\nscope = [\"path:shop\"]";
    let sidecar = Setup::new(&backend.url()).another_route(tenant).another_route(shop).start().await;
    let first = post("/Tenants/Acme//orders/").line("Idempotency-Key: k").body("1");
    assert_eq!(sidecar.ask(&first).await.text(), r#"{"order":1}"#);
    let second = post("/tenants/Acme/orders").line("Idempotency-Key: k").body("1");
    assert!(sidecar.ask(&second).await.is_replay());
    // Another tenant is another request: letters of parameters count.
    let other = post("/tenants/acme/orders").line("Idempotency-Key: k").body("1");
    sidecar.ask(&other).await.refuses(422, "key-reused");
    assert_eq!(backend.only().head.first, "POST /Tenants/Acme//orders/ HTTP/1.1");
    // What is read from the path is the same by every spelling, too.
    let shop = |path: &str| post(path).line("Idempotency-Key: k").body("1");
    assert!(!sidecar.ask(&shop("/shops/Acme/orders")).await.is_replay());
    assert!(sidecar.ask(&shop("/Shops/Acme/Orders;v=1/")).await.is_replay());
    assert!(!sidecar.ask(&shop("/Shops/acme/orders/")).await.is_replay());
}

#[tokio::test]
async fn a_route_that_is_off_opts_its_own_spelling_out() {
    let backend = Backend::start().await;
    let off = "name = \"off\"\npath = \"/Orders\"\nscope = []\nmode = \"off\"";
    let sidecar = Setup::new(&backend.url()).another_route(off).start().await;
    for (target, expected) in [("/Orders", false), ("/ORDERS", true), ("/Orders/", true), ("/orders", true)] {
        let request = format!("POST {target} HTTP/1.1\r\nHost: a");
        assert_eq!(is_guarded(&sidecar, &request).await, expected, "{target}");
    }
}

#[tokio::test]
async fn a_method_that_is_overridden_gets_around_no_route() {
    let backend = Backend::start().await;
    let edit = "name = \"edit\"\npath = \"/edit\"\nmethods = [\"PUT\"]\nscope = []";
    let off = "name = \"off\"\npath = \"/orders\"\nmethods = [\"DELETE\"]\nscope = []\nmode = \"off\"";
    let sidecar = Setup::new(&backend.url()).another_route(edit).another_route(off).start().await;
    for (request, expected) in [
        ("POST /edit HTTP/1.1\r\nHost: a", false),
        ("POST /edit HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: PUT", true),
        ("POST /edit HTTP/1.1\r\nHost: a\r\nX-HTTP-Method: put", true),
        ("POST /Edit/ HTTP/1.1\r\nHost: a\r\nX-HTTP-Method: GET\r\nX-Method-Override: PUT", true),
        ("POST /orders HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: GET", true),
        ("POST /orders HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: DELETE", true),
    ] {
        assert_eq!(is_guarded(&sidecar, request).await, expected, "{request}");
    }
    let order = |line: &str| order("k").line(line);
    assert_eq!(sidecar.ask(&order("X-A: b")).await.status, 201);
    // It is another request than the one without.
    sidecar.ask(&order("X-HTTP-Method-Override: DELETE")).await.refuses(422, "key-reused");
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
