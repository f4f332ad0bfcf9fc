//! Processes are killed and frozen at random under load, in front of an unreliable backend.
//!
//! Those of PostgreSQL are for `tests/run --all`, and are the same for it where there is something of the kind.
//!
//! In one storm the sidecars die, in another Redis and the backend, and in a third Redis is late while requests may be
//! forwarded unguarded. In others the store fails and keeps its data: the Redis user lacks a right, the disk of an
//! embedded store is full, or its folder is moved away. `ONLYONCE_STORM_SECONDS` makes them longer.
//! `ONLYONCE_STORM_SEED` repeats a seed: the faults and the behaviour of the backend are the same then, but not the
//! timing.

use std::collections::HashMap;
use std::env::var;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use onlyonce::store::{AclRule, SCHEMA, grants};
use tempfile::TempDir;

use crate::audit::audit;
use crate::backend::{Manner, read_ledger};
use crate::client::{self, Answer, until};
use crate::postgres_server::PostgresServer;
use crate::process::{Backend, Sidecar, config};
use crate::redis_server::RedisServer;
use crate::small_disk::SmallDisk;

const KEYS_PER_SECOND: u32 = 30;
const CLIENTS_PER_KEY: usize = 5;

/// The least number of kills or freezes that a storm needs to show anything.
const ENOUGH: u32 = 3;

/// The sidecars that accept requests now.
type Addresses = Mutex<Vec<Option<SocketAddr>>>;

/// All responses, by key.
type Answers = Mutex<HashMap<String, Vec<Answer>>>;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storm {
    /// Sidecars are killed and frozen.
    Sidecars,
    /// Redis and the backend are killed; sidecars are frozen.
    Behind,
    /// Redis is late again and again, and the sidecars forward requests when it is unreachable.
    LateRedis,
    /// The sidecars' Redis user loses a right, and gets it back.
    Rights,
    /// The disk of the embedded store becomes full and has room again; the sidecar is killed in both states.
    FullDisk,
    /// The folder of the embedded store is moved away, and put back.
    Folder,
    /// PostgreSQL and the backend are killed, and PostgreSQL is frozen.
    Postgres,
    /// Sidecars that keep their records in PostgreSQL are killed and frozen.
    PostgresSidecars,
    /// The primary of two PostgreSQL servers, whose commits wait for the other one, is killed, and the other is promoted.
    Failover,
    /// PostgreSQL is late again and again, and the sidecars forward requests when it is unreachable.
    LatePostgres,
    /// The sidecars' role loses a right, or may not log in, and gets it back.
    PostgresRights,
    /// The disk of PostgreSQL becomes full and has room again.
    PostgresFullDisk,
}

struct Scene {
    storm: Storm,
    folder: TempDir,
    store: Store,
    backend: Backend,
    sidecars: Vec<Sidecar>,
}

/// Where the records are.
enum Store {
    Redis(RedisServer),
    /// On a separate disk if that must be full.
    Embedded(Option<SmallDisk>),
    /// The second one is a synchronous replica of the first.
    Postgres(PostgresServer, Option<PostgresServer>),
    /// On a disk of its own.
    SmallPostgres(PostgresServer, SmallDisk),
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
    for storm in [Storm::Sidecars, Storm::Behind, Storm::LateRedis] {
        rage(storm, seed, seconds);
    }
    for storm in [Storm::Rights, Storm::FullDisk, Storm::Folder] {
        rage(storm, seed, seconds.div_ceil(2));
    }
}

/// Those of `tests/run --all`.
pub fn run_long() {
    let seed = var("ONLYONCE_STORM_SEED").map_or_else(|_| fresh_seed(), |seed| seed.parse().expect("a number"));
    let seconds = var("ONLYONCE_STORM_SECONDS").map_or(20, |seconds| seconds.parse().expect("a number of seconds"));
    println!("\nstorm: ONLYONCE_STORM_SEED={seed} ONLYONCE_STORM_SECONDS={seconds}");
    rage(Storm::Postgres, seed, seconds);
    rage(Storm::PostgresSidecars, seed, seconds);
    rage(Storm::Failover, seed, seconds);
    rage(Storm::LatePostgres, seed, seconds);
    for storm in [Storm::PostgresRights, Storm::PostgresFullDisk] {
        rage(storm, seed, seconds.div_ceil(2));
    }
}

