//! `replay_auth`: who may see a recorded answer is asked before it is shown.

use std::collections::BTreeSet;

use http::Method;

use crate::http2::Client;
use crate::support::backend::Script;
use crate::support::http2::{Answer, Http2Backend, Turn};
use crate::support::*;

const LOCATION: &str = "/orders/1";

/// On one core, which has one cache.
fn asking(backend: &Backend, asked: &str) -> Setup {
    Setup::new(&backend.url()).with("server", "threads = 1").route(&format!("replay_auth = \"{asked}\""))
}

async fn results(sidecar: &Sidecar) -> [f64; 4] {
    let mut found = [0.0; 4];
    for (found, result) in found.iter_mut().zip(["allowed", "cached", "denied", "failed"]) {
        let series = format!("onlyonce_replay_auth_total{{result=\"{result}\",route=\"orders\"}}");
        *found = sidecar.metric(&series).await;
    }
    found
}

/// What the authorization server says, and what a repeat gets for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    Yes,
    No,
    Nothing,
}

/// Answers of every kind.
fn answers() -> Vec<(&'static str, Script, Means)> {
    let large = "x".repeat(64 * 1024 + 1);
    let half = || say("HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nabc");
    vec![
        ("200", vec![answer("200 OK", "welcome")], Means::Yes),
        ("204", vec![say("HTTP/1.1 204 No Content\r\n\r\n")], Means::Yes),
        ("299", vec![answer("299 Odd", "")], Means::Yes),
        ("202 after 103", vec![say("HTTP/1.1 103 Early Hints\r\n\r\n"), answer("202 Accepted", "")], Means::Yes),
        ("200, large", vec![answer("200 OK", &large)], Means::Yes),
        (
            "401",
            vec![answer("401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"", "{\"error\":1}")],
            Means::No,
        ),
        ("403", vec![answer("403 Forbidden\r\nContent-Type: text/plain", "closed")], Means::No),
        (
            "403 in chunks",
            vec![say("HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")],
            Means::No,
        ),
        ("302", vec![answer("302 Found\r\nLocation: https://login.test/", "")], Means::Nothing),
        ("304", vec![say("HTTP/1.1 304 Not Modified\r\n\r\n")], Means::Nothing),
        ("400", vec![answer("400 Bad Request", "")], Means::Nothing),
        ("404", vec![answer("404 Not Found", "<h1>ingress</h1>")], Means::Nothing),
        ("407", vec![answer("407 Proxy Authentication Required", "")], Means::Nothing),
        ("500", vec![answer("500 Internal Server Error", "")], Means::Nothing),
        ("503", vec![answer("503 Service Unavailable", "")], Means::Nothing),
        (
            "101",
            vec![say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")],
            Means::Nothing,
        ),
        ("401, large", vec![answer("401 Unauthorized", &large)], Means::Nothing),
        ("403, broken off", vec![half(), Step::Close], Means::Nothing),
        ("200, broken off", vec![say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), Step::Reset], Means::Nothing),
        ("closed", vec![Step::Close], Means::Nothing),
        ("reset", vec![Step::Reset], Means::Nothing),
        ("no HTTP", vec![say("+PONG\r\n"), Step::Close], Means::Nothing),
    ]
}

/// Fails unless the repeat got what this answer means, and nothing of the first request otherwise.
fn judge(about: &str, means: Means, repeat: &Response, recorded: &str) {
    match means {
        Means::Yes => {
            assert!(repeat.is_replay() && repeat.text() == recorded, "{about}: {repeat:?}");
            return;
        }
        Means::No => assert!([401, 403].contains(&repeat.status), "{about}: {repeat:?}"),
        Means::Nothing => {
            repeat.refuses(503, "replay-refused");
            assert_eq!(repeat.retry_after(), Some(1), "{about}");
        }
    }
    assert!(!repeat.has("idempotent-replayed") && !repeat.has("location"), "{about}: {repeat:?}");
    assert!(!repeat.text().contains(recorded), "{about}: {repeat:?}");
}

on_every_store! {
    async fn a_replay_is_shown_to_whom_the_server_says_it_may_be(store: &Store) {
        let (backend, auth) = (Backend::start().await, Backend::start().await);
        let sidecar = asking(&backend, &format!("{}/verify", auth.url())).store(store).start().await;
        let first = sidecar.ask(&order("k")).await;
        assert_eq!((first.status, auth.count()), (201, 0), "its own answer is nobody else's");
        let mut counted = [0.0; 4];
        for (about, script, means) in answers() {
            auth.then(script);
            judge(about, means, &sidecar.ask(&order("k")).await, first.text());
            counted[match means { Means::Yes => 0, Means::No => 2, Means::Nothing => 3 }] += 1.0;
            assert_eq!(results(&sidecar).await, counted, "{about}");
        }
        // It is there as before.
        assert!(sidecar.ask(&order("k")).await.is_replay());
        assert_eq!(backend.count(), 1);
        assert!(auth.seen().iter().all(|seen| seen.first == "GET /verify HTTP/1.1" && seen.body.is_empty()));
    }

    async fn one_who_waited_is_shown_the_answer_only_then(store: &Store) {
        let (backend, auth) = (Backend::start().await, Backend::start().await);
        let setup = asking(&backend, &format!("{}/verify", auth.url())).store(store);
        let sidecar = setup.route("on_concurrent = \"wait\"\nwait_timeout = \"60s\"").start().await;
        let mut runs = 0;
        for (about, script, means) in answers().into_iter().filter(|(about, ..)| ["200", "401", "403", "500"].contains(about)) {
            let gate = Gate::new();
            backend.then(vec![Step::Wait(gate.clone()), Step::Answer]);
            let request = order(about);
            let first = sidecar.asking(&request);
            runs += 1;
            backend.has_seen(runs).await;
            let waiter = sidecar.asking(&request);
            until("it waits", async || sidecar.metric("onlyonce_waiting{route=\"orders\"}").await == 1.0).await;
            assert_eq!(auth.count() + 1, runs, "whether it may is asked when there is something to see");
            auth.then(script);
            gate.open();
            let first = first.await.expect("an answer");
            judge(about, means, &waiter.await.expect("an answer"), first.text());
            assert_eq!((backend.count(), auth.count()), (runs, runs));
        }
    }

    async fn the_owner_is_asked_about_too_where_somebody_else_recorded_the_answer(store: &Store) {
        let (backend, auth) = (Backend::start().await, Backend::start().await);
        let sidecar = asking(&backend, &format!("{}/verify", auth.url())).store(store).start().await;
        let mut runs = 0;
        for (about, script, means) in answers().into_iter().filter(|(about, ..)| ["200", "401", "404"].contains(about)) {
            let gate = Gate::new();
            backend.then(vec![Step::Wait(gate.clone()), Step::Answer]);
            let request = order(about);
            let first = sidecar.asking(&request);
            runs += 1;
            backend.has_seen(runs).await;
            let refused = sidecar.ask(&request).await;
            refused.refuses(409, "in-flight");
            assert_eq!(auth.count() + 1, runs, "that says nothing of another request");
            let record = refused.json()["record"].as_str().expect("a record").to_owned();
            let by_hand = post(&format!("/records/{record}/complete")).host("localhost").line("Onlyonce-Admin: 1");
            let by_hand = by_hand.json(r#"{"status":200,"body":"by hand","force":true}"#);
            let settled = Wire::connect(sidecar.admin).await.ask(&by_hand).await;
            assert_eq!(settled.status, 200, "{settled:?}");
            auth.then(script);
            gate.open();
            judge(about, means, &first.await.expect("an answer"), "by hand");
            assert_eq!((backend.count(), auth.count()), (runs, runs));
        }
    }

    async fn what_was_not_kept_has_no_location_for_those_who_may_not_see_it(store: &Store) {
        let (backend, auth) = (Backend::start().await, Backend::start().await);
        let setup = asking(&backend, &format!("{}/verify", auth.url())).store(store);
        let sidecar = setup.route("max_response_body = \"4B\"").start().await;
        let first = sidecar.ask(&order("k")).await;
        assert_eq!((first.status, first.value("location"), auth.count()), (201, Some(LOCATION), 0));
        for (about, script, means) in answers() {
            auth.then(script);
            let repeat = sidecar.ask(&order("k")).await;
            repeat.refuses(409, "already-completed");
            let known = (repeat.value("location"), repeat.json()["original_status"].as_u64());
            let shown = (Some(LOCATION), Some(201));
            assert_eq!(known, if means == Means::Yes { shown } else { (None, None) }, "{about}");
        }
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn other_refusals_hold_nothing_of_another_request_and_ask_nobody() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let sidecar = asking(&backend, &format!("{}/verify", auth.url())).start().await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    sidecar.ask(&order("k").body("{}")).await.refuses(422, "key-reused");
    sidecar.ask(&order("a, b")).await.refuses(400, "invalid-key");
    backend.then(vec![Step::Reset]);
    sidecar.ask(&order("lost")).await.refuses(502, "upstream-failed");
    sidecar.ask(&order("lost")).await.refuses(409, "outcome-unknown");
    assert_eq!((auth.count(), results(&sidecar).await), (0, [0.0; 4]));
}

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
async fn a_denial_reaches_its_client_as_it_is() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let setup = asking(&backend, &auth.url()).route("cors_origins = [\"https://shop.test\"]");
    let sidecar = setup.start().await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    auth.then(vec![answer(
        "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"a\"\r\nWWW-Authenticate: Basic\r\nSet-Cookie: s=; Max-Age=0\r\n\
         Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nIdempotent-Replayed: true\r\nOnlyonce-Form: page\r\n\
         Onlyonce-Outcome: store\r\nX-Own: yes\r\nContent-Type: application/json",
        "{\"error\":\"revoked\"}",
    )]);
    let refused = sidecar.ask(&order("k").line("Origin: https://shop.test")).await;
    assert_eq!((refused.status, refused.text()), (401, "{\"error\":\"revoked\"}"));
    assert_eq!(refused.values("www-authenticate"), ["Bearer realm=\"a\"", "Basic"]);
    assert_eq!((refused.value("x-own"), refused.value("content-type")), (Some("yes"), Some("application/json")));
    assert_eq!(refused.value("set-cookie"), Some("s=; Max-Age=0"));
    for name in ["x-hop", "keep-alive", "idempotent-replayed", "onlyonce-form", "onlyonce-outcome"] {
        assert!(!refused.has(name), "{name}: {refused:?}");
    }
    // Pages that may read our own answers may read it.
    assert_eq!(refused.value("access-control-allow-origin"), Some("https://shop.test"));
    let outcome = "onlyonce_requests_total{outcome=\"replay_refused\",route=\"orders\"}";
    assert_eq!(sidecar.metric(outcome).await, 1.0);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_permits_nothing() {
    let backend = Backend::start().await;
    let sidecar = asking(&backend, &nobody()).start().await;
    let first = sidecar.ask(&order("k")).await;
    judge("nobody", Means::Nothing, &sidecar.ask(&order("k")).await, first.text());
    assert_eq!(results(&sidecar).await, [0.0, 0.0, 0.0, 1.0]);
}

/// Head, or the rest of the body, never comes.
#[tokio::test]
async fn a_server_that_takes_too_long_permits_nothing() {
    let begun = [vec![Step::Hang], vec![say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), Step::Hang]];
    let (backend, auth) = (Backend::start().await, Backend::scripted(begun).await);
    let sidecar = asking(&backend, &auth.url()).start().await;
    let first = sidecar.ask(&order("k")).await;
    let (one, other) = tokio::join!(sidecar.asking(&order("k")), sidecar.asking(&order("k")));
    for repeat in [one, other] {
        judge("slow", Means::Nothing, &repeat.expect("an answer"), first.text());
    }
    assert!(sidecar.ask(&order("k")).await.is_replay());
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

#[tokio::test]
async fn the_answer_to_the_same_question_is_kept_for_as_long_as_the_route_says() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let setup = asking(&backend, &auth.url()).route("replay_auth_cache = \"5m\"\nscope = [\"header:X-Tenant\"]");
    let sidecar = setup.start().await;
    let request = |line: &str| order("k").line("X-Tenant: t").line(line);
    assert_eq!(sidecar.ask(&request("X-Other: 0")).await.status, 201);
    // What means no, or nothing, is not kept.
    for (answer, status) in [("403 Forbidden", 403), ("401 Unauthorized", 401), ("500 Oops", 503)] {
        auth.then(vec![crate::support::answer(answer, "")]);
        assert_eq!(sidecar.ask(&request("X-Other: 1")).await.status, status);
    }
    assert_eq!(auth.count(), 3);
    for number in 0..4 {
        assert!(sidecar.ask(&request(&format!("X-Other: {number}"))).await.is_replay());
    }
    assert_eq!((auth.count(), results(&sidecar).await), (4, [1.0, 3.0, 2.0, 1.0]));
    // Whatever is sent is another question.
    let mut asked = 4;
    for line in ["Cookie: s=1", "Cookie: s=2", "Cookie: s=1; t=2"] {
        for _ in 0..2 {
            assert!(sidecar.ask(&request(line)).await.is_replay());
        }
        asked += 1;
        assert_eq!(auth.count(), asked, "{line}");
    }
    assert!(sidecar.ask(&request("Cookie: s=1").host("other.test")).await.is_replay());
    assert_eq!(auth.count(), asked + 1);
}

#[tokio::test]
async fn a_permission_is_forgotten_when_its_time_is_over() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let sidecar = asking(&backend, &auth.url()).route("replay_auth_cache = \"1s\"").start().await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    assert!(sidecar.ask(&order("k")).await.is_replay());
    assert_eq!(auth.count(), 1);
    until("it is asked again", async || {
        assert!(sidecar.ask(&order("k")).await.is_replay());
        auth.count() == 2
    })
    .await;
    let denial = vec![answer("403 Forbidden", "")];
    auth.then(denial);
    until("a right that was withdrawn is gone", async || sidecar.ask(&order("k")).await.status == 403).await;
    assert_eq!(auth.count(), 3);
}

#[tokio::test]
async fn without_a_cache_every_replay_is_asked_about() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let sidecar = asking(&backend, &auth.url()).with("upstream", "idle_timeout = \"5m\"").start().await;
    for _ in 0..4 {
        assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    }
    assert_eq!((backend.count(), auth.count(), auth.connections()), (1, 3, 1));
}

