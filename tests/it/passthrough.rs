//! Unguarded requests are forwarded unchanged.

use std::sync::LazyLock;
use std::time::Duration;

use crate::support::backend::Script;
use crate::support::*;

async fn with(script: Script, upstream: &str) -> (Backend, Sidecar) {
    let backend = Backend::scripted([script]).await;
    let sidecar = Setup::new(&backend.url()).with("upstream", upstream).start().await;
    (backend, sidecar)
}

async fn by_hand() -> (ByHand, Sidecar) {
    let backend = ByHand::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    (backend, sidecar)
}

#[tokio::test]
async fn any_method_goes_through_with_its_key_as_often_as_it_comes() {
    let (backend, sidecar) = with(vec![Step::Answer], "").await;
    let mut count = 0;
    for method in ["GET", "DELETE", "PUT", "PATCH", "OPTIONS", "PROPFIND", "BREW"] {
        for _ in 0..2 {
            count += 1;
            let answer = sidecar.ask(&request(method, "/orders?a=b%20c").line("Idempotency-Key: k").body("x")).await;
            assert_eq!((answer.status, answer.text()), (201, &*format!("{{\"order\":{count}}}")));
            let seen = backend.seen().pop().expect("it came");
            assert_eq!(seen.head.first, format!("{method} /orders?a=b%20c HTTP/1.1"));
            assert_eq!((seen.value("idempotency-key"), &seen.body[..]), (Some("k"), &b"x"[..]));
        }
    }
}

#[tokio::test]
async fn other_paths_and_routes_that_are_off_are_not_guarded() {
    let backend = Backend::start().await;
    let off = "name = \"off\"\npath = \"/off\"\nscope = []\nmode = \"off\"\nmax_request_body = \"1B\"";
    let sidecar = Setup::new(&backend.url()).another_route(off).start().await;
    for (index, path) in ["/", "/order", "/orders/7", "/orders.json", "/off", "/off"].into_iter().enumerate() {
        let answer = sidecar.ask(&post(path).line("Idempotency-Key: k").line("Upgrade: h2c").body("xx")).await;
        assert_eq!((answer.status, answer.is_replay(), backend.count()), (201, false, index + 1), "{path}");
    }
}

#[tokio::test]
async fn a_path_is_forwarded_as_it_came() {
    let (backend, sidecar) = with(vec![Step::Answer], "").await;
    let targets = ["//double", "/%7Euser/../x", "/a?b=c?d&e=%zz", "/sp%20ace", "/utf-8/%C3%A9"];
    for target in targets {
        sidecar.ask(&request("GET", target)).await;
    }
    let absolute = "GET http://elsewhere.test:81/x?y HTTP/1.1\r\nHost: ignored\r\n\r\n";
    let mut client = sidecar.connect().await;
    client.send(absolute).await;
    client.response().await;
    let seen = backend.seen();
    let forwarded: Vec<_> = seen.iter().filter_map(|seen| seen.head.first.split(' ').nth(1)).collect();
    assert_eq!(forwarded, [&targets[..], &["/x?y"]].concat());
    assert_eq!(seen.last().and_then(|seen| seen.value("host")), Some("elsewhere.test:81"));
}

/// A piece of a body of 64 MiB. Neighbouring pieces differ.
fn piece(index: usize) -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=250).cycle().take(PIECE + 251).collect());
    &PATTERN[index % 251..][..PIECE]
}
const PIECE: usize = 64 * 1024;
const PIECES: usize = 1024;

