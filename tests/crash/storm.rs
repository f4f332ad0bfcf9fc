//! Processes are killed and frozen at random under load, in front of a backend that is none of the best.
//!
//! In one storm the sidecars die, in another what is behind them, and in a third Redis is late while requests may go
//! through unguarded. `ONLYONCE_STORM_SECONDS` makes them longer.
//! `ONLYONCE_STORM_SEED` gives a seed again: with it come the same blows and the same misbehaviour of the backend, though
//! never quite the same storm.

use std::collections::HashMap;
use std::env::var;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

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

/// What is killed. Sidecars are frozen in either storm.
#[derive(Debug, Clone, Copy)]
enum Kills {
    Sidecars,
    /// Redis and the backend.
    Behind,
    /// Nothing: Redis is late, again and again, and the sidecars let requests through where it is out of reach.
    Nothing,
}

struct Scene {
    folder: TempDir,
    redis: RedisServer,
    backend: Backend,
    sidecars: [Sidecar; SIDECARS],
}

#[derive(Debug, Default)]
struct Blows {
    kills: u32,
    freezes: u32,
}

pub fn run() {
    let seed = var("ONLYONCE_STORM_SEED").map_or_else(|_| fresh_seed(), |seed| seed.parse().expect("a number"));
    let seconds = var("ONLYONCE_STORM_SECONDS").map_or(20, |seconds| seconds.parse().expect("a number of seconds"));
    println!("\nstorm: ONLYONCE_STORM_SEED={seed} ONLYONCE_STORM_SECONDS={seconds}");
    rage(Kills::Sidecars, seed, seconds);
    rage(Kills::Behind, seed, seconds);
    rage(Kills::Nothing, seed, seconds);
}

fn rage(kills: Kills, seed: u64, seconds: u32) {
    let begun = Instant::now();
    let mut scene = Scene::start(kills, seed);
    let addresses = Mutex::new(scene.sidecars.each_ref().map(|sidecar| Some(sidecar.address)));
    let answers = Answers::default();
    let mut chance = Chance(seed);
    let keys: Vec<String> = (0..seconds * KEYS_PER_SECOND).map(|number| format!("order-{number}")).collect();
    let blows = thread::scope(|scope| {
        let (scene, addresses, answers) = (&mut scene, &addresses, &answers);
        let end = Instant::now() + Duration::from_secs(seconds.into());
        let blows = scope.spawn({
            let chance = chance.another();
            move || scene.strike(kills, addresses, chance, end)
        });
        for key in &keys {
            thread::sleep(Duration::from_secs(1) / KEYS_PER_SECOND);
            for _ in 0..CLIENTS_PER_KEY {
                let chance = chance.another();
                scope.spawn(move || persist(key, addresses, answers, chance));
            }
        }
        blows.join().expect("no panic")
    });
    until("every attempt is recorded", || {
        scene.sidecars.iter().all(|sidecar| client::at_work(sidecar.admin) == 0).then_some(())
    });
    let last = ask_all(&keys, &scene.sidecars, &answers);

    if let Kills::Nothing = kills {
        assert_eq!(scene.unguarded(), 0, "requests went through unguarded, and Redis was only late");
    }
    let executions = read_ledger(&scene.backend.ledger);
    let answers = answers.into_inner().expect("no panic");
    let mut completed = 0;
    for key in &keys {
        let executions: Vec<_> = executions.iter().filter(|execution| execution.key == *key).cloned().collect();
        assert!(executions.len() <= 1, "executed more than once: {executions:?}");
        audit(&executions, &answers[key]);
        let succeeded = last[key].iter().filter(|answer| answer.is_success()).count();
        assert!(succeeded == 0 || succeeded == SIDECARS, "the sidecars do not agree: {:?}", last[key]);
        // Told before it was recorded, it can only be if Redis *and* then the owner died; here, one of them lives.
        let had_succeeded = answers[key].iter().any(Answer::is_success);
        assert!(succeeded > 0 || !had_succeeded, "a success was forgotten: {:?}", last[key]);
        completed += usize::from(succeeded > 0);
    }
    let (requests, executed) = (answers.values().map(Vec::len).sum::<usize>(), executions.len());
    let (all, unknown, took) = (keys.len(), keys.len() - completed, begun.elapsed());
    println!(
        "{kills:?}: {all} keys, {completed} completed, {unknown} unknown, {executed} executions; {requests} answers; \
         {blows:?}; {took:.1?}"
    );
    assert!(completed > all / 3, "too few keys were completed for this to show anything");
    assert!(blows.kills.max(blows.freezes) >= 3, "too little happened for this to show anything");
}

impl Scene {
    fn start(kills: Kills, seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let backend = Backend::start(folder.path(), Some(seed), None);
        let route = "on_unknown = \"hold\"\nlease = \"1s\"";
        let mut config = config(&backend.url(), &redis.url(), route);
        if let Kills::Nothing = kills {
            // Redis stands still for longer than a claim may take, and for far less than a connect may: late is not out
            // of reach.
            config = config.replace("timeout = \"10s\"", "timeout = \"1s\"\non_error = \"forward\"");
        }
        std::fs::write(folder.path().join("onlyonce.toml"), config).expect("a writable folder");
        let sidecars = [0, 1, 2, 3].map(|number| start(folder.path(), number));
        Self { folder, redis, backend, sidecars }
    }

    /// Requests that went through without a guard, by the sidecars' logs.
    fn unguarded(&self) -> usize {
        let logs = (0..SIDECARS).map(|number| self.folder.path().join(format!("sidecar-{number}.log")));
        let logs = logs.map(|log| std::fs::read_to_string(log).expect("its log"));
        logs.map(|log| log.lines().filter(|line| line.contains("\"outcome\":\"unguarded\"")).count()).sum()
    }

    /// Strikes one process after the other.
    fn strike(&mut self, kills: Kills, addresses: &Addresses, mut chance: Chance, end: Instant) -> Blows {
        let set = |number: usize, address| addresses.lock().expect("no panic")[number] = address;
        let mut blows = Blows::default();
        while Instant::now() < end {
            thread::sleep(chance.millis(50..300));
            let (number, pause) = (chance.below(SIDECARS), chance.millis(0..400));
            if let Kills::Nothing = kills {
                self.redis.freeze();
                thread::sleep(Duration::from_millis(500) + pause);
                self.redis.thaw();
                thread::sleep(Duration::from_millis(300) + pause);
                blows.freezes += 1;
                continue;
            }
            let sidecar = &mut self.sidecars[number];
            let freezes = chance.below(6) == 0;
            match kills {
                _ if freezes => {
                    set(number, None);
                    sidecar.freeze();
                    // Shorter than a lease, or longer.
                    thread::sleep(pause * 4);
                    sidecar.thaw();
                    set(number, Some(sidecar.address));
                    blows.freezes += 1;
                    continue;
                }
                Kills::Sidecars => {
                    set(number, None);
                    sidecar.kill();
                    thread::sleep(pause);
                    *sidecar = start(self.folder.path(), number);
                    set(number, Some(sidecar.address));
                }
                Kills::Behind if chance.below(2) == 0 => {
                    self.backend.kill();
                    thread::sleep(pause);
                    self.backend.restart();
                }
                Kills::Behind | Kills::Nothing => {
                    self.redis.kill();
                    thread::sleep(pause);
                    self.redis.restart();
                }
            }
            blows.kills += 1;
        }
        blows
    }
}

fn start(folder: &Path, number: usize) -> Sidecar {
    Sidecar::start(folder, &format!("sidecar-{number}"), None)
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
