//! Sidecars are killed and frozen at random while they work, in front of a backend that is none of the best.
//!
//! `ONLYONCE_STORM_SECONDS` makes it longer. `ONLYONCE_STORM_SEED` gives a seed again: with it come the same blows and
//! the same misbehaviour of the backend, though never quite the same storm.

use std::collections::HashMap;
use std::env::var;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::audit::audit;
use crate::backend::read_ledger;
use crate::client::{self, Answer, until};
use crate::process::{Backend, Sidecar, config};
use crate::redis_server::RedisServer;

const SIDECARS: usize = 4;
const KEYS_PER_SECOND: u32 = 30;
const CLIENTS_PER_KEY: usize = 5;

/// The sidecars that take requests now.
type Addresses = Mutex<[Option<SocketAddr>; SIDECARS]>;

/// All that the clients got, by key.
type Answers = Mutex<HashMap<String, Vec<Answer>>>;

#[derive(Default)]
struct Blows {
    kills: u32,
    freezes: u32,
}

pub fn run() {
    let seed = var("ONLYONCE_STORM_SEED").map_or_else(|_| fresh_seed(), |seed| seed.parse().expect("a number"));
    let seconds = var("ONLYONCE_STORM_SECONDS").map_or(10, |seconds| seconds.parse().expect("a number of seconds"));
    println!("\nstorm: ONLYONCE_STORM_SEED={seed} ONLYONCE_STORM_SECONDS={seconds}");

    let begun = Instant::now();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let redis = RedisServer::start_with(&["--appendonly", "yes"]);
    let backend = Backend::start(folder.path(), Some(seed), None);
    let config = config(&backend.url(), &redis.url(), "on_unknown = \"hold\"\nlease = \"1s\"");
    std::fs::write(folder.path().join("onlyonce.toml"), config).expect("a writable folder");
    let mut sidecars = [0, 1, 2, 3].map(|number| start(folder.path(), number));

    let addresses = Mutex::new(sidecars.each_ref().map(|sidecar| Some(sidecar.address)));
    let answers = Answers::default();
    let mut chance = Chance(seed);
    let blows = thread::scope(|scope| {
        let (addresses, answers) = (&addresses, &answers);
        let end = Instant::now() + Duration::from_secs(seconds.into());
        let blows = scope.spawn({
            let (folder, sidecars, chance) = (folder.path(), &mut sidecars, chance.another());
            move || strike(folder, sidecars, addresses, chance, end)
        });
        for number in 0..seconds * KEYS_PER_SECOND {
            thread::sleep(Duration::from_secs(1) / KEYS_PER_SECOND);
            for _ in 0..CLIENTS_PER_KEY {
                let chance = chance.another();
                scope.spawn(move || persist(&key(number), addresses, answers, chance));
            }
        }
        blows.join().expect("no panic")
    });
    until("every attempt is recorded", || {
        sidecars.iter().all(|sidecar| client::at_work(sidecar.admin) == 0).then_some(())
    });
    let keys: Vec<String> = (0..seconds * KEYS_PER_SECOND).map(key).collect();
    let last = ask_all(&keys, &sidecars, &answers);

    let executions = read_ledger(&backend.ledger);
    let answers = answers.into_inner().expect("no panic");
    let mut completed = 0;
    for key in &keys {
        let executions: Vec<_> = executions.iter().filter(|execution| execution.key == *key).cloned().collect();
        assert!(executions.len() <= 1, "executed more than once: {executions:?}");
        audit(&executions, &answers[key]);
        let succeeded = last[key].iter().filter(|answer| answer.is_success()).count();
        assert!(succeeded == 0 || succeeded == SIDECARS, "the sidecars do not agree: {:?}", last[key]);
        let had_succeeded = answers[key].iter().any(Answer::is_success);
        assert!(succeeded > 0 || !had_succeeded, "a success was forgotten: {:?}", last[key]);
        completed += usize::from(succeeded > 0);
    }
    let requests: usize = answers.values().map(Vec::len).sum();
    println!(
        "{} keys: {completed} completed, {} unknown, {} executions; {requests} answers; {} kills, {} freezes; {:.1?}",
        keys.len(),
        keys.len() - completed,
        executions.len(),
        blows.kills,
        blows.freezes,
        begun.elapsed()
    );
    assert!(completed > keys.len() / 2, "too few keys were completed for this to show anything");
    assert!(blows.kills >= 3, "too few sidecars were killed for this to show anything");
}

fn start(folder: &Path, number: usize) -> Sidecar {
    Sidecar::start(folder, &format!("sidecar-{number}"), None)
}

fn key(number: u32) -> String {
    format!("order-{number}")
}

/// Kills or freezes one sidecar after the other.
fn strike(
    folder: &Path,
    sidecars: &mut [Sidecar; SIDECARS],
    addresses: &Addresses,
    mut chance: Chance,
    end: Instant,
) -> Blows {
    let set = |number: usize, address| addresses.lock().expect("no panic")[number] = address;
    let mut blows = Blows::default();
    while Instant::now() < end {
        thread::sleep(chance.millis(50..400));
        let number = chance.below(SIDECARS);
        let sidecar = &mut sidecars[number];
        set(number, None);
        if chance.below(4) == 0 {
            sidecar.freeze();
            thread::sleep(chance.millis(200..1800));
            sidecar.thaw();
            blows.freezes += 1;
        } else {
            sidecar.kill();
            thread::sleep(chance.millis(0..300));
            *sidecar = start(folder, number);
            blows.kills += 1;
        }
        set(number, Some(sidecar.address));
    }
    blows
}

/// One client: repeats its request, through any sidecar, until it knows.
fn persist(key: &str, addresses: &Addresses, answers: &Answers, mut chance: Chance) {
    until("an answer to stop at", || {
        thread::sleep(chance.millis(0..100));
        let address = { addresses.lock().expect("no panic")[chance.below(SIDECARS)] }?;
        let answer = client::order(address, key)?;
        let knows = answer.is_success() || answer.is_problem("outcome-unknown");
        answers.lock().expect("no panic").entry(key.to_owned()).or_default().push(answer);
        knows.then_some(())
    });
}

/// What each sidecar says of each key when all is over.
fn ask_all(keys: &[String], sidecars: &[Sidecar; SIDECARS], answers: &Answers) -> HashMap<String, Vec<Answer>> {
    let all = Answers::default();
    thread::scope(|scope| {
        for sidecar in sidecars {
            let all = &all;
            scope.spawn(move || {
                for key in keys {
                    let answer = until("an answer that stays", || {
                        let answer = client::order(sidecar.address, key).expect("a sidecar that lives answers");
                        answers.lock().expect("no panic").entry(key.clone()).or_default().push(answer.clone());
                        (answer.is_success() || answer.is_problem("outcome-unknown")).then_some(answer)
                    });
                    all.lock().expect("no panic").entry(key.clone()).or_default().push(answer);
                }
            });
        }
    });
    all.into_inner().expect("no panic")
}

/// Numbers that look random (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// For another thread.
    fn another(&mut self) -> Self {
        Self(self.next())
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("less than a usize")
    }

    fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.next() % (range.end - range.start))
    }
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    now.as_secs() % 100_000 * 100_000 + u64::from(now.subsec_micros()) % 100_000
}
