//! Heads of the largest allowed size and larger ones; unregistered status codes.

use crate::support::http2::{self, Http2Backend, Turn};
use crate::support::*;

/// The limits of a head: fields, and bytes with its start line and the empty line.
const FIELDS: usize = 1000;
/// Of a request.
const REQUEST_FIELDS: usize = 100;
const BYTES: usize = 64 << 10;

/// A response with this number of fields, including `Content-Length`.
fn of_fields(count: usize) -> Vec<u8> {
    let lines: String = (1..count).map(|number| format!("X-{number}: {number}\r\n")).collect();
    format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok").into_bytes()
}

/// A response whose head has this number of bytes.
fn of_bytes(length: usize) -> Vec<u8> {
    let (start, end) = ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Long: ", "\r\n\r\n");
    let long = "x".repeat(length - start.len() - end.len());
    format!("{start}{long}{end}ok").into_bytes()
}

/// Sends a response in several pieces or in one.
fn in_pieces(answer: &[u8], piece: usize) -> Vec<Step> {
    answer.chunks(piece).map(say).chain([Step::Close]).collect()
}

#[tokio::test]
async fn an_answer_of_a_thousand_fields_crosses_and_is_replayed_with_all_of_them() {
    let backend = Backend::scripted([vec![say(of_fields(FIELDS))], vec![say(of_fields(FIELDS))]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for request in [request("GET", "/x"), order("k"), order("k")] {
        let got = sidecar.ask(&request).await;
        assert_eq!((got.status, got.text()), (200, "ok"));
        for number in 1..FIELDS {
            assert_eq!(got.value(&format!("x-{number}")), Some(&*number.to_string()));
        }
    }
    assert_eq!(backend.count(), 2);
}

#[tokio::test]
async fn an_answer_of_more_fields_is_none() {
    let backend = Backend::scripted([vec![say(of_fields(FIELDS + 1))], vec![say(of_fields(FIELDS + 1))]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    sidecar.ask(&request("GET", "/x")).await.refuses(502, "upstream-failed");
    sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
    sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
}

/// For every split into pieces, on a new and on a reused connection.
#[tokio::test]
async fn the_bytes_of_an_answer_s_head_have_one_limit() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(5).into_bytes();
    for (length, fits) in [(BYTES, true), (BYTES + 1, false), (80 << 10, false), (100 << 10, false), (300 << 10, false)]
    {
        for piece in [1 << 20, 30_000, 8192, 1460] {
            for before in [&b""[..], &interim] {
                let answer = [before, &of_bytes(length)].concat();
                let backend = Backend::scripted([in_pieces(&answer, piece)]).await;
                let sidecar = Setup::new(&backend.url()).start().await;
                let got = sidecar.ask(&request("GET", "/x")).await;
                if fits {
                    assert_eq!((got.status, got.text()), (200, "ok"), "{length} bytes in pieces of {piece}");
                } else {
                    got.refuses(502, "upstream-failed");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_http2_backend_may_answer_with_as_much() {
    let fields: Vec<(&'static str, &'static str)> =
        (1..FIELDS).map(|number| (&*format!("x-{number}").leak(), &*"v".repeat(BYTES / FIELDS - 12).leak())).collect();
    let say = || Turn::Say(http2::Answer { status: 200, lines: fields.clone(), ..http2::Answer::default() });
    let backend = Http2Backend::start([say(), say()]).await;
    let sidecar = Setup::new(&backend.url()).with("upstream", "http2 = true").start().await;
    for request in [request("GET", "/x"), order("k"), order("k")] {
        let got = sidecar.ask(&request).await;
        assert_eq!(got.status, 200);
        assert!(fields.iter().all(|(name, value)| got.value(name) == Some(value)));
    }
    assert_eq!(backend.count(), 2);

    let large = vec![("x-long", &*"x".repeat(100 << 10).leak())];
    backend.then(Turn::Say(http2::Answer { status: 200, lines: large, ..http2::Answer::default() }));
    sidecar.ask(&request("GET", "/x")).await.refuses(502, "upstream-failed");
}

#[tokio::test]
async fn a_request_s_head_has_as_many_bytes_and_fewer_fields() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    // One of them is its Host.
    let fields =
        |count| (1..count).fold(request("GET", "/"), |request, number| request.line(&format!("X-{number}: 1")));
    assert_eq!(sidecar.ask(&fields(REQUEST_FIELDS)).await.status, 201);
    assert_eq!(backend.only().value(&format!("x-{}", REQUEST_FIELDS - 1)), Some("1"));
    assert_eq!(sidecar.ask(&fields(REQUEST_FIELDS + 1)).await.status, 431);

    let own = request("GET", "/").line("X-Long: ").bytes().len();
    let long = |length: usize| request("GET", "/").line(&format!("X-Long: {}", "x".repeat(length - own))).bytes();
    for (length, status) in [(BYTES, 201), (BYTES + 1, 431), (80 << 10, 431), (100 << 10, 431)] {
        for piece in [1 << 20, 30_000, 8192, 1460] {
            let mut client = sidecar.connect().await;
            for piece in long(length).chunks(piece) {
                // Nothing is read after a head that is too large.
                if client.try_send(piece).await.is_err() {
                    break;
                }
            }
            assert_eq!(client.response().await.status, status, "{length} bytes in pieces of {piece}");
        }
    }
    assert_eq!(backend.count(), 5);
}

#[tokio::test]
async fn a_status_that_nobody_knows_has_the_reason_that_the_backend_gives_or_none() {
    let say = |line: &str| say(format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nok"));
    for (said, first) in [("299 ", "299 "), ("299", "299 "), ("299 Odd", "299 Odd"), ("799 Odd", "799 Odd")] {
        let backend = Backend::scripted([vec![say(said)], vec![say(said)]]).await;
        let sidecar = Setup::new(&backend.url()).route("store = [\"2xx\"]").start().await;
        let got = sidecar.ask(&request("GET", "/x")).await;
        assert_eq!((got.first.as_str(), got.text()), (&*format!("HTTP/1.1 {first}"), "ok"));
        if said.starts_with('2') {
            // Reason phrases are not kept: they have no meaning.
            for is_replay in [false, true] {
                let got = sidecar.ask(&order("k")).await;
                assert_eq!((got.first.as_str(), got.is_replay()), ("HTTP/1.1 299 ", is_replay));
            }
        }
    }
    let answer = http2::Answer { status: 299, ..http2::Answer::default() };
    let backend = Http2Backend::start([Turn::Say(answer)]).await;
    let sidecar = Setup::new(&backend.url()).with("upstream", "http2 = true").start().await;
    assert_eq!(sidecar.ask(&request("GET", "/x")).await.first, "HTTP/1.1 299 ");
}