fn rage(storm: Storm, seed: u64, seconds: u32) {
    let begun = Instant::now();
    let Some(mut scene) = Scene::start(storm, seed) else { return };
    let addresses: Addresses = Mutex::new(scene.sidecars.iter().map(|sidecar| Some(sidecar.address)).collect());
    let answers = Answers::default();
    let mut chance = Chance(seed);
    let keys: Vec<String> = (0..seconds * KEYS_PER_SECOND).map(|number| format!("order-{number}")).collect();
    let blows = thread::scope(|scope| {
        let (scene, addresses, answers) = (&mut scene, &addresses, &answers);
        let end = Instant::now() + Duration::from_secs(seconds.into());
        let blows = scope.spawn({
            let chance = chance.another();
            move || scene.strike(addresses, chance, end)
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

    if matches!(storm, Storm::LateRedis | Storm::LatePostgres) {
        assert_eq!(scene.unguarded(), 0, "requests went through unguarded, and the store was only late");
    }
    let executions = read_ledger(&scene.backend.ledger);
    let answers = answers.into_inner().expect("no panic");
    let mut completed = 0;
    for key in &keys {
        let executions: Vec<_> = executions.iter().filter(|execution| execution.key == *key).cloned().collect();
        assert!(executions.len() <= 1, "executed more than once: {executions:?}");
        audit(&executions, &answers[key]);
        let succeeded = last[key].iter().filter(|answer| answer.is_success()).count();
        assert!(succeeded == 0 || succeeded == scene.sidecars.len(), "the sidecars do not agree: {:?}", last[key]);
        // A response can reach its client before it is recorded only if the store *and* then the owner fail: the key is
        // held then.
        let had_succeeded = answers[key].iter().any(Answer::is_success);
        let may_be_held = storm == Storm::FullDisk;
        assert!(succeeded > 0 || !had_succeeded || may_be_held, "a success was forgotten: {:?}", last[key]);
        completed += usize::from(succeeded > 0);
    }
    let refused = answers.values().flatten().filter(|answer| answer.is_problem("store-unavailable")).count();
    if matches!(
        storm,
        Storm::Rights | Storm::FullDisk | Storm::Folder | Storm::PostgresRights | Storm::PostgresFullDisk
    ) {
        assert!(refused > 0, "nobody noticed");
    }
    let (requests, executed) = (answers.values().map(Vec::len).sum::<usize>(), executions.len());
    let (all, unknown, took) = (keys.len(), keys.len() - completed, begun.elapsed());
    println!(
        "{storm:?}: {all} keys, {completed} completed, {unknown} unknown, {executed} executions; {requests} answers, \
         {refused} of them 503; {blows:?}; {took:.1?}"
    );
    assert!(completed > all / 3, "too few keys were completed for this to show anything");
}

impl Scene {
    /// `None`: this machine cannot run it.
    fn start(storm: Storm, seed: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let persistent = || RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let store = match storm {
            Storm::Sidecars | Storm::Behind | Storm::LateRedis | Storm::Rights => Store::Redis(persistent()),
            Storm::FullDisk => Store::Embedded(Some(SmallDisk::mount(8, "FullDisk")?)),
            Storm::Folder => Store::Embedded(None),
            Storm::Postgres | Storm::PostgresSidecars | Storm::LatePostgres | Storm::PostgresRights => {
                Store::Postgres(PostgresServer::start_with(&["fsync=on"]), None)
            }
            Storm::PostgresFullDisk => {
                let disk = SmallDisk::mount(128, "PostgresFullDisk")?;
                let small = ["fsync=on", "min_wal_size=32MB", "max_wal_size=32MB"];
                Store::SmallPostgres(PostgresServer::start_in(disk.path(), &small), disk)
            }
            Storm::Failover => {
                let primary = PostgresServer::start_with(&["fsync=on", "synchronous_standby_names=*"]);
                let standby = primary.start_standby(&["fsync=on"]);
                until("the standby is synchronous", || {
                    let state = primary.sql("SELECT sync_state FROM pg_stat_replication");
                    (state == "sync").then_some(())
                });
                Store::Postgres(primary, Some(standby))
            }
        };
        let url = match &store {
            Store::Redis(redis) if storm == Storm::Rights => {
                give_rights(redis);
                redis.url().replace("redis://", &format!("redis://{USER}:{PASSWORD}@"))
            }
            Store::Redis(redis) => redis.url(),
            Store::Embedded(disk) => {
                let place = disk.as_ref().map_or(folder.path(), SmallDisk::path);
                format!("embedded:{}", place.join(RECORDS).display())
            }
            Store::Postgres(primary, None) if storm == Storm::PostgresRights => {
                primary.sql(&format!("CREATE ROLE {USER} LOGIN; {SCHEMA}{}", grants(USER)));
                primary.url_as(USER)
            }
            Store::Postgres(primary, None) | Store::SmallPostgres(primary, _) => primary.url(),
            Store::Postgres(primary, Some(standby)) => {
                format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", primary.port(), standby.port())
            }
        };
        let backend = Backend::start(folder.path(), Manner::Storm(seed), None);
        let route = "on_unknown = \"hold\"\nlease = \"1s\"";
        let mut config = config(&backend.url(), &url, route);
        if matches!(storm, Storm::LateRedis | Storm::LatePostgres) {
            // The store is frozen for longer than a claim may take, and for much less than a connect may: late is not
            // unreachable.
            config = config.replace("timeout = \"10s\"", "timeout = \"1s\"\non_error = \"forward\"");
        }
        std::fs::write(folder.path().join("onlyonce.toml"), config).expect("a writable folder");
        let count = if let Store::Embedded(_) = store { 1 } else { 4 };
        let sidecars = (0..count).map(|number| start(folder.path(), number)).collect();
        Some(Self { storm, folder, store, backend, sidecars })
    }

    /// The number of unguarded requests, by the sidecars' logs.
    fn unguarded(&self) -> usize {
        let logs = (0..self.sidecars.len()).map(|number| self.folder.path().join(format!("sidecar-{number}.log")));
        let logs = logs.map(|log| std::fs::read_to_string(log).expect("its log"));
        logs.map(|log| log.lines().filter(|line| line.contains("\"outcome\":\"unguarded\"")).count()).sum()
    }

    /// Causes one fault after the other.
    fn strike(&mut self, addresses: &Addresses, mut chance: Chance, end: Instant) -> Blows {
        let mut blows = Blows::default();
        while Instant::now() < end || blows.kills.max(blows.freezes) < ENOUGH {
            thread::sleep(chance.millis(50..300));
            match self.storm {
                Storm::Sidecars | Storm::Behind | Storm::PostgresSidecars => {
                    self.strike_process(addresses, &mut chance, &mut blows);
                }
                Storm::Postgres => self.strike_postgres(&mut chance, &mut blows),
                Storm::Failover => {
                    self.fail_over(end, &mut chance);
                    return Blows { kills: ENOUGH, freezes: 0 };
                }
                Storm::LateRedis | Storm::Rights | Storm::FullDisk | Storm::Folder => {
                    self.strike_store(addresses, &mut chance, &mut blows);
                }
                Storm::LatePostgres | Storm::PostgresRights | Storm::PostgresFullDisk => {
                    self.hinder_postgres(&mut chance, &mut blows);
                }
            }
        }
        blows
    }

    fn strike_process(&mut self, addresses: &Addresses, chance: &mut Chance, blows: &mut Blows) {
        let set = |number: usize, address| addresses.lock().expect("no panic")[number] = address;
        let (number, pause) = (chance.below(self.sidecars.len()), chance.millis(0..400));
        let sidecar = &mut self.sidecars[number];
        if chance.below(6) == 0 {
            set(number, None);
            sidecar.freeze();
            // Shorter than a lease, or longer.
            thread::sleep(pause * 4);
            sidecar.thaw();
            set(number, Some(sidecar.address));
            blows.freezes += 1;
            return;
        }
        match (&mut self.store, self.storm) {
            (_, Storm::Behind) if chance.below(2) == 0 => {
                self.backend.kill();
                thread::sleep(pause);
                self.backend.restart();
            }
            (Store::Redis(redis), Storm::Behind) => {
                redis.kill();
                thread::sleep(pause);
                redis.restart();
            }
            _ => self.kill(number, pause, addresses),
        }
        blows.kills += 1;
    }

    fn strike_postgres(&mut self, chance: &mut Chance, blows: &mut Blows) {
        let pause = chance.millis(0..400);
        let (what, Store::Postgres(postgres, _)) = (chance.below(3), &mut self.store) else { return };
        match what {
            0 => {
                self.backend.kill();
                thread::sleep(pause);
                self.backend.restart();
            }
            1 => {
                postgres.kill();
                thread::sleep(pause);
                postgres.restart();
            }
            _ => {
                postgres.freeze();
                thread::sleep(pause * 4);
                postgres.thaw();
                blows.freezes += 1;
                return;
            }
        }
        blows.kills += 1;
    }

    /// The server keeps its data in each case.
    fn hinder_postgres(&mut self, chance: &mut Chance, blows: &mut Blows) {
        let pause = chance.millis(0..400);
        let admins: Vec<SocketAddr> = self.sidecars.iter().map(|sidecar| sidecar.admin).collect();
        // The first time it is noticed in any case, and later it may be noticed or not.
        let until_noticed = |is_first: bool| {
            let failed = || admins.iter().map(|&admin| client::claims_failed(admin)).sum::<u32>();
            let before = failed();
            if is_first {
                until("claims fail", || (failed() > before).then_some(()));
            }
        };
        match &mut self.store {
            Store::Postgres(postgres, _) if self.storm == Storm::LatePostgres => {
                postgres.freeze();
                thread::sleep(Duration::from_millis(500) + pause);
                postgres.thaw();
                thread::sleep(Duration::from_millis(300) + pause);
            }
            Store::Postgres(postgres, _) => {
                const LACKS: [&str; 6] = [
                    "REVOKE SELECT ON onlyonce.records FROM",
                    "REVOKE INSERT ON onlyonce.records FROM",
                    "REVOKE UPDATE ON onlyonce.records FROM",
                    "REVOKE DELETE ON onlyonce.records FROM",
                    "REVOKE ALL ON onlyonce.notes FROM",
                    "REVOKE USAGE ON SCHEMA onlyonce FROM",
                ];
                // What is lacked first is one that every claim needs.
                let what = if blows.freezes == 0 { 1 } else { chance.below(LACKS.len()) };
                postgres.sql(&format!("{} {USER}", LACKS[what]));
                if chance.below(3) == 0 {
                    postgres.sql(&format!(
                        "ALTER ROLE {USER} NOLOGIN;
                         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'"
                    ));
                    blows.kills += 1;
                }
                until_noticed(blows.freezes == 0);
                thread::sleep(Duration::from_millis(200) + pause * 2);
                postgres.sql(&format!("ALTER ROLE {USER} LOGIN; {}", grants(USER)));
                thread::sleep(Duration::from_millis(300) + pause);
            }
            Store::SmallPostgres(postgres, disk) => {
                disk.fill();
                until_noticed(blows.freezes == 0);
                thread::sleep(Duration::from_millis(500) + pause * 4);
                disk.make_room();
                // Without room for its log, it has crashed.
                postgres.recover();
                thread::sleep(Duration::from_millis(500) + pause);
            }
            Store::Redis(_) | Store::Embedded(_) => {}
        }
        blows.freezes += 1;
    }

    /// Once, in the middle of the time: the primary is gone for good, with its disk.
    fn fail_over(&mut self, end: Instant, chance: &mut Chance) {
        let left = end.saturating_duration_since(Instant::now());
        thread::sleep(left / 2);
        let Store::Postgres(primary, standby) = &mut self.store else { return };
        primary.kill();
        thread::sleep(chance.millis(0..1000));
        standby.as_ref().expect("a standby").promote();
        thread::sleep(end.saturating_duration_since(Instant::now()));
    }

    /// Kills a sidecar, and starts it again.
    fn kill(&mut self, number: usize, pause: Duration, addresses: &Addresses) {
        let set = |address| addresses.lock().expect("no panic")[number] = address;
        set(None);
        self.sidecars[number].kill();
        thread::sleep(pause);
        self.sidecars[number] = start(self.folder.path(), number);
        set(Some(self.sidecars[number].address));
    }

    /// The store keeps its data in each case.
    fn strike_store(&mut self, addresses: &Addresses, chance: &mut Chance, blows: &mut Blows) {
        let pause = chance.millis(0..400);
        match &self.store {
            Store::Redis(redis) if self.storm == Storm::LateRedis => {
                redis.freeze();
                thread::sleep(Duration::from_millis(500) + pause);
                redis.thaw();
                thread::sleep(Duration::from_millis(300) + pause);
            }
            Store::Redis(redis) => {
                const LACKS: [&str; 6] = ["-evalsha", "-set", "-get", "-del", "resetkeys", "off"];
                order(redis, &format!("ACL SETUSER {USER} {}", LACKS[chance.below(LACKS.len())]));
                thread::sleep(Duration::from_millis(200) + pause * 2);
                give_rights(redis);
                thread::sleep(Duration::from_millis(300) + pause);
            }
            Store::Embedded(Some(disk)) => {
                disk.fill();
                if blows.freezes == 0 {
                    self.store_goes_down();
                }
                thread::sleep(Duration::from_millis(100) + pause * 2);
                if chance.below(3) == 0 {
                    self.kill(0, pause, addresses);
                    blows.kills += 1;
                    thread::sleep(pause);
                }
                let Store::Embedded(Some(disk)) = &self.store else { return };
                disk.make_room();
                thread::sleep(Duration::from_millis(1200) + pause);
                if chance.below(3) == 0 {
                    self.kill(0, pause, addresses);
                    blows.kills += 1;
                }
            }
            Store::Postgres(..) | Store::SmallPostgres(..) => {}
            Store::Embedded(None) => {
                let (here, away) = (self.folder.path().join(RECORDS), self.folder.path().join("away"));
                std::fs::rename(&here, &away).expect("to move it");
                // The first time it is noticed in any case, and later it may be noticed or not.
                if blows.freezes == 0 {
                    self.store_goes_down();
                }
                thread::sleep(pause * 6);
                std::fs::rename(&away, &here).expect("to put it back");
                thread::sleep(Duration::from_millis(1200) + pause);
            }
        }
        blows.freezes += 1;
    }

    /// Waits until the sidecar cannot use its store. A write to a full disk can succeed: the store has written zeros
    /// ahead, and overwrites them.
    fn store_goes_down(&self) {
        until("the sidecar notices it", || (!client::store_is_up(self.sidecars[0].admin)).then_some(()));
        // Clients get the error.
        thread::sleep(Duration::from_millis(200));
    }
}

/// The folder of the embedded store.
const RECORDS: &str = "records";

const USER: &str = "sidecar";
const PASSWORD: &str = "secret";

/// Gives the sidecars' user the necessary rights, and no others.
fn give_rights(redis: &RedisServer) {
    let rule = AclRule { prefix: "onlyonce".to_owned(), ..AclRule::default() };
    order(redis, &format!("ACL SETUSER {USER} reset on >{PASSWORD} {rule}"));
}

/// Sends a command to the server.
fn order(redis: &RedisServer, line: &str) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port())).expect("the server listens");
    stream.write_all(format!("{line}\r\n").as_bytes()).expect("it reads");
    let mut reply = String::new();
    BufReader::new(&stream).read_line(&mut reply).expect("it answers");
    assert_eq!(reply, "+OK\r\n", "{line}");
}

fn start(folder: &Path, number: usize) -> Sidecar {
    Sidecar::start(folder, &format!("sidecar-{number}"), None)
}

/// One client: repeats its request, through any sidecar, until it has a final response.
fn persist(key: &str, addresses: &Addresses, answers: &Answers, mut chance: Chance) {
    until("an answer to stop at", || {
        thread::sleep(chance.millis(0..100));
        let address = {
            let addresses = addresses.lock().expect("no panic");
            addresses[chance.below(addresses.len())]
        }?;
        let answer = client::order(address, key)?;
        let knows = answer.is_success() || answer.is_problem("outcome-unknown");
        answers.lock().expect("no panic").entry(key.to_owned()).or_default().push(answer);
        knows.then_some(())
    });
}

/// The response of each sidecar for each key at the end.
fn ask_all(keys: &[String], sidecars: &[Sidecar], answers: &Answers) -> HashMap<String, Vec<Answer>> {
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

/// Pseudo-random numbers (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A generator for another thread.
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
