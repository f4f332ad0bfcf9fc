//! Responses that arrive before the request is complete, for clients that write all of it before they read.

use std::time::Duration;

use h2::Reason;

use crate::support::*;

/// Python's `http.client` and Node's `http` write the whole request, and read afterwards.
async fn writes_first(client: &mut Wire, request: &Request) -> Response {
    client.send(request.bytes()).await;
    client.response().await
}

const SIZES: [usize; 4] = [66 << 10, 300 << 10, 2 << 20, 30 << 20];

fn large(request: Request, size: usize) -> [Request; 2] {
    let request = request.body(vec![b'x'; size]);
    [request.clone(), request.chunked()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_reaches_a_client_that_writes_before_it_reads() {
    let backend = Backend::start().await;
    let small = "name = \"small\"\npath = \"/small\"\nscope = []\nmax_request_body = \"1KiB\"";
    let required = "name = \"required\"\npath = \"/required\"\nscope = []\non_missing_key = \"reject\"";
    let sidecar = Setup::new(&backend.url()).another_route(small).another_route(required).start().await;
    for size in SIZES {
        for round in 0..if size > 2 << 20 { 2 } else { 10 } {
            let refusals = [
                (post("/small").line("Idempotency-Key: k"), 413, "request-too-large"),
                (post("/required"), 400, "missing-key"),
                (order(""), 400, "invalid-key"),
                (post("/orders").line("Connection: Authorization"), 400, "bad-request"),
                (post("/elsewhere").line("Expect: a-miracle"), 417, "expectation-failed"),
            ];
            for (request, status, code) in refusals {
                for request in large(request, size) {
                    let mut client = sidecar.connect().await;
                    let answer = writes_first(&mut client, &request).await;
                    assert_eq!(answer.problem(), (status, code.to_owned()), "{size} bytes, round {round}");
                    if answer.value("connection") == Some("close") {
                        client.ends().await;
                    }
                }
            }
        }
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn whoever_expects_to_be_asked_is_not_asked_and_may_send_all_the_same() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for (key, status) in [("k", 413), ("", 400)] {
        let head = format!(
            "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: {key}\r\nExpect: 100-continue\r\n\
             Content-Length: 3000000\r\n\r\n"
        );
        // A client that waits gets the response only.
        let mut waiting = sidecar.connect().await;
        waiting.send(&head).await;
        assert_eq!(waiting.response().await.status, status);
        // A client that sends without waiting still gets the response.
        let mut impatient = sidecar.connect().await;
        impatient.send(&head).await;
        impatient.send(vec![b'x'; 3_000_000]).await;
        assert_eq!(impatient.response().await.status, status);
        impatient.ends().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_answered_too() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let more = vec![b'x'; 3 << 20];
    for _ in 0..10 {
        // An invalid chunk, and everything that is sent after it.
        let mut client = sidecar.connect().await;
        client.send(order("k").line("Transfer-Encoding: chunked").bytes()).await;
        client.send(&more).await;
        assert_eq!(client.response().await.status, 400);
        client.ends().await;
        // A head that never ends.
        let mut client = sidecar.connect().await;
        client.send(["GET / HTTP/1.1\r\nX: ".as_bytes(), &more].concat()).await;
        assert_eq!(client.response().await.status, 431);
        client.ends().await;
        // None at all.
        let mut client = sidecar.connect().await;
        client.send([b"\0\0\0\0\r\n\r\n", &more[..]].concat()).await;
        assert_eq!(client.response().await.status, 400);
        client.ends().await;
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_the_backend_is_not_there_reaches_it_too() {
    let sidecar = Setup::new(&nobody()).start().await;
    for size in SIZES {
        for request in large(post("/upload"), size) {
            writes_first(&mut sidecar.connect().await, &request).await.refuses(502, "upstream-unreachable");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_side_answers_early_as_well() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for request in large(
        Request::to_host("/records/release", "127.0.0.1")
            .line("Onlyonce-Admin: 1")
            .line("Content-Type: application/json"),
        30 << 20,
    ) {
        let mut client = Wire::connect(sidecar.admin).await;
        assert_eq!(writes_first(&mut client, &request).await.status, 413);
    }
}

/// What a backend does after a response to an incomplete request.
#[derive(Debug, Clone, Copy)]
enum Then {
    Closes,
    Resets,
    ReadsNoMore,
    ReadsOn,
}

/// Reads a head, answers, and does that.
async fn answers_early(backend: &ByHand, say: &str, then: Then) {
    let mut connection = backend.accept().await;
    connection.head().await.expect("a request");
    connection.send(say).await;
    match then {
        Then::Closes => {}
        Then::Resets => connection.reset(),
        Then::ReadsNoMore => std::future::pending().await,
        Then::ReadsOn => drop(connection.rest().await),
    }
}

/// Such a backend, and the response that a client gets which writes before it reads.
async fn early(request: &Request, say: &str, then: Then) -> Response {
    let backend = ByHand::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = sidecar.connect().await;
    tokio::select! {
        answer = writes_first(&mut client, request) => answer,
        never = async {
            answers_early(&backend, say, then).await;
            std::future::pending().await
        } => never,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_of_the_backend_reaches_it() {
    // When a socket with unread data is closed, the kernel drops what it has not sent yet. So this much is sent at
    // once.
    for (then, length) in [(Then::Closes, 10_000), (Then::Resets, 10_000), (Then::ReadsOn, 100_000)] {
        let long = "x".repeat(length);
        for (status, say) in [
            (
                413,
                "HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much".to_owned(),
            ),
            (401, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_owned()),
            (200, format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{long}")),
            (200, format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{long}\r\n0\r\n\r\n")),
        ] {
            for size in SIZES {
                for request in large(post("/upload"), size) {
                    let answer = early(&request, &say, then).await;
                    assert_eq!(answer.status, status, "{then:?} {size}");
                    assert!(say.contains(answer.text()), "{then:?} {size}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_early_answer_of_a_backend_that_reads_no_more_reaches_it_too() {
    let say = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo much";
    let [request, _] = large(post("/upload"), 30 << 20);
    assert_eq!(early(&request, say, Then::ReadsNoMore).await.text(), "too much");
}

#[tokio::test]
async fn while_it_lingers_a_connection_has_its_place_and_the_drain_waits_for_it() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).with("server", "max_connections = 1").start().await;
    let mut client = sidecar.connect().await;
    client.send(order("k").body(vec![b'x'; 2 << 20]).chunked().bytes()).await;
    client.response().await.refuses(413, "request-too-large");
    let next = sidecar.asking(&order("k"));
    for _ in 0..10 {
        client.send("more").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!next.is_finished());
    let stopping = sidecar.begin_to_stop();
    for _ in 0..10 {
        client.send("more").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!stopping.is_finished());
    drop(client);
    assert_eq!(within("the drain", stopping).await.expect("no panic"), onlyonce::run::Stopped::Clean);
}

#[tokio::test]
async fn a_client_that_says_nothing_more_gives_its_place_back() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = sidecar.connect().await;
    client.send(order("k").body(vec![b'x'; 2 << 20]).chunked().bytes()).await;
    client.response().await.refuses(413, "request-too-large");
    assert_eq!(sidecar.metric("onlyonce_connections").await, 1.0);
    until("it is given up", async || sidecar.metric("onlyonce_connections").await == 0.0).await;
    drop(client);
}

#[tokio::test]
async fn in_http2_the_rest_is_called_off_without_an_error() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let stream = tokio::net::TcpStream::connect(sidecar.address).await.expect("it listens");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    for (path, key, status) in [("/orders", "k", 413), ("/orders", "", 400)] {
        let request = http::Request::post(format!("http://api.test{path}")).header("idempotency-key", key);
        let request = request.header("content-length", 30 << 20).body(()).expect("a request");
        let (answer, mut sending) = client.send_request(request, false).expect("an open connection");
        // As much as the flow-control windows allow; the response does not wait for it.
        sending.send_data(vec![b'x'; 2 << 20].into(), false).expect("an open stream");
        let answer = within("an answer", answer).await.expect("not a reset");
        assert_eq!(answer.status(), status);
        let mut body = answer.into_body();
        let mut text = Vec::new();
        while let Some(piece) = within("a body", body.data()).await {
            text.extend_from_slice(&piece.expect("whole, and no reset before it is"));
        }
        assert!(text.starts_with(b"{"), "{text:?}");
        let reset = within("a reset", std::future::poll_fn(|cx| sending.poll_reset(cx))).await;
        assert_eq!(reset.expect("the stream's own"), Reason::NO_ERROR);
    }
    assert_eq!(backend.count(), 0);
    connection.abort();
}
