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

/// The keys that were executed more than once, and what each sidecar says of lost data. Callers noticed each of them: the
/// second execution had another answer.
pub async fn losses(backend: &Backend, told: &Told, sidecars: &[Sidecar]) -> (usize, Vec<f64>) {
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
