//! Client connections: kept open, limited, and closed when they are too slow.

use crate::support::*;

async fn with(server: &str) -> (Backend, Sidecar) {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).with("server", server).start().await;
    (backend, sidecar)
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let (backend, sidecar) = with("").await;
    let mut client = sidecar.connect().await;
    for key in ["one", "two", "one"] {
        assert_eq!(client.ask(&order(key)).await.status, 201);
    }
    client.ask(&order("")).await.refuses(400, "invalid-key");
    assert_eq!(client.ask(&request("GET", "/")).await.status, 201);
    assert_eq!(backend.count(), 3);
}

#[tokio::test]
async fn a_client_may_ask_for_the_end_of_its_connection() {
    let (_backend, sidecar) = with("").await;
    let mut client = sidecar.connect().await;
    assert_eq!(client.ask(&order("k").line("Connection: close")).await.status, 201);
    client.ends().await;
}

#[tokio::test]
async fn requests_that_are_sent_in_one_go_are_answered_in_order() {
    let (backend, sidecar) = with("").await;
    let mut client = sidecar.connect().await;
    let requests = [order("one"), order("two"), order("one"), order("three").chunked(), order("two")];
    client.send(requests.iter().flat_map(Request::bytes).collect::<Vec<u8>>()).await;
    for (expected, is_replay) in [(1, false), (2, false), (1, true), (3, false), (2, true)] {
        let answer = client.response().await;
        assert_eq!((answer.text(), answer.is_replay()), (&*format!("{{\"order\":{expected}}}"), is_replay));
    }
    assert_eq!(backend.count(), 3);
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served() {
    let (backend, sidecar) = with("").await;
    for is_replay in [false, true] {
        let mut client = sidecar.connect().await;
        client.send("POST /orders HTTP/1.0\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\n{}").await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.is_replay()), (201, is_replay));
        client.ends().await;
    }
    assert_eq!(backend.only().head.first, "POST /orders HTTP/1.1");
}

#[tokio::test]
async fn a_head_that_takes_too_long_is_cut_off() {
    let (backend, sidecar) = with("header_timeout = \"100ms\"").await;
    let mut fresh = sidecar.connect().await;
    fresh.send("POST /orders HTTP/1.1\r\nHost: a\r\n").await;
    fresh.ends().await;
    let mut kept = sidecar.connect().await;
    kept.ask(&order("k")).await;
    kept.send("POST /orders HTTP/1.1\r\nHost: a\r\n").await;
    kept.ends().await;
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_cut_off_too() {
    let (backend, sidecar) = with("header_timeout = \"200ms\"").await;
    let mut client = sidecar.connect().await;
    let slowly = async {
        while client.try_send("x").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    within("it is cut off", slowly).await;
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let (_backend, sidecar) = with("idle_timeout = \"100ms\"").await;
    let mut silent = sidecar.connect().await;
    silent.ends().await;
    let mut kept = sidecar.connect().await;
    kept.ask(&order("k")).await;
    kept.ends().await;
}

#[tokio::test]
async fn a_connection_that_waits_for_its_answer_is_not_idle() {
    let (backend, gate) = Backend::gated().await;
    let times = "idle_timeout = \"50ms\"\nheader_timeout = \"50ms\"";
    let sidecar = Setup::new(&backend.url()).with("server", times).start().await;
    let client = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    // Another connection is opened and closed meanwhile.
    sidecar.connect().await.ends().await;
    sidecar.connect().await.ends().await;
    gate.open();
    assert_eq!(client.await.expect("an answer").status, 201);
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_their_turn() {
    let (backend, sidecar) = with("max_connections = 2").await;
    let mut first = sidecar.connect().await;
    let mut second = sidecar.connect().await;
    first.ask(&order("one")).await;
    second.ask(&order("two")).await;
    let third = sidecar.asking(&order("three"));
    // Connections with a place are served, and no others.
    for _ in 0..10 {
        first.ask(&order("one")).await;
        second.ask(&order("two")).await;
    }
    assert_eq!((backend.count(), third.is_finished()), (2, false));
    drop(first);
    assert_eq!(third.await.expect("an answer").status, 201);
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
    let big = vec![answer("201 Created", "x".repeat(8 << 20))];
    let backend = Backend::scripted([big]).await;
    let setup = Setup::new(&backend.url()).with("server", "idle_timeout = \"1s\"\nheader_timeout = \"1s\"");
    let sidecar = setup.start().await;
    let client = sidecar.begin(&post("/elsewhere")).await;
    backend.has_seen(1).await;
    until("it is cut off", async || sidecar.metric("onlyonce_connections").await == 0.0).await;
    drop(client);
}

#[tokio::test]
async fn a_stream_that_never_ends_ends_with_its_client() {
    let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    let backend = Backend::scripted([vec![say(events), Step::Hang]]).await;
    let setup = Setup::new(&backend.url()).with("server", "idle_timeout = \"1s\"\nheader_timeout = \"1s\"");
    let sidecar = setup.start().await;
    let client = sidecar.begin(&request("GET", "/events")).await;
    backend.has_seen(1).await;
    // Longer than every timeout: a silent response is not an idle connection while the client is there.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(sidecar.metric("onlyonce_connections").await, 1.0);
    drop(client);
    until("its connection is given up", async || sidecar.metric("onlyonce_connections").await == 0.0).await;
}

#[tokio::test]
async fn a_client_that_has_said_all_it_has_to_say_gets_a_long_answer_to_its_end() {
    let backend = ByHand::start().await;
    let setup = Setup::new(&backend.url()).with("server", "idle_timeout = \"2s\"\nheader_timeout = \"1s\"");
    let sidecar = setup.start().await;
    let mut client = sidecar.begin(&request("GET", "/download")).await;
    let mut upstream = backend.accept().await;
    upstream.request().await.expect("a request");
    client.finish().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n").await;
    for _ in 0..16 {
        // Longer than the timeout in total, shorter between two bytes.
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        upstream.send("x").await;
    }
    assert_eq!(client.response().await.text(), "x".repeat(16));
}