/// In a separate process, so that its memory can be measured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_both_ways_and_are_not_held() {
    let by_hand = ByHand::start().await;
    let process = Process::start(&Setup::new(&by_hand.url())).await;
    let mut client = process.connect().await;
    let length = PIECE * PIECES;
    client.send(format!("PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")).await;
    let upload = async {
        for index in 0..PIECES {
            client.send(piece(index)).await;
        }
        client
    };
    let mut backend = by_hand.accept().await;
    let receive = async {
        backend.head().await.expect("a request");
        for index in 0..PIECES {
            if index == 0 {
                // A reader that is slower than the sender, so that all buffers fill.
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            assert!(backend.exactly(PIECE).await == piece(index), "piece {index}");
        }
        backend
    };
    let (mut client, mut backend) = tokio::join!(upload, receive);
    let download = async {
        backend.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        for index in 0..PIECES {
            backend.send(chunk(piece(index))).await;
        }
        backend.send("0\r\n\r\n").await;
    };
    let read = async {
        client.head().await.expect("an answer");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut read = Vec::new();
        let mut index = 0;
        loop {
            let data = client.chunk().await;
            if data.is_empty() {
                break;
            }
            read.extend(data);
            while read.len() >= PIECE {
                assert!(read[..PIECE] == *piece(index), "piece {index}");
                read.drain(..PIECE);
                index += 1;
            }
        }
        assert_eq!((index, read.len()), (PIECES, 0));
    };
    tokio::join!(download, read);
    let peak = process.peak_memory();
    assert!(peak < 48 << 20, "{peak} bytes for bodies of {length}");
}

#[tokio::test]
async fn pieces_pass_as_they_come() {
    let (backend, sidecar) = by_hand().await;
    let mut client = sidecar.connect().await;
    client.send("POST /chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send(chunk(b"hello")).await;
    let mut backend = backend.accept().await;
    let head = backend.head().await.expect("a request");
    assert_eq!((head.value("transfer-encoding"), head.value("content-length")), (Some("chunked"), None));
    assert_eq!(backend.chunk().await, b"hello");
    // The answer begins while the request is still being sent.
    backend.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    backend.send(chunk(b"who is it?")).await;
    assert_eq!(client.head().await.expect("an answer").first, "HTTP/1.1 200 OK");
    assert_eq!(client.chunk().await, b"who is it?");
    client.send(chunk(b"me")).await;
    assert_eq!(backend.chunk().await, b"me");
    client.send("0\r\n\r\n").await;
    assert_eq!(backend.chunk().await, b"");
    backend.send(chunk(b"bye")).await;
    backend.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, b"bye");
    assert_eq!(client.chunk().await, b"");
}

#[tokio::test]
async fn answers_without_a_body_stay_without_one() {
    let (backend, sidecar) = with(vec![say("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: b\r\n\r\n")], "").await;
    backend.then(vec![say("HTTP/1.1 204 No Content\r\n\r\n")]);
    backend.then(vec![say("HTTP/1.1 304 Not Modified\r\nETag: \"7\"\r\n\r\n")]);
    backend.then(vec![say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]);
    let mut client = sidecar.connect().await;
    let head = client.ask(&request("HEAD", "/x")).await;
    assert_eq!((head.status, head.value("content-length"), head.value("x-a")), (200, Some("1234"), Some("b")));
    let none = client.ask(&request("GET", "/x")).await;
    assert_eq!((none.status, none.has("content-length"), none.has("transfer-encoding")), (204, false, false));
    let unchanged = client.ask(&request("GET", "/x").line("If-None-Match: \"7\"")).await;
    assert_eq!((unchanged.status, unchanged.value("etag")), (304, Some("\"7\"")));
    let empty = client.ask(&request("GET", "/x")).await;
    assert_eq!((empty.status, empty.value("content-length")), (200, Some("0")));
    assert_eq!(backend.count(), 4);
}

