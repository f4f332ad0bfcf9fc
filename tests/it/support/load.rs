//! Requests with keys, again and again, while something happens to the store; and what is said of it afterwards.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Backend, Sidecar, Wire, order};

/// How often the backend was asked for each key.
pub fn executions(backend: &Backend) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for seen in backend.seen() {
        *counts.entry(seen.value("idempotency-key").expect("a key").to_owned()).or_default() += 1;
    }
    counts
}

/// Keys that are asked for again and again, each until it has an answer, by several callers at once.
pub struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<Told>>,
}

/// What callers were told.
#[derive(Default)]
pub struct Told {
    /// The first answers of those that were executed or replayed, by key.
    pub answers: HashMap<String, Vec<u8>>,
    /// The keys that had another answer later.
    pub changed: BTreeSet<String>,
    /// The longest time without any answer of these.
    pub longest_silence: Duration,
    /// Answers of other kinds, by status.
    pub others: HashMap<u16, usize>,
}

impl Load {
    pub fn start(sidecars: &[Sidecar], callers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let callers = (0..callers).map(|caller| {
            let (stop, addresses) = (stop.clone(), addresses(sidecars));
            tokio::spawn(async move {
                let (mut told, mut last, mut number) = (Told::default(), Instant::now(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("caller-{caller}-{number}");
                    number += 1;
                    // Asked for once more after it is answered: a replay.
                    for turn in 0..2 {
                        let address = |tries: usize| addresses[(caller + number + turn + tries) % addresses.len()];
                        let mut tries = 0;
                        while !told.ask(address(tries), &key).await && !stop.load(Ordering::Relaxed) {
                            tries += 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        told.longest_silence = told.longest_silence.max(last.elapsed());
                        last = Instant::now();
                    }
                }
                told
            })
        });
        let callers = callers.collect();
        Self { stop, callers }
    }

    pub async fn stop(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for caller in self.callers {
            let told = caller.await.expect("no panic");
            all.answers.extend(told.answers);
            all.changed.extend(told.changed);
            all.longest_silence = all.longest_silence.max(told.longest_silence);
            for (status, count) in told.others {
                *all.others.entry(status).or_default() += count;
            }
        }
        all
    }
}

impl Told {
    /// Whether the key was executed or replayed.
    async fn ask(&mut self, address: SocketAddr, key: &str) -> bool {
        let answer = Wire::connect(address).await.ask(&order(key)).await;
        if answer.status != 201 {
            *self.others.entry(answer.status).or_default() += 1;
            return false;
        }
        if *self.answers.entry(key.to_owned()).or_insert_with(|| answer.body.clone()) != answer.body {
            self.changed.insert(key.to_owned());
        }
        true
    }

    /// Asks for every key once more that had an answer. Where only the claim had reached a replica, the outcome is unknown
    /// now: how many those are.
    pub async fn ask_again(&mut self, sidecars: &[Sidecar]) -> usize {
        let addresses = addresses(sidecars);
        let keys: Vec<String> = self.answers.keys().cloned().collect();
        let mut unknown = 0;
        for (number, key) in keys.iter().enumerate() {
            let refused = |told: &Self| told.others.get(&409).copied().unwrap_or_default();
            let before = refused(self);
            while !self.ask(addresses[number % addresses.len()], key).await {
                if refused(self) > before {
                    unknown += 1;
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        unknown
    }
}

fn addresses(sidecars: &[Sidecar]) -> Vec<SocketAddr> {
    sidecars.iter().map(|sidecar| sidecar.address).collect()
}

/// A minute of load while the primary is killed and comes back as a replica, three times: no key runs twice. `fail_over`
/// does that, and returns how long it took until all keys were served again.
pub async fn a_minute_with_killed_primaries(
    backend: &Backend,
    sidecars: &[Sidecar],
    mut fail_over: impl AsyncFnMut(u16) -> Duration,
) {
    let (load, begun) = (Load::start(sidecars, 8), Instant::now());
    for round in 0..3 {
        tokio::time::sleep(Duration::from_secs(8)).await;
        let took = fail_over(round).await;
        println!("round {round}: all keys are served again after {took:?}");
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    tokio::time::sleep(Duration::from_secs(60).saturating_sub(begun.elapsed())).await;
    let told = load.stop().await;
    let counts = executions(backend);
    println!("{} keys; without any answer for {:?}; others {:?}", counts.len(), told.longest_silence, told.others);
    runs_each_once(&counts, &told);
    assert!(told.answers.len() > 50, "{}", told.answers.len());
}

/// No key was executed twice, and no caller had two answers.
pub fn runs_each_once(counts: &HashMap<String, usize>, told: &Told) {
    let more: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(more.is_empty(), "executed more than once: {more:?}");
    assert!(told.changed.is_empty(), "two answers: {:?}", told.changed);
}

/// A minute of load in which the primary dies with writes that no replica has. Those keys run again when they are repeated:
/// it is counted, and no more than that happens. `lose` does that, and returns when the former primary is back.
pub async fn a_minute_with_lost_writes(backend: &Backend, sidecars: &[Sidecar], lose: impl AsyncFnOnce()) {
    let (load, begun) = (Load::start(sidecars, 8), Instant::now());
    tokio::time::sleep(Duration::from_secs(20)).await;
    lose().await;
    tokio::time::sleep(Duration::from_secs(60).saturating_sub(begun.elapsed())).await;
    let mut told = load.stop().await;
    let unknown = told.ask_again(sidecars).await;
    let (twice, counted) = losses(backend, &told, sidecars).await;
    println!("{} keys, {twice} lost, {unknown} unknown; counted by sidecars: {counted:?}", told.answers.len());
    assert!(twice > 0, "the failover lost something");
}

/// The keys that were executed more than once, and what each sidecar says of lost data. Callers noticed each of them: the
/// second execution had another answer.
async fn losses(backend: &Backend, told: &Told, sidecars: &[Sidecar]) -> (usize, Vec<f64>) {
    let counts = executions(backend);
    let twice: BTreeSet<String> = counts.iter().filter(|(_, count)| **count > 1).map(|(key, _)| key.clone()).collect();
    assert_eq!(twice, told.changed, "what the ledger shows, and what callers were told");
    assert!(counts.values().all(|count| *count <= 2), "lost once, and run once more");
    let mut counted = Vec::new();
    for sidecar in sidecars {
        let losses = sidecar.metric("onlyonce_store_losses_total").await;
        assert_eq!(losses > 0.0, !twice.is_empty(), "losses are counted where there are any, and only there");
        counted.push(losses);
    }
    (twice.len(), counted)
}
