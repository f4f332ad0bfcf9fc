//! A backend with `http2 = true`.

use h2::Reason;

use crate::support::http2::{Answer, Http2Backend, Turn};
use crate::support::*;

fn setup(url: &str) -> Setup {
    // Connections stay open during the test, and each thread has its own.
    let setup = Setup::new(url).with("upstream", "http2 = true\nidle_timeout = \"60s\"\nguarded_idle = \"60s\"");
    setup.with("server", "threads = 1")
}

async fn with(turns: impl IntoIterator<Item = Turn>) -> (Http2Backend, Sidecar) {
    let backend = Http2Backend::start(turns).await;
    let sidecar = setup(&backend.url()).start().await;
    (backend, sidecar)
}

#[tokio::test]
async fn passing_requests_share_a_connection_and_name_their_host_in_its_way() {
    let gate = Gate::new();
    let (backend, sidecar) = with([Turn::AnswerAfter(gate.clone())]).await;
    let get = request("GET", "/a?b=c").line("TE: trailers").line("Connection: TE, X-One").line("X-One: 1");
    let first = sidecar.asking(&get);
    backend.has_seen(1).await;
    for _ in 0..3 {
        let answer = sidecar.ask(&get.clone().line("Upgrade: websocket").line("Keep-Alive: 1")).await;
        assert_eq!((answer.status, answer.first.as_str()), (201, "HTTP/1.1 201 Created"));
    }
    gate.open();
    assert_eq!(first.await.expect("an answer").text(), "{\"order\":1}");
    assert_eq!((backend.count(), backend.connections()), (4, 1));
    for seen in backend.seen() {
        assert_eq!(seen.uri.to_string(), "http://api.test/a?b=c");
        assert_eq!((seen.value("te"), seen.value("x-forwarded-host")), (Some("trailers"), Some("api.test")));
        for gone in ["host", "connection", "x-one", "upgrade", "keep-alive", "transfer-encoding"] {
            assert_eq!(seen.value(gone), None, "{gone}");
        }
    }
}

#[tokio::test]
async fn the_backend_s_own_host_is_named_where_the_client_s_is_not_kept() {
    let backend = Http2Backend::start([]).await;
    let sidecar = setup(&backend.url()).with("upstream", "preserve_host = false").start().await;
    sidecar.ask(&request("GET", "/")).await;
    assert_eq!(backend.seen()[0].uri.to_string(), backend.url() + "/");
}

#[tokio::test]
async fn a_guarded_request_has_a_connection_for_itself() {
    let gate = Gate::new();
    let (backend, sidecar) = with([Turn::AnswerAfter(gate.clone())]).await;
    let first = sidecar.asking(&order("one"));
    backend.has_seen(1).await;
    assert_eq!(sidecar.ask(&order("two")).await.status, 201);
    gate.open();
    let first = first.await.expect("an answer");
    assert_eq!((first.status, first.value("location")), (201, Some("/orders/1")));
    assert_eq!(sidecar.ask(&request("GET", "/")).await.status, 201);
    assert_eq!(sidecar.ask(&order("three")).await.status, 201);
    let repeat = sidecar.ask(&order("one")).await;
    assert_eq!((repeat.is_replay(), repeat.text()), (true, "{\"order\":1}"));
    // The unguarded request uses one connection, and each of the three others its own.
    assert_eq!((backend.count(), backend.connections()), (4, 4));
    assert_eq!(backend.seen()[0].body, b"{\"item\":\"book\"}");
}

#[tokio::test]
async fn a_refused_stream_was_not_run() {
    let (backend, sidecar) = with([Turn::Reset(Reason::REFUSED_STREAM)]).await;
    sidecar.ask(&order("k")).await.refuses(502, "upstream-unreachable");
    let retry = sidecar.ask(&order("k")).await;
    assert_eq!((retry.status, retry.is_replay(), backend.count()), (201, false, 1));
}

#[tokio::test]
async fn every_other_end_after_sending_leaves_the_outcome_unknown() {
    for turn in [
        Turn::Reset(Reason::INTERNAL_ERROR),
        Turn::Reset(Reason::CANCEL),
        Turn::Reset(Reason::NO_ERROR),
        Turn::GoAway(Reason::NO_ERROR),
        Turn::GoAway(Reason::REFUSED_STREAM),
        Turn::GoAway(Reason::ENHANCE_YOUR_CALM),
        Turn::Close,
    ] {
        let (backend, sidecar) = with([turn]).await;
        sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
        let seen = backend.count();
        sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
        assert_eq!(backend.count(), seen);
    }
}

