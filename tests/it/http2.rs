//! HTTP/2 clients, on the same port as HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method};
use onlyonce::run::Stopped;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::http2_frames::{DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, packed};
use crate::support::*;

/// One connection.
pub(crate) struct Client {
    send: SendRequest<Bytes>,
    /// The task of the connection. It ends with it.
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A request that is being built.
fn http2(method: Method, path: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(format!("http://api.test{path}"))
}

pub(crate) fn http2_order(key: &str) -> http::Request<()> {
    let builder = http2(Method::POST, "/orders").header("idempotency-key", key);
    builder.header("authorization", "Bearer alice").body(()).expect("a request")
}

impl Client {
    pub(crate) async fn connect(sidecar: &Sidecar) -> Self {
        Self::with(sidecar, &h2::client::Builder::new()).await
    }

    pub(crate) async fn with(sidecar: &Sidecar, builder: &h2::client::Builder) -> Self {
        let stream = TcpStream::connect(sidecar.address).await.expect("it listens");
        let (send, connection) = within("a handshake", builder.handshake(stream)).await.expect("it speaks HTTP/2");
        Self { send, connection: tokio::spawn(connection) }
    }

    pub(crate) async fn begin(
        &mut self,
        request: http::Request<()>,
        ends: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut ready = within("a place for a stream", self.send.clone().ready()).await.expect("an open connection");
        ready.send_request(request, ends).expect("a request that may be sent")
    }

    pub(crate) async fn ask(&mut self, request: http::Request<()>, body: &str) -> Answered {
        let (response, mut stream) = self.begin(request, body.is_empty()).await;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true).expect("an open stream");
        }
        Answered::of(response).await
    }

    /// Fails unless the other side ends the connection.
    pub(crate) async fn ends(self) -> Result<(), h2::Error> {
        within("the end of the connection", self.connection).await.expect("no panic")
    }
}

pub(crate) struct Answered {
    pub(crate) status: u16,
    headers: HeaderMap,
    body: String,
    trailers: Option<HeaderMap>,
}

impl Answered {
    async fn of(response: ResponseFuture) -> Self {
        let response = within("a response", response).await.expect("a response");
        let (head, mut stream) = response.into_parts();
        let body = read(&mut stream).await;
        let trailers = within("the end", stream.trailers()).await.expect("an end");
        let body = String::from_utf8(body).expect("text");
        Self { status: head.status.as_u16(), headers: head.headers, body, trailers }
    }

    fn is_replay(&self) -> bool {
        self.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
    }
}

async fn read(stream: &mut RecvStream) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(piece) = within("a body", stream.data()).await {
        let piece = piece.expect("a body");
        stream.flow_control().release_capacity(piece.len()).expect("it was taken");
        body.extend_from_slice(&piece);
    }
    body
}

pub(crate) async fn with(server: &str) -> (Backend, Sidecar) {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).with("server", server).start().await;
    (backend, sidecar)
}

#[tokio::test]
async fn a_repeat_is_replayed_whatever_version_it_comes_in() {
    let (backend, sidecar) = with("").await;
    let mut client = Client::connect(&sidecar).await;
    let first = client.ask(http2_order("k"), "{}").await;
    assert_eq!((first.status, first.body.as_str(), first.is_replay()), (201, r#"{"order":1}"#, false));
    let repeat = client.ask(http2_order("k"), "{}").await;
    assert_eq!((repeat.status, repeat.body.as_str(), repeat.is_replay()), (201, r#"{"order":1}"#, true));
    let old = post("/orders").line("Idempotency-Key: k").by("alice").body("{}");
    assert!(sidecar.ask(&old).await.is_replay());
    assert_eq!(backend.only().value("content-length"), Some("2"));
    assert_eq!(client.ask(http2_order("k"), "{ }").await.status, 422);
}

#[tokio::test]
async fn the_authority_is_the_host() {
    let (backend, sidecar) = with("").await;
    let mut client = Client::connect(&sidecar).await;
    let plain = |builder: http::request::Builder| builder.body(()).expect("a request");
    assert_eq!(client.ask(plain(http2(Method::GET, "/a?b=c")), "").await.status, 201);
    let same = http2(Method::GET, "/").header("host", "api.test");
    assert_eq!(client.ask(plain(same), "").await.status, 201);
    let other = http2(Method::GET, "/").header("host", "other.test");
    let refused = client.ask(plain(other), "").await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("bad-request"), "{}", refused.body);
    let seen = backend.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].first, "GET /a?b=c HTTP/1.1");
    assert!(seen.iter().all(|seen| seen.value("host") == Some("api.test")), "{seen:?}");
}

#[tokio::test]
async fn a_body_whose_length_is_not_announced_arrives_with_every_method() {
    let (backend, sidecar) = with("").await;
    let mut client = Client::connect(&sidecar).await;
    for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
        let answer = client.ask(http2(method, "/elsewhere").body(()).expect("a request"), "some body").await;
        assert_eq!(answer.status, 201);
    }
    for seen in backend.seen() {
        assert_eq!((&*seen.body, seen.value("transfer-encoding")), (&b"some body"[..], Some("chunked")), "{seen:?}");
    }
    client.ask(http2(Method::GET, "/elsewhere").body(()).expect("a request"), "").await;
    let seen = backend.seen().pop().expect("a request");
    assert!(!seen.has("transfer-encoding") && !seen.has("content-length"), "{seen:?}");
}

