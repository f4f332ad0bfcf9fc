//! `response = "stream"`: the first caller gets the response as it arrives, and its end only when it is recorded.

use std::time::Duration;

use crate::support::*;

fn streaming(backend: &Backend) -> Setup {
    Setup::new(&backend.url()).route("response = \"stream\"")
}

/// A response in two halves, the second one when the gate is opened, in chunks or with a length.
fn halves(gate: &Gate, chunks: bool) -> Vec<Step> {
    let head = "HTTP/1.1 201 Created\r\nLocation: /orders/7\r\n";
    let wait = Step::Wait(gate.clone());
    if chunks {
        let framing = "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
        vec![say(format!("{head}{framing}")), wait, say("3\r\ntwo\r\n0\r\n\r\n")]
    } else {
        vec![say(format!("{head}Content-Length: 6\r\n\r\none")), wait, say("two")]
    }
}

/// What the client gets of the second half before the outcome is recorded.
async fn most_of_the_rest(client: &mut Wire, chunks: bool) {
    if chunks {
        assert_eq!(client.chunk().await, b"two");
    } else {
        assert_eq!(client.exactly(2).await, b"tw");
    }
}

/// The rest of the second half.
async fn end(client: &mut Wire, chunks: bool) {
    if chunks {
        assert_eq!(client.exactly(5).await, b"0\r\n\r\n");
    } else {
        assert_eq!(client.exactly(1).await, b"o");
    }
}

async fn first_half(client: &mut Wire, chunks: bool) {
    let head = client.head().await.expect("an answer");
    assert_eq!((head.first.as_str(), head.value("location")), ("HTTP/1.1 201 Created", Some("/orders/7")));
    if chunks {
        assert_eq!(client.chunk().await, b"one");
    } else {
        assert_eq!(head.value("content-length"), Some("6"));
        assert_eq!(client.exactly(3).await, b"one");
    }
}

#[track_caller]
fn is_all_of_it(answer: &Response) {
    assert_eq!((answer.status, answer.text(), answer.is_replay()), (201, "onetwo", true));
    assert_eq!(answer.value("location"), Some("/orders/7"));
}