#[tokio::test]
async fn a_body_keeps_its_framing_whatever_the_method() {
    let (backend, sidecar) = with(vec![Step::Answer], "").await;
    for method in ["GET", "DELETE", "POST"] {
        sidecar.ask(&request(method, "/search").body("query")).await;
        sidecar.ask(&request(method, "/search").body("query").chunked()).await;
        let seen = backend.seen();
        let [.., long, chunked] = &seen[..] else { panic!("two came") };
        assert_eq!((long.value("content-length"), long.has("transfer-encoding")), (Some("5"), false), "{method}");
        assert_eq!((chunked.value("transfer-encoding"), chunked.has("content-length")), (Some("chunked"), false));
        assert_eq!((&long.body[..], &chunked.body[..]), (&b"query"[..], &b"query"[..]), "{method}");
    }
    sidecar.ask(&request("GET", "/")).await;
    let bare = backend.seen().pop().expect("it came");
    assert!(!bare.has("content-length") && !bare.has("transfer-encoding"), "{bare:?}");
}

#[tokio::test]
async fn what_concerns_one_connection_does_not_cross_in_either_direction() {
    let answer = answer(
        "200 OK\r\nConnection: X-One\r\nX-One: 1\r\nConnection: x-two, close\r\nX-Two: 2\r\nX-Three: 3\r\n\
         Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nProxy-Connection: close",
        "ok",
    );
    let (backend, sidecar) = with(vec![answer], "").await;
    let request = request("GET", "/x")
        .line("Connection: X-One")
        .line("X-One: 1")
        .line("Connection: keep-alive , x-two")
        .line("X-Two: 2")
        .line("X-Three: 3")
        .line("Keep-Alive: timeout=5")
        .line("TE: gzip")
        .line("Proxy-Authorization: Basic YQ==")
        .line("Proxy-Connection: keep-alive")
        .line("Upgrade: h2c")
        .line("HTTP2-Settings: AAMAAABkAAQAAP__");
    let told = sidecar.ask(&request).await;
    let seen = backend.only();
    assert_eq!((seen.value("x-three"), told.value("x-three")), (Some("3"), Some("3")));
    for gone in [
        "x-one",
        "x-two",
        "keep-alive",
        "te",
        "proxy-authorization",
        "proxy-authenticate",
        "proxy-connection",
        "upgrade",
        "http2-settings",
    ] {
        assert!(!seen.has(gone) && !told.has(gone), "{gone}: {:?}, {:?}", seen.head, told.head);
    }
}

#[tokio::test]
async fn fields_of_ours_are_ours() {
    let (backend, sidecar) = with(vec![answer("200 OK\r\nOnlyonce-Outcome: store", "")], "").await;
    let guarded = order("k").line("Onlyonce-Attempt: 7").line("onlyonce-anything: x");
    assert!(!sidecar.ask(&request("GET", "/x").line("ONLYONCE-Attempt: 7")).await.has("onlyonce-outcome"));
    sidecar.ask(&guarded).await;
    for seen in backend.seen() {
        assert!(seen.lines.iter().all(|(name, _)| !name.to_lowercase().starts_with("onlyonce-")), "{seen:?}");
    }
}

