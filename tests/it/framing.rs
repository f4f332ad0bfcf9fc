//! Message framing and target: nothing ambiguous reaches the backend.

use crate::support::*;

async fn guarded() -> (Backend, Sidecar) {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    (backend, sidecar)
}

/// The status codes of all responses to these bytes until the connection ends.
async fn statuses(sidecar: &Sidecar, bytes: impl AsRef<[u8]>) -> Vec<u16> {
    let mut client = sidecar.connect().await;
    client.send(bytes).await;
    client.finish().await;
    let all = client.rest().await;
    let text = String::from_utf8_lossy(&all).into_owned();
    let heads = text.match_indices("HTTP/1.1 ").filter(|(at, _)| *at == 0 || !text[..*at].ends_with(' '));
    heads.map(|(at, _)| text[at + 9..at + 12].parse().expect("a status")).collect()
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused() {
    let (backend, sidecar) = guarded().await;
    for (what, lines, body) in [
        ("two lengths", "Content-Length: 3\r\nContent-Length: 4", "abc"),
        ("two lengths in one line", "Content-Length: 3, 4", "abc"),
        ("a signed length", "Content-Length: +3", "abc"),
        ("a negative length", "Content-Length: -3", "abc"),
        ("a length in hexadecimal", "Content-Length: 0x3", "abc"),
        ("a length too long", "Content-Length: 99999999999999999999", "abc"),
        ("an empty length", "Content-Length:", "abc"),
        ("chunked not last", "Transfer-Encoding: chunked, gzip", "0\r\n\r\n"),
        ("chunked twice", "Transfer-Encoding: chunked, chunked", "0\r\n\r\n"),
        ("chunked in two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
        ("another coding", "Transfer-Encoding: identity", ""),
        ("a coding with a strange space", "Transfer-Encoding: \u{b}chunked", "0\r\n\r\n"),
        ("a space before the colon", "Content-Length : 3", "abc"),
        ("a space before the colon", "Transfer-Encoding : chunked", "0\r\n\r\n"),
        ("a folded line", "X-A: b\r\n c: d", ""),
        ("a line that begins with a space", " X-A: b", ""),
        ("a line without a colon", "nonsense", ""),
        ("a name with a space", "X A: b", ""),
        ("an empty name", ": b", ""),
        ("a NUL", "X-A: b\0c", ""),
        ("a bare CR", "X-A: b\rX-B: c", ""),
    ] {
        for path in ["/orders", "/elsewhere"] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nAuthorization: x\r\n{lines}\r\n\r\n{body}"
            );
            let got = statuses(&sidecar, request).await;
            assert!(matches!(got[..], [400 | 501]), "{what}: {got:?}");
        }
    }
    assert_eq!(backend.count(), 0);
}

