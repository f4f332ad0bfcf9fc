//! What the authorization server is asked.

use http::Method;

use super::*;
use crate::http2::Client;
use crate::support::http2::{Answer, Http2Backend, Turn};

/// All lines, in lower case and sorted.
fn lines(head: &wire::Head) -> Vec<String> {
    let mut lines: Vec<String> =
        head.lines.iter().map(|(name, value)| format!("{}: {value}", name.to_lowercase())).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn the_question_is_made_of_nothing_but_the_caller_and_what_it_asked_for() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let setup = asking(&backend, &format!("{}/verify?of=orders", auth.url()));
    let sidecar = setup.route("scope = [\"header:Authorization\", \"header:X-Tenant\", \"ip\"]").start().await;
    let forged = [
        "X-Forwarded-Method: GET",
        "X-Forwarded-Host: inside.test",
        "X-Forwarded-Uri: /public",
        "X-Forwarded-Proto: https",
        "X-Forwarded-For: 10.0.0.1",
        "X-Forwarded-User: root",
        "X-Forwarded-Prefix: /x",
        "X-Original-URL: /public",
        "Forwarded: for=10.0.0.1",
        "X-Real-IP: 10.0.0.1",
    ];
    let other =
        ["Accept: */*", "User-Agent: curl/8", "Origin: https://a.test", "X-Other: 1", "TE: trailers", "Connection: TE"];
    let caller = ["Cookie: a=1; b=2", "X-Tenant: t1"];
    let request = [&forged[..], &other, &caller].concat().iter().fold(order("k"), |request, line| request.line(line));
    let request = request.at("/orders?a=%20b&c");
    assert_eq!(sidecar.ask(&request).await.status, 201);
    assert!(sidecar.ask(&request).await.is_replay());
    let seen = auth.only();
    assert_eq!(seen.first, "GET /verify?of=orders HTTP/1.1");
    let host = auth.url().replace("http://", "host: ");
    let expected = [
        "authorization: Bearer alice",
        "cookie: a=1; b=2",
        &host,
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: api.test",
        "x-forwarded-method: POST",
        "x-forwarded-proto: http",
        "x-forwarded-uri: /orders?a=%20b&c",
        "x-tenant: t1",
    ];
    assert_eq!(lines(&seen), expected);
    assert!(seen.body.is_empty());
}

#[tokio::test]
async fn the_trace_of_a_request_passes_and_makes_no_other_question_of_it() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let sidecar = asking(&backend, &auth.url()).route("replay_auth_cache = \"5m\"").start().await;
    let traced = |id: u32| {
        let parent = format!("traceparent: 00-{id:032x}-00f067aa0ba902b7-01");
        order("k").line(&parent).line("tracestate: a=1")
    };
    for id in 1..4 {
        assert_eq!(sidecar.ask(&traced(id)).await.status, 201);
    }
    let seen = auth.only();
    assert_eq!(seen.value("traceparent"), Some("00-00000000000000000000000000000002-00f067aa0ba902b7-01"));
    assert_eq!(seen.value("tracestate"), Some("a=1"));
}

#[tokio::test]
async fn nothing_is_said_of_a_caller_who_says_nothing() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let sidecar = asking(&backend, &auth.url()).start().await;
    let request = post("/orders").line("Idempotency-Key: k").body("{}");
    assert_eq!(sidecar.ask(&request).await.status, 201);
    assert!(sidecar.ask(&request).await.is_replay());
    let seen = auth.only();
    assert_eq!(seen.first, "GET / HTTP/1.1");
    assert!(!seen.has("authorization") && !seen.has("cookie") && !seen.has("content-length"), "{seen:?}");
}

#[tokio::test]
async fn a_trusted_proxy_tells_who_the_client_is_and_what_it_asked_for() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let setup = asking(&backend, &auth.url()).with("server", "trusted_proxies = [\"127.0.0.1\"]");
    let sidecar = setup.start().await;
    let lines = [
        "X-Forwarded-For: 203.0.113.9, 198.51.100.1",
        "X-Forwarded-Host: forged.test, shop.test",
        "X-Forwarded-Proto: gopher, https",
        "X-Forwarded-Method: GET",
        "X-Forwarded-Uri: /public",
    ];
    let request = lines.iter().fold(order("k"), |request, line| request.line(line));
    assert_eq!(sidecar.ask(&request).await.status, 201);
    assert!(sidecar.ask(&request).await.is_replay());
    let seen = auth.only();
    let told = ["for", "host", "proto", "method", "uri"].map(|end| seen.value(&format!("x-forwarded-{end}")));
    let expected = [Some("198.51.100.1"), Some("shop.test"), Some("https"), Some("POST"), Some("/orders")];
    assert_eq!(told, expected);
}

