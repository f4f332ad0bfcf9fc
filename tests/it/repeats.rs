//! The sidecar itself sends only idempotent requests again.

use crate::support::*;

/// Sends another request first, so that there is a used connection; the backend closes it instead of answering the next
/// request.
async fn on_a_used_connection(end: Step) -> (Backend, Sidecar) {
    let backend = Backend::scripted([vec![Step::Answer], vec![end]]).await;
    let setup = Setup::new(&backend.url()).with("upstream", "idle_timeout = \"60s\"\nguarded_idle = \"60s\"");
    // Each thread has connections of its own.
    let setup = setup.with("server", "threads = 1");
    let sidecar = setup.route("methods = [\"POST\", \"PUT\"]\non_missing_key = \"forward\"").start().await;
    assert_eq!(sidecar.ask(&request("GET", "/first")).await.status, 201);
    (backend, sidecar)
}

#[tokio::test]
async fn a_request_that_changes_nothing_when_repeated_is_sent_again_when_a_used_connection_broke() {
    for end in [Step::Close, Step::Reset] {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            let (backend, sidecar) = on_a_used_connection(end.clone()).await;
            let answer = sidecar.ask(&request(method, "/x?y=z").line("X-Tag: a").line("X-Tag: b")).await;
            assert_eq!(answer.status, 201, "{method}");
            let seen = backend.seen();
            assert_eq!((seen.len(), backend.connections()), (3, 2), "{method}");
            assert_eq!(seen[1].head, seen[2].head, "{method}");
        }
    }
}

#[tokio::test]
async fn what_may_change_something_twice_is_sent_once() {
    for sent in [
        request("POST", "/x"),
        request("POST", "/x").body("abc"),
        request("PATCH", "/x"),
        // Its body was streamed, and cannot be sent again.
        request("PUT", "/x").body("abc"),
        request("PUT", "/x").body("abc").chunked(),
        request("GET", "/x").body("abc"),
        // The route guards PUT: without a key it is not guarded, and not repeated either.
        request("PUT", "/orders").by("alice"),
        order("k"),
    ] {
        let (backend, sidecar) = on_a_used_connection(Step::Close).await;
        sidecar.ask(&sent).await.refuses(502, "upstream-failed");
        assert_eq!(backend.count(), 2, "{sent:?}");
    }
}

#[tokio::test]
async fn nothing_is_sent_a_third_time_or_again_after_a_new_connection_broke() {
    let (backend, sidecar) = on_a_used_connection(Step::Close).await;
    backend.then(vec![Step::Close]);
    sidecar.ask(&request("GET", "/x")).await.refuses(502, "upstream-failed");
    assert_eq!((backend.count(), backend.connections()), (3, 2));

    let backend = Backend::scripted([vec![Step::Close]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    sidecar.ask(&request("GET", "/x")).await.refuses(502, "upstream-failed");
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_asked_for_again() {
    let begun = say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    let backend = Backend::scripted([vec![Step::Answer], vec![begun, Step::Close]]).await;
    let sidecar = Setup::new(&backend.url())
        .with("upstream", "idle_timeout = \"60s\"")
        .with("server", "threads = 1")
        .start()
        .await;
    sidecar.ask(&request("GET", "/first")).await;
    let mut client = sidecar.begin(&request("GET", "/x")).await;
    assert!(client.rest().await.starts_with(b"HTTP/1.1 200 OK"));
    assert_eq!(backend.count(), 2);
}

#[tokio::test]
async fn a_backend_that_was_slow_is_not_asked_again() {
    let backend = Backend::scripted([vec![Step::Answer], vec![Step::Hang]]).await;
    let setup = Setup::new(&backend.url()).with("upstream", "idle_timeout = \"60s\"\nresponse_timeout = \"200ms\"");
    let sidecar = setup.start().await;
    sidecar.ask(&request("GET", "/first")).await;
    sidecar.ask(&request("GET", "/x")).await.refuses(504, "upstream-timeout");
    assert_eq!(backend.count(), 2);
}
