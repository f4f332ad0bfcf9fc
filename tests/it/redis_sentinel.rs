//! A Redis that sentinels watch: the primary dies, is demoted, or hangs, and requests go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::redis_topologies::Sentinels;
use crate::support::*;

async fn sidecar(backend: &Backend, redis: &Sentinels, store: &str) -> Sidecar {
    let store = format!("url = \"{}\"\ntimeout = \"1s\"\n{store}", redis.url());
    let sidecar = Setup::new(&backend.url()).with("store", &store).start().await;
    until("the store is there", async || is_ready(&sidecar).await).await;
    sidecar
}

async fn is_ready(sidecar: &Sidecar) -> bool {
    sidecar.admin("/readyz?store=1").await.status == 200
}

/// The number of executions for each key.
fn executions(backend: &Backend) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for seen in backend.seen() {
        *counts.entry(seen.value("idempotency-key").expect("a key").to_owned()).or_default() += 1;
    }
    counts
}

/// Keys that several clients repeat until they have a response.
struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<Told>>,
}

#[derive(Default)]
struct Told {
    /// The executed and replayed responses, by key.
    answers: HashMap<String, Vec<u8>>,
    /// The last response before and the first after the longest outage.
    longest_silence: Duration,
    /// Answers of other kinds, by status.
    others: HashMap<u16, usize>,
}

impl Load {
    fn start(sidecars: &[Sidecar], callers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let callers = (0..callers).map(|caller| {
            let (stop, addresses) = (stop.clone(), sidecars.iter().map(|sidecar| sidecar.address).collect::<Vec<_>>());
            tokio::spawn(async move {
                let (mut told, mut last, mut number) = (Told::default(), Instant::now(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("caller-{caller}-{number}");
                    number += 1;
                    // Sent once more after the response: a replay.
                    for turn in 0..2 {
                        loop {
                            let address = addresses[(caller + number + turn) % addresses.len()];
                            let answer = Wire::connect(address).await.ask(&order(&key)).await;
                            if answer.status == 201 {
                                told.longest_silence = told.longest_silence.max(last.elapsed());
                                last = Instant::now();
                                let body = told.answers.entry(key.clone()).or_insert_with(|| answer.body.clone());
                                assert_eq!(*body, answer.body, "{key} has two answers");
                                break;
                            }
                            *told.others.entry(answer.status).or_default() += 1;
                            if stop.load(Ordering::Relaxed) {
                                break;
                            }
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
                told
            })
        });
        let callers = callers.collect();
        Self { stop, callers }
    }

    async fn stop(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for caller in self.callers {
            let told = caller.await.expect("no two answers for one key");
            all.answers.extend(told.answers);
            all.longest_silence = all.longest_silence.max(told.longest_silence);
            for (status, count) in told.others {
                *all.others.entry(status).or_default() += count;
            }
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_records_are_found_at_the_new_primary() {
    let mut redis = Sentinels::start();
    let backend = Backend::start().await;
    let sidecar = sidecar(&backend, &redis, "replica_acks = 1").await;
    let first = sidecar.ask(&order("before")).await;
    assert_eq!(first.status, 201, "{}", first.text());
    let before = redis.primary();
    redis.servers[0].kill();
    let begun = Instant::now();
    until("another primary is used", async || redis.primary() != before && is_ready(&sidecar).await).await;
    println!("without a store for {:?}", begun.elapsed());
    let again = sidecar.ask(&order("before")).await;
    assert!(again.is_replay() && again.body == first.body, "{}", again.text());

    // Without a replica, nothing new is claimed, and recorded responses are replayed.
    let refused = sidecar.ask(&order("alone")).await;
    refused.refuses(503, "store-unavailable");
    assert!(sidecar.ask(&order("before")).await.is_replay());
    redis.servers[0].restart();
    until("the former primary follows", async || sidecar.ask(&order("alone")).await.status == 201).await;
    assert_eq!(executions(&backend), HashMap::from([("before".to_owned(), 1), ("alone".to_owned(), 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_demoted_is_left_without_being_lost() {
    let redis = Sentinels::start();
    let backend = Backend::start().await;
    let sidecar = sidecar(&backend, &redis, "").await;
    let first = sidecar.ask(&order("before")).await;
    let before = redis.primary();
    let () = redis.sentinels[1].ask(&["SENTINEL", "FAILOVER", Sentinels::MASTER]).expect("an answer");
    until("the other is the primary", async || redis.primary() != before).await;
    until("new keys are claimed there", async || sidecar.ask(&order("after")).await.status == 201).await;
    assert_eq!(sidecar.ask(&order("before")).await.body, first.body);
    assert_eq!(executions(&backend).values().max(), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_minute_of_load_with_a_killed_primary_runs_each_key_once() {
    let mut redis = Sentinels::start();
    let backend = Backend::start().await;
    let mut sidecars = Vec::new();
    for _ in 0..4 {
        sidecars.push(sidecar(&backend, &redis, "replica_acks = 1").await);
    }
    let load = Load::start(&sidecars, 8);
    for round in 0..3 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        let before = redis.primary();
        let dead = usize::from(redis.servers[0].port() != before);
        let begun = Instant::now();
        redis.servers[dead].kill();
        until("there is another primary", async || redis.primary() != before).await;
        println!("round {round}: another primary after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_secs(5)).await;
        redis.servers[dead].restart();
        redis.wait_until_whole();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let told = load.stop().await;
    let counts = executions(&backend);
    println!("{} keys; without any answer for {:?}; others {:?}", counts.len(), told.longest_silence, told.others);
    let more: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(more.is_empty(), "executed more than once: {more:?}");
    assert!(told.answers.len() > 50, "{}", told.answers.len());
}