/// A frame of the connection itself (RFC 9113, 4.1).
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
}

fn goaway(last: u32, reason: Reason, why: &str) -> Vec<u8> {
    frame(7, &[&last.to_be_bytes(), &u32::from(reason).to_be_bytes(), why.as_bytes()].concat())
}

/// Sends the server preface, reads a request to its end, and sends these pieces.
async fn says_goodbye(backend: &ByHand, said: Vec<Vec<u8>>) {
    let mut connection = backend.accept().await;
    connection.send(frame(4, &[])).await;
    let mut read = Vec::new();
    while !read.ends_with(b"book\"}") {
        read.extend(connection.exactly(1).await);
    }
    for piece in said {
        // The other side may have closed the connection.
        let _ = connection.try_send(piece).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_goodbye_that_names_no_request_says_that_none_was_run() {
    const NONE: u32 = 0;
    let at_once = |reason| vec![goaway(NONE, reason, "")];
    let whole = [frame(6, &[0; 8]), goaway(NONE, Reason::NO_ERROR, "too busy"), frame(8, &[0, 0, 0, 1])].concat();
    for said in [
        at_once(Reason::NO_ERROR),
        at_once(Reason::ENHANCE_YOUR_CALM),
        at_once(Reason::INTERNAL_ERROR),
        // As in a graceful shutdown: first a warning, then the last stream (RFC 9113, 6.8).
        vec![goaway(u32::MAX >> 1, Reason::NO_ERROR, ""), goaway(NONE, Reason::NO_ERROR, "")],
        vec![whole.clone()],
        whole.chunks(5).map(<[u8]>::to_vec).collect(),
    ] {
        let backend = ByHand::start().await;
        let sidecar = setup(&backend.url()).start().await;
        for _ in 0..2 {
            let asking = sidecar.asking(&order("k"));
            says_goodbye(&backend, said.clone()).await;
            // The second request runs, too: the key is free.
            asking.await.expect("an answer").refuses(502, "upstream-unreachable");
        }
    }
}

#[tokio::test]
async fn a_goodbye_that_names_the_request_says_nothing_of_it() {
    for said in [
        vec![],
        vec![goaway(1, Reason::NO_ERROR, "")],
        vec![goaway(1, Reason::INTERNAL_ERROR, "")],
        vec![goaway(u32::MAX >> 1, Reason::NO_ERROR, "")],
        // Half of a frame.
        vec![goaway(0, Reason::NO_ERROR, "")[..12].to_vec()],
    ] {
        let backend = ByHand::start().await;
        let sidecar = setup(&backend.url()).start().await;
        let asking = sidecar.asking(&order("k"));
        says_goodbye(&backend, said).await;
        asking.await.expect("an answer").refuses(502, "upstream-failed");
        sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
    }
}

#[tokio::test]
async fn a_success_that_is_reset_half_way_was_a_success() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        let (backend, sidecar) = with([Turn::Half(reason)]).await;
        sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
        let retry = sidecar.ask(&order("k")).await;
        retry.refuses(409, "already-completed");
        assert_eq!((retry.value("location"), backend.count()), (Some("/orders/7"), 1), "{reason:?}");
    }
}

#[tokio::test]
async fn half_an_answer_that_passes_stays_half() {
    for reason in [Reason::INTERNAL_ERROR, Reason::NO_ERROR] {
        let (_backend, sidecar) = with([Turn::Half(reason)]).await;
        let mut client = sidecar.begin(&request("GET", "/x")).await;
        client.head().await.expect("an answer");
        assert_eq!(client.chunk().await, b"abc");
        assert_eq!(client.rest().await, b"", "{reason:?}");
    }
}

#[tokio::test]
async fn a_backend_that_says_goodbye_in_between_loses_nothing() {
    let (backend, sidecar) = with([]).await;
    for round in 1..=3 {
        assert_eq!(sidecar.ask(&request("POST", "/other").body("x")).await.status, 201);
        assert_eq!(sidecar.ask(&order(&round.to_string())).await.status, 201);
        backend.go_away();
    }
    assert_eq!(backend.count(), 6);
}

