//! The state of a key for each outcome of an attempt.

use crate::support::backend::Script;
use crate::support::*;

async fn scripted(script: Script, route: &str) -> (Backend, Sidecar) {
    let backend = Backend::scripted([script]).await;
    let sidecar = Setup::new(&backend.url()).route(route).start().await;
    (backend, sidecar)
}

/// The head of a success that announces more bytes than are sent.
const CREATED: &str = "HTTP/1.1 201 Created\r\nLocation: /orders/7\r\nSet-Cookie: a=1\r\n";

fn half(framing: &str) -> Step {
    say(format!("{CREATED}{framing}\r\n\r\n"))
}

on_every_store! {
    async fn where_nobody_listens_the_key_is_free_again(store: &Store) {
        let sidecar = Setup::new(&nobody()).store(store).start().await;
        for _ in 0..2 {
            sidecar.ask(&order("k")).await.refuses(502, "upstream-unreachable");
        }
        let series = "onlyonce_records_total{route=\"orders\",state=\"released\"}";
        assert_eq!(sidecar.metric(series).await, 2.0);
    }

    async fn a_connection_that_breaks_after_the_request_blocks_the_key(store: &Store) {
        for end in [Step::Reset, Step::Close] {
            let backend = Backend::scripted([vec![end.clone()]]).await;
            let sidecar = Setup::new(&backend.url()).store(store).start().await;
            let request = order(&backend.url());
            sidecar.ask(&request).await.refuses(502, "upstream-failed");
            for _ in 0..2 {
                let retry = sidecar.ask(&request).await;
                retry.refuses(409, "outcome-unknown");
                assert_eq!(retry.retry_after(), None, "there is nothing to wait for");
            }
            assert_eq!(backend.count(), 1);
            // The embedded store is opened anew in the next round.
            sidecar.stop().await;
        }
    }

    async fn a_route_may_retry_once_the_lease_has_run_out(store: &Store) {
        let backend = Backend::scripted([vec![Step::Reset]]).await;
        let setup = Setup::new(&backend.url()).store(store).route("on_unknown = \"retry\"\nlease = \"1s\"");
        let sidecar = setup.start().await;
        sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
        until("a retry takes over", async || {
            let retry = sidecar.ask(&order("k")).await;
            if retry.status == 409 {
                retry.refuses(409, "in-flight");
                assert!(retry.retry_after().is_some_and(|seconds| seconds >= 1));
            }
            retry.status == 201
        })
        .await;
        let attempts: Vec<_> = backend.seen().iter().map(|seen| seen.value("onlyonce-attempt").map(str::to_owned)).collect();
        assert_eq!(attempts, [None, Some("2".to_owned())]);
        assert!(sidecar.ask(&order("k")).await.is_replay());
    }

    async fn an_attempt_that_outlasts_its_lease_keeps_its_key(store: &Store) {
        let (backend, gate) = Backend::gated().await;
        let setup = Setup::new(&backend.url()).store(store).route("on_unknown = \"retry\"\nlease = \"1s\"");
        let sidecar = setup.start().await;
        let first = sidecar.asking(&order("k"));
        backend.has_seen(1).await;
        // It renews at a third of the lease.
        let renewals = "onlyonce_store_duration_seconds_count{op=\"renew\"}";
        until("more than a lease has passed", async || {
            sidecar.ask(&order("k")).await.refuses(409, "in-flight");
            sidecar.metric(renewals).await >= 5.0
        })
        .await;
        gate.open();
        let first = first.await.expect("an answer");
        let retry = sidecar.ask(&order("k")).await;
        assert_eq!((retry.is_replay(), retry.body), (true, first.body));
        assert_eq!(backend.count(), 1);
    }

    async fn a_success_whose_body_breaks_off_was_a_success(store: &Store) {
        for (framing, end) in [
            ("Content-Length: 10\r\n\r\nabc", Step::Close),
            ("Content-Length: 10\r\n\r\nabc", Step::Reset),
            ("Content-Length: 10", Step::Close),
            ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc", Step::Close),
            ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Step::Reset),
        ] {
            let backend = Backend::scripted([vec![half(framing), end]]).await;
            let sidecar = Setup::new(&backend.url()).store(store).start().await;
            let key = framing.len().to_string() + &backend.url();
            sidecar.ask(&order(&key)).await.refuses(502, "upstream-failed");
            let retry = sidecar.ask(&order(&key)).await;
            retry.refuses(409, "already-completed");
            assert_eq!((retry.json()["original_status"].as_u64(), retry.value("location")), (Some(201), Some("/orders/7")));
            assert!(!retry.has("set-cookie") && retry.retry_after().is_none());
            assert_eq!(backend.count(), 1);
            // The embedded store is opened anew in the next round.
            sidecar.stop().await;
        }
    }

    async fn an_answer_that_is_too_large_goes_to_the_first_caller_alone(store: &Store) {
        let (start, rest) = ("0123456789abcdef".repeat(1000), "fedcba9876543210".repeat(4000));
        let length = start.len() + rest.len();
        let heads = [
            (format!("Content-Length: {length}\r\n\r\n"), false),
            ("Transfer-Encoding: chunked\r\n\r\n".to_owned(), true),
        ];
        for (framing, chunks) in heads {
            let gate = Gate::new();
            let piece = |text: &str| if chunks { chunk(text.as_bytes()) } else { text.into() };
            let end: &[u8] = if chunks { b"0\r\n\r\n" } else { b"" };
            let script = vec![
                say(format!("{CREATED}{framing}")),
                say(piece(&start)),
                Step::Wait(gate.clone()),
                say([piece(&rest), end.to_vec()].concat()),
            ];
            let backend = Backend::scripted([script]).await;
            let setup = Setup::new(&backend.url()).store(store).route("max_response_body = \"4KiB\"");
            let sidecar = setup.start().await;
            let key = chunks.to_string();
            let mut first = sidecar.begin(&order(&key)).await;
            let head = first.head().await.expect("an answer");
            assert_eq!((head.first.as_str(), head.value("location")), ("HTTP/1.1 201 Created", Some("/orders/7")));
            // It is settled before the first byte leaves.
            let retry = sidecar.ask(&order(&key)).await;
            retry.refuses(409, "already-completed");
            assert_eq!((retry.json()["original_status"].as_u64(), retry.value("location")), (Some(201), Some("/orders/7")));
            gate.open();
            let body = if chunks {
                let mut body = Vec::new();
                loop {
                    let data = first.chunk().await;
                    if data.is_empty() {
                        break body;
                    }
                    body.extend(data);
                }
            } else {
                assert_eq!(head.value("content-length"), Some(length.to_string().as_str()));
                first.exactly(length).await
            };
            assert!(body == [start.as_bytes(), rest.as_bytes()].concat());
            assert_eq!(backend.count(), 1);
            sidecar.stop().await;
        }
    }
}

