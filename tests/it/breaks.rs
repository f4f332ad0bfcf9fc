//! Responses whose bodies are aborted: if nothing was sent yet, the client gets a problem.

use crate::support::*;

const HEAD: &str = "HTTP/1.1 201 Created\r\nLocation: /orders/7\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The abort arrives together with the head, so it is known before anything is sent.
#[tokio::test]
async fn a_body_that_is_broken_where_it_begins_is_no_answer() {
    for body in ["zz\r\nabc\r\n", "\r\n", "-1\r\n", "fffffffffffffffff\r\nabc\r\n", "3 abc\r\n"] {
        let backend = Backend::start().await;
        let setup = Setup::new(&backend.url());
        for (way, sidecar, request) in [
            ("no route", setup.clone().start().await, request("GET", "/x")),
            ("no key", setup.clone().start().await, post("/orders").body("x")),
            ("observed", setup.clone().route("mode = \"observe\"").start().await, order("k")),
            ("guarded", setup.clone().start().await, order("k")),
            ("guarded, as it comes", setup.route("response = \"stream\"").start().await, order("k")),
        ] {
            backend.then(vec![say(format!("{HEAD}{body}")), Step::Close]);
            sidecar.ask(&request).await.refuses(502, "upstream-failed");
            if way.starts_with("guarded") {
                sidecar.ask(&request).await.refuses(409, "already-completed");
            }
        }
    }
}

/// The part that arrived before the abort is still delivered.
#[tokio::test]
async fn what_came_before_a_body_broke_off_reaches_the_client() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for (rest, end) in [("zz\r\n", Step::Hang), ("3\r\nde", Step::Close), ("3\r\nde", Step::Reset)] {
        for _ in 0..20 {
            backend.then(vec![say(format!("{HEAD}3\r\nabc\r\n{rest}")), end.clone()]);
            let mut client = sidecar.begin(&request("GET", "/x")).await;
            let head = client.head().await.expect("a head");
            assert_eq!((head.first.as_str(), head.value("location")), ("HTTP/1.1 201 Created", Some("/orders/7")));
            assert_eq!(client.chunk().await, b"abc");
            assert!(!client.rest().await.ends_with(b"0\r\n\r\n"), "it looks whole");
        }
    }
}

/// The abort arrives later than the head, which was sent already.
#[tokio::test]
async fn a_head_reaches_the_client_though_its_body_never_begins() {
    let gate = Gate::new();
    let backend = Backend::scripted([vec![say(HEAD), Step::Wait(gate.clone()), say("zz\r\n"), Step::Close]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = sidecar.begin(&request("GET", "/x")).await;
    assert_eq!(client.head().await.expect("a head").first, "HTTP/1.1 201 Created");
    gate.open();
    client.ends().await;
}
