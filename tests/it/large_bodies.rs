//! Large answers: stored in chunks, and replayed as they are read from the store.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::*;

const CHUNK: usize = 64 * 1024;

/// A megabyte without repetitions, so that no two parts are equal.
fn body() -> Vec<u8> {
    (0..250_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn large() -> Step {
    answer("201 Created\r\nContent-Type: application/pdf", body())
}

/// A sidecar with its own Redis, and large responses for the keys `k` and `other`.
async fn answered(setup: impl FnOnce(Setup) -> Setup) -> (Backend, RedisServer, Sidecar) {
    let backend = Backend::scripted([vec![large()], vec![large()]]).await;
    let redis = RedisServer::start();
    let sidecar = setup(Setup::new(&backend.url())).with("store", &format!("url = \"{}\"", redis.url())).start().await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    for key in ["k", "other"] {
        assert_eq!(sidecar.ask(&order(key)).await.body.len(), 1_000_000);
    }
    (backend, redis, sidecar)
}

/// Runs a script in Redis, in which `chunk(record, index)` is the key of a chunk of the first or the second response.
async fn script(redis: &RedisServer, script: &str, records: &[String]) -> String {
    let keys: Vec<_> = records.iter().map(|name| format!("'{{onlyonce:{name}}}:body:*:'")).collect();
    let chunk = format!(
        "local patterns = {{{}}} local function chunk(r, i) return redis.call('KEYS', patterns[r] .. i)[1] end",
        keys.join(",")
    );
    let mut wire = Wire::connect(([127, 0, 0, 1], redis.port()).into()).await;
    wire.send(format!("EVAL \"{chunk} {script}\" 0\r\nQUIT\r\n")).await;
    let told = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert!(!told.starts_with('-'), "{told}");
    told
}

/// The names of both records: the first is that of `k`.
async fn names(sidecar: &Sidecar) -> [String; 2] {
    let mut names = Vec::new();
    for key in ["k", "other"] {
        let reused = sidecar.ask(&order(key).body("another")).await.json();
        names.push(reused["record"].as_str().expect("its record").to_owned());
    }
    names.try_into().expect("two")
}

/// A damage to a chunk, and its name.
const DAMAGE: [(&str, &str); 6] = [
    ("it is gone", "redis.call('DEL', chunk(1, AT))"),
    ("a bit is another", "local k = chunk(1, AT) redis.call('SETBIT', k, 77, 1 - redis.call('GETBIT', k, 77))"),
    ("it is cut short", "local k = chunk(1, AT) redis.call('SET', k, redis.call('GETRANGE', k, 0, -2))"),
    ("it is empty", "redis.call('SET', chunk(1, AT), '')"),
    ("it is another chunk", "redis.call('SET', chunk(1, AT), redis.call('GET', chunk(1, 3)))"),
    ("it is another record's", "redis.call('SET', chunk(1, AT), redis.call('GET', chunk(2, AT)))"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_first_chunk_is_not_the_one_that_was_stored_is_refused() {
    for (what, damage) in DAMAGE {
        let (backend, redis, sidecar) = answered(|setup| setup).await;
        let names = names(&sidecar).await;
        script(&redis, &damage.replace("AT", "0"), &names).await;
        sidecar.ask(&order("k")).await.refuses(503, "record-unreadable");
        assert!(sidecar.ask(&order("other")).await.body == body(), "{what}");
        assert_eq!(backend.count(), 2, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_later_chunk_is_not_the_one_that_was_stored_is_cut_and_never_ended() {
    for (what, damage) in DAMAGE {
        for at in [5, 15] {
            let (backend, redis, sidecar) = answered(|setup| setup).await;
            let names = names(&sidecar).await;
            script(&redis, &damage.replace("AT", &at.to_string()), &names).await;
            let mut wire = sidecar.begin(&order("k")).await;
            let head = wire.head().await.expect("a head");
            assert_eq!((head.value("content-length"), head.has("transfer-encoding")), (Some("1000000"), false));
            let rest = wire.rest().await;
            // The part before the damage is sent unchanged.
            assert!(rest == body()[..at * CHUNK], "{what} at {at}: {} bytes", rest.len());
            // The key is not free, so nothing runs again.
            assert_eq!(backend.count(), 2, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_chunks_of_the_transfer_that_breaks_off_has_no_last_chunk() {
    let with_trailers = [
        &b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"[..],
        &chunk(&body()),
        b"0\r\nX-Sum: 7\r\n\r\n",
    ];
    let backend = Backend::scripted([vec![say(with_trailers.concat())], vec![large()]]).await;
    let redis = RedisServer::start();
    let sidecar = Setup::new(&backend.url()).with("store", &format!("url = \"{}\"", redis.url())).start().await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    for key in ["k", "other"] {
        assert_eq!(sidecar.ask(&order(key).line("TE: trailers")).await.body.len(), 1_000_000);
    }
    let whole = sidecar.ask(&order("k").line("TE: trailers")).await;
    assert!(whole.is_replay() && whole.body == body());
    assert_eq!(whole.trailers, [("x-sum".to_owned(), "7".to_owned())]);

    script(&redis, "redis.call('DEL', chunk(1, 9))", &names(&sidecar).await).await;
    // HTTP/1.0 has no trailers, so its client gets a length: an aborted response does not look complete.
    let mut old = sidecar.connect().await;
    let ask = String::from_utf8(order("k").bytes()).expect("text");
    old.send(ask.replacen("HTTP/1.1", "HTTP/1.0", 1)).await;
    let head = old.head().await.expect("a head");
    assert_eq!((head.value("content-length"), head.has("transfer-encoding")), (Some("1000000"), false));
    assert!(old.rest().await == body()[..9 * CHUNK]);

    let mut wire = sidecar.begin(&order("k").line("TE: trailers")).await;
    assert!(wire.head().await.expect("a head").has("transfer-encoding"));
    let rest = wire.rest().await;
    assert!(
        rest.len() >= 9 * CHUNK && !rest.ends_with(b"0\r\n\r\n") && !rest.windows(5).any(|five| five == b"\r\n0\r\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_outlive_their_record_by_attempt_timeout() {
    for attempt_timeout in [7, 600] {
        let timeout = format!("response_timeout = \"5s\"\nattempt_timeout = \"{attempt_timeout}s\"");
        let (_backend, redis, sidecar) = answered(|setup| setup.with("upstream", &timeout)).await;
        let longer = "local least = 1e15 for i = 0, 15 do least = math.min(least, redis.call('PTTL', chunk(1, i))) end \
                      return least - redis.call('PTTL', 'onlyonce:NAME')";
        let names = names(&sidecar).await;
        let told = script(&redis, &longer.replace("NAME", &names[0]), &names).await;
        let longer: i64 = told.lines().next().and_then(|line| line.strip_prefix(':')?.parse().ok()).expect("a number");
        // At most the time that writing them may take.
        let least = attempt_timeout * 1000;
        assert!((least..=least + 60_000).contains(&longer), "{attempt_timeout}: {longer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_begun_to_read_comes_to_the_end_when_the_record_is_gone() {
    let (backend, redis, sidecar) = answered(|setup| setup).await;
    let names = names(&sidecar).await;
    let mut slow = sidecar.begin(&order("k")).await;
    slow.head().await.expect("a head");
    script(&redis, &format!("redis.call('DEL', 'onlyonce:{}')", names[0]), &names).await;
    assert!(slow.exactly(1_000_000).await == body());
    assert_eq!(backend.count(), 2);
}

/// Larger than the socket buffers.
const HUGE: usize = 64 << 20;

on_every_store! {
async fn a_huge_answer_is_replayed_in_little_memory_and_a_client_that_does_not_read_holds_three_chunks(store: &Store) {
        let backend = Backend::scripted([vec![answer("201 Created", vec![b'x'; HUGE])]]).await;
        let setup = Setup::new(&backend.url())
            .route("max_response_body = \"64MiB\"")
            .with("server", "max_buffered = \"80MiB\"")
            .with("store", &format!("url = \"{}\"", store.url()));
        let mut process = Process::start(&setup).await;
        until("the store is there", async || process.admin("/readyz?store=1").await.status == 200).await;
        assert_eq!(process.ask(&order("k")).await.body.len(), HUGE);
        if !matches!(store, Store::Memory) {
            drop(process);
            process = Process::start(&setup).await;
            until("the store is there", async || process.admin("/readyz?store=1").await.status == 200).await;
        }
        let before = process.peak_memory();
        let mut slow = process.begin(&order("k")).await;
        slow.head().await.expect("a head");
        let (mut read, mut last) = (0.0, -1.0);
        // It stops reading from the store when its client stops reading.
        until("nothing more is read, and three chunks are held", async || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            (last, read) = (read, process.metric("onlyonce_store_duration_seconds_count{op=\"body\"}").await);
            last == read && process.metric("onlyonce_buffered_bytes").await == 3.0 * CHUNK as f64
        })
        .await;
        assert!(read < 1000.0, "{read} of 1024 chunks");
        let grown = process.peak_memory().saturating_sub(before) >> 20;
        assert!(grown < 16, "{grown} MiB for one replay");
        // No resource of the store is held: other requests are answered, however many replays there are.
        let mut others = Vec::new();
        for _ in 0..12 {
            let mut other = process.begin(&order("k")).await;
            other.head().await.expect("a head");
            others.push(other);
        }
        assert_eq!(process.ask(&order("k")).await.body.len(), HUGE);
        drop(others);
        assert!(slow.exactly(HUGE).await.iter().all(|byte| *byte == b'x'));
        until("all of it is given back", async || process.metric("onlyonce_buffered_bytes").await == 0.0).await;
        // Fourteen replays: less than half of one body.
        let grown = process.peak_memory().saturating_sub(before) >> 20;
        assert!(grown < 32, "{grown} MiB");
        assert_eq!(backend.count(), 1);
}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_on_their_way_delay_no_small_claim() {
    let backend =
        Backend::scripted([vec![large()], vec![large()], vec![large()], vec![large()], vec![Step::Answer]]).await;
    let redis = RedisServer::start();
    let link = FaultProxy::before(redis.port()).await;
    let store = format!("url = \"{}\"\ntimeout = \"2s\"", link.redis_url());
    let sidecar = Setup::new(&backend.url()).with("store", &store).start().await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    for key in ["one", "two"] {
        assert_eq!(sidecar.ask(&order(key)).await.status, 201);
    }
    // A megabyte takes several seconds.
    link.set(Faults { pause: Duration::from_millis(300), ..Faults::default() });
    let replays = ["one", "two"].map(|key| sidecar.asking(&order(key)));
    let firsts = ["three", "four"].map(|key| sidecar.asking(&order(key)));
    backend.has_seen(4).await;
    let small = sidecar.ask(&order("small")).await;
    assert_eq!(small.status, 201);
    assert!(sidecar.ask(&order("small")).await.is_replay());
    assert!(replays.iter().chain(&firsts).all(|large| !large.is_finished()), "all of them are on their way");
    for large in replays.into_iter().chain(firsts) {
        assert!(large.await.expect("an answer").body == body());
    }
    assert_eq!(backend.count(), 5);
}

/// Answers with a mebibyte to keys that begin with `large`, and else with little.
async fn backend_of_both() -> (String, tokio::task::JoinHandle<()>) {
    let backend = ByHand::start().await;
    let url = backend.url();
    let task = tokio::spawn(async move {
        loop {
            let mut wire = backend.accept_at_last().await;
            tokio::spawn(async move {
                while let Some(request) = wire.request().await {
                    let is_large = request.value("idempotency-key").is_some_and(|key| key.starts_with("large"));
                    let step =
                        if is_large { answer("201 Created", vec![7; 1 << 20]) } else { answer("201 Created", "{}") };
                    let Step::Say(bytes) = step else { unreachable!() };
                    if wire.try_send(bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, task)
}

/// How many small requests a round has.
const SMALL: usize = 300;

/// The 99th percentile of small first requests, one after the other.
async fn slowest_of_small(sidecar: &Process, round: &str) -> Duration {
    let mut wire = Wire::connect(sidecar.address).await;
    let mut times = Vec::with_capacity(SMALL);
    for number in 0..SMALL {
        let begun = Instant::now();
        assert_eq!(wire.ask(&order(&format!("small-{round}-{number}"))).await.status, 201);
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[SMALL * 99 / 100]
}

/// On a link of 100 Mbit/s and 10 ms both ways, which all connections to the store share. All the time a large body is
/// being written, and another is being read. Times are printed, and not asserted: other work on the machine comes and goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn on_a_slow_link_small_requests_do_not_wait_for_large_bodies() {
    let (url, backend) = backend_of_both().await;
    let redis = RedisServer::start();
    let link = FaultProxy::before(redis.port()).await;
    let store = format!("url = \"{}\"\ntimeout = \"2s\"", link.redis_url());
    let route = "max_response_body = \"2MiB\"";
    let sidecar = Process::start(&Setup::new(&url).route(route).with("store", &store)).await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    assert_eq!(sidecar.ask(&order("large")).await.body.len(), 1 << 20);
    link.set(Faults { delay: Duration::from_millis(5), rate: 12_500_000, ..Faults::default() });
    slowest_of_small(&sidecar, "warm").await;
    // In turns. The least disturbed rounds count.
    let (mut least_alone, mut least_beside) = (Duration::MAX, Duration::MAX);
    for round in 0..5 {
        let alone = slowest_of_small(&sidecar, &format!("alone-{round}")).await;
        let (stop, address) = (Arc::new(AtomicBool::new(false)), sidecar.address);
        let transfers = ["replay", "first"].map(|kind| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let (mut wire, mut count) = (Wire::connect(address).await, 0);
                while !stop.load(Ordering::Relaxed) {
                    let key = if kind == "replay" { "large".to_owned() } else { format!("large-{round}-{count}") };
                    assert_eq!(wire.ask(&order(&key)).await.body.len(), 1 << 20);
                    count += 1;
                }
                count
            })
        });
        let beside = slowest_of_small(&sidecar, &format!("beside-{round}")).await;
        stop.store(true, Ordering::Relaxed);
        let mut counts = Vec::new();
        for transfer in transfers {
            counts.push(transfer.await.expect("no panic"));
        }
        assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
        // A small request that waits for whole bodies, in its claim and in its settling, lets more of them pass.
        assert!(counts.iter().sum::<usize>() < SMALL / 2, "{counts:?} large bodies beside {SMALL} small requests");
        println!("alone {alone:?}, beside {counts:?} large bodies {beside:?}");
        (least_alone, least_beside) = (least_alone.min(alone), least_beside.min(beside));
    }
    let factor = least_beside.as_secs_f64() / least_alone.as_secs_f64();
    println!(
        "the 99th percentile: {least_alone:?} alone, {least_beside:?} beside large bodies, {factor:.2} times as long"
    );
    backend.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_in_a_coding_that_is_not_accepted_is_decoded_and_so_long_counted() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&body()).expect("memory");
    let encoded = encoder.finish().expect("memory");
    assert!(encoded.len() > 10 * CHUNK, "it cannot be made shorter");
    for (max_buffered, fits) in [("64MiB", true), ("1MiB", false)] {
        let zipped = answer("201 Created\r\nContent-Encoding: gzip", &encoded);
        let backend = Backend::scripted([vec![zipped]]).await;
        let redis = RedisServer::start();
        let setup = Setup::new(&backend.url()).with("store", &format!("url = \"{}\"", redis.url()));
        let sidecar = setup.with("server", &format!("max_buffered = \"{max_buffered}\"")).start().await;
        until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
        assert!(sidecar.ask(&order("k").line("Accept-Encoding: gzip")).await.body == encoded);
        let plain = sidecar.ask(&order("k")).await;
        if fits {
            assert!(plain.is_replay() && plain.body == body());
            assert_eq!((plain.value("content-encoding"), plain.value("content-length")), (None, Some("1000000")));
        } else {
            plain.refuses(503, "overloaded");
        }
        let accepted = sidecar.ask(&order("k").line("Accept-Encoding: gzip")).await;
        assert!(accepted.is_replay() && accepted.body == encoded);
        until("all of it is given back", async || sidecar.metric("onlyonce_buffered_bytes").await == 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_a_large_answer_with_its_body_or_without() {
    let (_backend, redis, sidecar) = answered(|setup| setup.with("admin", "token = \"open-sesame-for-all\"")).await;
    let names = names(&sidecar).await;
    let show = async |query: &str| {
        let show = request("GET", &format!("/records/{}{query}", names[0])).by("open-sesame-for-all");
        Wire::connect(sidecar.admin).await.ask(&show).await
    };
    let without = show("").await;
    assert_eq!(without.status, 200, "{without:?}");
    let without = without.json();
    assert_eq!(
        (&without["answer"]["body_bytes"], without["answer"]["body_base64"].as_str()),
        (&1_000_000.into(), None)
    );
    assert_eq!(sidecar.metric("onlyonce_store_duration_seconds_count{op=\"body\"}").await, 0.0);
    let with = show("?body=1").await.json();
    assert_eq!(with["answer"]["body_base64"].as_str().map(str::len), Some(1_000_000_usize.div_ceil(3) * 4));
    script(&redis, "redis.call('DEL', chunk(1, 9))", &names).await;
    assert_eq!(show("").await.json()["state"], "completed");
    assert_eq!(show("?body=1").await.json()["state"], "unreadable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_settled_by_hand_with_a_large_body_is_replayed() {
    let backend = Backend::scripted([vec![Step::Close]]).await;
    let redis = RedisServer::start();
    let sidecar = Setup::new(&backend.url()).with("store", &format!("url = \"{}\"", redis.url())).start().await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    let unknown = sidecar.ask(&order("k")).await;
    let record = unknown.json()["record"].as_str().expect("its record").to_owned();
    let text = "y".repeat(200_000);
    let settle = post(&format!("/records/{record}/complete")).json(&format!("{{\"status\":201,\"body\":\"{text}\"}}"));
    let settled = Wire::connect(sidecar.admin).await.ask(&settle.host("localhost").line("Onlyonce-Admin: 1")).await;
    assert_eq!(settled.status, 200, "{settled:?}");
    let replay = sidecar.ask(&order("k")).await;
    assert!(replay.is_replay() && replay.text() == text);
}
