//! The store is reachable over a slow link.

use std::time::Duration;

use crate::support::*;

/// A Redis behind a slow link, and a sidecar with a short `store.timeout`.
async fn behind_a_link(upstream: &str, store: &str) -> (RedisServer, FaultProxy, Sidecar) {
    let redis = RedisServer::start();
    let link = FaultProxy::before(redis.port()).await;
    let store = format!("url = \"{}\"\ntimeout = \"400ms\"\n{store}", link.redis_url());
    let sidecar = Setup::new(upstream).with("store", &store).start().await;
    until("the store is there", async || is_up(&sidecar).await).await;
    (redis, link, sidecar)
}

async fn is_up(sidecar: &Sidecar) -> bool {
    sidecar.admin("/readyz?store=1").await.status == 200
}

fn pausing(pause: u64) -> Faults {
    Faults { pause: Duration::from_millis(pause), ..Faults::default() }
}

async fn calls(sidecar: &Sidecar, op: &str) -> f64 {
    sidecar.metric(&format!("onlyonce_store_duration_seconds_count{{op=\"{op}\"}}")).await
}

/// A response that is stored apart from its record.
fn large() -> Step {
    answer("201 Created\r\nContent-Type: application/pdf", vec![b'x'; 1_000_000])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_repeat_one_large_answer_over_a_slow_link_all_get_it() {
    const CLIENTS: usize = 40;
    const CHUNKS: usize = 16;
    let backend = Backend::scripted([vec![large()]]).await;
    let (_redis, link, sidecar) = behind_a_link(&backend.url(), "").await;
    // One transfer takes longer than a call may.
    link.set(pausing(50));
    let first = sidecar.ask(&order("k")).await;
    assert_eq!((first.status, first.body.len()), (201, 1_000_000));

    let commands = link.commands();
    let asking: Vec<_> = (0..CLIENTS).map(|_| sidecar.asking(&order("k"))).collect();
    for answer in asking {
        let answer = answer.await.expect("an answer");
        assert!(answer.is_replay(), "{answer:?}");
        assert!(answer.body == first.body);
    }
    assert_eq!(backend.count(), 1);
    // One claim for each request; nothing to clean up.
    assert_eq!(calls(&sidecar, "claim").await as usize, 1 + CLIENTS);
    assert_eq!(calls(&sidecar, "release").await, 0.0);
    // Replays of the same chunk share one read: each makes a claim, and few read a chunk.
    let commands = link.commands() - commands;
    assert!(commands < 10 * CLIENTS, "{commands} commands for {CLIENTS} repeats, of {CHUNKS} chunks each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_refused_is_refused_though_its_body_does_not_come() {
    for on_error in ["reject", "forward"] {
        let backend = Backend::scripted([vec![large()]]).await;
        let (_redis, link, sidecar) = behind_a_link(&backend.url(), &format!("on_error = \"{on_error}\"")).await;
        assert_eq!(sidecar.ask(&order("k")).await.status, 201);
        // Slower than the slowest supported link.
        link.set(pausing(20_000));
        let repeat = sidecar.asking(&order("k"));
        until("the body is asked for", async || calls(&sidecar, "claim").await >= 2.0).await;
        link.set(Faults { cut: true, ..Faults::default() });
        repeat.await.expect("an answer").refuses(503, "store-unavailable");
        link.set(Faults::default());
        until("the store is back", async || is_up(&sidecar).await).await;
        assert!(sidecar.ask(&order("k")).await.is_replay());
        assert_eq!(calls(&sidecar, "release").await, 0.0);
        assert_eq!(backend.count(), 1, "{on_error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reuses_a_key_is_told_so_without_the_body_of_its_answer() {
    let backend = Backend::scripted([vec![large()]]).await;
    let (_redis, link, sidecar) = behind_a_link(&backend.url(), "").await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    link.set(pausing(20_000));
    sidecar.ask(&order("k").body("another")).await.refuses(422, "key-reused");
    assert_eq!(calls(&sidecar, "body").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_large_answers_wait_for_one_another_and_all_come() {
    const ANSWERS: usize = 6;
    let backend = Backend::scripted((0..ANSWERS).map(|_| vec![large()])).await;
    let (_redis, link, sidecar) = behind_a_link(&backend.url(), "").await;
    for key in 0..ANSWERS {
        assert_eq!(sidecar.ask(&order(&key.to_string())).await.status, 201);
    }
    link.set(pausing(50));
    let asking: Vec<_> = (0..ANSWERS).map(|key| sidecar.asking(&order(&key.to_string()))).collect();
    for answer in asking {
        assert!(answer.await.expect("an answer").is_replay());
    }
    assert_eq!((backend.count(), calls(&sidecar, "release").await), (ANSWERS, 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_that_wait_for_their_turn_are_all_kept() {
    const ANSWERS: usize = 16;
    let backend = Backend::scripted((0..ANSWERS).map(|_| vec![large()])).await;
    let (_redis, link, sidecar) = behind_a_link(&backend.url(), "").await;
    // Each takes about four times `store.timeout`, and they cannot all be written at once.
    link.set(pausing(100));
    let asking: Vec<_> = (0..ANSWERS).map(|key| sidecar.asking(&order(&key.to_string()))).collect();
    for answer in asking {
        assert_eq!(answer.await.expect("an answer").status, 201);
    }
    link.set(Faults::default());
    for key in 0..ANSWERS {
        until("it is kept", async || sidecar.ask(&order(&key.to_string())).await.is_replay()).await;
    }
    assert_eq!(backend.count(), ANSWERS);
}

fn late(one_way: u64) -> Faults {
    Faults { delay: Duration::from_millis(one_way), ..Faults::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_here_is_not_run_again_however_late_the_store_answers() {
    for on_error in ["reject", "forward"] {
        let (backend, gate) = Backend::gated().await;
        let (_redis, link, sidecar) = behind_a_link(&backend.url(), &format!("on_error = \"{on_error}\"")).await;
        let first = sidecar.asking(&order("k"));
        backend.has_seen(1).await;
        // Later than `store.timeout`: after three of them the connection is dropped.
        link.set(late(325));
        for _ in 0..8 {
            sidecar.ask(&order("k")).await.refuses(409, "in-flight");
            sidecar.ask(&order("k").body("another")).await.refuses(422, "key-reused");
        }
        link.set(Faults { cut: true, ..Faults::default() });
        for _ in 0..20 {
            sidecar.ask(&order("k")).await.refuses(409, "in-flight");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gate.open();
        assert_eq!(first.await.expect("an answer").text(), r#"{"order":1}"#);
        // Not written yet, but known to this process.
        let repeat = sidecar.ask(&order("k")).await;
        assert_eq!((repeat.text(), repeat.is_replay()), (r#"{"order":1}"#, true));
        assert_eq!(backend.count(), 1, "{on_error}");
        link.set(Faults::default());
        until("it is written", async || sidecar.metric(WRITTEN).await == 1.0).await;
        assert!(sidecar.ask(&order("k")).await.is_replay());
        assert_eq!((backend.count(), sidecar.metric(LOST).await), (1, 0.0), "{on_error}");
    }
}

const WRITTEN: &str = "onlyonce_records_total{route=\"orders\",state=\"completed\"}";
const LOST: &str = "onlyonce_lease_lost_total{route=\"orders\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_store_is_not_out_of_reach() {
    let backend = Backend::start().await;
    let (_redis, link, sidecar) = behind_a_link(&backend.url(), "on_error = \"forward\"").await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    link.set(late(325));
    for number in 0..6 {
        for key in ["k", &format!("new-{number}")] {
            sidecar.ask(&order(key)).await.refuses(503, "store-unavailable");
        }
    }
    assert_eq!(backend.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_at_a_distance_is_connected_to() {
    let backend = Backend::start().await;
    let redis = RedisServer::start();
    let link = FaultProxy::before(redis.port()).await;
    link.set(late(100));
    let store = format!("url = \"{}\"\ntimeout = \"1s\"", link.redis_url());
    let sidecar = Setup::new(&backend.url()).with("store", &store).start().await;
    until("the store is there", async || is_up(&sidecar).await).await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    assert!(sidecar.ask(&order("k")).await.is_replay());
    assert_eq!(backend.count(), 1);
}

/// Changes of an operator meanwhile.
async fn by_hand(redis: &RedisServer, command: &str) -> String {
    let mut wire = Wire::connect(([127, 0, 0, 1], redis.port()).into()).await;
    wire.send(format!("{command}\r\nQUIT\r\n")).await;
    String::from_utf8_lossy(&wire.rest().await).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_almost_full_store_keeps_small_answers_and_lets_keys_be_claimed() {
    let small = answer("201 Created", vec![b'x'; 1000]);
    let large = answer("201 Created\r\nLocation: /orders/7", vec![b'x'; 20_000]);
    let backend = Backend::scripted([vec![large], vec![small]]).await;
    let redis = RedisServer::start();
    by_hand(&redis, "EVAL \"for i=1,10000 do redis.call('SET', 'other:' .. i, string.rep('x', 1000)) end\" 0").await;
    let memory = by_hand(&redis, "INFO memory").await;
    let used: u64 =
        memory.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok()).expect("used");
    by_hand(&redis, &format!("CONFIG SET maxmemory {}", used + used / 7)).await;
    let setup = Setup::new(&backend.url()).with("store", &format!("url = \"{}\"", redis.url()));
    let sidecar = setup.start().await;
    until("the store is there", async || is_up(&sidecar).await).await;
    assert!(sidecar.metric("onlyonce_store_used_ratio").await > 0.8);

    let first = sidecar.ask(&order("large")).await;
    assert_eq!((first.status, first.body.len()), (201, 20_000));
    let repeat = sidecar.ask(&order("large")).await;
    repeat.refuses(409, "already-completed");
    assert_eq!(repeat.value("location"), Some("/orders/7"));
    assert_eq!(sidecar.ask(&order("small")).await.status, 201);
    assert!(sidecar.ask(&order("small")).await.is_replay());
    assert_eq!(backend.count(), 2);
    let unreplayable = sidecar.metric("onlyonce_records_total{route=\"orders\",state=\"unreplayable\"}").await;
    assert_eq!(unreplayable, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_on_its_way_from_the_store_is_counted() {
    let backend = Backend::scripted([vec![large()]]).await;
    let redis = RedisServer::start();
    let link = FaultProxy::before(redis.port()).await;
    // Room for the response when it arrives, and for three chunks of each of five replays.
    let setup = Setup::new(&backend.url())
        .with("server", "max_buffered = \"1100KiB\"")
        .with("store", &format!("url = \"{}\"", link.redis_url()));
    let sidecar = setup.start().await;
    until("the store is there", async || is_up(&sidecar).await).await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    let buffered = async || sidecar.metric("onlyonce_buffered_bytes").await;
    until("it is written and sent", async || buffered().await == 0.0).await;
    // No client gets more than the first chunks.
    link.set(pausing(400));
    let repeats: Vec<_> = (0..5).map(|_| sidecar.asking(&order("k"))).collect();
    until("they are on their way", async || buffered().await == 5.0 * 196_608.0).await;
    sidecar.ask(&order("k")).await.refuses(503, "overloaded");
    link.set(Faults::default());
    for repeat in repeats {
        let repeat = repeat.await.expect("an answer");
        assert!(repeat.is_replay() && repeat.body.len() == 1_000_000, "{}", repeat.status);
    }
    until("all of it is given back", async || buffered().await == 0.0).await;
    assert_eq!(backend.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_a_waiter_gets_from_the_store_is_counted_before_it_is_read() {
    for (max_buffered, status, reads) in [("64MiB", 201, 16.0), ("100KiB", 503, 0.0)] {
        let gate = Gate::new();
        let backend = Backend::scripted([vec![Step::Wait(gate.clone()), large()]]).await;
        let redis = RedisServer::start();
        let store = format!("url = \"{}\"\ntimeout = \"15s\"", redis.url());
        let setup = Setup::new(&backend.url()).with("store", &store).route("on_concurrent = \"wait\"");
        let owner = setup.clone().start().await;
        let other = setup.with("server", &format!("max_buffered = \"{max_buffered}\"")).start().await;
        for sidecar in [&owner, &other] {
            until("the store is there", async || is_up(sidecar).await).await;
        }
        let first = owner.asking(&order("k"));
        backend.has_seen(1).await;
        let waiter = other.asking(&order("k"));
        until("it waits", async || other.metric("onlyonce_waiting{route=\"orders\"}").await > 0.0).await;
        gate.open();
        assert_eq!(first.await.expect("an answer").body.len(), 1_000_000);
        let waiter = waiter.await.expect("an answer");
        assert_eq!(waiter.status, status, "{}", waiter.text());
        assert_eq!(waiter.is_replay(), status == 201);
        assert_eq!(calls(&other, "body").await, reads);
        assert_eq!(other.metric("onlyonce_buffered_bytes").await, 0.0);
        assert_eq!(backend.count(), 1);
    }
}

/// It goes over a connection of its own: what comes later, and is small, arrives before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_pass_a_large_answer_that_is_on_its_way_to_the_store() {
    let backend = Backend::scripted([vec![large()]]).await;
    let (_redis, link, sidecar) = behind_a_link(&backend.url(), "").await;
    link.set(pausing(150));
    let large = sidecar.asking(&order("large"));
    backend.has_seen(1).await;
    for number in 0..10 {
        let key = format!("small-{number}");
        assert_eq!(sidecar.ask(&order(&key)).await.status, 201);
        assert!(sidecar.ask(&order(&key)).await.is_replay());
        assert!(!large.is_finished(), "the large one is on its way for two seconds");
    }
    assert_eq!(large.await.expect("an answer").status, 201);
}

/// How long 400 new keys take, one after the other: half of them, and all but 1 %.
async fn small_requests(sidecar: &Sidecar, name: &str) -> [Duration; 2] {
    let mut took = Vec::new();
    for number in 0..400 {
        let begun = std::time::Instant::now();
        assert_eq!(sidecar.ask(&order(&format!("{name}-{number}"))).await.status, 201);
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    [took[200], took[396]]
}

/// A figure for the documents, and no more: what is asserted is above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn what_small_requests_take_beside_large_answers() {
    const LARGE: usize = 4;
    let backend = Backend::scripted((0..LARGE).map(|_| vec![large()])).await;
    let (_redis, link, sidecar) = behind_a_link(&backend.url(), "").await;
    for number in 0..LARGE {
        assert_eq!(sidecar.ask(&order(&format!("large-{number}"))).await.status, 201);
    }
    // 10 MB a second on each connection.
    link.set(Faults { delay: Duration::from_millis(2), ..pausing(6) });
    let alone = small_requests(&sidecar, "alone").await;
    let address = sidecar.address;
    let large: Vec<_> = (0..LARGE)
        .map(|number| {
            tokio::spawn(async move {
                loop {
                    let answer = Wire::connect(address).await.ask(&order(&format!("large-{number}"))).await;
                    assert!(answer.is_replay());
                }
            })
        })
        .collect();
    let beside = small_requests(&sidecar, "beside").await;
    println!("p50 and p99 of a first request: {alone:?} alone, {beside:?} beside {LARGE} replays of 1 MB");
    assert!(large.iter().all(|large| !large.is_finished()), "all went well");
    large.iter().for_each(tokio::task::JoinHandle::abort);
}