#[tokio::test]
async fn a_backend_that_does_not_speak_http2_gets_no_request() {
    let plain = ByHand::start().await;
    let sidecar = setup(&plain.url()).start().await;
    for request in [request("GET", "/"), order("k"), order("k")] {
        let asking = sidecar.asking(&request);
        let mut connection = plain.accept().await;
        // The connection preface (RFC 9113, 3.4). An HTTP/1.1 server takes it for a request and refuses it.
        assert_eq!(connection.head().await.expect("a head").first, "PRI * HTTP/2.0");
        connection.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        let rest = connection.rest().await;
        assert!(!String::from_utf8_lossy(&rest).contains("api.test"), "a request came");
        asking.await.expect("an answer").refuses(502, "upstream-unreachable");
    }
}

#[tokio::test]
async fn a_backend_that_does_not_begin_gets_no_request() {
    let silent = ByHand::start().await;
    let sidecar = setup(&silent.url()).with("upstream", "connect_timeout = \"200ms\"").start().await;
    let asking = sidecar.asking(&order("k"));
    let mut connection = silent.accept().await;
    asking.await.expect("an answer").refuses(502, "upstream-unreachable");
    let rest = connection.rest().await;
    assert!(rest.starts_with(b"PRI * HTTP/2.0") && !String::from_utf8_lossy(&rest).contains("book"));
}

