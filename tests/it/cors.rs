//! CORS on guarded routes, with the requests of real browsers.

use crate::support::*;

const SHOP: &str = "https://shop.example.com";
const DESK: &str = "https://desk.example.com";

fn setup(backend: &Backend) -> Setup {
    Setup::new(&backend.url()).route(&format!("cors_origins = [\"{SHOP}\", \"{DESK}\"]"))
}

/// What Chromium sends before `fetch(url, {method: "POST", credentials: "include", headers: {…}})`.
fn preflight(path: &str, origin: &str) -> Request {
    request("OPTIONS", path)
        .line("Connection: keep-alive")
        .line("Accept: */*")
        .line("Access-Control-Request-Method: POST")
        .line("Access-Control-Request-Headers: authorization,content-type,idempotency-key")
        .line(&format!("Origin: {origin}"))
        .line("User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36")
        .line("Sec-Fetch-Mode: cors")
        .line("Sec-Fetch-Site: cross-site")
        .line("Sec-Fetch-Dest: empty")
        .line(&format!("Referer: {origin}/"))
        .line("Accept-Encoding: gzip, deflate, br, zstd")
        .line("Accept-Language: en-US,en;q=0.9")
}

fn allowing(lines: &str) -> Vec<Step> {
    vec![answer(&format!("204 No Content\r\n{lines}"), "")]
}

/// The preflight response, given the backend's.
async fn allowed(backend: &Backend, sidecar: &Sidecar, request: &Request, lines: &str) -> Option<String> {
    backend.then(allowing(lines));
    let answer = sidecar.ask(request).await;
    assert_eq!(answer.status, 204);
    answer.value("access-control-allow-headers").map(ToOwned::to_owned)
}

#[tokio::test]
async fn a_preflight_answer_allows_the_key_where_the_backend_allows_the_origin() {
    let backend = Backend::start().await;
    let sidecar = setup(&backend).start().await;
    let asks = preflight("/orders", SHOP);
    let by_name = format!("Access-Control-Allow-Origin: {SHOP}\r\nAccess-Control-Allow-Credentials: true\r\n");
    let some = "Access-Control-Allow-Headers: authorization\r\nAccess-Control-Allow-Headers: content-type";
    let told = allowed(&backend, &sidecar, &asks, &format!("{by_name}{some}")).await;
    assert_eq!(told.as_deref(), Some("authorization, content-type, idempotency-key"));

    let rows = [
        (format!("{by_name}Vary: Origin"), Some("idempotency-key")),
        (format!("{by_name}Access-Control-Allow-Headers: Idempotency-Key, X"), Some("Idempotency-Key, X")),
        // `*` does not apply to requests with credentials.
        (format!("{by_name}Access-Control-Allow-Headers: *"), Some("*, idempotency-key")),
        ("Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: *".into(), Some("*")),
        ("Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: x".into(), Some("x, idempotency-key")),
        // It allows no origin, or another one.
        ("Access-Control-Allow-Headers: x".into(), Some("x")),
        (format!("Access-Control-Allow-Origin: {DESK}\r\nAccess-Control-Allow-Headers: x"), Some("x")),
    ];
    for (lines, expected) in rows {
        let told = allowed(&backend, &sidecar, &asks, &lines).await;
        assert_eq!(told.as_deref(), expected, "{lines}");
    }
    assert_eq!(backend.seen()[0].value("origin"), Some(SHOP));
}

#[tokio::test]
async fn other_preflight_answers_are_the_backends_own() {
    let backend = Backend::start().await;
    let sidecar = setup(&backend).another_route("name = \"api\"\npath = \"/api\"\nscope = []").start().await;
    let other = preflight("/orders", "https://elsewhere.example.com");
    let put = request("OPTIONS", "/orders").line(&format!("Origin: {SHOP}")).line("Access-Control-Request-Method: PUT");
    let plain = request("OPTIONS", "/orders").line(&format!("Origin: {SHOP}"));
    for asks in [other, put, plain, preflight("/api", SHOP), preflight("/orders/7", SHOP)] {
        let told = allowed(&backend, &sidecar, &asks, "Access-Control-Allow-Origin: *").await;
        assert_eq!(told, None, "{asks:?}");
    }
}