on_every_store! {
    async fn the_first_caller_gets_the_beginning_while_the_backend_still_writes(store: &Store) {
        for chunks in [true, false] {
            let gate = Gate::new();
            let backend = Backend::scripted([halves(&gate, chunks)]).await;
            let sidecar = streaming(&backend).store(store).start().await;
            let request = order(&backend.url());
            let mut client = sidecar.begin(&request).await;
            first_half(&mut client, chunks).await;
            sidecar.ask(&request).await.refuses(409, "in-flight");
            gate.open();
            most_of_the_rest(&mut client, chunks).await;
            end(&mut client, chunks).await;
            // A client that has the complete response gets the replay at once.
            is_all_of_it(&sidecar.ask(&request).await);
            // The connection can be used again.
            is_all_of_it(&client.ask(&request).await);
            assert_eq!(backend.count(), 1);
            // The embedded store is opened anew in the next round.
            sidecar.stop().await;
        }
    }

    async fn a_first_caller_that_leaves_half_way_changes_nothing(store: &Store) {
        let gate = Gate::new();
        let backend = Backend::scripted([halves(&gate, true)]).await;
        let sidecar = streaming(&backend).store(store).start().await;
        let mut client = sidecar.begin(&order("k")).await;
        first_half(&mut client, true).await;
        client.reset();
        sidecar.ask(&order("k")).await.refuses(409, "in-flight");
        gate.open();
        until("the answer is kept", async || sidecar.ask(&order("k")).await.is_replay()).await;
        is_all_of_it(&sidecar.ask(&order("k")).await);
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_waits_for_the_record() {
    for chunks in [true, false] {
        let gate = Gate::new();
        let backend = Backend::scripted([halves(&gate, chunks)]).await;
        let redis = RedisServer::start();
        let setup = streaming(&backend).with("store", &format!("url = \"{}\"", redis.url()));
        let sidecar = setup.start().await;
        let mut client = sidecar.begin(&order("k")).await;
        first_half(&mut client, chunks).await;
        redis.freeze();
        gate.open();
        most_of_the_rest(&mut client, chunks).await;
        // A frozen store records nothing, so this read times out.
        let too_early = tokio::time::timeout(Duration::from_millis(300), client.exactly(1)).await;
        assert!(too_early.is_err(), "the end came before the record");
        redis.thaw();
        end(&mut client, chunks).await;
        is_all_of_it(&sidecar.ask(&order("k")).await);
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_lost_meanwhile_does_not_keep_the_end_from_its_caller() {
    let gate = Gate::new();
    let backend = Backend::scripted([halves(&gate, true)]).await;
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = format!("url = \"{}\"\ntimeout = \"300ms\"", redis.url());
    let sidecar = streaming(&backend).with("store", &store).start().await;
    let mut client = sidecar.connect().await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    client.send(order("k").bytes()).await;
    first_half(&mut client, true).await;
    redis.kill();
    gate.open();
    most_of_the_rest(&mut client, true).await;
    end(&mut client, true).await;
    redis.restart();
    until("the outcome is recorded after all", async || sidecar.ask(&order("k")).await.is_replay()).await;
    is_all_of_it(&sidecar.ask(&order("k")).await);
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_its_caller_too() {
    for (framing, status, then) in [
        ("Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n", 201, "already-completed"),
        ("Content-Length: 6\r\n\r\none", 201, "already-completed"),
        ("Content-Length: 6\r\n\r\none", 500, "outcome-unknown"),
    ] {
        let start = say(format!("HTTP/1.1 {status} Said\r\nLocation: /orders/7\r\n{framing}"));
        let backend = Backend::scripted([vec![start, Step::Close]]).await;
        let sidecar = streaming(&backend).start().await;
        let mut client = sidecar.begin(&order("k")).await;
        client.head().await.expect("an answer");
        let rest = client.rest().await;
        let rest = String::from_utf8_lossy(&rest);
        assert!(rest.contains("one") && !rest.ends_with("0\r\n\r\n") && rest.len() < 12, "{rest:?}");
        sidecar.ask(&order("k")).await.refuses(409, then);
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn an_answer_over_the_cap_goes_on_and_is_not_kept() {
    let (start, rest) = ("0123456789".repeat(300), "abcdefghij".repeat(20_000));
    for (framing, chunks) in
        [("Transfer-Encoding: chunked", true), ("Content-Length: 203000", false), ("X-No: length", false)]
    {
        let gate = Gate::new();
        let piece = |text: &str| if chunks { chunk(text.as_bytes()) } else { text.into() };
        let tail: &[u8] = if chunks { b"0\r\n\r\n" } else { b"" };
        let script = vec![
            say([format!("HTTP/1.1 201 Created\r\n{framing}\r\n\r\n").into_bytes(), piece(&start)].concat()),
            Step::Wait(gate.clone()),
            say([piece(&rest), tail.to_vec()].concat()),
            Step::Close,
        ];
        let backend = Backend::scripted([script]).await;
        let sidecar = streaming(&backend).route("max_response_body = \"4KiB\"").start().await;
        let first = sidecar.asking(&order("k"));
        backend.has_seen(1).await;
        gate.open();
        let answer = first.await.expect("an answer");
        assert!(answer.text() == format!("{start}{rest}"), "{framing}: {} bytes", answer.body.len());
        sidecar.ask(&order("k")).await.refuses(409, "already-completed");
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn a_caller_that_takes_its_time_holds_nothing_up() {
    // Larger than the socket buffers.
    let long = "x".repeat(32 << 20);
    let backend = Backend::scripted([vec![answer("201 Created", &long)]]).await;
    let setup = streaming(&backend).route("max_response_body = \"64MiB\"").with("server", "max_buffered = \"200MiB\"");
    let sidecar = setup.start().await;
    let mut slow = sidecar.begin(&order("k")).await;
    slow.head().await.expect("an answer");
    until("it is recorded", async || sidecar.ask(&order("k")).await.is_replay()).await;
    assert!(slow.exactly(long.len()).await == long.as_bytes());
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn an_answer_without_a_body_waits_as_a_whole() {
    let backend = Backend::scripted([
        vec![say("HTTP/1.1 204 No Content\r\n\r\n")],
        vec![say("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")],
    ])
    .await;
    let sidecar = streaming(&backend).start().await;
    for (key, status) in [("one", 204), ("two", 201)] {
        assert_eq!(sidecar.ask(&order(key)).await.status, status);
        let retry = sidecar.ask(&order(key)).await;
        assert_eq!((retry.status, retry.is_replay()), (status, true));
    }
}

#[tokio::test]
async fn an_answer_that_is_not_kept_is_streamed_and_frees_its_key() {
    let gate = Gate::new();
    let script = vec![
        say("HTTP/1.1 422 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"),
        Step::Wait(gate.clone()),
        say("0\r\n\r\n"),
    ];
    let backend = Backend::scripted([script]).await;
    let sidecar = streaming(&backend).start().await;
    let mut client = sidecar.begin(&order("k")).await;
    client.head().await.expect("an answer");
    assert_eq!(client.chunk().await, b"one");
    gate.open();
    assert_eq!(client.chunk().await, b"");
    assert_eq!(sidecar.ask(&order("k")).await.text(), r#"{"order":2}"#);
}

#[tokio::test]
async fn trailers_are_a_part_of_the_end() {
    let script =
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n";
    let backend = Backend::scripted([vec![say(script)]]).await;
    let sidecar = streaming(&backend).start().await;
    for is_replay in [false, true] {
        let answer = sidecar.ask(&order("k").line("TE: trailers")).await;
        assert_eq!((answer.text(), answer.is_replay()), ("abc", is_replay));
        assert_eq!(answer.trailers, [("x-sum".to_owned(), "6".to_owned())]);
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_waits_for_the_whole() {
    let backend = Backend::scripted([vec![say("HTTP/1.1 201 Created\r\n\r\none"), Step::Close]]).await;
    let sidecar = streaming(&backend).start().await;
    for is_replay in [false, true] {
        let mut client = sidecar.connect().await;
        client.send("POST /orders HTTP/1.0\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n").await;
        let answer = client.response().await;
        assert_eq!((answer.text(), answer.value("content-length"), answer.is_replay()), ("one", Some("3"), is_replay));
    }
}

#[tokio::test]
async fn repeats_that_wait_get_the_whole() {
    let gate = Gate::new();
    let backend = Backend::scripted([halves(&gate, true)]).await;
    let sidecar = streaming(&backend).route("on_concurrent = \"wait\"").start().await;
    let mut client = sidecar.begin(&order("k")).await;
    first_half(&mut client, true).await;
    let repeat = sidecar.asking(&order("k"));
    until("it waits", async || sidecar.metric("onlyonce_waiting{route=\"orders\"}").await == 1.0).await;
    gate.open();
    is_all_of_it(&repeat.await.expect("an answer"));
    most_of_the_rest(&mut client, true).await;
    end(&mut client, true).await;
}

#[tokio::test]
async fn the_time_for_an_answer_is_the_time_for_its_head() {
    let gate = Gate::new();
    let backend = Backend::scripted([halves(&gate, true)]).await;
    let sidecar = streaming(&backend).with("upstream", "response_timeout = \"1s\"").start().await;
    let mut client = sidecar.begin(&order("k")).await;
    first_half(&mut client, true).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    gate.open();
    most_of_the_rest(&mut client, true).await;
    end(&mut client, true).await;
}

#[tokio::test]
async fn trailers_behind_what_is_not_kept_say_no_more_than_they_may() {
    let backend = ByHand::start().await;
    let sidecar = Setup::new(&backend.url()).route("response = \"stream\"\nmax_response_body = \"1KiB\"").start().await;
    let asking = sidecar.asking(&order("k").line("TE: trailers"));
    let mut backend = backend.accept().await;
    backend.request().await.expect("a request");
    let head = "HTTP/1.1 200 OK\r\nTrailer: X-Sum, Location\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = chunk("x".repeat(2048).as_bytes());
    backend.send([head.as_bytes(), &body, b"0\r\nX-Sum: 6\r\nLocation: /elsewhere\r\n\r\n"].concat()).await;
    let answer = asking.await.expect("an answer");
    assert_eq!((answer.body.len(), &answer.trailers[..]), (2048, &[("x-sum".to_owned(), "6".to_owned())][..]));
}