#[tokio::test]
async fn a_reload_keeps_connections_and_forgets_permissions() {
    let (backend, auth, other) = (Backend::start().await, Backend::start().await, Backend::start().await);
    let setup = asking(&backend, &auth.url()).with("upstream", "idle_timeout = \"5m\"");
    let setup = setup.route("replay_auth_cache = \"5m\"");
    let process = Process::start(&setup).await;
    let reloaded = async |times: f64| {
        let series = "onlyonce_config_reloads_total{result=\"ok\"}";
        until("reloaded", async || process.metric(series).await >= times).await;
    };
    for _ in 0..3 {
        assert_eq!(process.ask(&order("k")).await.status, 201);
    }
    assert_eq!((auth.count(), auth.connections()), (1, 1));
    process.rewrite(&setup.clone().route("retention = \"9d\""));
    reloaded(1.0).await;
    assert!(process.ask(&order("k")).await.is_replay());
    assert_eq!((auth.count(), auth.connections()), (2, 1));
    process.rewrite(&setup.route(&format!("replay_auth = \"{}/v2\"", other.url())));
    reloaded(2.0).await;
    assert!(process.ask(&order("k")).await.is_replay());
    assert_eq!((auth.count(), other.only().first.as_str()), (2, "GET /v2 HTTP/1.1"));
}

