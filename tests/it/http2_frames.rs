//! HTTP/2 clients that send single frames: broken, slow, or too many.

use std::time::Duration;

use h2::Reason;
use onlyonce::run::Stopped;

use crate::http2::{Client, http2_order, with};
use crate::support::*;

#[tokio::test]
async fn a_flood_of_resets_ends_its_connection_and_starts_no_more_than_may_be_at_work() {
    let gate = Gate::new();
    let held = (0..4).map(|_| vec![Step::Wait(gate.clone()), Step::Answer]);
    let backend = Backend::scripted(held).await;
    let sidecar = Setup::new(&backend.url()).with("server", "max_in_flight = 4").start().await;
    for round in 0..3 {
        let mut flood = [PREFACE.as_bytes(), &frame(SETTINGS, 0, 0, &[])].concat();
        for stream in (1..2000).step_by(2) {
            flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &packed_order(&format!("{round}-{stream}"))));
            flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        let mut client = sidecar.connect().await;
        // The connection may be closed before all is sent.
        let _ = client.try_send(flood).await;
        let said = client.rest().await;
        let calm_down = frame(GOAWAY, 0, 0, &[]);
        let goes_away = said.windows(9).any(|head| head[3..] == calm_down[3..]);
        assert!(goes_away, "the flood is taken: {said:?}");
    }
    // One after the other: each is running before it is reset.
    let mut client = Client::connect(&sidecar).await;
    let mut key = 0;
    until("as many are at work as may be", async || {
        key += 1;
        let (_response, mut stream) = client.begin(http2_order(&format!("patient-{key}")), true).await;
        let at_work = sidecar.metric("onlyonce_in_flight{route=\"orders\"}").await;
        stream.send_reset(Reason::CANCEL);
        at_work == 4.0
    })
    .await;
    for key in 0..100 {
        assert_eq!(client.ask(http2_order(&format!("refused-{key}")), "").await.status, 503);
    }
    backend.has_seen(4).await;
    assert_eq!(backend.count(), 4);
    gate.open();
    until("work is taken again", async || client.ask(http2_order("after"), "").await.status == 201).await;
}

pub(crate) const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame: its type, flags, stream and payload.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of an order, compressed with the static table only (RFC 7541, appendix A).
pub(crate) fn packed_order(key: &str) -> Vec<u8> {
    packed("/orders", &[("idempotency-key", key)])
}

/// The same, for a POST to anywhere.
pub(crate) fn packed(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let (post, http) = ([0x83], [0x86]);
    let target = [vec![0x04], text(path), vec![0x01], text("api.test")].concat();
    let fields: Vec<u8> =
        fields.iter().flat_map(|(name, value)| [vec![0x00], text(name), text(value)].concat()).collect();
    [&post[..], &http, &target, &fields].concat()
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

#[tokio::test]
async fn the_preface_may_come_in_pieces() {
    let (_backend, sidecar) = with("").await;
    let mut client = sidecar.connect().await;
    for byte in PREFACE.bytes() {
        client.send([byte]).await;
    }
    client.send(frame(SETTINGS, 0, 0, &[])).await;
    let settings = client.exactly(9).await;
    assert_eq!(settings[3], SETTINGS, "its own settings come first");
}

#[tokio::test]
async fn what_only_begins_like_the_preface_is_http_1() {
    let (_backend, sidecar) = with("").await;
    let mut client = sidecar.connect().await;
    client.send("PRI * HTTP/1.1\r\nHost: api.test\r\n\r\n").await;
    // Of all methods, only OPTIONS may ask for the server as a whole.
    client.response().await.refuses(400, "bad-request");
}

#[tokio::test]
async fn a_client_that_says_nothing_or_half_of_a_preface_is_cut_off() {
    let (_backend, sidecar) = with("header_timeout = \"100ms\"").await;
    sidecar.connect().await.ends().await;
    let mut client = sidecar.connect().await;
    client.send(&PREFACE[..20]).await;
    client.ends().await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let (backend, sidecar) = with("header_timeout = \"200ms\"\nidle_timeout = \"200ms\"").await;
    let (mut held, mut trickling) = (sidecar.connect().await, sidecar.connect().await);
    // Another stream waits for its response meanwhile, so the connection is not idle.
    for client in [&mut held, &mut trickling] {
        client.send(PREFACE).await;
        client.send(frame(SETTINGS, 0, 0, &[])).await;
        client.send(frame(HEADERS, 0, 1, &[0x82])).await;
    }
    let trickle = async {
        while trickling.try_send(frame(CONTINUATION, 0, 1, &[])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("it is cut off", trickle).await;
    held.rest().await;
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_client_that_hears_nothing_does_not_hold_up_the_stop() {
    let (_backend, sidecar) = with("header_timeout = \"200ms\"\ndrain_timeout = \"15s\"").await;
    let mut deaf = sidecar.connect().await;
    deaf.send(PREFACE).await;
    deaf.send(frame(SETTINGS, 0, 0, &[])).await;
    deaf.exactly(9).await;
    assert_eq!(sidecar.stop().await, Stopped::Clean);
}

#[tokio::test]
async fn what_may_not_be_asked_for_in_http_1_may_not_be_in_http_2() {
    let (backend, sidecar) = with("").await;
    let said = |path: &str, fields: &[(&str, &str)], body: &str| {
        let (head, flags) =
            (packed(path, fields), if body.is_empty() { END_STREAM | END_HEADERS } else { END_HEADERS });
        let mut said = [PREFACE.as_bytes(), &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, flags, 1, &head)].concat();
        if !body.is_empty() {
            said.extend(frame(DATA, END_STREAM, 1, body.as_bytes()));
        }
        said
    };
    for (what, said) in [
        ("all of the server", said("*", &[], "")),
        ("no path", said("orders", &[], "")),
        ("a body that does not come", said("/x", &[("content-length", "5")], "")),
        ("too short a body", said("/x", &[("content-length", "5")], "abc")),
        ("too long a body", said("/x", &[("content-length", "2")], "abc")),
        ("two lengths", said("/x", &[("content-length", "3"), ("content-length", "4")], "abc")),
        ("chunks", said("/x", &[("transfer-encoding", "chunked")], "abc")),
        ("a connection's field", said("/x", &[("connection", "close")], "")),
        ("another protocol", said("/x", &[("upgrade", "websocket")], "")),
        ("a line in a line", said("/x", &[("x-a", "b\r\nx-c: d")], "")),
        ("a large letter", said("/x", &[("X-A", "b")], "")),
        ("another host", said("/x", &[("host", "other.test")], "")),
    ] {
        let mut client = sidecar.connect().await;
        client.send(said).await;
        client.finish().await;
        client.rest().await;
        assert_eq!(backend.count(), 0, "{what}: {:?}", backend.seen());
    }
    let mut client = sidecar.connect().await;
    client.send(said("/x", &[("content-length", "4"), ("content-length", "4")], "body")).await;
    backend.has_seen(1).await;
    let seen = backend.seen().pop().expect("it came");
    assert_eq!((seen.values("content-length"), &seen.body[..]), (vec!["4"], &b"body"[..]));
}