/// hyper refuses the two largest numbers of 64 bits as it refuses a head that is too large.
#[tokio::test]
async fn a_length_that_no_body_can_have_is_refused_as_such() {
    let (backend, sidecar) = guarded().await;
    for (length, status) in [
        ("18446744073709551615", 413),
        ("18446744073709551614", 413),
        ("00018446744073709551615", 413),
        ("18446744073709551616", 400),
        ("99999999999999999999", 400),
        ("-18446744073709551615", 400),
        ("18446744073709551615, 18446744073709551615", 400),
        ("", 400),
    ] {
        for (path, version, body) in
            [("/orders", "1.1", ""), ("/elsewhere", "1.1", "abc"), ("/elsewhere", "1.0", "abc")]
        {
            let head =
                format!("POST {path} HTTP/{version}\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: {length}\r\n");
            for piece in [1 << 20, 7, 1] {
                let mut client = sidecar.connect().await;
                for piece in format!("{head}X-A: b\r\n\r\n{body}").as_bytes().chunks(piece) {
                    client.send(piece).await;
                }
                let got = client.response().await;
                assert_eq!(got.status, status, "{length:?} in pieces of {piece}: {got:?}");
                client.ends().await;
            }
        }
    }
    // Other numbers may be as large.
    let sizes = request("GET", "/x").line("X-Id: 18446744073709551615");
    let mut client = sidecar.connect().await;
    assert_eq!(client.ask(&sizes).await.status, 201);
    let many = (0..1000).fold(request("GET", "/x"), |request, number| request.line(&format!("X-{number}: 1")));
    assert_eq!(client.ask(&many).await.status, 431);
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_request_line_that_is_none_is_refused() {
    let (backend, sidecar) = guarded().await;
    for line in [
        "GET /a b HTTP/1.1",
        "GET  /a HTTP/1.1",
        "GET /a\tb HTTP/1.1",
        "GET /a\u{1}b HTTP/1.1",
        "GET /a",
        "GET /a HTTP/2.0",
        "GET /a HTTP/1.2",
        "G\u{1}T /a HTTP/1.1",
        "GET a HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET * HTTP/1.1",
        "GET ftp://a/b HTTP/1.1",
        "GET http://user@a/b HTTP/1.1",
    ] {
        let got = statuses(&sidecar, format!("{line}\r\nHost: a\r\n\r\n")).await;
        assert!(matches!(got[..], [400] | []), "{line}: {got:?}");
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_request_has_one_host_and_that_is_the_name_of_one() {
    let (backend, sidecar) = guarded().await;
    for lines in [
        "X-No: host",
        "Host: a\r\nHost: a",
        "Host: a\r\nHost: b",
        "Host:",
        "Host: a b",
        "Host: a/b",
        "Host: u@a",
        "Host: a, b",
    ] {
        let got = statuses(&sidecar, format!("GET /x HTTP/1.1\r\n{lines}\r\n\r\n")).await;
        assert_eq!(got, [400], "{lines}");
    }
    assert_eq!(backend.count(), 0);
    for lines in ["Host: a", "Host: a:80", "Host: [::1]:80", "Host: A.b."] {
        assert_eq!(statuses(&sidecar, format!("GET /x HTTP/1.1\r\n{lines}\r\n\r\n")).await, [201], "{lines}");
    }
    let mut client = sidecar.connect().await;
    client.send("GET /x HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 201, "HTTP/1.0 needs none");
}

#[tokio::test]
async fn chunks_that_are_none_are_not_sent() {
    let (backend, sidecar) = guarded().await;
    for body in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "\r\nabc\r\n0\r\n\r\n",
    ] {
        let head = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n";
        let got = statuses(&sidecar, format!("{head}{body}")).await;
        assert!(matches!(got[..], [400] | []), "{body:?}: {got:?}");
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn what_is_beside_the_data_of_chunks_does_not_reach_the_backend() {
    let (backend, sidecar) = guarded().await;
    for path in ["/orders", "/elsewhere"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization, Content-Length, X-Role, Onlyonce-Attempt\r\n\r\n\
             3;a=b;c=\"d\"\r\nabc\r\n0;last\r\nAuthorization: Bearer other\r\nContent-Length: 99\r\nX-Role: admin\r\nOnlyonce-Attempt: 7\r\n\r\n"
        );
        let mut client = sidecar.connect().await;
        client.send(request).await;
        assert_eq!(client.response().await.status, 201, "{path}");
        let seen = backend.seen().pop().expect("it came");
        assert_eq!(seen.body, b"abc", "{path}");
        for name in ["authorization", "x-role", "onlyonce-attempt"] {
            assert!(!seen.has(name), "{path}: {:?}", seen.head);
        }
        assert_eq!(seen.value("idempotency-key"), Some("k"));
    }
}

#[tokio::test]
async fn trailers_of_a_request_go_on_as_trailers_and_only_those_that_may() {
    let backend = ByHand::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = sidecar.connect().await;
    client
        .send(
            "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Authorization, Onlyonce-Attempt\r\n\r\n\
             3\r\nabc\r\n0\r\nX-Sum: 6\r\nAuthorization: Bearer other\r\nOnlyonce-Attempt: 7\r\n\r\n",
        )
        .await;
    let mut backend = backend.accept().await;
    backend.head().await.expect("a request");
    assert_eq!(backend.chunk().await, b"abc");
    assert_eq!(backend.chunk().await, b"");
    assert_eq!(backend.exactly(12).await, b"x-sum: 6\r\n\r\n");
    backend.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.response().await.status, 204);
}

/// hyper uses the chunks and drops the length. The backend gets one framing, and the rest is not read as a request.
#[tokio::test]
async fn a_length_beside_chunks_smuggles_nothing() {
    let (backend, sidecar) = guarded().await;
    for lines in ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        for path in ["/orders", "/elsewhere"] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\n{lines}\r\n\r\n\
                 3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
            );
            let got = statuses(&sidecar, request).await;
            assert!(got.len() <= 1, "{lines}: {got:?}");
        }
    }
    for seen in backend.seen() {
        assert!(!seen.head.first.contains("smuggled"), "{seen:?}");
        assert!(seen.has("content-length") != seen.has("transfer-encoding"), "{seen:?}");
        assert_eq!(seen.body, b"abc");
    }
}