#[tokio::test]
async fn a_backend_that_has_room_for_no_request_gets_none() {
    let backend = Http2Backend::with_streams(0, []).await;
    let sidecar = setup(&backend.url()).with("upstream", "connect_timeout = \"200ms\"").start().await;
    for request in [request("GET", "/"), order("k"), order("k")] {
        sidecar.ask(&request).await.refuses(502, "upstream-unreachable");
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn what_may_be_repeated_is_sent_again_on_another_connection() {
    for turn in [Turn::Close, Turn::GoAway(Reason::NO_ERROR), Turn::Reset(Reason::REFUSED_STREAM)] {
        let (_backend, sidecar) = with([Turn::Answer, turn.clone()]).await;
        for _ in 0..2 {
            assert_eq!(sidecar.ask(&request("GET", "/")).await.status, 201);
        }
        let (backend, sidecar) = with([Turn::Answer, turn.clone()]).await;
        assert_eq!(sidecar.ask(&request("POST", "/x").body("a")).await.status, 201);
        let code = if matches!(turn, Turn::Reset(_)) { "upstream-unreachable" } else { "upstream-failed" };
        sidecar.ask(&request("POST", "/x").body("a")).await.refuses(502, code);
        assert!(backend.count() <= 2);
    }
}

#[tokio::test]
async fn answers_without_a_body_stay_without_one() {
    let said = |status, lines| Turn::Say(Answer { status, lines, ..Answer::default() });
    let (backend, sidecar) = with([
        said(200, vec![("content-length", "1234")]),
        said(204, vec![]),
        said(304, vec![("etag", "\"7\"")]),
        said(200, vec![]),
    ])
    .await;
    let mut client = sidecar.connect().await;
    let head = client.ask(&request("HEAD", "/")).await;
    assert_eq!((head.status, head.value("content-length")), (200, Some("1234")));
    for status in [204, 304] {
        let none = client.ask(&request("GET", "/")).await;
        assert_eq!((none.status, none.has("content-length"), none.has("transfer-encoding")), (status, false, false));
    }
    let empty = client.ask(&request("GET", "/")).await;
    assert_eq!((empty.status, empty.text()), (200, ""));
    assert_eq!(backend.count(), 4);
}

#[tokio::test]
async fn answers_that_nobody_reads_do_not_stall_the_others() {
    const SLOW: usize = 8;
    let flood = Turn::Say(Answer { status: 200, body: vec![&[b'x'; 1 << 20]; 32], ..Answer::default() });
    let (backend, sidecar) = with(vec![flood; SLOW]).await;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut client = sidecar.begin(&request("GET", "/")).await;
        client.head().await.expect("an answer");
        slow.push(client);
    }
    assert_eq!(sidecar.ask(&request("GET", "/")).await.status, 201);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn over_tls_the_server_must_choose_http2() {
    let (authority, backend) = (Authority::new(), Http2Backend::start([]).await);
    let ca = format!("ca = {:?}", authority.file());
    let front = Front::tls(&backend.url(), authority.server("localhost", false, &[b"h2", b"http/1.1"])).await;
    let sidecar = setup(&front.url).with("upstream", &ca).start().await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    assert_eq!(backend.seen()[0].uri.to_string(), "https://api.test/orders");

    // One without ALPN, and one with HTTP/1.1 only.
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        let front = Front::tls(&backend.url(), authority.server("localhost", false, protocols)).await;
        let sidecar = setup(&front.url).with("upstream", &ca).start().await;
        for _ in 0..2 {
            sidecar.ask(&order("k")).await.refuses(502, "upstream-unreachable");
        }
    }
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn when_all_streams_are_taken_another_connection_is_made() {
    let gate = Gate::new();
    let backend =
        Http2Backend::with_streams(1, [Turn::AnswerAfter(gate.clone()), Turn::AnswerAfter(gate.clone())]).await;
    let sidecar = setup(&backend.url()).start().await;
    let get = request("GET", "/");
    let (one, two) = (sidecar.asking(&get), sidecar.asking(&get));
    backend.has_seen(2).await;
    assert_eq!(backend.connections(), 2);
    gate.open();
    for answer in [one, two] {
        assert_eq!(answer.await.expect("an answer").status, 201);
    }
    assert_eq!(sidecar.ask(&get).await.status, 201);
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn trailers_cross_both_ways() {
    let said = Answer {
        status: 200,
        lines: vec![("trailer", "x-sum")],
        body: vec![b"abc", b"def"],
        trailers: vec![("x-sum", "6")],
    };
    let (backend, sidecar) = with([Turn::Say(said)]).await;
    let mut client = sidecar.connect().await;
    client
        .send("POST /x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-In\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.send("3\r\nabc\r\n0\r\nX-In: 3\r\n\r\n").await;
    let answer = client.response().await;
    assert_eq!((answer.text(), &answer.trailers[..]), ("abcdef", &[("x-sum".to_owned(), "6".to_owned())][..]));
    let seen = &backend.seen()[0];
    assert_eq!(seen.body, b"abc");
    assert_eq!(seen.trailers["x-in"], "3");
}

#[tokio::test]
async fn an_answer_with_trailers_is_replayed_with_them() {
    let said = Answer {
        status: 200,
        lines: vec![("content-type", "application/grpc"), ("trailer", "grpc-status")],
        body: vec![b"abc"],
        trailers: vec![("grpc-status", "0")],
    };
    let (backend, sidecar) = with([Turn::Say(said)]).await;
    let call = order("k").line("TE: trailers").line("Connection: TE");
    for is_replay in [false, true] {
        let answer = sidecar.ask(&call).await;
        assert_eq!((answer.status, answer.text(), answer.is_replay()), (200, "abc", is_replay));
        assert_eq!(answer.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    }
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_request() {
    let no = Answer { status: 413, body: vec![b"no"], ..Answer::default() };
    let (_backend, sidecar) = with([Turn::SayEarly(no)]).await;
    let mut client = sidecar.connect().await;
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc").await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.text()), (413, "no"));
}

#[tokio::test]
async fn an_answer_whose_client_left_is_called_off_and_its_connection_stays() {
    let (backend, sidecar) = with([Turn::Drip]).await;
    let mut client = sidecar.begin(&request("GET", "/")).await;
    assert_eq!(client.head().await.expect("an answer").first, "HTTP/1.1 200 OK");
    client.reset();
    assert_eq!(backend.was_reset().await, Reason::CANCEL);
    assert_eq!(sidecar.ask(&request("GET", "/")).await.status, 201);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_called_off() {
    let backend = Http2Backend::start([Turn::Hang]).await;
    let sidecar = setup(&backend.url()).with("upstream", "response_timeout = \"100ms\"").start().await;
    sidecar.ask(&request("GET", "/")).await.refuses(504, "upstream-timeout");
    assert_eq!(backend.was_reset().await, Reason::CANCEL);
}
