//! Unguarded requests whose bodies do not arrive: reported and counted as the client's fault.

use crate::support::http2::Http2Backend;
use crate::support::*;

/// A backend that answers complete requests only.
async fn taking() -> String {
    let backend = ByHand::start().await;
    let url = backend.url();
    tokio::spawn(async move {
        loop {
            let mut connection = backend.accept().await;
            tokio::spawn(async move { connection.rest().await });
        }
    });
    url
}

/// Heads of unguarded requests, and the route that they are counted for.
const WAYS: [(&str, &str, &str); 3] = [
    ("no route", "PUT /files/1 HTTP/1.1\r\nHost: a\r\n", "unmatched"),
    ("no key", "POST /orders HTTP/1.1\r\nHost: a\r\n", "orders"),
    ("observed", "POST /observed HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\n", "observed"),
];

fn setup(url: &str) -> Setup {
    let observed = "name = \"observed\"\npath = \"/observed\"\nscope = [\"header:Authorization\"]\nmode = \"observe\"";
    Setup::new(url).another_route(observed)
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";

/// The part of a body that is sent, and whether the client then closes its side.
fn broken() -> Vec<(&'static str, String, bool)> {
    let chunked = |body: &str| format!("{CHUNKED}{body}");
    vec![
        ("no size", chunked("zz\r\nabc\r\n"), false),
        ("no size, after a chunk", chunked("3\r\nabc\r\nzz\r\n"), false),
        ("too much in a chunk", chunked("3\r\nabcd\r\n0\r\n\r\n"), false),
        ("a size that is too large", chunked("3\r\nabc\r\nfffffffffffffffff\r\n"), false),
        ("trailers that are none", chunked("3\r\nabc\r\n0\r\nX-Sum 6\r\n\r\n"), false),
        ("a trailer with a space in its name", chunked("3\r\nabc\r\n0\r\nX Sum: 6\r\n\r\n"), false),
        ("half a chunk", chunked("10\r\nabc"), true),
        ("no last chunk", chunked("3\r\nabc\r\n"), true),
        ("no end of trailers", chunked("3\r\nabc\r\n0\r\nX-Sum: 6\r\n"), true),
        ("half of what was announced", "Content-Length: 10\r\n\r\nabc".to_owned(), true),
        ("nothing of what was announced", "Content-Length: 10\r\n\r\n".to_owned(), true),
    ]
}

fn counted(route: &str, outcome: &str) -> String {
    format!("onlyonce_requests_total{{outcome=\"{outcome}\",route=\"{route}\"}}")
}

#[tokio::test]
async fn a_body_that_breaks_off_is_the_client_s_fault() {
    let http2 = Http2Backend::start([]).await;
    for setup in [setup(&taking().await), setup(&http2.url()).with("upstream", "http2 = true")] {
        let process = Process::start(&setup).await;
        for (way, head, route) in WAYS {
            let before = process.metric(&counted(route, "bad_request")).await;
            for (what, rest, ends) in broken() {
                let mut client = process.connect().await;
                client.send(format!("{head}{rest}")).await;
                if ends {
                    client.finish().await;
                }
                let got = client.response().await;
                assert_eq!(got.problem(), (400, "bad-request".to_owned()), "{way}: {what}");
                assert_eq!(got.value("connection"), Some("close"), "{way}: {what}");
                client.ends().await;
            }
            let count = broken().len() as f64;
            assert_eq!(process.metric(&counted(route, "bad_request")).await - before, count, "{way}");
            assert_eq!(process.metric(&counted(route, "upstream_error")).await, 0.0, "{way}");
        }
        assert_eq!(process.warnings(), "");
    }
}

/// The client has left.
#[tokio::test]
async fn a_client_that_is_gone_in_the_middle_of_its_body_is_counted() {
    let backend = ByHand::start().await;
    let process = Process::start(&setup(&backend.url())).await;
    for (way, head, route) in WAYS {
        for (index, rest) in
            ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"].into_iter().enumerate()
        {
            let mut client = process.connect().await;
            client.send(format!("{head}{rest}")).await;
            let mut backend = backend.accept().await;
            backend.head().await.expect("a request");
            backend.exactly(3).await;
            client.reset();
            let bad = counted(route, "bad_request");
            until("it is counted", async || process.metric(&bad).await == (index + 1) as f64).await;
            backend.rest().await;
        }
        assert_eq!(process.metric(&counted(route, "upstream_error")).await, 0.0, "{way}");
    }
    assert_eq!(process.warnings(), "");
}

#[tokio::test]
async fn a_body_that_pauses_for_too_long_is_the_client_s_fault_whatever_the_backend_speaks() {
    let http2 = Http2Backend::start([]).await;
    for setup in [setup(&taking().await), setup(&http2.url()).with("upstream", "http2 = true")] {
        let process = Process::start(&setup.with("server", "body_timeout = \"100ms\"")).await;
        for (way, head, route) in WAYS {
            let mut client = process.connect().await;
            client.send(format!("{head}Content-Length: 10\r\n\r\nabc")).await;
            assert_eq!(client.response().await.problem(), (408, "request-timeout".to_owned()), "{way}");
            assert_eq!(process.metric(&counted(route, "request_timeout")).await, 1.0, "{way}");
        }
        assert_eq!(process.warnings(), "");
    }
}

/// If the backend aborts, the response is reported as lost.
#[tokio::test]
async fn a_backend_that_breaks_off_in_the_middle_of_an_upload_is_at_fault() {
    for (way, head, route) in WAYS {
        let backend = ByHand::start().await;
        let sidecar = setup(&backend.url()).start().await;
        let mut client = sidecar.connect().await;
        client.send(format!("{head}Content-Length: 10\r\n\r\nabc")).await;
        let mut backend = backend.accept().await;
        backend.head().await.expect("a request");
        backend.reset();
        client.response().await.refuses(502, "upstream-failed");
        assert_eq!(sidecar.metric(&counted(route, "upstream_error")).await, 1.0, "{way}");
        assert_eq!(sidecar.metric(&counted(route, "bad_request")).await, 0.0, "{way}");
    }
}
