//! `replay_auth`: who may see a recorded answer is asked before it is shown.

mod cache;
mod question;
mod tls;

use std::collections::BTreeSet;

use crate::support::backend::Script;
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
