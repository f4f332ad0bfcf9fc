//! The length of a response: however the backend states it, the client gets one statement.

use crate::support::http2::{self, Http2Backend, Turn};
use crate::support::*;

/// Every path of a response: guarded, without a key, observed, and without a route.
async fn ways(backend: &Backend) -> Vec<(&'static str, Sidecar, fn(&str) -> Request)> {
    let setup = Setup::new(&backend.url());
    vec![
        ("no route", setup.clone().start().await, |_| post("/elsewhere").body("x")),
        ("no key", setup.clone().start().await, |_| post("/orders").by("alice").body("x")),
        ("observed", setup.clone().route("mode = \"observe\"").start().await, order),
        ("guarded", setup.clone().start().await, order),
        ("guarded, as it comes", setup.clone().route("response = \"stream\"").start().await, order),
        ("too large to be kept", setup.route("max_response_body = \"4B\"").start().await, order),
    ]
}

/// The body is longer than the length, and shorter.
#[tokio::test]
async fn a_length_beside_chunks_goes_on_every_way() {
    for lines in [
        "Content-Length: 10\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 10",
        "Content-Length: 1000\r\nTransfer-Encoding: Chunked",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Content-Length: +5\r\nContent-Length: 7\r\nTransfer-Encoding: chunked",
    ] {
        let said = format!("HTTP/1.1 201 Created\r\n{lines}\r\n\r\n14\r\n0123456789abcdefghij\r\n0\r\n\r\n");
        let backend = Backend::start().await;
        for (way, sidecar, request) in ways(&backend).await {
            let (count, connections) = (backend.count(), backend.connections());
            backend.then(vec![say(&said)]);
            let mut client = sidecar.connect().await;
            let got = client.ask(&request("k")).await;
            assert_eq!((got.status, got.text()), (201, "0123456789abcdefghij"), "{way}: {lines}");
            assert!(got.has("content-length") != got.has("transfer-encoding"), "{way}: {got:?}");
            // Nothing of it is left, and its connection is not used again.
            assert_eq!(client.ask(&self::request("GET", "/next")).await.status, 201, "{way}: {lines}");
            let (runs, made) = (backend.count() - count, backend.connections() - connections);
            assert_eq!((runs, made), (2, 2), "{way}: {lines}");
        }
    }
}

#[tokio::test]
async fn lengths_that_agree_are_one_on_every_way() {
    for lines in
        ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5", "Content-Length: 5 ,5\r\nContent-Length: 5"]
    {
        let backend = Backend::start().await;
        for (way, sidecar, request) in ways(&backend).await {
            backend.then(vec![say(format!("HTTP/1.1 201 Created\r\n{lines}\r\n\r\nhello"))]);
            let got = sidecar.ask(&request("k")).await;
            assert_eq!(
                (got.status, got.text(), got.values("content-length")),
                (201, "hello", vec!["5"]),
                "{way}: {lines}"
            );
        }
    }
}

#[tokio::test]
async fn a_length_that_cannot_be_told_is_no_answer_on_any_way() {
    for lines in [
        "Content-Length: +5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length:",
        "Content-Length: -5",
        "Content-Length: 18446744073709551616",
    ] {
        let backend = Backend::start().await;
        for (way, sidecar, request) in ways(&backend).await {
            backend.then(vec![say(format!("HTTP/1.1 201 Created\r\n{lines}\r\n\r\nhello")), Step::Close]);
            let got = sidecar.ask(&request("k")).await;
            assert_eq!(got.problem(), (502, "upstream-failed".to_owned()), "{way}: {lines}");
        }
    }
}

/// These responses state the length that a body would have.
#[tokio::test]
async fn answers_without_a_body_say_one_length_or_are_none() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for (method, status) in [("HEAD", "200 OK"), ("GET", "304 Not Modified")] {
        for (lines, length) in [
            ("Content-Length: 5\r\nContent-Length: 5", Some("5")),
            ("Content-Length: 5, 5", Some("5")),
            ("Content-Length: 5", Some("5")),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", None),
        ] {
            backend.then(vec![say(format!("HTTP/1.1 {status}\r\n{lines}\r\nETag: \"7\"\r\n\r\n"))]);
            let mut client = sidecar.connect().await;
            let got = client.ask(&request(method, "/x").line("If-None-Match: \"7\"")).await;
            assert_eq!((&got.first[9..], got.value("etag")), (status, Some("\"7\"")), "{lines}");
            if method == "HEAD" {
                assert_eq!(got.value("content-length"), length, "{lines}");
            }
            assert!(!got.has("transfer-encoding"));
            assert_eq!(client.ask(&request("GET", "/next")).await.status, 201, "{lines}");
        }
        for lines in ["Content-Length: +5", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 5, 6"] {
            backend.then(vec![say(format!("HTTP/1.1 {status}\r\n{lines}\r\n\r\n"))]);
            let mut client = sidecar.connect().await;
            let got = client.ask(&request(method, "/x")).await;
            assert_eq!(got.status, 502, "{method}: {lines}");
        }
    }
    backend.then(vec![say("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n")]);
    let got = sidecar.ask(&request("GET", "/x")).await;
    assert_eq!((got.status, got.has("content-length")), (204, false));
}

#[tokio::test]
async fn an_http2_backend_may_say_its_length_twice() {
    let say = || http2::Answer {
        status: 201,
        lines: vec![("content-length", "5"), ("content-length", "5")],
        body: vec![b"hello"],
        ..http2::Answer::default()
    };
    let head = http2::Answer { body: Vec::new(), ..say() };
    let backend = Http2Backend::start([Turn::Say(say()), Turn::Say(say()), Turn::Say(head)]).await;
    let sidecar = Setup::new(&backend.url()).with("upstream", "http2 = true").start().await;
    for request in [request("GET", "/x"), order("k"), order("k")] {
        let got = sidecar.ask(&request).await;
        assert_eq!((got.text(), got.values("content-length")), ("hello", vec!["5"]), "{request:?}");
    }
    let got = sidecar.ask(&request("HEAD", "/x")).await;
    assert_eq!((got.status, got.values("content-length")), (201, vec!["5"]));
}

/// HTTP/1.0 has no chunks, and closes connections by default. This concerns the backend connection only.
#[tokio::test]
async fn the_version_of_an_answer_is_ours() {
    let backend = Backend::start().await;
    for (way, sidecar, request) in ways(&backend).await {
        let mut client = sidecar.connect().await;
        for (number, (said, end)) in [
            ("HTTP/1.0 201 Created\r\nContent-Length: 5\r\n\r\nhello", Some(Step::Close)),
            ("HTTP/1.0 201 Created\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", None),
            ("HTTP/1.0 201 Created\r\n\r\nhello", Some(Step::Close)),
        ]
        .into_iter()
        .enumerate()
        {
            backend.then([say(said)].into_iter().chain(end).collect());
            let got = client.ask(&request(&number.to_string())).await;
            assert_eq!((got.first.as_str(), got.text()), ("HTTP/1.1 201 Created", "hello"), "{way}: {said}");
            assert!(
                !got.has("connection") && got.has("content-length") != got.has("transfer-encoding"),
                "{way}: {got:?}"
            );
        }
    }
}