/// A field of the scope that is ours or belongs to the message.
#[tokio::test]
async fn the_scope_cannot_put_a_field_of_the_client_in_the_place_of_ours() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let scope = ["X-Forwarded-Host", "X-Forwarded-For", "X-Forwarded-User", "Traceparent", "Content-Type"];
    let scope: Vec<String> = scope.iter().map(|name| format!("\"header:{name}\"")).collect();
    let sidecar = asking(&backend, &auth.url()).route(&format!("scope = [{}]", scope.join(", "))).start().await;
    let lines = ["X-Forwarded-Host: inside.test", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-User: alice"];
    let request = lines.iter().fold(order("k"), |request, line| request.line(line));
    assert_eq!(sidecar.ask(&request).await.status, 201);
    assert!(sidecar.ask(&request).await.is_replay());
    let seen = auth.only();
    let told = ["host", "for", "user"].map(|end| seen.value(&format!("x-forwarded-{end}")));
    // The edge names the user in it, as the configuration says.
    assert_eq!(told, [Some("api.test"), Some("127.0.0.1"), Some("alice")]);
    assert_eq!(seen.value("host"), Some(auth.url().trim_start_matches("http://")));
}

#[tokio::test]
async fn a_path_of_the_backend_is_asked_on_its_own_connections() {
    for (preserve_host, host) in [(true, "api.test"), (false, "")] {
        let backend = Backend::start().await;
        let upstream = format!("preserve_host = {preserve_host}\nidle_timeout = \"5m\"");
        let sidecar = asking(&backend, "/verify?r=1").with("upstream", &upstream).start().await;
        assert_eq!(sidecar.ask(&order("k")).await.status, 201);
        let repeat = sidecar.ask(&order("k")).await;
        assert!(repeat.is_replay() && repeat.text() == r#"{"order":1}"#);
        let seen = backend.seen();
        assert_eq!((seen.len(), seen[1].first.as_str()), (2, "GET /verify?r=1 HTTP/1.1"));
        let own = backend.url().replace("http://", "");
        assert_eq!(seen[1].value("host"), Some(if host.is_empty() { own.as_str() } else { host }));
        assert_eq!((seen[1].value("x-forwarded-uri"), seen[1].has("via")), (Some("/orders"), false));
        backend.then(vec![answer("403 Forbidden", "no")]);
        let refused = sidecar.ask(&order("k")).await;
        assert_eq!((refused.status, refused.text()), (403, "no"));
        assert_eq!(backend.connections(), 1);
    }
}

#[tokio::test]
async fn a_backend_with_http2_is_asked_in_http2() {
    let backend = Http2Backend::start([]).await;
    let setup = Setup::new(&backend.url()).with("upstream", "http2 = true").route("replay_auth = \"/verify\"");
    let sidecar = setup.start().await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    assert!(sidecar.ask(&order("k")).await.is_replay());
    let lines = vec![("www-authenticate", "Basic"), ("onlyonce-outcome", "store")];
    backend.then(Turn::Say(Answer { status: 401, lines, body: vec![b"who"], ..Answer::default() }));
    let refused = sidecar.ask(&order("k")).await;
    assert_eq!((refused.status, refused.value("www-authenticate"), refused.text()), (401, Some("Basic"), "who"));
    assert!(!refused.has("onlyonce-outcome"));
    let seen = backend.seen();
    assert_eq!((seen[1].method.as_str(), seen[1].uri.path()), ("GET", "/verify"));
    assert_eq!(seen[1].value("x-forwarded-host"), Some("api.test"));
    assert!(!seen[1].headers.contains_key("host"));
}

#[tokio::test]
async fn clients_with_http2_are_asked_about_like_all_others() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let sidecar = asking(&backend, &auth.url()).start().await;
    let mut client = Client::connect(&sidecar).await;
    let order = || {
        let builder = http::Request::builder().method(Method::POST).uri("http://api.test/orders?x=1");
        let builder = builder.header("idempotency-key", "k").header("authorization", "Bearer alice");
        let builder = builder.header("cookie", "a=1").header("cookie", "b=2").header("x-forwarded-uri", "/public");
        builder.body(()).expect("a request")
    };
    assert_eq!(client.ask(order(), "{}").await.status, 201);
    assert_eq!(client.ask(order(), "{}").await.status, 201);
    let expected = [
        "authorization: Bearer alice",
        "cookie: a=1; b=2",
        &auth.url().replace("http://", "host: "),
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: api.test",
        "x-forwarded-method: POST",
        "x-forwarded-proto: http",
        "x-forwarded-uri: /orders?x=1",
    ];
    assert_eq!(lines(&auth.only()), expected);
    auth.then(vec![answer("403 Forbidden\r\nKeep-Alive: timeout=5", "closed")]);
    assert_eq!(client.ask(order(), "{}").await.status, 403);
    auth.then(vec![answer("500 Oops", "")]);
    assert_eq!(client.ask(order(), "{}").await.status, 503);
    assert_eq!(backend.count(), 1);
}