#[tokio::test]
async fn once_somebody_listens_a_request_that_was_never_sent_runs() {
    let address = nobody();
    let sidecar = Setup::new(&address).start().await;
    sidecar.ask(&order("k")).await.refuses(502, "upstream-unreachable");
    let backend = Backend::listening(&address).await;
    assert_eq!(sidecar.ask(&order("k")).await.text(), r#"{"order":1}"#);
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_backend_that_closes_before_it_reads_leaves_a_key_as_its_answer_says() {
    let by_hand = ByHand::start().await;
    let sidecar = Setup::new(&by_hand.url()).start().await;
    let first = sidecar.asking(&order("k"));
    by_hand.accept().await.reset();
    let first = first.await.expect("an answer");
    let retry = sidecar.asking(&order("k"));
    // It depends on timing whether a byte was sent; the two responses must agree.
    if first.problem().1 == "upstream-unreachable" {
        assert!(by_hand.accept().await.request().await.is_some());
    } else {
        first.refuses(502, "upstream-failed");
        retry.await.expect("an answer").refuses(409, "outcome-unknown");
    }
}

#[tokio::test]
async fn half_a_head_is_no_answer() {
    for start in ["HTTP/1.1 201 Cre", "HTTP/1.1 201 Created\r\nLocation: /orders/7\r\n", "no HTTP at all\r\n\r\n"] {
        let (backend, sidecar) = scripted(vec![say(start), Step::Close], "").await;
        sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
        sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn a_failure_whose_body_breaks_off_tells_nothing() {
    for status in ["500 Internal Server Error", "404 Not Found"] {
        let start = format!("HTTP/1.1 {status}\r\nContent-Length: 10\r\n\r\nabc");
        let (backend, sidecar) = scripted(vec![say(start), Step::Close], "").await;
        sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
        sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_whole() {
    let (backend, sidecar) = scripted(vec![say(format!("{CREATED}\r\nall of it")), Step::Close], "").await;
    assert_eq!(sidecar.ask(&order("k")).await.text(), "all of it");
    let retry = sidecar.ask(&order("k")).await;
    assert_eq!((retry.text(), retry.is_replay(), backend.count()), ("all of it", true, 1));
}

#[tokio::test]
async fn each_policy_keeps_releases_and_holds_its_statuses() {
    /// The response to a retry.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Then {
        Replay,
        Run,
        Unknown,
        InFlight,
    }
    use Then::*;
    for (route, rows) in [
        (
            "policy = \"standard\"",
            &[
                (200, Replay),
                (302, Replay),
                (307, Run),
                (400, Run),
                (409, Run),
                (422, Run),
                (429, Run),
                (500, Run),
                (501, Run),
                (503, Run),
                (502, Unknown),
                (504, Unknown),
                (522, Unknown),
            ][..],
        ),
        (
            "policy = \"strict\"",
            &[
                (200, Replay),
                (400, Replay),
                (422, Replay),
                (500, Replay),
                (401, Run),
                (409, Run),
                (425, Run),
                (429, Run),
                (503, Run),
                (308, Run),
                (502, Unknown),
                (504, Unknown),
            ],
        ),
        (
            "policy = \"lenient\"",
            &[(204, Replay), (308, Run), (404, Run), (500, Run), (502, InFlight), (504, InFlight)],
        ),
        (
            "store = [\"422\"]\nrelease = [\"201\"]\nhold = [\"4xx\", \"503\"]",
            &[(422, Replay), (201, Run), (404, Unknown), (503, Unknown), (500, Run)],
        ),
        ("on_unknown = \"retry\"", &[(502, InFlight), (200, Replay), (500, Run)]),
    ] {
        let backend = Backend::start().await;
        let sidecar = Setup::new(&backend.url()).route(route).start().await;
        for (status, expected) in rows {
            let body = if *status == 204 { "" } else { "its own" };
            backend.then(vec![answer(&format!("{status} Said"), body)]);
            let key = order(&status.to_string());
            let first = sidecar.ask(&key).await;
            assert_eq!((first.status, first.text()), (*status, body), "the first caller gets what the backend said");
            let before = backend.count();
            let retry = sidecar.ask(&key).await;
            let then = match (retry.status, backend.count() - before) {
                (_, 1) => Run,
                (_, 0) if retry.is_replay() => Replay,
                _ if retry.problem().1 == "outcome-unknown" => Unknown,
                _ => InFlight,
            };
            assert_eq!(then, *expected, "{status} with {route}");
        }
    }
}

#[tokio::test]
async fn a_backend_that_knows_may_decide_for_itself() {
    let backend = Backend::scripted([
        vec![answer("422 No\r\nOnlyonce-Outcome: store", "declined")],
        vec![answer("201 Created\r\nOnlyonce-Outcome: release", "dry run")],
        vec![answer("200 OK\r\nOnlyonce-Outcome: hold", "perhaps")],
        vec![answer("422 No\r\nOnlyonce-Outcome: nonsense", "no")],
    ])
    .await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for key in ["store", "release", "hold", "nonsense"] {
        let first = sidecar.ask(&order(key)).await;
        assert!(!first.has("onlyonce-outcome"), "{first:?}");
    }
    let kept = sidecar.ask(&order("store")).await;
    assert_eq!((kept.status, kept.text(), kept.is_replay()), (422, "declined", true));
    assert!(!kept.has("onlyonce-outcome"));
    sidecar.ask(&order("hold")).await.refuses(409, "outcome-unknown");
    assert_eq!(backend.count(), 4);
    assert_eq!(sidecar.ask(&order("release")).await.text(), r#"{"order":5}"#);
    assert_eq!(sidecar.ask(&order("nonsense")).await.text(), r#"{"order":6}"#);
}

#[tokio::test]
async fn a_backend_that_contradicts_itself_holds_the_key() {
    let contradictions = [
        "Onlyonce-Outcome: release\r\nOnlyonce-Outcome: store",
        "Onlyonce-Outcome: store\r\nOnlyonce-Outcome: release",
        "Onlyonce-Outcome: release\r\nX: y\r\nonlyonce-outcome: nonsense",
        "Onlyonce-Outcome: store, release",
        "Onlyonce-Outcome: release\r\nOnlyonce-Outcome: release\r\nOnlyonce-Outcome: hold",
    ];
    let agreeing = ["Onlyonce-Outcome: store\r\nOnlyonce-Outcome: store", "Onlyonce-Outcome: store, store"];
    let scripts = contradictions.iter().chain(&agreeing).map(|lines| vec![answer(&format!("422 No\r\n{lines}"), "no")]);
    let backend = Backend::scripted(scripts.collect::<Vec<_>>()).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for (index, lines) in contradictions.iter().enumerate() {
        let order = order(&format!("contradiction-{index}"));
        let first = sidecar.ask(&order).await;
        assert_eq!((first.status, first.has("onlyonce-outcome")), (422, false), "{lines}");
        sidecar.ask(&order).await.refuses(409, "outcome-unknown");
    }
    for (index, lines) in agreeing.iter().enumerate() {
        let order = order(&format!("agreeing-{index}"));
        sidecar.ask(&order).await;
        assert!(sidecar.ask(&order).await.is_replay(), "{lines}");
    }
    assert_eq!(backend.count(), contradictions.len() + agreeing.len());
}

#[tokio::test]
async fn a_success_that_is_told_to_be_held_and_too_large_stays_held() {
    let script = vec![answer("200 OK\r\nOnlyonce-Outcome: hold", "x".repeat(10_000))];
    let (backend, sidecar) = scripted(script, "max_response_body = \"1KiB\"").await;
    assert_eq!(sidecar.ask(&order("k")).await.body.len(), 10_000);
    sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn an_answer_for_which_there_is_no_memory_is_streamed_and_not_kept() {
    let gate = Gate::new();
    let half = "y".repeat(40_000);
    let backend = Backend::scripted([
        vec![
            say("HTTP/1.1 201 Created\r\nContent-Length: 80000\r\n\r\n"),
            say(&half),
            Step::Wait(gate.clone()),
            say(&half),
        ],
        vec![answer("201 Created\r\nLocation: /orders/2", "z".repeat(100_000))],
    ])
    .await;
    let setup = Setup::new(&backend.url()).with("server", "max_buffered = \"100KiB\"");
    let sidecar = setup.route("max_request_body = \"1KiB\"\nmax_response_body = \"100KiB\"").start().await;
    let first = sidecar.asking(&order("one"));
    until("half of an answer is held", async || sidecar.metric("onlyonce_buffered_bytes").await > 20_000.0).await;
    let second = sidecar.ask(&order("two")).await;
    assert_eq!((second.status, second.text()), (201, &*"z".repeat(100_000)));
    let retry = sidecar.ask(&order("two")).await;
    retry.refuses(409, "already-completed");
    assert_eq!(retry.value("location"), Some("/orders/2"));
    gate.open();
    assert_eq!(first.await.expect("an answer").text(), "y".repeat(80_000));
    assert_eq!(backend.count(), 2);
}

#[tokio::test]
async fn a_client_that_is_told_504_gets_the_answer_later() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).with("upstream", "response_timeout = \"100ms\"").start().await;
    sidecar.ask(&order("k")).await.refuses(504, "upstream-timeout");
    sidecar.ask(&order("k")).await.refuses(409, "in-flight");
    gate.open();
    until("the attempt is over", async || sidecar.ask(&order("k")).await.is_replay()).await;
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn only_after_the_attempt_s_own_time_is_its_outcome_unknown() {
    let times = "response_timeout = \"100ms\"\nattempt_timeout = \"200ms\"";
    for (script, code) in [
        (vec![Step::Hang], "outcome-unknown"),
        (vec![say("HTTP/1.1 201 Cre"), Step::Hang], "outcome-unknown"),
        (vec![half("Content-Length: 10\r\n\r\nabc"), Step::Hang], "already-completed"),
        (vec![say("HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\nabc"), Step::Hang], "outcome-unknown"),
    ] {
        let backend = Backend::scripted([script]).await;
        let setup = Setup::new(&backend.url()).with("upstream", times).route("wait_timeout = \"100ms\"");
        let sidecar = setup.start().await;
        sidecar.ask(&order("k")).await.refuses(504, "upstream-timeout");
        until("the attempt is given up", async || {
            let retry = sidecar.ask(&order("k")).await;
            assert_eq!(retry.status, 409);
            retry.problem().1 != "in-flight"
        })
        .await;
        sidecar.ask(&order("k")).await.refuses(409, code);
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn a_backend_that_closes_kept_connections_never_gets_a_request_twice() {
    // Each connection is closed right after a response that promised to keep it, or when the next request arrives.
    let keeps = || vec![Step::Answer, Step::Close];
    let drops = || vec![Step::Close];
    let backend = Backend::scripted((0..100).map(|n| if n % 5 == 4 { drops() } else { keeps() })).await;
    let setup = Setup::new(&backend.url()).with("upstream", "guarded_idle = \"4s\"").with("server", "threads = 1");
    let sidecar = setup.start().await;
    for n in 0..100 {
        let request = order(&n.to_string());
        let first = sidecar.ask(&request).await;
        let retry = sidecar.ask(&request).await;
        if first.status == 201 {
            assert_eq!((retry.is_replay(), retry.body), (true, first.body));
        } else {
            first.refuses(502, "upstream-failed");
            retry.refuses(409, "outcome-unknown");
        }
    }
    let mut keys: Vec<_> = backend.seen().iter().map(|seen| seen.value("idempotency-key").map(str::to_owned)).collect();
    let all = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), all, "a key reached the backend twice");
}

#[tokio::test]
async fn a_request_lost_on_a_kept_connection_is_not_sent_again() {
    let backend = Backend::scripted([vec![Step::Answer], vec![Step::Close]]).await;
    let setup = Setup::new(&backend.url()).with("upstream", "guarded_idle = \"4s\"").with("server", "threads = 1");
    let sidecar = setup.start().await;
    assert_eq!(sidecar.ask(&order("one")).await.status, 201);
    sidecar.ask(&order("two")).await.refuses(502, "upstream-failed");
    sidecar.ask(&order("two")).await.refuses(409, "outcome-unknown");
    assert_eq!((backend.count(), backend.connections()), (2, 1));
}

#[tokio::test]
async fn guarded_requests_may_have_connections_of_their_own() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url()).with("upstream", "guarded_idle = \"0s\"");
    let sidecar = setup.start().await;
    for count in 1..=3 {
        sidecar.ask(&order(&count.to_string())).await;
        assert_eq!(backend.connections(), count);
    }
}
