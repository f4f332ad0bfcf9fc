//! The backend is asked about a request whose outcome is unknown (`[route.probe]`).

mod by_hand;
mod others;
mod turns;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::*;

const FOUND: &str = "found = { status = [\"200\"], json = \"/data/0/id\" }";
const ABSENT: &str = "absent = { status = [\"200\"], json_empty = \"/data\" }";
/// A credential of the service's own.
const OWN: &str = "authorization = \"Bearer probe\"";
/// With them, what others need to ask about a lost owner is kept with its record.
const KEYS: &str = "encryption_keys = [\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"]";

/// A probe that looks for the order with this key. A machine that is busy is no backend that does not answer.
fn search(rest: &str) -> String {
    let timeout = if rest.contains("timeout") { "" } else { "timeout = \"20s\"" };
    format!("[probe]\npath = \"/orders?key={{key}}\"\n{FOUND}\n{ABSENT}\n{timeout}\n{rest}")
}

fn says(head: &str, body: &str) -> Vec<Step> {
    vec![answer(&format!("{head}\r\nContent-Type: application/json"), body)]
}

fn nothing() -> Vec<Step> {
    says("200 OK", r#"{"data":[]}"#)
}

fn something() -> Vec<Step> {
    let head = "200 OK\r\nLocation: /orders/7\r\nAge: 3\r\nX-Of: search";
    says(head, r#"{"data":[{"id":7}]}"#)
}

/// A backend that loses the first order, and then follows these scripts.
async fn losing(scripts: impl IntoIterator<Item = Vec<Step>>) -> Backend {
    Backend::scripted([vec![Step::Reset]].into_iter().chain(scripts)).await
}

/// The first order: it was sent, and the connection broke.
async fn lose(sidecar: &Sidecar) {
    sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
}

fn questions(backend: &Backend) -> Vec<String> {
    let lines = backend.seen().into_iter().map(|seen| seen.head.first);
    lines.filter(|first| first.starts_with("GET ")).collect()
}

fn orders(backend: &Backend) -> usize {
    backend.seen().iter().filter(|seen| seen.first.starts_with("POST ")).count()
}

fn results(result: &str) -> String {
    format!("onlyonce_probes_total{{route=\"orders\",result=\"{result}\"}}")
}

/// Waits until this many questions came to this.
async fn had(sidecar: &Sidecar, result: &str, count: f64) {
    until(result, async || sidecar.metric(&results(result)).await >= count).await;
}

on_every_store! {
    /// The search finds nothing, again and again.
    async fn what_is_absent_long_enough_is_free(store: &Store) {
        let backend = losing([nothing(), nothing(), nothing()]).await;
        let sidecar = Setup::new(&backend.url()).store(store).route(&search("after = \"150ms\"")).start().await;
        let begun = Instant::now();
        lose(&sidecar).await;
        until("the key is free", async || sidecar.ask(&order("k")).await.status == 201).await;
        // Once it counts, and once more as long after that.
        assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
        assert_eq!(orders(&backend), 2);
        assert_eq!(questions(&backend), ["GET /orders?key=k HTTP/1.1"; 3]);
        assert!(sidecar.ask(&order("k")).await.is_replay());
    }

    /// The witness is there: the record is final, and repeats are told so.
    async fn what_is_found_is_done(store: &Store) {
        let backend = losing([something()]).await;
        let sidecar = Setup::new(&backend.url()).store(store).route(&search("")).start().await;
        lose(&sidecar).await;
        had(&sidecar, "found", 1.0).await;
        for _ in 0..2 {
            let refused = sidecar.ask(&order("k")).await;
            refused.refuses(409, "already-completed");
            assert_eq!(refused.value("location"), Some("/orders/7"));
        }
        assert_eq!((orders(&backend), questions(&backend).len()), (1, 1));
        assert_eq!(sidecar.metric("onlyonce_records_unknown{route=\"orders\"}").await, 0.0);
        // One that was done by itself is beside it.
        backend.then(vec![Step::Answer]);
        assert_eq!(sidecar.ask(&order("other")).await.status, 201);
        assert_eq!(found_by_probe(sidecar.admin).await, [("completed".into(), false), ("unreplayable".into(), true)]);
    }
}

/// On PostgreSQL, both in one: a server takes a while to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_what_is_absent_and_what_is_found() {
    let server = PostgresServer::start();
    let backend = losing([nothing(), nothing(), nothing()]).await;
    let setup = Setup::new(&backend.url()).with("store", &format!("url = \"{}\"", server.url()));
    let sidecar = setup.route(&search("after = \"150ms\"")).start().await;
    // The first one claims nothing for a while.
    until("claims are made", async || sidecar.ask(&order("k")).await.problem().1 != "store-unavailable").await;
    until("the key is free", async || sidecar.ask(&order("k")).await.status == 201).await;
    assert_eq!((orders(&backend), questions(&backend).len()), (2, 3));
    for step in [vec![Step::Reset], something()] {
        backend.then(step);
    }
    sidecar.ask(&order("other")).await.refuses(502, "upstream-failed");
    had(&sidecar, "found", 1.0).await;
    let refused = sidecar.ask(&order("other")).await;
    refused.refuses(409, "already-completed");
    assert_eq!(refused.value("location"), Some("/orders/7"));
    assert_eq!((orders(&backend), questions(&backend).len()), (3, 4));
    assert_eq!(found_by_probe(sidecar.admin).await, [("completed".into(), false), ("unreplayable".into(), true)]);
}

/// The state of each record, and whether it is marked as found by a probe, in the list and on its own.
async fn found_by_probe(admin: std::net::SocketAddr) -> Vec<(String, bool)> {
    let ask = async |target: &str| {
        let call = request("GET", target).host("localhost").line("Onlyonce-Admin: 1");
        Wire::connect(admin).await.ask(&call).await.json()
    };
    let is_found = |entry: &Value| entry["found_by_probe"] == true;
    let mut found = Vec::new();
    for entry in ask("/records").await["records"].as_array().expect("records") {
        let shown = ask(&format!("/records/{}", entry["record"].as_str().expect("a name"))).await;
        assert_eq!(is_found(entry), is_found(&shown), "{entry} {shown}");
        found.push((entry["state"].as_str().expect("a state").to_owned(), is_found(entry)));
    }
    found.sort();
    found
}

/// Nothing of the question comes from the client but the credentials.
#[tokio::test]
async fn a_question_is_made_of_nothing() {
    let backend = losing([something()]).await;
    let sidecar = Setup::new(&backend.url()).route(&search("answer = \"probe\"")).start().await;
    let first = order("\"a/b c\"")
        .line("Cookie: s=1")
        .line("X-Forwarded-For: 9.9.9.9")
        .line("Prefer: x")
        .line("Range: bytes=0-1");
    sidecar.ask(&first).await.refuses(502, "upstream-failed");
    backend.has_seen(2).await;
    let asked = &backend.seen()[1];
    assert_eq!(asked.first, "GET /orders?key=a%2Fb%20c HTTP/1.1");
    let mut names: Vec<String> = asked.lines.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    let expected = ["accept", "accept-encoding", "authorization", "cache-control", "cookie", "host", "user-agent"];
    assert_eq!(names, expected, "{:?}", asked.head);
    let value = |name| asked.value(name).expect("a line");
    assert_eq!((value("authorization"), value("cookie")), ("Bearer alice", "s=1"));
    assert_eq!((value("cache-control"), value("accept-encoding")), ("no-cache", "identity"));
    assert_eq!(value("host"), "api.test", "as its attempt");
    assert!(asked.body.is_empty());
}

/// A backend may go by the host, and another answer there is no absence. The owner names that of its attempt.
#[tokio::test]
async fn an_owner_asks_for_the_host_of_its_attempt() {
    for preserve_host in [true, false] {
        let backend = losing([something()]).await;
        let keys = format!("preserve_host = {preserve_host}");
        let sidecar = Setup::new(&backend.url()).with("upstream", &keys).route(&search("")).start().await;
        let first = Request::to_host("/orders", "Shop.example:81").line("Idempotency-Key: k").by("alice").json("{}");
        sidecar.ask(&first).await.refuses(502, "upstream-failed");
        backend.has_seen(2).await;
        let hosts: Vec<String> =
            backend.seen().iter().map(|seen| seen.value("host").expect("a line").to_owned()).collect();
        let own = backend.url().replace("http://", "");
        let expected = if preserve_host { "Shop.example:81" } else { &own };
        assert_eq!(hosts, [expected, expected]);
    }
}

/// The backend lists what this caller may see: a question that does not tell who asks would see nothing.
#[tokio::test]
async fn an_owner_sends_what_the_scope_is_made_of() {
    for (own, expected) in
        [("", (Some("k-1"), Some("t-1"), Some("Bearer alice"))), (OWN, (None, None, Some("Bearer probe")))]
    {
        let backend = losing([something()]).await;
        let keys = format!("scope = [\"header:X-Api-Key\", \"header:X-Forwarded-Host\"]\n{}", search(own));
        let sidecar = Setup::new(&backend.url()).route(&keys).start().await;
        let first = order("k").line("X-Api-Key: k-1").line("X-Forwarded-Host: t-1").line("X-Other: o");
        sidecar.ask(&first).await.refuses(502, "upstream-failed");
        backend.has_seen(2).await;
        let asked = &backend.seen()[1];
        let sent = (asked.value("x-api-key"), asked.value("x-forwarded-host"), asked.value("authorization"));
        assert_eq!((sent, asked.value("x-other")), (expected, None), "{:?}", asked.head);
    }
}

/// The retry gets the backend's answer to the question, as any recorded one.
#[tokio::test]
async fn the_answer_of_the_probe_may_be_what_is_replayed() {
    let backend = losing([something()]).await;
    let keys = search(&format!("answer = \"probe\"\n{OWN}"));
    let sidecar = Setup::new(&backend.url()).route(&format!("replay_omit = [\"Age\", \"X-Of\"]\n{keys}")).start().await;
    lose(&sidecar).await;
    had(&sidecar, "found", 1.0).await;
    let replay = sidecar.ask(&order("k")).await;
    assert!(replay.is_replay(), "{replay:?}");
    assert_eq!((replay.status, replay.text()), (200, r#"{"data":[{"id":7}]}"#));
    assert_eq!((replay.has("age"), replay.has("x-of"), replay.value("location")), (false, false, Some("/orders/7")));
    assert_eq!(backend.seen()[1].value("authorization"), Some("Bearer probe"), "its own, and not the client's");
    sidecar.ask(&order("k").json("{}")).await.refuses(422, "key-reused");
}

/// Answers that look like a sign and are none: the key stays blocked, and the request is not run again.
#[tokio::test]
async fn what_the_application_did_not_write_tells_nothing() {
    let not_found = "absent = { status = [\"404\"], json = \"/error\" }";
    let probe =
        format!("[probe]\npath = \"/orders/{{key}}\"\n{FOUND}\n{not_found}\nafter = \"1ms\"\nanswer = \"probe\"");
    let json = |status: &str, body: &str| says(status, body);
    let cut =
        "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{\"error\":\"none\"}";
    let long = format!("{{\"error\":\"{}\"}}", "x".repeat(2000));
    for (what, script) in [
        ("an empty search", json("200 OK", r#"{"data":[]}"#)),
        ("a bare list", json("200 OK", "[]")),
        ("the page of an ingress", vec![answer("404 Not Found\r\nContent-Type: text/html", "<h1>404</h1>")]),
        ("an ingress that speaks JSON", json("404 Not Found", r#"{"message":"no Route matched"}"#)),
        ("no type", vec![answer("404 Not Found", r#"{"error":"none"}"#)]),
        (
            "encoded",
            vec![answer(
                "404 Not Found\r\nContent-Type: application/json\r\nContent-Encoding: gzip",
                r#"{"error":"none"}"#,
            )],
        ),
        ("not JSON", json("404 Not Found", r#"{"error":"none""#)),
        ("an empty witness", json("404 Not Found", r#"{"error":null}"#)),
        ("two witnesses", json("404 Not Found", r#"{"error":"a","error":"b"}"#)),
        ("cut off", vec![say(cut), Step::Close]),
        ("too long", json("404 Not Found", &long)),
        ("from a cache", json("404 Not Found\r\nAge: 7", r#"{"error":"none"}"#)),
        ("maintenance", json("503 Service Unavailable", r#"{"error":"later"}"#)),
        ("no right", json("401 Unauthorized", r#"{"error":"who are you?"}"#)),
        ("a redirect", json("302 Found\r\nLocation: /orders/moved", r#"{"error":"none"}"#)),
        ("nothing", vec![Step::Close]),
    ] {
        let scripts: Vec<Vec<Step>> = vec![script; 40];
        let backend = losing(scripts).await;
        let sidecar = Setup::new(&backend.url()).route(&format!("max_response_body = \"1KiB\"\n{probe}")).start().await;
        lose(&sidecar).await;
        had(&sidecar, "inconclusive", 2.0).await;
        sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
        assert_eq!(orders(&backend), 1, "{what}");
        assert!(questions(&backend).iter().all(|first| first == "GET /orders/k HTTP/1.1"), "{what}: not followed");
        assert_eq!(sidecar.metric(&results("found")).await + sidecar.metric(&results("absent")).await, 0.0, "{what}");
    }
}

/// The replica that is asked lags: the order is seen before its absence counts twice.
#[tokio::test]
async fn an_order_that_appears_late_is_found() {
    for looks in [1, 2] {
        let scripts = vec![nothing(); looks].into_iter().chain([something()]);
        let backend = losing(scripts).await;
        let sidecar = Setup::new(&backend.url()).route(&search("after = \"60ms\"")).start().await;
        lose(&sidecar).await;
        had(&sidecar, "found", 1.0).await;
        sidecar.ask(&order("k")).await.refuses(409, "already-completed");
        assert_eq!((orders(&backend), questions(&backend).len()), (1, looks + 1));
    }
}

/// Another answer between two absences makes the first one forgotten.
#[tokio::test]
async fn two_absences_count_only_with_nothing_in_between() {
    let maintenance = says("503 Service Unavailable", "{}");
    let scripts = [nothing(), nothing(), maintenance, nothing(), nothing()];
    let backend = losing(scripts).await;
    let sidecar = Setup::new(&backend.url()).route(&search("after = \"60ms\"")).start().await;
    lose(&sidecar).await;
    until("the key is free", async || sidecar.ask(&order("k")).await.status == 201).await;
    assert_eq!(questions(&backend).len(), 5);
}

/// A client is answered though the backend never does: the question is out of its way after `timeout`.
#[tokio::test]
async fn a_slow_answer_keeps_no_client_waiting() {
    let backend = losing(vec![vec![Step::Hang]; 20]).await;
    let keys = search(&format!("timeout = \"200ms\"\nafter = \"1ms\"\n{OWN}"));
    let sidecar = Setup::new(&backend.url()).route(&keys).start().await;
    lose(&sidecar).await;
    backend.has_seen(2).await;
    let begun = Instant::now();
    sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
    // The backend would never have answered, and nothing else ends the wait. How long it is to the moment is tested with a
    // clock that stands still (`guard::tests`).
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    had(&sidecar, "inconclusive", 1.0).await;
    assert_eq!(orders(&backend), 1);
}

/// However many ask, the backend is asked once at a time, and all of them get what it says.
#[tokio::test]
async fn many_repeats_are_one_question() {
    let gate = Gate::new();
    let found = [vec![Step::Wait(gate.clone())], something()].concat();
    let backend = losing([found]).await;
    let sidecar = Setup::new(&backend.url()).route(&search(&format!("timeout = \"20s\"\n{OWN}"))).start().await;
    lose(&sidecar).await;
    backend.has_seen(2).await;
    let repeats: Vec<_> = (0..20).map(|_| sidecar.asking(&order("k"))).collect();
    // They have come, and wait for the one question.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(backend.count(), 2);
    gate.open();
    for repeat in repeats {
        repeat.await.expect("no panic").refuses(409, "already-completed");
    }
    assert_eq!((orders(&backend), questions(&backend).len()), (1, 1));
}

/// A waiting repeat (`on_concurrent = "wait"`) is there when the outcome becomes unknown.
#[tokio::test]
async fn a_waiting_repeat_gets_what_was_found() {
    let gate = Gate::new();
    let backend = Backend::scripted([vec![Step::Wait(gate.clone()), Step::Reset], something()]).await;
    let sidecar = Setup::new(&backend.url()).route(&format!("on_concurrent = \"wait\"\n{}", search(OWN))).start().await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    let second = sidecar.asking(&order("k"));
    until("it waits", async || sidecar.metric("onlyonce_waiting{route=\"orders\"}").await >= 1.0).await;
    gate.open();
    first.await.expect("no panic").refuses(502, "upstream-failed");
    second.await.expect("no panic").refuses(409, "already-completed");
    assert_eq!((orders(&backend), questions(&backend).len()), (1, 1));
}

/// A value that cannot stand in a path: nothing is asked, and the log says why.
#[tokio::test]
async fn a_value_that_would_lead_elsewhere_is_not_asked_for() {
    let backend = losing([]).await;
    let keys = format!("[probe]\npath = \"/orders/{{json:/item}}?key={{key}}\"\n{FOUND}\n{ABSENT}");
    let sidecar = Process::start(&Setup::new(&backend.url()).route(&keys)).await;
    let dots = post("/orders").line("Idempotency-Key: k").by("alice").json(r#"{"item":".."}"#);
    sidecar.ask(&dots).await.refuses(502, "upstream-failed");
    sidecar.logs("probe_not_asked").await;
    assert!(sidecar.log().contains("{json:/item} is . or .."), "{}", sidecar.log());
    sidecar.ask(&dots).await.refuses(409, "outcome-unknown");
    assert_eq!(backend.count(), 1);
}

/// The stop of a sidecar does not wait for a question that is due later.
#[tokio::test]
async fn a_stop_does_not_wait_for_the_second_look() {
    let backend = losing([nothing()]).await;
    let sidecar = Setup::new(&backend.url()).route(&search("after = \"10m\"")).start().await;
    lose(&sidecar).await;
    had(&sidecar, "absent", 1.0).await;
    let begun = Instant::now();
    sidecar.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}