#[tokio::test]
async fn what_went_wrong_is_logged_without_credentials() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let process = Process::start(&asking(&backend, &auth.url())).await;
    assert_eq!(process.ask(&order("k")).await.status, 201);
    auth.then(vec![answer("302 Found\r\nLocation: https://login.test/", "")]);
    process.ask(&order("k")).await.refuses(503, "replay-refused");
    process.logs("replay_auth says neither yes nor no").await;
    process.logs("the status is 302").await;
    auth.then(vec![answer("403 Forbidden", "")]);
    assert_eq!(process.ask(&order("k")).await.status, 403);
    process.logs("replay_refused").await;
    let log = process.log();
    assert!(!log.contains("alice"), "{log}");
    // The status page shows both among the last refusals.
    let list = request("GET", "/refusals").host("localhost").line("Onlyonce-Admin: 1");
    let refusals = Wire::connect(process.admin).await.ask(&list).await.json()["refusals"].clone();
    let refusals: Vec<_> =
        refusals.as_array().expect("a list").iter().map(|one| (one["code"].clone(), one["status"].clone())).collect();
    for status in [403, 503] {
        assert!(refusals.contains(&("replay-refused".into(), status.into())), "{refusals:?}");
    }
}

/// The first request took effect: a form that is sent again, with other fields, is still the same intent.
#[tokio::test]
async fn a_form_is_told_to_sign_in_again_and_keeps_its_key() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let setup = asking(&backend, &auth.url()).route("scope = [\"header:Authorization\"]");
    let sidecar = setup.start().await;
    let form = post("/orders").line("Onlyonce-Form: 8e03978e-40d5-43dd-bc93-6894a57f9324").by("alice").body("x");
    assert_eq!(sidecar.ask(&form).await.value("onlyonce-form"), Some("go /orders/1"));
    let mut words = BTreeSet::new();
    for status in [401, 403] {
        auth.then(vec![answer(&format!("{status} No\r\nContent-Type: text/html\r\nContent-Encoding: gzip"), "<p>no")]);
        let told = sidecar.ask(&form).await;
        assert_eq!((told.status, told.value("onlyonce-form")), (status, Some("say")), "{told:?}");
        assert!(!told.has("content-encoding") && !told.has("location"), "{told:?}");
        let body = told.json();
        assert!(body["done"].is_null() && body["anew"].is_null() && body["offer"] == "Try again", "{body}");
        words.insert(body["detail"].as_str().expect("words").to_owned());
    }
    assert_eq!(words.len(), 2);
    auth.then(vec![answer("500 Oops", "")]);
    let told = sidecar.ask(&form).await;
    assert_eq!((told.status, told.value("onlyonce-form")), (503, Some("say")), "{told:?}");
    assert!(told.json()["done"].is_null(), "{told:?}");
    let replayed = sidecar.ask(&form).await;
    assert_eq!(replayed.value("onlyonce-form"), Some("go /orders/1"));
    assert_eq!(backend.count(), 1);
}
