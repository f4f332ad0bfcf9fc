//! A repeat gets the first response.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::support::*;

/// The header lines of the response itself, without those of one transmission.
fn told(response: &Response) -> Vec<(String, String)> {
    let own = ["date", "connection", "transfer-encoding", "idempotent-replayed"];
    let mut lines: Vec<_> = response.lines.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
    lines.retain(|(name, _)| !own.contains(&name.as_str()));
    // The order of lines with the same name matters (RFC 9110, 5.3).
    lines.sort_by(|(one, _), (other, _)| one.cmp(other));
    lines
}

/// Sends a request twice, and fails unless the second response is a replay.
async fn replayed(sidecar: &Sidecar, request: &Request) -> Response {
    let first = sidecar.ask(request).await;
    assert!(!first.is_replay());
    let second = sidecar.ask(request).await;
    assert!(second.is_replay(), "{second:?}");
    assert_eq!(first.status, second.status);
    assert_eq!(first.head.first, second.head.first);
    assert_eq!(first.body, second.body);
    assert_eq!(told(&first), told(&second));
    second
}

async fn in_front_of(script: Step) -> (Backend, Sidecar) {
    let backend = Backend::scripted([vec![script]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    (backend, sidecar)
}

on_every_store! {
    async fn a_repeat_gets_the_first_answer_and_the_backend_runs_once(store: &Store) {
        let backend = Backend::start().await;
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        let answer = replayed(&sidecar, &order("k")).await;
        assert_eq!((answer.status, answer.text()), (201, r#"{"order":1}"#));
        assert_eq!(answer.value("location"), Some("/orders/1"));
        assert_eq!(answer.value("content-length"), Some("11"));
        assert!(replayed(&sidecar, &order("other")).await.text().contains('2'));
        assert_eq!(backend.count(), 2);
    }

    async fn a_mebibyte_of_any_bytes_is_replayed_as_it_was(store: &Store) {
        let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let backend = Backend::scripted([vec![answer("200 OK\r\nContent-Type: application/pdf", &bytes)]]).await;
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        let answer = replayed(&sidecar, &order("k")).await;
        assert!(answer.body == bytes);
        assert_eq!(backend.count(), 1);
    }

    async fn a_repeated_answer_keeps_all_its_header_lines(store: &Store) {
        let head = "200 OK\r\nWarning: 199 a \"one\"\r\nX-Tag: b\r\nLink: <a>\r\nX-Tag: a\r\nX-Empty:\r\nLink: <b>, <c>\r\n\
                    X-Latin: caf\u{e9}\r\nX-Tag: b\r\nServer: unaware/1.0";
        // One byte for each character, so the é is Latin-1.
        let head: Vec<u8> = head.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect();
        let script = say([b"HTTP/1.1 ", &head[..], b"\r\nContent-Length: 2\r\n\r\nok"].concat());
        let backend = Backend::scripted([vec![script]]).await;
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        let answer = replayed(&sidecar, &order("k")).await;
        assert_eq!(answer.values("x-tag"), ["b", "a", "b"]);
        assert_eq!(answer.values("link"), ["<a>", "<b>, <c>"]);
        assert_eq!(answer.value("x-empty"), Some(""));
        assert_eq!(answer.value("x-latin"), Some("caf\u{e9}"));
        assert_eq!(answer.value("server"), Some("unaware/1.0"));
    }

    async fn an_answer_without_a_body_is_replayed_without_one(store: &Store) {
        let nothing = answer("201 Created\r\nLocation: /orders/7", "");
        let no_content = say("HTTP/1.1 204 No Content\r\nX-Done: yes\r\n\r\n");
        let backend = Backend::scripted([vec![nothing], vec![no_content]]).await;
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        let created = replayed(&sidecar, &order("one")).await;
        assert_eq!((created.status, created.value("content-length")), (201, Some("0")));
        let done = replayed(&sidecar, &order("two")).await;
        assert_eq!((done.status, done.value("x-done"), done.has("content-length")), (204, Some("yes"), false));
        assert_eq!(backend.count(), 2);
    }
}

#[tokio::test]
async fn a_redirect_after_a_form_is_replayed() {
    let (backend, sidecar) = in_front_of(answer("303 See Other\r\nLocation: /orders/7", "")).await;
    let answer = replayed(&sidecar, &order("k")).await;
    assert_eq!((answer.status, answer.value("location")), (303, Some("/orders/7")));
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_chunked_answer_is_replayed_with_a_length() {
    let (_backend, sidecar) =
        in_front_of(say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).await;
    let first = sidecar.ask(&order("k")).await;
    let second = sidecar.ask(&order("k")).await;
    assert_eq!((first.text(), second.text()), ("abcde", "abcde"));
    assert_eq!(second.value("content-length"), Some("5"));
}

#[tokio::test]
async fn trailers_are_kept_for_those_who_take_them() {
    let script = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                  3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n";
    let (backend, sidecar) = in_front_of(say(script)).await;
    let asks_for_them = order("k").line("TE: trailers").line("Connection: TE");
    for request in [&asks_for_them, &asks_for_them, &order("k")] {
        let answer = sidecar.ask(request).await;
        assert_eq!((answer.status, answer.text()), (200, "abc"));
        let expected = request.bytes() == asks_for_them.bytes();
        assert_eq!(!answer.trailers.is_empty(), expected, "{answer:?}");
    }
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_replay_has_a_date_of_its_own() {
    let (_backend, sidecar) = in_front_of(answer("200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT", "")).await;
    let first = sidecar.ask(&order("k")).await;
    assert_eq!(first.value("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    let second = sidecar.ask(&order("k")).await;
    let date = second.value("date").expect("every answer has a date");
    assert!(date.ends_with(" GMT") && !date.contains("1970"), "{date}");
}

const WITH_COOKIES: &str = "201 Created\r\nSet-Cookie: session=s3cret; HttpOnly\r\nSet-Cookie: b=2\r\n\
                            WWW-Authenticate: Basic realm=\"orders\"";

#[tokio::test]
async fn cookies_and_challenges_were_for_the_first_caller_alone() {
    let (_backend, sidecar) = in_front_of(answer(WITH_COOKIES, "{}")).await;
    let first = sidecar.ask(&order("k")).await;
    assert_eq!(first.values("set-cookie"), ["session=s3cret; HttpOnly", "b=2"]);
    assert_eq!(first.value("www-authenticate"), Some("Basic realm=\"orders\""));
    let second = sidecar.ask(&order("k")).await;
    assert!(second.is_replay());
    assert!(!second.has("set-cookie") && !second.has("www-authenticate"), "{second:?}");
}

#[tokio::test]
async fn cookies_are_replayed_where_the_route_says_so_or_the_cookie_is_the_caller() {
    for keys in ["replay_set_cookie = true", "scope = [\"cookie:session\"]"] {
        let backend = Backend::scripted([vec![answer(WITH_COOKIES, "{}")]]).await;
        let sidecar = Setup::new(&backend.url()).route(keys).start().await;
        let request = order("k").line("Cookie: session=s3cret");
        sidecar.ask(&request).await;
        let second = sidecar.ask(&request).await;
        assert!(second.is_replay());
        assert_eq!(second.values("set-cookie"), ["session=s3cret; HttpOnly", "b=2"], "{keys}");
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

fn zlib(text: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

/// `order seven`, uncompressed within a brotli stream.
const BROTLI: &[u8] = b"\x0b\x05\x80order seven\x03";

#[tokio::test]
async fn a_compressed_answer_is_replayed_as_it_is_to_those_who_accept_it() {
    let (backend, sidecar) =
        in_front_of(answer("200 OK\r\nContent-Encoding: gzip\r\nETag: \"7\"", gzip("order seven"))).await;
    let answer = replayed(&sidecar, &order("k").line("Accept-Encoding: br, gzip")).await;
    assert_eq!((answer.value("content-encoding"), answer.value("etag")), (Some("gzip"), Some("\"7\"")));
    let mut text = String::new();
    GzDecoder::new(&answer.body[..]).read_to_string(&mut text).expect("gzip");
    assert_eq!(text, "order seven");
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_compressed_answer_is_decoded_for_those_who_do_not_accept_it() {
    for (coding, body) in [("gzip", gzip("order seven")), ("deflate", zlib("order seven")), ("br", BROTLI.to_vec())] {
        let head = format!("200 OK\r\nETag: \"7\"\r\nContent-Encoding: {coding}");
        let (backend, sidecar) = in_front_of(answer(&head, &body)).await;
        let first = sidecar.ask(&order("k").line(&format!("Accept-Encoding: {coding}"))).await;
        assert_eq!(first.body, body);
        for accepts in ["identity", &format!("{coding};q=0, zstd")] {
            let answer = sidecar.ask(&order("k").line(&format!("Accept-Encoding: {accepts}"))).await;
            assert!(answer.is_replay());
            assert_eq!(answer.text(), "order seven", "{coding} for {accepts}");
            assert_eq!((answer.value("content-encoding"), answer.value("content-length")), (None, Some("11")));
            assert_eq!(answer.value("etag"), Some("W/\"7\""));
        }
        assert_eq!(backend.count(), 1);
    }
}

/// Sends a request twice for a response with this coding, the second time without accepting it.
async fn replayed_without(coding: &str, lines: &str, body: &[u8]) -> Response {
    let head = format!("200 OK\r\nContent-Encoding: {coding}{lines}");
    let (backend, sidecar) = in_front_of(answer(&head, body)).await;
    assert_eq!(sidecar.ask(&order("k")).await.body, body);
    let second = sidecar.ask(&order("k")).await;
    assert!(second.is_replay(), "{second:?}");
    // A body that cannot be decoded is not tried again, with the same result.
    assert_eq!(sidecar.ask(&order("k")).await.body, second.body);
    assert_eq!(backend.count(), 1);
    second
}

#[tokio::test]
async fn what_a_strict_decoder_does_not_take_is_replayed_as_it_was_stored() {
    // The same stream as above, with a window of 1 GiB: more than RFC 7932 has.
    let large_window = b"\x11\x1e\x14\x00\x02order seven\x03".to_vec();
    let members = gzip("").repeat(50_000);
    let garbage = [gzip("order seven"), b"and more".to_vec()].concat();
    let cut = gzip("order seven")[..15].to_vec();
    let zlib_and_more = [zlib("order seven"), zlib("order eight")].concat();
    for (coding, body) in [
        ("br", large_window),
        ("br", [BROTLI, BROTLI].concat()),
        ("br", BROTLI[..8].to_vec()),
        ("gzip", members),
        ("gzip", garbage),
        ("gzip", cut),
        ("deflate", zlib_and_more),
        ("zstd", b"\x28\xb5\x2f\xfd\x20\x0b\x59\x00\x00order seven".to_vec()),
        ("gzip, br", gzip("order seven")),
    ] {
        let answer = replayed_without(coding, "\r\nETag: \"7\"", &body).await;
        assert_eq!((answer.value("content-encoding"), answer.value("etag")), (Some(coding), Some("\"7\"")));
        assert!(answer.body == body, "{coding}");
    }
}

#[tokio::test]
async fn a_few_members_of_gzip_are_one_body() {
    let members = [gzip("order "), gzip(""), gzip("seven")].concat();
    assert_eq!(replayed_without("gzip", "", &members).await.text(), "order seven");
    assert_eq!(replayed_without("X-GZip", "", &members).await.text(), "order seven");
}

#[tokio::test]
async fn what_is_said_of_encoded_bytes_is_not_said_of_decoded_ones() {
    let digests = "\r\nContent-Digest: sha-256=:a:\r\nRepr-Digest: sha-256=:b:\r\nDigest: sha-256=c\r\nContent-MD5: d";
    let names = ["content-digest", "repr-digest", "digest", "content-md5", "content-encoding"];
    let answer = replayed_without("gzip", digests, &gzip("order seven")).await;
    assert_eq!(answer.text(), "order seven");
    assert!(names.iter().all(|name| !answer.has(name)), "{answer:?}");
    // They describe the stored bytes.
    let (_backend, sidecar) = in_front_of(answer_with_gzip(digests)).await;
    let kept = replayed(&sidecar, &order("k").line("Accept-Encoding: gzip")).await;
    assert!(names.iter().all(|name| kept.has(name)), "{kept:?}");
}

fn answer_with_gzip(lines: &str) -> Step {
    answer(&format!("200 OK\r\nContent-Encoding: gzip{lines}"), gzip("order seven"))
}

#[tokio::test]
async fn a_decoded_replay_varies_by_what_it_was_decoded_for_and_says_so_once() {
    for (stored, expected) in [
        ("", "accept-encoding"),
        ("\r\nVary: Accept-Encoding", "Accept-Encoding"),
        ("\r\nVary: Accept, accept-encoding", "Accept, accept-encoding"),
        ("\r\nVary: Accept\r\nVary: Origin", "Accept, Origin, accept-encoding"),
        ("\r\nVary: *", "*"),
    ] {
        let answer = replayed_without("gzip", stored, &gzip("order seven")).await;
        assert_eq!(answer.values("vary"), [expected]);
    }
}

#[tokio::test]
async fn nothing_is_decoded_that_must_not_be_transformed() {
    for stored in ["no-transform", "private, No-Transform", "max-age=0\r\nCache-Control: no-transform"] {
        let body = gzip("order seven");
        let answer = replayed_without("gzip", &format!("\r\nCache-Control: {stored}"), &body).await;
        assert_eq!((answer.value("content-encoding"), answer.body == body), (Some("gzip"), true), "{stored}");
    }
}

#[tokio::test]
async fn what_told_of_the_first_exchange_is_left_out_of_replays() {
    let head = "201 Created\r\nAge: 7\r\nServer-Timing: db;dur=53\r\nAuthentication-Info: nextnonce=\"n\"\r\n\
                Authentication-Control: Basic realm=\"orders\"\r\nOptional-WWW-Authenticate: Basic realm=\"orders\"\r\n\
                X-Trace: abc\r\nX-Order: 7";
    let moment = ["authentication-info", "authentication-control", "optional-www-authenticate"];
    for (keys, omitted) in [
        ("", vec!["age", "server-timing"]),
        ("replay_omit = [\"X-Trace\", \"age\"]", vec!["age", "x-trace"]),
        ("replay_omit = []", vec![]),
    ] {
        let backend = Backend::scripted([vec![answer(head, "{}")]]).await;
        let sidecar = Setup::new(&backend.url()).route(keys).start().await;
        let first = sidecar.ask(&order("k")).await;
        let second = sidecar.ask(&order("k")).await;
        assert!(second.is_replay());
        for name in ["age", "server-timing", "x-trace", "x-order"].iter().chain(&moment) {
            assert!(first.has(name), "{name}");
            let expected = !omitted.contains(name) && !moment.contains(name);
            assert_eq!(second.has(name), expected, "{name} with {keys:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_would_unfold_beyond_the_cap_is_not_decoded() {
    let bomb = gzip(&"0".repeat(100_000));
    let backend = Backend::scripted([vec![answer("200 OK\r\nContent-Encoding: gzip", &bomb)]]).await;
    let sidecar = Setup::new(&backend.url()).route("max_response_body = \"4KiB\"").start().await;
    sidecar.ask(&order("k")).await;
    let answer = sidecar.ask(&order("k")).await;
    assert!(answer.is_replay());
    assert_eq!((answer.value("content-encoding"), answer.body == bomb), (Some("gzip"), true));
}

#[tokio::test]
async fn a_quoted_and_a_bare_key_are_the_same_and_reach_the_backend_as_they_came() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let first = sidecar.ask(&order("\"8e03978e\"; v=1")).await;
    for key in ["8e03978e", "\"8e03978e\"", "  8e03978e\t"] {
        let answer = sidecar.ask(&order(key)).await;
        assert!(answer.is_replay(), "{key}");
        assert_eq!(answer.body, first.body);
    }
    assert_eq!(backend.only().value("idempotency-key"), Some("\"8e03978e\"; v=1"));
}

#[tokio::test]
async fn the_backend_sees_the_request_as_it_was_sent() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let request = post("/orders?draft=%31").line("Idempotency-Key: k").by("alice").line("X-Tag: a").line("X-Tag: b");
    sidecar.ask(&request.line("Content-Type: text/plain").body("\u{0}any bytes")).await;
    let seen = backend.only();
    assert_eq!(seen.head.first, "POST /orders?draft=%31 HTTP/1.1");
    assert_eq!(seen.body, b"\0any bytes");
    assert_eq!((seen.value("host"), seen.value("content-length")), (Some("api.test"), Some("10")));
    assert_eq!(seen.values("x-tag"), ["a", "b"]);
    assert!(!seen.has("onlyonce-attempt"));
}

#[tokio::test]
async fn a_chunked_request_is_guarded_too() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let first = sidecar.ask(&order("k").chunked()).await;
    let second = sidecar.ask(&order("k")).await;
    assert!(second.is_replay());
    assert_eq!(first.body, second.body);
    assert_eq!(backend.only().body, br#"{"item":"book"}"#);
}

#[tokio::test]
async fn interim_answers_are_no_answers() {
    let early = say("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
    let backend = Backend::scripted([vec![early, Step::Answer]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let answer = replayed(&sidecar, &order("k")).await;
    assert_eq!((answer.status, answer.has("link")), (201, false));
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn the_same_key_on_two_routes_is_two_keys() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let sidecar = setup
        .another_route("name = \"refunds\"\npath = \"/refunds\"\nscope = [\"header:Authorization\"]")
        .start()
        .await;
    let refund = post("/refunds").line("Idempotency-Key: k").by("alice").json(r#"{"item":"book"}"#);
    assert_eq!(sidecar.ask(&order("k")).await.text(), r#"{"order":1}"#);
    assert_eq!(sidecar.ask(&refund).await.text(), r#"{"order":2}"#);
    assert!(sidecar.ask(&refund).await.is_replay());
}

#[tokio::test]
async fn put_patch_and_delete_are_guarded_where_the_route_lists_them() {
    let backend = Backend::start().await;
    let route = "path = \"/orders/{order}\"\nmethods = [\"PUT\", \"PATCH\", \"DELETE\"]";
    let sidecar = Setup::new(&backend.url()).route(route).start().await;
    for (count, method) in ["PUT", "PATCH", "DELETE"].into_iter().enumerate() {
        let change = request(method, "/orders/7").line(&format!("Idempotency-Key: {method}")).by("alice").body("x");
        replayed(&sidecar, &change).await;
        assert_eq!(backend.count(), count + 1);
    }
}

#[tokio::test]
async fn answers_that_promise_nothing_are_not_kept() {
    let backend = Backend::scripted([vec![answer("422 Unprocessable Content", "no")]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 422);
    let second = sidecar.ask(&order("k")).await;
    assert_eq!((second.status, second.is_replay()), (201, false));
}

#[tokio::test]
async fn a_strict_route_keeps_what_the_backend_refused() {
    let backend = Backend::scripted([vec![answer("422 Unprocessable Content", "card declined")]]).await;
    let sidecar = Setup::new(&backend.url()).route("policy = \"strict\"").start().await;
    let answer = replayed(&sidecar, &order("k")).await;
    assert_eq!((answer.status, answer.text()), (422, "card declined"));
    assert_eq!(backend.count(), 1);
}
