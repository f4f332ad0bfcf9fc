//! Upgrades: WebSocket on unguarded routes, and no other protocol.

use crate::support::*;

const ASKED: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: X-One, Upgrade\r\nUpgrade: WebSocket\r\nX-One: 1\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

fn asking() -> Request {
    request("GET", "/chat").line(ASKED)
}

async fn by_hand() -> (ByHand, Sidecar) {
    let backend = ByHand::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    (backend, sidecar)
}

/// Both ends of a tunnel.
async fn opened(backend: &ByHand, sidecar: &Sidecar) -> (Wire, Wire) {
    let mut client = sidecar.begin(&asking()).await;
    let mut backend = backend.accept().await;
    backend.head().await.expect("a request");
    backend.send(SWITCHED).await;
    assert_eq!(client.head().await.expect("an answer").first, "HTTP/1.1 101 Switching Protocols");
    (client, backend)
}

#[tokio::test]
async fn both_sides_agree_and_then_bytes_cross_as_they_come() {
    let (backend, sidecar) = by_hand().await;
    let mut client = sidecar.begin(&asking()).await;
    let mut backend = backend.accept().await;
    let asked = backend.head().await.expect("a request");
    assert_eq!((asked.value("connection"), asked.value("upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(asked.value("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    // The first message may arrive together with the response.
    backend.send([SWITCHED.as_bytes(), b"\x81\x02hi"].concat()).await;
    let told = client.head().await.expect("an answer");
    assert_eq!(told.first, "HTTP/1.1 101 Switching Protocols");
    assert_eq!((told.value("connection"), told.value("upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(told.value("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(!told.has("x-one") && !told.has("transfer-encoding") && !told.has("content-length"), "{told:?}");
    assert_eq!(client.exactly(4).await, b"\x81\x02hi");
    for piece in [&b"\x81\x05hello"[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 100_000]] {
        client.send(piece).await;
        assert!(backend.exactly(piece.len()).await == piece);
        backend.send(piece).await;
        assert!(client.exactly(piece.len()).await == piece);
    }
}

#[tokio::test]
async fn each_side_ends_for_the_other() {
    let (listening, sidecar) = by_hand().await;
    let (mut client, mut backend) = opened(&listening, &sidecar).await;
    client.finish().await;
    backend.ends().await;
    backend.send("bye").await;
    drop(backend);
    assert_eq!(client.rest().await, b"bye");
    drop(client);

    let (mut client, backend) = opened(&listening, &sidecar).await;
    drop(backend);
    client.ends().await;
    drop(client);

    let (client, mut backend) = opened(&listening, &sidecar).await;
    client.reset();
    backend.ends().await;
    drop(backend);
    until("the places are free", async || sidecar.metric("onlyonce_connections").await == 0.0).await;
}

#[tokio::test]
async fn a_tunnel_is_a_connection_like_others_and_the_drain_waits_for_it() {
    let (backend, sidecar) = by_hand().await;
    let (mut client, mut backend) = opened(&backend, &sidecar).await;
    assert_eq!(sidecar.metric("onlyonce_connections").await, 1.0);
    let stopped = sidecar.begin_to_stop();
    client.send("still here").await;
    assert_eq!(backend.exactly(10).await, b"still here");
    assert!(!stopped.is_finished());
    drop(client);
    backend.ends().await;
    drop(backend);
    assert_eq!(within("the drain", stopped).await.expect("no panic"), onlyonce::run::Stopped::Clean);
}

#[tokio::test]
async fn the_backend_may_say_no() {
    let backend = Backend::scripted([vec![answer("426 Upgrade Required\r\nUpgrade: websocket", "no")]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut client = sidecar.connect().await;
    let no = client.ask(&asking()).await;
    assert_eq!((no.status, no.text(), no.has("upgrade")), (426, "no", false));
    // The connection continues with HTTP.
    assert_eq!(client.ask(&request("GET", "/")).await.status, 201);
    assert_eq!(backend.count(), 2);
}

#[tokio::test]
async fn other_wishes_do_not_cross() {
    for wish in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0",
        "Connection: Upgrade\r\nUpgrade: websocket2",
        // Only one of the two fields.
        "Upgrade: websocket",
        "Connection: upgrade",
        // It has a body.
        "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0",
    ] {
        let backend = Backend::start().await;
        let sidecar = Setup::new(&backend.url()).start().await;
        assert_eq!(sidecar.ask(&request("GET", "/").line(wish)).await.status, 201, "{wish}");
        let seen = backend.only();
        assert!(!seen.has("upgrade") && !seen.has("connection") && !seen.has("http2-settings"), "{seen:?}");
    }
}

#[tokio::test]
async fn of_several_wishes_only_websocket_crosses() {
    let (backend, sidecar) = by_hand().await;
    let wishes = "Connection: keep-alive, Upgrade\r\nUpgrade: h2c, websocket";
    let _client = sidecar.begin(&request("GET", "/").line(wishes)).await;
    let asked = backend.accept().await.head().await.expect("a request");
    assert_eq!((asked.values("connection"), asked.values("upgrade")), (vec!["upgrade"], vec!["websocket"]));
}

#[tokio::test]
async fn a_change_of_protocol_that_nobody_asked_for_is_a_failure() {
    for (asked, switched) in [
        (request("GET", "/"), SWITCHED.to_owned()),
        (request("GET", "/").line("Connection: Upgrade\r\nUpgrade: h2c"), SWITCHED.replace("WebSocket", "h2c")),
        (asking(), SWITCHED.replace("WebSocket", "h2c")),
        (asking(), SWITCHED.replace("X-One, Upgrade", "X-One")),
    ] {
        let backend = Backend::scripted([vec![say(switched)]]).await;
        let sidecar = Setup::new(&backend.url()).start().await;
        sidecar.ask(&asked).await.refuses(502, "upstream-failed");
    }
    // The outcome of a guarded request is unknown then.
    let backend = Backend::scripted([vec![say(SWITCHED)]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
    sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn an_offer_of_another_protocol_on_a_guarded_route_is_ignored() {
    for offer in [
        // Java's HttpClient by its defaults, and `curl --http2`.
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
        ASKED,
        "Connection: Upgrade\r\nUpgrade: TLS/1.2, h2c, websocket",
        "Upgrade: h2c",
    ] {
        let backend = Backend::start().await;
        let sidecar = Setup::new(&backend.url()).start().await;
        let mut client = sidecar.connect().await;
        for (request, is_replay) in
            [(order("k").line(offer), false), (order("k").line(offer), true), (order("k"), true)]
        {
            let answer = client.ask(&request).await;
            assert_eq!((answer.status, answer.is_replay()), (201, is_replay), "{offer}");
            assert!(!answer.has("upgrade") && !answer.has("connection"), "{answer:?}");
        }
        let seen = backend.only();
        assert!(!seen.has("upgrade") && !seen.has("connection") && !seen.has("http2-settings"), "{seen:?}");
        assert_eq!(seen.body, br#"{"item":"book"}"#);
        // Errors that an Upgrade field does not excuse.
        client.ask(&order("").line(offer)).await.refuses(400, "invalid-key");
    }
}

#[tokio::test]
async fn a_guarded_route_opens_no_tunnel_unless_it_is_off() {
    // The backend never sees the Upgrade field.
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    assert_eq!(sidecar.ask(&order("k").line(ASKED)).await.status, 201);
    assert_eq!(sidecar.ask(&post("/orders").line(ASKED)).await.status, 201);
    for seen in backend.seen() {
        assert!(!seen.has("upgrade") && !seen.has("connection"), "{seen:?}");
    }

    let backend = ByHand::start().await;
    let sidecar = Setup::new(&backend.url()).route("mode = \"off\"").start().await;
    let mut client = sidecar.begin(&post("/orders").line(ASKED)).await;
    let mut backend = backend.accept().await;
    assert_eq!(backend.head().await.expect("a request").value("upgrade"), Some("websocket"));
    backend.send(SWITCHED).await;
    assert_eq!(client.head().await.expect("an answer").first, "HTTP/1.1 101 Switching Protocols");
}

#[tokio::test]
async fn with_an_http2_backend_no_wish_crosses() {
    let backend = http2::Http2Backend::start([]).await;
    let sidecar = Setup::new(&backend.url()).with("upstream", "http2 = true").start().await;
    assert_eq!(sidecar.ask(&asking()).await.status, 201);
    assert_eq!((backend.seen()[0].value("upgrade"), backend.seen()[0].value("connection")), (None, None));
}
