//! A Redis that stops in its tracks, and goes on later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::load::executions;
use crate::support::*;

/// Clients send keys of their own while the server is frozen. None of them waits for longer than a call may take, memory is
/// bounded, and afterwards every key can be used: nothing of what arrived late holds one.
async fn freeze_for(frozen: Duration) {
    let (backend, redis) = (Backend::start().await, RedisServer::start());
    let store = format!("url = \"{}\"\ntimeout = \"1s\"", redis.url());
    let sidecar = Process::start(&Setup::new(&backend.url()).with("store", &store)).await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    assert_eq!(sidecar.ask(&order("before")).await.status, 201);
    let memory = sidecar.peak_memory();

    redis.freeze();
    let (stop, address) = (Arc::new(AtomicBool::new(false)), sidecar.address);
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let (mut longest, mut keys) = (Duration::ZERO, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let (key, begun) = (format!("frozen-{caller}-{}", keys.len()), Instant::now());
                    let answer = Wire::connect(address).await.ask(&order(&key)).await;
                    longest = longest.max(begun.elapsed());
                    keys.push(key);
                    // It may be the one that was on its way when the server went on.
                    assert!([503, 201].contains(&answer.status), "{}", answer.text());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                (longest, keys)
            })
        })
        .collect();
    tokio::time::sleep(frozen).await;
    assert_eq!(backend.count(), 1, "nothing is sent without a claim");
    redis.thaw();
    let thawed = Instant::now();
    until("a request is served", async || backend.count() > 1).await;
    println!("frozen for {frozen:?}: the first request was sent {:?} after the return", thawed.elapsed());
    stop.store(true, Ordering::Relaxed);
    let (mut longest, mut keys) = (Duration::ZERO, Vec::new());
    for caller in callers {
        let (own, more) = caller.await.expect("no panic");
        longest = longest.max(own);
        keys.extend(more);
    }
    let grown = sidecar.peak_memory().saturating_sub(memory);
    println!("{} requests, none longer than {longest:?}; {grown} bytes more", keys.len());
    // A call takes a second; a slow machine is no reason to fail.
    assert!(longest < Duration::from_secs(8), "{longest:?}");
    assert!(grown < 64 << 20, "{grown}");
    for key in &keys {
        until("the key can be used", async || sidecar.ask(&order(key)).await.status == 201).await;
    }
    assert_eq!(executions(&backend).values().max(), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_frozen_for_a_moment_leaves_no_key_behind() {
    freeze_for(Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_redis_that_was_frozen_for_half_a_minute_leaves_no_key_behind() {
    freeze_for(Duration::from_secs(30)).await;
}

/// The owner could not renew while its Redis was away. It is at work all the time, and no repeat and no operator is told that
/// nobody knows what became of it: that answer is final.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_outlives_an_outage_of_redis_is_in_flight_afterwards() {
    const LEASE: Duration = Duration::from_secs(3);
    let (backend, gate) = Backend::gated().await;
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = format!("url = \"{}\"\ntimeout = \"1s\"", redis.url());
    let mut sidecars = Vec::new();
    for _ in 0..2 {
        let sidecar = Setup::new(&backend.url()).with("store", &store).route("lease = \"3s\"").start().await;
        until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
        sidecars.push(sidecar);
    }
    let first = sidecars[0].asking(&order("k"));
    backend.has_seen(1).await;
    redis.kill();
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    redis.restart();
    let mut in_flight = [0, 0];
    let begun = Instant::now();
    while in_flight.contains(&0) || begun.elapsed() < LEASE * 2 / 3 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the sidecars come back");
        for (sidecar, in_flight) in sidecars.iter().zip(&mut in_flight) {
            let answer = sidecar.ask(&order("k")).await;
            match answer.status {
                503 => answer.refuses(503, "store-unavailable"),
                _ => {
                    answer.refuses(409, "in-flight");
                    assert!(answer.retry_after().is_some());
                    // The owner's process tells it while the store is away, too.
                    if sidecar.admin("/readyz?store=1").await.status == 200 {
                        *in_flight += 1;
                    }
                }
            }
            let list =
                request("GET", "/records?route=orders&state=in_flight").host("localhost").line("Onlyonce-Admin: 1");
            let listed = Wire::connect(sidecar.admin).await.ask(&list).await;
            assert!(!listed.text().contains("\"lost\""), "{}", listed.text());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gate.open();
    assert_eq!(first.await.expect("an answer").status, 201);
    for sidecar in &sidecars {
        until("it is replayed", async || sidecar.ask(&order("k")).await.is_replay()).await;
    }
    assert_eq!(backend.count(), 1);
}