#[tokio::test]
async fn cookies_in_lines_of_their_own_are_one() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route("scope = [\"header:Cookie\"]").start().await;
    let mut client = Client::connect(&sidecar).await;
    let crumbs = |lines: &[&str]| {
        let builder = http2(Method::POST, "/orders").header("idempotency-key", "k");
        let builder = lines.iter().fold(builder, |builder, line| builder.header("cookie", *line));
        builder.body(()).expect("a request")
    };
    assert!(!client.ask(crumbs(&["sid=1", "theme=dark", "a=b"]), "").await.is_replay());
    assert!(client.ask(crumbs(&["sid=1; theme=dark; a=b"]), "").await.is_replay());
    assert_eq!(backend.only().value("cookie"), Some("sid=1; theme=dark; a=b"));
}

#[tokio::test]
async fn trailers_of_the_backend_reach_the_client() {
    let head = "HTTP/1.1 200 OK\r\nTrailer: grpc-status\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = format!("{head}5\r\nhello\r\n0\r\ngrpc-status: 0\r\n\r\n");
    let backend = Backend::scripted([vec![say(chunked)]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = Client::connect(&sidecar).await;
    let request = http2(Method::GET, "/").header("te", "trailers").body(()).expect("a request");
    let answer = client.ask(request, "").await;
    assert_eq!(answer.body, "hello");
    assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0");
}

/// A length that is not that of the body would be an error of the whole stream (RFC 9113, 8.1.1).
#[tokio::test]
async fn an_answer_of_the_backend_has_the_length_of_its_body() {
    let (backend, sidecar) = with("").await;
    let mut client = Client::connect(&sidecar).await;
    for (lines, body, length) in [
        ("Content-Length: 10\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", None),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", None),
        ("Content-Length: 5, 5", "hello", Some("5")),
        ("Content-Length: 5\r\nContent-Length: 5", "hello", Some("5")),
    ] {
        for path in ["/orders", "/elsewhere"] {
            backend.then(vec![say(format!("HTTP/1.1 201 Created\r\n{lines}\r\n\r\n{body}"))]);
            let answer = client.ask(http2(Method::POST, path).body(()).expect("a request"), "{}").await;
            assert_eq!((answer.status, answer.body.as_str()), (201, "hello"), "{path}: {lines}");
            let lengths: Vec<_> = answer.headers.get_all("content-length").iter().collect();
            assert_eq!(lengths, length.into_iter().collect::<Vec<_>>(), "{path}: {lines}");
        }
    }
}

#[tokio::test]
async fn one_stream_does_not_wait_for_another() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = Client::connect(&sidecar).await;
    let (slow, _) = client.begin(http2_order("slow"), true).await;
    backend.has_seen(1).await;
    assert_eq!(client.ask(http2_order("quick"), "").await.status, 201);
    gate.open();
    assert_eq!(Answered::of(slow).await.status, 201);
}

#[tokio::test]
async fn an_attempt_goes_on_when_its_stream_is_reset() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = Client::connect(&sidecar).await;
    let (_response, mut stream) = client.begin(http2_order("k"), true).await;
    backend.has_seen(1).await;
    stream.send_reset(Reason::CANCEL);
    gate.open();
    until("the record is there", async || client.ask(http2_order("k"), "").await.is_replay()).await;
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go_away() {
    let (_backend, sidecar) = with("idle_timeout = \"100ms\"").await;
    let mut client = Client::connect(&sidecar).await;
    client.ask(http2_order("k"), "").await;
    client.ends().await.expect("an end in peace");
}

#[tokio::test]
async fn a_connection_whose_client_waits_for_an_answer_is_not_idle() {
    let (backend, gate) = Backend::gated().await;
    let times = "idle_timeout = \"50ms\"\nheader_timeout = \"5s\"";
    let sidecar = Setup::new(&backend.url()).with("server", times).start().await;
    let mut client = Client::connect(&sidecar).await;
    let (response, _) = client.begin(http2_order("k"), true).await;
    backend.has_seen(1).await;
    // Another connection is opened and closed meanwhile.
    Client::connect(&sidecar).await.ends().await.expect("an end in peace");
    gate.open();
    assert_eq!(Answered::of(response).await.status, 201);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_harms_nobody_else() {
    let (backend, sidecar) = with("").await;
    let mut client = Client::connect(&sidecar).await;
    let large = http2(Method::GET, "/").header("x-large", "x".repeat(40 << 10)).body(()).expect("a request");
    assert_eq!(client.ask(large, "").await.status, 431);
    assert_eq!(client.ask(http2_order("k"), "").await.status, 201);
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_client_that_opens_no_window_for_its_answer_is_cut_off_and_its_memory_freed() {
    let backend = Backend::scripted([vec![answer("201 Created", "x".repeat(600 << 10))]]).await;
    let times = "idle_timeout = \"1s\"\nheader_timeout = \"1s\"";
    let sidecar = Setup::new(&backend.url()).with("server", times).start().await;
    let mut client = Client::with(&sidecar, h2::client::Builder::new().initial_window_size(0)).await;
    let (response, _stream) = client.begin(http2_order("k"), true).await;
    let response = within("a head", response).await.expect("a head");
    until("it is held", async || sidecar.metric("onlyonce_buffered_bytes").await > 0.0).await;
    // The stream ends in any case: the client gets no body.
    let _ = client.ends().await;
    let mut body = response.into_body();
    assert!(!matches!(body.data().await, Some(Ok(_))));
    until("it is freed", async || sidecar.metric("onlyonce_buffered_bytes").await == 0.0).await;
}

#[tokio::test]
async fn an_answer_that_is_taken_slowly_is_not_cut_off() {
    let backend = Backend::scripted([vec![answer("201 Created", "x".repeat(64))]]).await;
    let times = "idle_timeout = \"2s\"\nheader_timeout = \"1s\"";
    let sidecar = Setup::new(&backend.url()).with("server", times).start().await;
    let mut client = Client::with(&sidecar, h2::client::Builder::new().initial_window_size(4)).await;
    let (response, _stream) = client.begin(http2_order("k"), true).await;
    let mut body = within("a head", response).await.expect("a head").into_body();
    let mut length = 0;
    while let Some(piece) = within("more", body.data()).await {
        length += piece.expect("it is not cut off").len();
        // Longer than the timeout in total, shorter between two pieces.
        tokio::time::sleep(Duration::from_millis(250)).await;
        body.flow_control().release_capacity(4).expect("it was taken");
    }
    assert_eq!(length, 64);
}

#[tokio::test]
async fn stopping_lets_streams_end_and_takes_no_others() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = Client::connect(&sidecar).await;
    let (response, _) = client.begin(http2_order("k"), true).await;
    backend.has_seen(1).await;
    let mut idle = Client::connect(&sidecar).await;
    idle.ask(http2_order("other"), "").await;
    let stopping = sidecar.begin_to_stop();
    idle.ends().await.expect("an end in peace");
    gate.open();
    assert_eq!(Answered::of(response).await.status, 201);
    client.ends().await.expect("an end in peace");
    assert_eq!(within("stopping", stopping).await.expect("no panic"), Stopped::Clean);
}

#[tokio::test]
async fn a_client_that_resets_its_stream_calls_off_what_passes_to_an_http2_backend() {
    use crate::support::http2::{Http2Backend, Turn};
    let backend = Http2Backend::start([Turn::Hang]).await;
    let sidecar = Setup::new(&backend.url()).with("upstream", "http2 = true").start().await;
    let mut client = Client::connect(&sidecar).await;
    let (response, mut stream) = client.begin(http2(Method::GET, "/").body(()).expect("a request"), true).await;
    backend.has_seen(1).await;
    stream.send_reset(Reason::CANCEL);
    drop(response);
    assert_eq!(backend.was_reset().await, Reason::CANCEL);
}

#[tokio::test]
async fn half_a_body_is_never_a_whole_one_however_its_stream_is_reset() {
    let (backend, sidecar) = with("").await;
    let held = async || sidecar.metric("onlyonce_buffered_bytes").await;
    for (reason, key) in [(Reason::CANCEL, "one"), (Reason::NO_ERROR, "two")] {
        let mut client = Client::connect(&sidecar).await;
        let (response, mut stream) = client.begin(http2_order(key), false).await;
        stream.send_data(Bytes::from_static(b"half"), false).expect("an open stream");
        until("half of it is here", async || held().await > 0.0).await;
        stream.send_reset(reason);
        assert!(within("an end", response).await.is_err());
        until("it is given up", async || held().await == 0.0).await;
        let whole = client.ask(http2_order(key), "half and half").await;
        assert_eq!((whole.status, whole.is_replay()), (201, false), "{reason:?}");
    }
    assert!(backend.seen().iter().all(|seen| seen.body == b"half and half"), "{:?}", backend.seen());
}

#[tokio::test]
async fn half_a_body_that_passes_stays_half() {
    for reason in [Reason::CANCEL, Reason::NO_ERROR] {
        let backend = ByHand::start().await;
        let sidecar = Setup::new(&backend.url()).start().await;
        let mut client = Client::connect(&sidecar).await;
        let upload = http2(Method::PUT, "/upload").body(()).expect("a request");
        let (_response, mut stream) = client.begin(upload, false).await;
        stream.send_data(Bytes::from_static(b"half"), false).expect("an open stream");
        let mut backend = backend.accept().await;
        backend.head().await.expect("a request");
        assert_eq!(backend.chunk().await, b"half");
        stream.send_reset(reason);
        assert_eq!(backend.rest().await, b"", "{reason:?}");
    }
}

/// Such a stream ends at once, without a response.
#[tokio::test]
async fn half_a_body_that_passes_is_counted_as_its_client_s_fault() {
    let backend = ByHand::start().await;
    let observed = "name = \"observed\"\npath = \"/observed\"\nscope = [\"header:Authorization\"]\nmode = \"observe\"";
    let process = Process::start(&Setup::new(&backend.url()).another_route(observed)).await;
    let begin = async |path, fields: &[_]| {
        let mut client = process.connect().await;
        client.send([PREFACE.as_bytes(), &frame(SETTINGS, 0, 0, &[])].concat()).await;
        client.send([frame(HEADERS, END_HEADERS, 1, &packed(path, fields)), frame(DATA, 0, 1, b"half")].concat()).await;
        let mut backend = backend.accept().await;
        backend.head().await.expect("a request");
        backend.exactly(4).await;
        (client, backend)
    };
    let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    // HTTP/2 has no hop-by-hop fields (RFC 9113, 8.2.2).
    let trailers = frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x00\x0aconnection\x05close");
    for (path, route) in [("/elsewhere", "unmatched"), ("/orders", "orders"), ("/observed", "observed")] {
        for (count, (what, fields, after)) in [
            ("a reset", &[][..], reset.clone()),
            ("trailers that are none", &[], trailers.clone()),
            ("too short a body", &[("content-length", "9")], frame(DATA, END_STREAM, 1, b"")),
            ("too long a body", &[("content-length", "5")], frame(DATA, END_STREAM, 1, b"more")),
        ]
        .into_iter()
        .enumerate()
        {
            let (mut client, _backend) = begin(path, fields).await;
            client.send(after).await;
            let counted = |outcome: &str| format!("onlyonce_requests_total{{outcome=\"{outcome}\",route=\"{route}\"}}");
            until(what, async || process.metric(&counted("bad_request")).await == (count + 1) as f64).await;
            assert_eq!(process.metric(&counted("upstream_error")).await, 0.0, "{path}: {what}");
        }
        // The whole connection is closed.
        let (client, _backend) = begin(path, &[]).await;
        client.reset();
        let series = format!("onlyonce_requests_total{{outcome=\"bad_request\",route=\"{route}\"}}");
        until("the end of a connection", async || process.metric(&series).await == 5.0).await;
    }
    assert_eq!(process.warnings(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_answer_that_breaks_off_is_a_stream_that_is_reset() {
    let backend = Backend::scripted([vec![answer("201 Created", vec![b'x'; 1_000_000])]]).await;
    let redis = RedisServer::start();
    let sidecar = Setup::new(&backend.url()).with("store", &format!("url = \"{}\"", redis.url())).start().await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    let mut client = Client::connect(&sidecar).await;
    assert_eq!(client.ask(http2_order("k"), "").await.body.len(), 1_000_000);
    for (key, is_whole) in [("15", false), ("3", false), ("*", true)] {
        if !is_whole {
            let mut wire = Wire::connect(([127, 0, 0, 1], redis.port()).into()).await;
            let delete = format!("redis.call('DEL', unpack(redis.call('KEYS', '*:body:*:{key}')))");
            wire.send(format!("EVAL \"{delete}\" 0\r\nQUIT\r\n")).await;
            wire.rest().await;
        } else {
            backend.then(vec![answer("201 Created", vec![b'x'; 1_000_000])]);
        }
        let key = if is_whole { "another" } else { "k" };
        let (response, _) = client.begin(http2_order(key), true).await;
        let response = within("a head", response).await.expect("an answer");
        assert_eq!(response.status(), 201, "{key}");
        let mut body = response.into_body();
        let (mut length, mut end) = (0, None);
        while let Some(data) = within("data", body.data()).await {
            match data {
                Ok(data) => {
                    length += data.len();
                    body.flow_control().release_capacity(data.len()).expect("what was received");
                }
                Err(error) => {
                    end = error.reason();
                    break;
                }
            }
        }
        assert_eq!((length == 1_000_000, end.is_none()), (is_whole, is_whole), "{length} bytes, {end:?}");
    }
    assert_eq!(backend.count(), 2);
}