fn by(origin: &str, request: Request) -> Request {
    if origin.is_empty() { request } else { request.line(&format!("Origin: {origin}")) }
}

#[tokio::test]
async fn a_replay_is_for_the_origin_that_asks_for_it() {
    let first = format!(
        "201 Created\r\nLocation: /orders/1\r\nVary: Accept\r\nAccess-Control-Allow-Origin: {SHOP}\r\n\
         Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: X-Total, Location"
    );
    let backend = Backend::scripted([vec![answer(&first, "1")]]).await;
    let sidecar = setup(&backend).start().await;
    let first = sidecar.ask(&by(SHOP, order("k"))).await;
    assert_eq!(first.value("access-control-expose-headers"), Some("X-Total, Location"), "the backend's own answer");
    assert_eq!(first.value("vary"), Some("Accept"));
    for origin in [SHOP, DESK] {
        let replay = sidecar.ask(&by(origin, order("k"))).await;
        assert!(replay.is_replay());
        assert_eq!(replay.value("access-control-allow-origin"), Some(origin));
        assert_eq!(replay.value("access-control-allow-credentials"), Some("true"));
        let exposed = replay.value("access-control-expose-headers");
        assert_eq!(exposed, Some("X-Total, Location, retry-after, idempotent-replayed"));
        assert_eq!(replay.value("vary"), Some("Accept, origin"));
    }
    for origin in ["", "https://elsewhere.example.com", "null"] {
        let replay = sidecar.ask(&by(origin, order("k"))).await;
        assert!(replay.is_replay());
        assert!(!replay.has("access-control-allow-origin") && !replay.has("access-control-allow-credentials"));
        assert_eq!(replay.value("vary"), Some("Accept, origin"));
    }
}

#[tokio::test]
async fn a_replay_of_what_no_browser_asked_for_is_readable_all_the_same() {
    let backend = Backend::start().await;
    let sidecar = setup(&backend).start().await;
    assert!(!sidecar.ask(&order("k")).await.has("vary"));
    let replay = sidecar.ask(&by(DESK, order("k"))).await;
    assert_eq!(replay.value("access-control-allow-origin"), Some(DESK));
    assert_eq!(replay.value("access-control-expose-headers"), Some("retry-after, location, idempotent-replayed"));
}

#[tokio::test]
async fn our_own_answers_are_readable_too() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = setup(&backend).route("on_missing_key = \"reject\"\nmax_request_body = \"64B\"").start().await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    let large = order("l").body("x".repeat(65));
    for (request, code) in [
        (order("k"), "in-flight"),
        (post("/orders"), "missing-key"),
        (order("a b"), "invalid-key"),
        (large, "request-too-large"),
    ] {
        let problem = sidecar.ask(&by(SHOP, request)).await;
        assert_eq!(problem.problem().1, code);
        assert_eq!(problem.value("access-control-allow-origin"), Some(SHOP), "{code}");
        assert_eq!(problem.value("access-control-allow-credentials"), Some("true"));
        assert_eq!(problem.value("vary"), Some("accept, origin"));
        let exposed = problem.value("access-control-expose-headers").expect("fields");
        assert_eq!(exposed, "retry-after, location, idempotent-replayed");
    }
    let problem = sidecar.ask(&by("https://elsewhere.example.com", order("k"))).await;
    assert_eq!((problem.status, problem.has("access-control-allow-origin")), (409, false));
    gate.open();
    assert_eq!(first.await.expect("an answer").status, 201);
}

#[tokio::test]
async fn a_route_without_origins_says_nothing_of_them() {
    let first = format!("201 Created\r\nAccess-Control-Allow-Origin: {SHOP}");
    let backend = Backend::scripted([vec![answer(&first, "1")]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    sidecar.ask(&by(SHOP, order("k"))).await;
    let replay = sidecar.ask(&by(DESK, order("k"))).await;
    assert_eq!(replay.value("access-control-allow-origin"), Some(SHOP));
    assert!(!replay.has("vary") && !replay.has("access-control-expose-headers"));
    let problem = sidecar.ask(&by(SHOP, order("a b"))).await;
    assert_eq!((problem.status, problem.has("access-control-allow-origin")), (400, false));
}