#[tokio::test]
async fn answers_come_in_the_order_of_their_requests() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = sidecar.connect().await;
    // The first request is guarded and slow; the others are sent in the same packet.
    let requests = [order("slow").bytes(), request("GET", "/fast").bytes(), order("slow").bytes()];
    client.send(requests.concat()).await;
    backend.has_seen(1).await;
    gate.open();
    assert_eq!(client.response().await.text(), r#"{"order":1}"#);
    assert_eq!(client.response().await.text(), r#"{"order":2}"#);
    assert!(client.response().await.is_replay());
    assert_eq!(backend.count(), 2);
}

#[tokio::test]
async fn what_a_backend_says_in_between_is_not_passed_on() {
    let interim =
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
    let script = || vec![say(interim.repeat(20)), answer("201 Created", "done")];
    let backend = Backend::scripted([script(), script()]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for request in [request("GET", "/x"), order("k"), order("k")] {
        let answer = sidecar.ask(&request).await;
        assert_eq!((answer.status, answer.text(), answer.has("link")), (201, "done", false));
    }
    assert_eq!(backend.count(), 2);
}

/// An invalid response leaves the key blocked: the request was sent.
#[tokio::test]
async fn an_answer_that_cannot_be_read_is_none() {
    for (what, bytes) in [
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
        ("a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc"),
        ("no number", "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nabc"),
        ("gzip, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        ("a NUL", "HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 0\r\n\r\n"),
        ("a space in a name", "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 0\r\n\r\n"),
        ("another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        ("no status", "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"),
        ("HTTP/2", "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        for request in [request("GET", "/x"), order("k")] {
            let backend = Backend::scripted([vec![say(bytes), Step::Close]]).await;
            let sidecar = Setup::new(&backend.url()).start().await;
            let got = sidecar.ask(&request).await;
            assert_eq!(got.problem(), (502, "upstream-failed".to_owned()), "{what}");
            if request.bytes().starts_with(b"POST") {
                sidecar.ask(&request).await.refuses(409, "outcome-unknown");
            }
            assert_eq!(backend.count(), 1, "{what}");
        }
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_no_answer() {
    let flood =
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Filler: 0123456789012345678901234567890123456789\r\n".repeat(3000));
    let backend = Backend::scripted([vec![say(&flood), Step::Close], vec![say(&flood), Step::Close]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    sidecar.ask(&request("GET", "/x")).await.refuses(502, "upstream-failed");
    sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
    sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
}

#[tokio::test]
async fn bytes_behind_an_answer_are_not_taken_for_the_next_one() {
    let poisoned = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let backend = Backend::scripted([vec![say(poisoned)]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    assert_eq!(sidecar.ask(&request("GET", "/one")).await.text(), "ok");
    for _ in 0..3 {
        assert_ne!(sidecar.ask(&request("GET", "/two")).await.text(), "poison");
    }
}

#[tokio::test]
async fn bodies_where_none_may_be_are_dropped() {
    for (method, bytes) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc"),
    ] {
        let backend = Backend::scripted([vec![say(bytes), Step::Close]]).await;
        let sidecar = Setup::new(&backend.url()).start().await;
        let mut client = sidecar.connect().await;
        client.ask(&request(method, "/x")).await;
        // Nothing of it is left on the connection.
        assert_eq!(client.ask(&request("GET", "/next")).await.status, 201, "{bytes}");
    }
}

#[tokio::test]
async fn options_of_the_server_as_a_whole_pass() {
    let (backend, sidecar) = guarded().await;
    assert_eq!(sidecar.ask(&request("OPTIONS", "*")).await.status, 201);
    assert_eq!(backend.only().head.first, "OPTIONS * HTTP/1.1");
}

#[tokio::test]
async fn a_part_of_a_file_passes_with_its_place() {
    let part = answer("206 Partial Content\r\nContent-Range: bytes 2-4/10\r\nAccept-Ranges: bytes", "cde");
    let backend = Backend::scripted([vec![part.clone()], vec![part]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for request in [request("GET", "/file"), order("k"), order("k")] {
        let got = sidecar.ask(&request.line("Range: bytes=2-4")).await;
        assert_eq!((got.status, got.text(), got.value("content-range")), (206, "cde", Some("bytes 2-4/10")));
    }
    assert_eq!(backend.seen()[0].value("range"), Some("bytes=2-4"));
    assert_eq!(backend.count(), 2);
}

#[tokio::test]
async fn an_event_reaches_its_reader_before_the_next_one_is_made() {
    let backend = ByHand::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for framing in ["Transfer-Encoding: chunked\r\n", ""] {
        let mut client = sidecar.begin(&request("GET", "/events").line("Accept: text/event-stream")).await;
        let mut backend = backend.accept().await;
        backend.request().await.expect("a request");
        backend.send(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n")).await;
        assert_eq!(client.head().await.expect("an answer").value("content-type"), Some("text/event-stream"));
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            let bytes = if framing.is_empty() { event.clone().into_bytes() } else { chunk(event.as_bytes()) };
            backend.send(bytes).await;
            assert_eq!(client.chunk().await, event.as_bytes());
        }
    }
}

#[tokio::test]
async fn a_reader_that_stalls_stops_the_writer() {
    let backend = ByHand::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = sidecar.begin(&request("GET", "/download")).await;
    let mut backend = backend.accept().await;
    backend.request().await.expect("a request");
    backend.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.head().await.expect("an answer");
    let mut sent: u64 = 0;
    let piece = chunk(&[b'x'; 64 * 1024]);
    // The socket buffers are filled; then it stops until the client reads.
    while tokio::time::timeout(std::time::Duration::from_secs(1), backend.send(&piece)).await.is_ok() {
        sent += 64;
        assert!(sent < 64 * 1024, "{sent} KiB went out, and nobody read them");
    }
    assert_eq!(sidecar.metric("onlyonce_buffered_bytes").await, 0.0, "nothing of it is held");
}
