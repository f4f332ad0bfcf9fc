//! The store is unreachable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

/// A separate Redis, and a sidecar with a short `store.timeout`.
async fn on_redis(upstream: &str, store: &str) -> (RedisServer, Sidecar) {
    let redis = RedisServer::start();
    let setup = Setup::new(upstream).with("store", &format!("url = \"{}\"\ntimeout = \"300ms\"\n{store}", redis.url()));
    let sidecar = setup.start().await;
    until("the store is there", async || is_ready(&sidecar).await).await;
    (redis, sidecar)
}

async fn is_ready(sidecar: &Sidecar) -> bool {
    sidecar.admin("/readyz?store=1").await.status == 200
}

/// Kills Redis, and waits until the sidecar has noticed.
async fn lose(redis: &mut RedisServer, sidecar: &Sidecar) {
    redis.kill();
    until("the store is gone", async || !is_ready(sidecar).await).await;
}

#[track_caller]
fn is_refused(answer: &Response) {
    answer.refuses(503, "store-unavailable");
    assert!(answer.retry_after().is_some_and(|seconds| seconds >= 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_store_nothing_guarded_is_sent_and_all_else_goes_on() {
    let backend = Backend::start().await;
    let (mut redis, sidecar) = on_redis(&backend.url(), "").await;
    sidecar.ask(&order("before")).await;
    lose(&mut redis, &sidecar).await;
    for key in ["before", "new"] {
        is_refused(&sidecar.ask(&order(key)).await);
    }
    assert_eq!(backend.count(), 1);
    assert_eq!(sidecar.ask(&request("GET", "/orders")).await.status, 201);
    assert_eq!(sidecar.ask(&post("/orders").body("no key")).await.status, 201);
    let readyz = sidecar.admin("/readyz").await;
    assert_eq!((readyz.status, readyz.text().contains("store: down")), (200, true));
    assert_eq!(sidecar.metric("onlyonce_store_up").await, 0.0);

    redis.restart();
    until("the store is back", async || sidecar.ask(&order("new")).await.status == 201).await;
    assert!(sidecar.ask(&order("new")).await.is_replay());
    assert_eq!(sidecar.metric("onlyonce_store_up").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_removed_is_noticed_and_what_it_held_is_replayed() {
    let backend = Backend::start().await;
    let store = Store::embedded();
    let Store::Embedded(folder) = &store else { unreachable!() };
    let process = Process::start(&Setup::new(&backend.url()).store(&store)).await;
    assert!(process.log().contains("made a new store in"), "{}", process.log());
    assert_eq!(process.ask(&order("before")).await.status, 201);
    std::fs::remove_dir_all(folder.path().join("records")).expect("removed");
    until("the loss is noticed", async || process.metric("onlyonce_store_losses_total").await == 1.0).await;
    assert_eq!(process.metric("onlyonce_store_up").await, 0.0);
    assert!(process.admin("/readyz").await.text().contains("store: down"));
    assert!(process.ask(&order("before")).await.is_replay());
    is_refused(&process.ask(&order("new")).await);
    assert_eq!(backend.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_of_the_form_guards_script_does_not_run_unguarded() {
    let backend = Backend::start().await;
    let (mut redis, sidecar) = on_redis(&backend.url(), "on_error = \"forward\"").await;
    let sent = |field: &str, value: &str| post("/orders").line(&format!("{field}: {value}")).body("x");
    lose(&mut redis, &sidecar).await;
    until("the store is out of reach", async || sidecar.ask(&order("other")).await.status == 201).await;
    // The person's click, and the page's own call, run as the route says.
    assert_eq!(sidecar.ask(&sent("Onlyonce-Form", "a")).await.value("onlyonce-form"), Some("go /orders/2"));
    assert_eq!(sidecar.ask(&sent("Onlyonce-Fetch", "b")).await.text(), r#"{"order":3}"#);
    for repeat in [sent("Onlyonce-Form", "a,"), sent("Onlyonce-Form", "c,1,"), sent("Onlyonce-Fetch", "b,")] {
        is_refused(&sidecar.ask(&repeat).await);
    }
    assert_eq!(backend.count(), 3);

    redis.restart();
    until("the store is back", async || is_ready(&sidecar).await).await;
    assert_eq!(sidecar.ask(&sent("Onlyonce-Form", "a,")).await.value("onlyonce-form"), Some("go /orders/4"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_may_prefer_to_run_unguarded() {
    let backend = Backend::start().await;
    let (mut redis, sidecar) = on_redis(&backend.url(), "on_error = \"forward\"").await;
    assert_eq!(sidecar.ask(&order("k")).await.text(), r#"{"order":1}"#);
    lose(&mut redis, &sidecar).await;
    // It counts as unreachable only when the first reconnect has failed.
    until("the store is out of reach", async || sidecar.ask(&order("other")).await.status == 201).await;
    for expected in [3, 4] {
        let answer = sidecar.ask(&order("k")).await;
        assert_eq!((answer.text(), answer.is_replay()), (&*format!("{{\"order\":{expected}}}"), false));
    }
    assert_eq!(backend.seen()[2].body, backend.seen()[0].body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_route_says_of_a_store_that_is_away_wins_over_what_the_store_says() {
    let backend = Backend::start().await;
    let mut redis = RedisServer::start();
    let another = "name = \"refunds\"\npath = \"/refunds\"\nscope = []\non_error = \"reject\"";
    let sidecar = Setup::new(&backend.url())
        .with("store", &format!("url = \"{}\"\ntimeout = \"300ms\"\non_error = \"forward\"", redis.url()))
        .another_route(another)
        .start()
        .await;
    until("the store is there", async || is_ready(&sidecar).await).await;
    lose(&mut redis, &sidecar).await;
    until("the store is out of reach", async || sidecar.ask(&order("k")).await.status == 201).await;
    let count = backend.count();
    is_refused(&sidecar.ask(&post("/refunds").line("Idempotency-Key: k").json("{}")).await);
    assert_eq!(backend.count(), count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_of_which_nobody_knows_whether_it_arrived_is_never_sent() {
    for on_error in ["reject", "forward"] {
        let backend = Backend::start().await;
        let (redis, sidecar) = on_redis(&backend.url(), &format!("on_error = \"{on_error}\"")).await;
        redis.freeze();
        is_refused(&sidecar.ask(&order("k")).await);
        assert_eq!(backend.count(), 0, "{on_error}");
        redis.thaw();
        // The late claim arrives now, and is deleted.
        until("the key is free", async || {
            let answer = sidecar.ask(&order("k")).await;
            if answer.status == 409 {
                answer.refuses(409, "in-flight");
            }
            answer.status == 201
        })
        .await;
        assert!(sidecar.ask(&order("k")).await.is_replay());
        assert_eq!(backend.count(), 1, "{on_error}");
    }
}

/// A Redis that persists its records.
async fn on_lasting_redis(upstream: &str) -> (RedisServer, Sidecar) {
    let redis = RedisServer::start_with(&["--appendonly", "yes"]);
    let setup = Setup::new(upstream).with("store", &format!("url = \"{}\"\ntimeout = \"300ms\"", redis.url()));
    let sidecar = setup.start().await;
    until("the store is there", async || is_ready(&sidecar).await).await;
    (redis, sidecar)
}

/// The store stops while the backend is working, and returns after the client has its response.
async fn without_the_store_at_the_end(is_frozen: bool, end: Step, status: u16) -> (Backend, Sidecar, RedisServer) {
    let gate = Gate::new();
    let backend = Backend::scripted([vec![Step::Wait(gate.clone()), end]]).await;
    let (mut redis, sidecar) = on_lasting_redis(&backend.url()).await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    if is_frozen {
        redis.freeze();
    } else {
        lose(&mut redis, &sidecar).await;
    }
    gate.open();
    assert_eq!(first.await.expect("an answer").status, status);
    // This process answers from what it knows; only the store can say that a key is free.
    let repeat = sidecar.ask(&order("k")).await;
    if status == 500 {
        is_refused(&repeat);
    } else {
        assert_eq!((repeat.status, repeat.is_replay()), (status, true));
    }
    sidecar.ask(&order("k").body("another")).await.refuses(
        if status == 500 { 503 } else { 422 },
        match status {
            500 => "store-unavailable",
            _ => "key-reused",
        },
    );
    if is_frozen {
        redis.thaw();
    } else {
        redis.restart();
    }
    (backend, sidecar, redis)
}

/// Repeats until the outcome is recorded; until then, the key is in flight.
async fn caught_up(sidecar: &Sidecar) -> Response {
    let mut last = None;
    until("the record has caught up", async || {
        let answer = sidecar.ask(&order("k")).await;
        match answer.status {
            503 => is_refused(&answer),
            409 => answer.refuses(409, "in-flight"),
            _ => last = Some(answer),
        }
        last.is_some()
    })
    .await;
    last.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_could_not_be_kept_is_kept_once_the_store_is_back() {
    for is_frozen in [true, false] {
        let (backend, sidecar, _redis) = without_the_store_at_the_end(is_frozen, Step::Answer, 201).await;
        let answer = caught_up(&sidecar).await;
        assert_eq!((answer.text(), answer.is_replay()), (r#"{"order":1}"#, true));
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_could_not_be_freed_is_freed_once_the_store_is_back() {
    for is_frozen in [true, false] {
        let failure = answer("500 Internal Server Error", "out of paper");
        let (backend, sidecar, _redis) = without_the_store_at_the_end(is_frozen, failure, 500).await;
        assert_eq!(caught_up(&sidecar).await.text(), r#"{"order":2}"#);
        assert_eq!(backend.count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_the_store_lost_meanwhile_is_written_again() {
    let (backend, gate) = Backend::gated().await;
    let (mut redis, sidecar) = on_redis(&backend.url(), "").await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    lose(&mut redis, &sidecar).await;
    redis.restart();
    until("the store is back", async || is_ready(&sidecar).await).await;
    gate.open();
    assert_eq!(first.await.expect("an answer").status, 201);
    until("it is kept", async || sidecar.ask(&order("k")).await.is_replay()).await;
    assert_eq!(backend.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_comes_back_empty_starts_no_second_attempt_while_the_first_runs() {
    for on_error in ["reject", "forward"] {
        let (backend, gate) = Backend::gated().await;
        let (mut redis, sidecar) = on_redis(&backend.url(), &format!("on_error = \"{on_error}\"")).await;
        let first = sidecar.asking(&order("k"));
        backend.has_seen(1).await;
        lose(&mut redis, &sidecar).await;
        redis.restart();
        // With `forward`, other tests cover it.
        until("claims go on", async || is_ready(&sidecar).await).await;
        let granted = async || sidecar.metric("onlyonce_records_total{route=\"orders\",state=\"completed\"}").await;
        until("another key is claimed", async || {
            sidecar.ask(&order("other")).await;
            granted().await > 0.0
        })
        .await;
        let seen = backend.count();
        sidecar.ask(&order("k")).await.refuses(409, "in-flight");
        sidecar.ask(&order("k").json(r#"{"amount":2}"#)).await.refuses(422, "key-reused");
        sidecar.ask(&order("k")).await.refuses(409, "in-flight");
        assert_eq!(backend.count(), seen, "{on_error}");
        gate.open();
        let first = first.await.expect("an answer");
        assert_eq!(first.status, 201);
        let repeat = sidecar.ask(&order("k")).await;
        assert!(repeat.is_replay() && repeat.text() == first.text(), "{repeat:?}");
        assert_eq!(backend.count(), seen, "{on_error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_the_store_serves_what_needs_none() {
    let mut redis = RedisServer::start();
    redis.kill();
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url()).with("store", &format!("url = \"{}\"\ntimeout = \"300ms\"", redis.url()));
    let sidecar = setup.start().await;
    is_refused(&sidecar.ask(&order("k")).await);
    assert_eq!(sidecar.ask(&request("GET", "/")).await.status, 201);
    redis.restart();
    until("the store is there", async || sidecar.ask(&order("k")).await.status == 201).await;
    assert_eq!(backend.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_outlasts_a_short_absence_of_the_store() {
    let (backend, gate) = Backend::gated().await;
    let redis = RedisServer::start();
    let setup = Setup::new(&backend.url())
        .with("store", &format!("url = \"{}\"\ntimeout = \"300ms\"", redis.url()))
        .route("on_concurrent = \"wait\"\nwait_timeout = \"60s\"");
    let (owner, other) = (setup.clone().start().await, setup.start().await);
    let first = owner.asking(&order("k"));
    backend.has_seen(1).await;
    let waiting = other.asking(&order("k"));
    until("it waits", async || other.metric("onlyonce_waiting{route=\"orders\"}").await == 1.0).await;
    redis.freeze();
    until("a look at the record fails", async || other.metric("onlyonce_store_errors_total{op=\"find\"}").await > 0.0)
        .await;
    redis.thaw();
    gate.open();
    assert_eq!(first.await.expect("an answer").text(), r#"{"order":1}"#);
    assert_eq!(waiting.await.expect("an answer").text(), r#"{"order":1}"#);
    assert_eq!(backend.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_read_is_neither_run_over_nor_replayed() {
    for on_error in ["reject", "forward"] {
        let backend = Backend::start().await;
        let (redis, sidecar) = on_redis(&backend.url(), &format!("on_error = \"{on_error}\"")).await;
        sidecar.ask(&order("k")).await;
        let reused = sidecar.ask(&order("k").body("another")).await.json();
        let record = reused["record"].as_str().expect("a known operation");
        let mut by_hand = Wire::connect(([127, 0, 0, 1], redis.port()).into()).await;
        by_hand.send(format!("SET onlyonce:{record} of-a-newer-version XX\r\n")).await;
        assert_eq!(by_hand.exactly(5).await, b"+OK\r\n", "the record is there, under this name");
        let answer = sidecar.ask(&order("k")).await;
        answer.refuses(503, "record-unreadable");
        assert_eq!(answer.json()["record"], record);
        assert_eq!(backend.count(), 1, "{on_error}");
        assert_eq!(sidecar.ask(&order("other")).await.status, 201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_installations_share_a_redis_by_their_prefixes() {
    let redis = RedisServer::start();
    let backend = Backend::start().await;
    let installation = async |prefix: &str| {
        let store = format!("url = \"{}\"\nprefix = \"{prefix}\"", redis.url());
        let sidecar = Setup::new(&backend.url()).with("store", &store).start().await;
        // The second sidecar creates a digest key, and waits for sidecars with another one.
        until("it may claim", async || is_ready(&sidecar).await).await;
        sidecar
    };
    let (one, other) = (installation("one").await, installation("other").await);
    assert_eq!(one.ask(&order("k")).await.text(), r#"{"order":1}"#);
    assert_eq!(other.ask(&order("k")).await.text(), r#"{"order":2}"#);
    assert!(installation("one").await.ask(&order("k")).await.is_replay());
    let record = |answer: Response| answer.json()["record"].as_str().expect("a known operation").to_owned();
    let reused = order("k").body("another");
    let names = (record(one.ask(&reused).await), record(other.ask(&reused).await));
    assert_ne!(names.0, names.1, "each has a digest key of its own");
}

/// How a claim is lost together with its connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cut {
    /// It was sent, and did not arrive.
    BeforeRedis,
    /// It was carried out, and its reply was lost.
    BeforeTheReply,
}

/// A proxy in front of Redis that cuts the connection of the first claim. Returns its port.
async fn cutter(redis: &RedisServer, cut: Cut) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (port, server) = (listener.local_addr().expect("an address").port(), redis.port());
    let is_cut = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", server)).await.expect("Redis listens");
            tokio::spawn(relay(client, server, cut, Arc::clone(&is_cut)));
        }
    });
    port
}

async fn relay(mut client: TcpStream, mut server: TcpStream, cut: Cut, is_cut: Arc<AtomicBool>) -> std::io::Result<()> {
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let asked = &asked[..read?];
                let is_claim = [&b":orders:"[..], b"NX"].iter().all(|part| asked.windows(part.len()).any(|at| at == *part));
                let is_cut = is_claim && !is_cut.swap(true, Ordering::Relaxed);
                if asked.is_empty() || (is_cut && cut == Cut::BeforeRedis) {
                    return Ok(());
                }
                server.write_all(asked).await?;
                if is_cut {
                    server.read_u8().await?;
                    return Ok(());
                }
            }
            read = server.read(&mut answered) => match read? {
                0 => return Ok(()),
                read => client.write_all(&answered[..read]).await?,
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_cut_off_is_not_sent_and_its_key_is_free_again() {
    for cut in [Cut::BeforeRedis, Cut::BeforeTheReply] {
        for on_error in ["reject", "forward"] {
            let backend = Backend::start().await;
            let redis = RedisServer::start();
            let port = cutter(&redis, cut).await;
            let store = format!("url = \"redis://127.0.0.1:{port}\"\non_error = \"{on_error}\"");
            let sidecar = Setup::new(&backend.url()).with("store", &store).start().await;
            until("the store is there", async || is_ready(&sidecar).await).await;
            // It is unknown whether the claim arrived, so the request is not forwarded unguarded either.
            is_refused(&sidecar.ask(&order("k")).await);
            assert_eq!(backend.count(), 0, "{cut:?}");
            until("the store is there again", async || is_ready(&sidecar).await).await;
            until("the key is free", async || sidecar.ask(&order("k")).await.status == 201).await;
            assert!(sidecar.ask(&order("k")).await.is_replay());
            assert_eq!(backend.count(), 1, "{cut:?}");
        }
    }
}