#[tokio::test]
async fn the_backend_is_told_where_a_request_came_from() {
    let (backend, sidecar) = with(vec![Step::Answer], "").await;
    sidecar.ask(&request("GET", "/")).await;
    sidecar.ask(&request("GET", "/").line("X-Forwarded-For: 192.0.2.1").line("X-Forwarded-For: 192.0.2.2")).await;
    let seen = backend.seen();
    assert_eq!(seen[0].value("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen[0].value("x-forwarded-host"), Some("api.test"));
    assert_eq!(seen[0].value("x-forwarded-proto"), Some("http"));
    assert_eq!(seen[1].value("x-forwarded-for"), Some("192.0.2.1, 192.0.2.2, 127.0.0.1"));
}

#[tokio::test]
async fn the_host_is_kept_or_the_backend_s_own() {
    for (upstream, kept) in [("", true), ("preserve_host = false", false)] {
        let (backend, sidecar) = with(vec![Step::Answer], upstream).await;
        sidecar.ask(&request("GET", "/")).await;
        sidecar.ask(&order("k")).await;
        let own = backend.url().trim_start_matches("http://").to_owned();
        let expected = if kept { "api.test" } else { &own };
        assert!(backend.seen().iter().all(|seen| seen.value("host") == Some(expected)), "{upstream}");
        assert!(backend.seen().iter().all(|seen| seen.value("x-forwarded-host") == Some("api.test")));
    }
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_its_body_is_asked() {
    let (backend, sidecar) = with(vec![Step::Answer], "").await;
    let mut client = sidecar.connect().await;
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").await;
    assert_eq!(client.head().await.expect("an interim answer").first, "HTTP/1.1 100 Continue");
    client.send("abc").await;
    assert_eq!(client.response().await.status, 201);
    assert_eq!((backend.only().body, backend.only().has("expect")), (b"abc".to_vec(), false));
}

#[tokio::test]
async fn all_lines_of_an_answer_cross_in_their_order() {
    let head = "207 Multi\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Tag: b\r\nX-Tag: a\r\nServer: unaware/1.0";
    let (_backend, sidecar) = with(vec![answer(head, "\u{0}\u{1}")], "").await;
    let answer = sidecar.ask(&request("GET", "/")).await;
    assert_eq!((answer.status, &answer.body[..]), (207, &b"\0\x01"[..]));
    assert_eq!(answer.values("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.values("x-tag"), ["b", "a"]);
    assert_eq!(answer.value("server"), Some("unaware/1.0"));
}

/// All field names have the configured case, also those that the proxy adds.
#[tokio::test]
async fn names_of_fields_are_written_in_lower_case_or_in_title_case() {
    let names = |lines: &[(String, String)]| lines.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let titled = |name: &str| {
        let words = name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
        words.collect::<Vec<_>>().join("-")
    };
    for (server, upstream) in [("lower", "lower"), ("title", "lower"), ("lower", "title"), ("title", "title")] {
        let script = || vec![answer("201 Created\r\nX-CamelCase: 1\r\nx-SHOUT: 2\r\nx_under-score: 3", "{}")];
        let backend = Backend::scripted([script(), script()]).await;
        let setup = Setup::new(&backend.url())
            .with("server", &format!("header_case = \"{server}\""))
            .with("upstream", &format!("header_case = \"{upstream}\""));
        let sidecar = setup.start().await;
        let passed = request("POST", "/x").line("X-Api-KEY: a").line("x-api-key: b").line("ETag: c");
        // A forwarded request, an executed one, its replay, and a refused one.
        let answers = [
            sidecar.ask(&passed).await,
            sidecar.ask(&order("k").line("X-Api-KEY: a")).await,
            sidecar.ask(&order("k")).await,
            sidecar.ask(&order("")).await,
        ];
        assert_eq!(answers.each_ref().map(|answer| answer.status), [201, 201, 201, 400]);
        let told = answers.iter().flat_map(|answer| names(&answer.lines));
        let seen = backend.seen().into_iter().flat_map(|request| names(&request.lines));
        for (case, own) in [(server, told.collect::<Vec<_>>()), (upstream, seen.collect())] {
            let lower = own.iter().map(|name| name.to_lowercase());
            let expected: Vec<_> =
                if case == "title" { lower.map(|name| titled(&name)).collect() } else { lower.collect() };
            assert_eq!(own, expected, "server: {server}, upstream: {upstream}");
        }
        let answer = &answers[0];
        assert_eq!([answer.value("x-camelcase"), answer.value("x-shout")], [Some("1"), Some("2")]);
        assert_eq!(backend.seen()[0].values("x-api-key"), ["a", "b"]);
    }
}

#[tokio::test]
async fn trailers_cross_for_those_who_take_them() {
    let script =
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n";
    let (backend, sidecar) = with(vec![say(script)], "").await;
    let answer = sidecar.ask(&request("GET", "/").line("TE: trailers").line("Connection: TE")).await;
    assert_eq!((answer.text(), answer.trailers.len()), ("abc", 1));
    assert_eq!(backend.only().value("te"), Some("trailers"));
}

#[tokio::test]
async fn trailers_of_a_request_cross() {
    let (backend, sidecar) = by_hand().await;
    let mut client = sidecar.connect().await;
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n").await;
    let mut backend = backend.accept().await;
    assert_eq!(backend.head().await.expect("a request").value("trailer"), Some("X-Sum"));
    assert_eq!(backend.exactly(b"3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n".len()).await, b"3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n");
}

#[tokio::test]
async fn a_backend_that_cannot_be_reached_breaks_off_or_is_slow_is_told_apart() {
    let sidecar = Setup::new(&nobody()).start().await;
    let get = request("GET", "/x");
    sidecar.ask(&get).await.refuses(502, "upstream-unreachable");

    let (_backend, sidecar) = with(vec![Step::Reset], "response_timeout = \"100ms\"").await;
    sidecar.ask(&get).await.refuses(502, "upstream-failed");

    let (_backend, sidecar) = with(vec![Step::Hang], "response_timeout = \"100ms\"").await;
    let slow = sidecar.ask(&get).await;
    slow.refuses(504, "upstream-timeout");
    assert_eq!(slow.json().get("route"), None);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    for start in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let (_backend, sidecar) = with(vec![say(format!("HTTP/1.1 200 OK\r\n{start}")), Step::Close], "").await;
        let mut client = sidecar.begin(&request("GET", "/x")).await;
        let rest = client.rest().await;
        assert!(rest.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(!rest.ends_with(b"0\r\n\r\n"), "it looks whole: {:?}", String::from_utf8_lossy(&rest));
    }
}

#[tokio::test]
async fn an_upload_that_pauses_for_too_long_is_cut_off() {
    let backend = ByHand::start().await;
    let sidecar = Setup::new(&backend.url()).with("server", "body_timeout = \"100ms\"").start().await;
    let mut client = sidecar.connect().await;
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    backend.accept().await.rest().await;
    client.response().await.refuses(408, "request-timeout");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let (backend, sidecar) = by_hand().await;
    let mut client = sidecar.connect().await;
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc").await;
    let mut backend = backend.accept().await;
    backend.head().await.expect("a request");
    backend.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.text()), (413, "no"));
}

#[tokio::test]
async fn kept_connections_to_the_backend_are_used_again() {
    let backend = Backend::scripted([vec![Step::Answer]]).await;
    let setup = Setup::new(&backend.url()).with("upstream", "idle_timeout = \"60s\"").with("server", "threads = 1");
    let sidecar = setup.start().await;
    for _ in 0..5 {
        sidecar.ask(&request("GET", "/")).await;
    }
    assert_eq!((backend.count(), backend.connections()), (5, 1));
}

#[tokio::test]
async fn each_thread_keeps_connections_to_the_backend_of_its_own() {
    let backend = Backend::scripted([vec![Step::Answer]]).await;
    let setup = Setup::new(&backend.url()).with("upstream", "idle_timeout = \"60s\"").with("server", "threads = 3");
    let sidecar = setup.start().await;
    // Persistent clients are spread evenly, and each uses a connection of its thread.
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = sidecar.connect().await;
        assert_eq!(client.ask(&request("GET", "/")).await.status, 201);
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.ask(&request("GET", "/")).await.status, 201);
    }
    assert_eq!((backend.count(), backend.connections()), (12, 3));
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_backend_may() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url()).with("upstream", "response_timeout = \"400ms\"\nattempt_timeout = \"60s\"");
    let sidecar = setup.start().await;
    let mut client = sidecar.connect().await;
    client.send("PUT /files/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await;
    for _ in 0..10 {
        // Longer than the timeout in total, shorter between two bytes.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        client.send("x").await;
    }
    assert_eq!(client.response().await.status, 201);
    assert_eq!(backend.only().body, b"xxxxxxxxxx");
}
