//! `Max-Forwards`: how far OPTIONS and TRACE may go (RFC 9110, 7.6.2).

use crate::support::*;

#[tokio::test]
async fn a_request_that_may_go_no_further_is_answered_and_never_echoed() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = sidecar.connect().await;
    for target in ["/elsewhere", "/orders", "*"] {
        let request = request("OPTIONS", target).line("Max-Forwards: 0").line("X-Secret: s3cret");
        let got = client.ask(&request).await;
        assert_eq!((got.status, got.value("content-length"), got.text()), (200, Some("0"), ""), "{target}");
    }
    for (target, lines) in [
        ("/elsewhere", "Max-Forwards: 0"),
        ("/orders", "Max-Forwards: 0"),
        ("/orders", "Max-Forwards: 0\r\nIdempotency-Key: k\r\nX-HTTP-Method-Override: POST"),
        ("/elsewhere", "Max-Forwards: 5\r\nMax-Forwards: 00"),
    ] {
        let got = client.ask(&request("TRACE", target).line(lines).line("X-Secret: s3cret")).await;
        got.refuses(405, "method-not-allowed");
        assert_eq!(got.value("allow"), Some("OPTIONS"));
        assert!(!got.text().contains("s3cret") && !got.has("x-secret"), "{got:?}");
    }
    assert_eq!(backend.count(), 0);
    assert_eq!(sidecar.metric("onlyonce_requests_total{outcome=\"bad_request\",route=\"unmatched\"}").await, 4.0);
}

#[tokio::test]
async fn a_request_that_may_go_further_is_counted() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for method in ["OPTIONS", "TRACE"] {
        for (said, forwarded) in [("1", "0"), ("10", "9"), ("-1", "-1"), ("none", "none")] {
            let got = sidecar.ask(&request(method, "/x").line(&format!("Max-Forwards: {said}"))).await;
            assert_eq!(got.status, 201, "{method}: {said}");
            assert_eq!(backend.seen().pop().expect("it came").value("max-forwards"), Some(forwarded), "{method}");
        }
    }
    // For other methods it means nothing.
    for request in [request("GET", "/x"), order("k")] {
        assert_eq!(sidecar.ask(&request.line("Max-Forwards: 0")).await.status, 201);
        assert_eq!(backend.seen().pop().expect("it came").value("max-forwards"), Some("0"));
    }
}
