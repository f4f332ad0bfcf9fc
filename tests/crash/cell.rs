//! One cell of the matrix: one step, one victim, one mode, and the result for one key.

pub mod probe;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::audit::audit;
use crate::backend::{Execution, Manner, read_ledger};
use crate::client::{self, Answer, Begun, until};
use crate::postgres_server::PostgresServer;
use crate::process::{Backend, Sidecar, StopAt, config};
use crate::redis_server::RedisServer;

/// A step of the protocol, in the order in which a request takes them.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// The owner, which is sidecar A, stops there.
    Sidecar(&'static str),
    /// The backend stops there.
    Backend(&'static str),
}

pub const STEPS: [Step; 9] = [
    Step::Sidecar("before-claim"),
    Step::Sidecar("after-claim"),
    Step::Sidecar("before-send"),
    Step::Backend("after-send"),
    Step::Sidecar("head-read"),
    Step::Backend("body-half-read"),
    Step::Sidecar("before-complete"),
    Step::Sidecar("after-complete"),
    Step::Sidecar("before-answer"),
];

/// Those of a sidecar.
pub const SIDECAR_STEPS: [Step; 7] = [
    Step::Sidecar("before-claim"),
    Step::Sidecar("after-claim"),
    Step::Sidecar("before-send"),
    Step::Sidecar("head-read"),
    Step::Sidecar("before-complete"),
    Step::Sidecar("after-complete"),
    Step::Sidecar("before-answer"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// A is killed, and started again.
    Owner,
    /// A is frozen for longer than its lease, and continues.
    FrozenOwner,
    Backend,
    /// Killed, and restarted when the others have continued.
    Store,
    /// The same, but the others continue only after a lease has expired.
    StoreForLong,
    /// The client of the first request resets its connection.
    Client,
    /// The same over HTTP/2: it resets its stream.
    Stream,
    /// The client of the first request reads nothing of its answer, to the end.
    Stalled,
    /// The task of the first request in A panics.
    Work,
    /// A is stopped gracefully, and restarted.
    Drained,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Hold,
    Retry,
    /// Held, and the backend is asked.
    Probe,
}

#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub step: Step,
    pub victim: Victim,
    pub mode: Mode,
    pub store: StoreKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    Redis,
    Postgres,
    /// It has one process at a time.
    Embedded,
}

/// The result for the key.
pub struct Outcome {
    /// The response to the first request.
    first: String,
    /// The final response to every retry.
    last: String,
    executions: usize,
}

impl Step {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sidecar(name) | Self::Backend(name) => name,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {} · {}", self.first, self.last, self.executions)
    }
}

const KEY: &str = "order-1";
/// The shortest lease.
const SHORT_LEASE: Duration = Duration::from_secs(1);

impl Cell {
    /// Runs the cell, in separate processes.
    pub fn play(self) -> Outcome {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let _telling = Telling { folder: folder.path(), cell: format!("{self:?}") };
        self.story(folder.path())
    }

    fn story(self, folder: &Path) -> Outcome {
        let stop = StopAt::new(self.step.name());
        let (owner_stops, backend_stops) = match self.step {
            Step::Sidecar(_) => (Some(&stop), None),
            Step::Backend(_) => (None, Some(&stop)),
        };
        let mut store = Store::start(self.store, folder);
        let mut backend = Backend::start(folder, Manner::Fair, backend_stops);
        std::fs::write(folder.join("onlyonce.toml"), self.config(&backend, &store.url())).expect("a writable folder");
        let b = start(folder, "b", None);
        let mut a = start(folder, "a", owner_stops);
        let client = Client::default();

        // The first request is sent alone, and stops; its repeats are sent meanwhile.
        let repeats = [a.address, a.address, b.address, b.address, b.address];
        let mut stalled = None;
        let first = match self.victim {
            Victim::Stalled => {
                stalled = Some(Begun::stalled_over_http2(a.address, KEY));
                let stopped = stop.wait();
                client.ask_at_once(&repeats);
                stopped.go_on();
                None
            }
            Victim::Client | Victim::Stream => {
                let begin = if self.victim == Victim::Client { Begun::over_http1 } else { Begun::over_http2 };
                let mut begun = begin(a.address, KEY);
                let stopped = stop.wait();
                client.ask_at_once(&repeats);
                begun.leave();
                // Time for A to notice; the test does not depend on it.
                thread::sleep(Duration::from_millis(100));
                stopped.go_on();
                None
            }
            _ => thread::scope(|scope| {
                let (client, address) = (&client, a.address);
                let first = scope.spawn(move || client.ask(address));
                let stopped = stop.wait();
                client.ask_at_once(&repeats);

                match self.victim {
                    Victim::Owner => a.kill(),
                    Victim::FrozenOwner => {
                        a.freeze();
                        client.ask_until(b.address, |answer| match self.mode {
                            Mode::Hold | Mode::Retry => !answer.is_problem("in-flight"),
                            Mode::Probe => answer.is_settled(),
                        });
                    }
                    Victim::Backend => backend.kill(),
                    Victim::Store => store.kill(),
                    Victim::StoreForLong => {
                        store.kill();
                        thread::sleep(SHORT_LEASE);
                    }
                    Victim::Drained => a.begin_to_stop(),
                    Victim::Work | Victim::Client | Victim::Stream | Victim::Stalled => {}
                }
                match self.victim {
                    Victim::Work => stopped.panic(),
                    // No absence counts before the time of an attempt is over: this one has ended when it may go on.
                    Victim::FrozenOwner if self.mode == Mode::Probe && self.step.name() == "before-send" => {
                        a.thaw();
                        let first = first.join().expect("the first request's client");
                        stopped.go_on();
                        return first;
                    }
                    Victim::FrozenOwner => {
                        stopped.go_on();
                        a.thaw();
                    }
                    _ => stopped.go_on(),
                }
                first.join().expect("the first request's client")
            }),
        };

        match self.victim {
            Victim::Owner => {
                client.ask_at_once(&[b.address, b.address]);
                a = start(folder, "a-again", None);
            }
            Victim::Drained => {
                assert_eq!(a.exit(), Some(0), "everything in flight is finished");
                a = start(folder, "a-again", None);
            }
            Victim::FrozenOwner | Victim::Client | Victim::Stream | Victim::Stalled | Victim::Work => {}
            Victim::Backend => {
                client.ask_at_once(&[a.address, a.address, b.address, b.address]);
                backend.restart();
            }
            Victim::Store | Victim::StoreForLong => {
                client.ask_at_once(&[a.address, a.address, b.address, b.address]);
                store.restart();
            }
        }
        let last = client.ask_to_the_end(&[&a, &b], |answer| {
            let is_left = self.mode != Mode::Probe && answer.is_problem("outcome-unknown");
            is_left || answer.replayed || answer.is_problem("already-completed")
        });

        // Until here, its client had room for nothing.
        drop(stalled);

        let executions = read_ledger(&backend.ledger);
        audit_as(self.mode, &executions, &client.answers.into_inner().expect("no panic"));
        Outcome {
            first: first.map_or_else(|| "no answer".to_owned(), |answer| answer.to_string()),
            last: last.to_string().trim_end_matches(" replayed").to_owned(),
            executions: executions.len(),
        }
    }

    /// The owner is lost, and the backend has nothing.
    pub fn waits_for_absence(self) -> bool {
        let is_lost = matches!(self.victim, Victim::Owner | Victim::FrozenOwner);
        self.mode == Mode::Probe && is_lost && matches!(self.step.name(), "after-claim" | "before-send")
    }

    fn config(self, backend: &Backend, store: &str) -> String {
        // Short if an owner is lost, so that it shows soon; long otherwise, so that none is taken for lost.
        let lease = match self.victim {
            Victim::Owner | Victim::FrozenOwner | Victim::StoreForLong | Victim::Work => SHORT_LEASE,
            Victim::Backend | Victim::Store | Victim::Client | Victim::Stream | Victim::Stalled | Victim::Drained => {
                Duration::from_secs(60)
            }
        };
        let attempt_timeout = if self.waits_for_absence() { probe::SHORT_ATTEMPT } else { probe::LONG_ATTEMPT };
        config_of(&backend.url(), store, lease, self.mode, attempt_timeout)
    }
}

/// Starts a sidecar, and waits until it has its store: it serves before that.
fn start(folder: &Path, name: &str, stop: Option<&StopAt>) -> Sidecar {
    let sidecar = Sidecar::start(folder, name, stop);
    until("a connection to the store", || client::store_is_up(sidecar.admin).then_some(()));
    sidecar
}

fn config_of(backend: &str, store: &str, lease: Duration, mode: Mode, attempt_timeout: Duration) -> String {
    let route = |on_unknown| format!("on_unknown = \"{on_unknown}\"\nlease = \"{lease:?}\"");
    match mode {
        Mode::Hold => config(backend, store, &route("hold")),
        Mode::Retry => config(backend, store, &route("retry")),
        Mode::Probe => probe::with_probe(&config(backend, store, &route("hold")), attempt_timeout),
    }
}

/// The properties of every cell.
fn audit_as(mode: Mode, executions: &[Execution], answers: &[Answer]) {
    let numbers: Vec<u32> = executions.iter().map(|execution| execution.attempt).collect();
    match mode {
        Mode::Hold | Mode::Probe => assert!(numbers.len() <= 1, "executed more than once: {executions:?}"),
        // One more for each lost owner, and only one was lost.
        Mode::Retry => assert!(matches!(numbers[..], [] | [1 | 2] | [1, 2]), "{executions:?}"),
    }
    audit(executions, answers);
}

/// The store of a cell.
enum Store {
    Redis(RedisServer),
    Postgres(PostgresServer),
    /// In this folder.
    Embedded(PathBuf),
}

impl Store {
    fn start(kind: StoreKind, folder: &Path) -> Self {
        match kind {
            StoreKind::Redis => {
                Self::Redis(RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]))
            }
            StoreKind::Postgres => Self::Postgres(PostgresServer::start()),
            StoreKind::Embedded => Self::Embedded(folder.join("records")),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Redis(redis) => redis.url(),
            Self::Postgres(postgres) => postgres.url(),
            Self::Embedded(folder) => format!("embedded:{}", folder.display()),
        }
    }

    fn kill(&mut self) {
        match self {
            Self::Redis(redis) => redis.kill(),
            Self::Postgres(postgres) => postgres.kill(),
            Self::Embedded(_) => panic!("it dies with its sidecar"),
        }
    }

    fn restart(&mut self) {
        match self {
            Self::Redis(redis) => redis.restart(),
            Self::Postgres(postgres) => postgres.restart(),
            Self::Embedded(_) => panic!("it starts with its sidecar"),
        }
    }
}

/// The clients of one key, and their responses.
#[derive(Default)]
struct Client {
    answers: Mutex<Vec<Answer>>,
}

impl Client {
    fn ask(&self, sidecar: SocketAddr) -> Option<Answer> {
        let answer = client::order(sidecar, KEY);
        self.answers.lock().expect("no panic").extend(answer.clone());
        answer
    }

    fn ask_at_once(&self, sidecars: &[SocketAddr]) {
        thread::scope(|scope| {
            for &sidecar in sidecars {
                scope.spawn(move || self.ask(sidecar).expect("a sidecar that lives answers"));
            }
        });
    }

    fn ask_until(&self, sidecar: SocketAddr, is_so: impl Fn(&Answer) -> bool) {
        until("an answer", || is_so(&self.ask(sidecar).expect("a sidecar that lives answers")).then_some(()));
    }

    /// Asks until all sidecars give the same response, and none of them has an attempt that could replace it.
    fn ask_to_the_end(&self, sidecars: &[&Sidecar], stays: impl Fn(&Answer) -> bool) -> Answer {
        until("an answer that stays", || {
            let idle = sidecars.iter().all(|sidecar| client::at_work(sidecar.admin) == 0);
            let ask = |sidecar: &&Sidecar| self.ask(sidecar.address).expect("a sidecar that lives answers");
            let mut answers: Vec<Answer> = sidecars.iter().map(ask).collect();
            let last = answers.pop().expect("there are sidecars");
            let alike = answers.iter().all(|answer| answer.to_string() == last.to_string());
            (idle && alike && stays(&last)).then_some(last)
        })
    }
}

/// Prints the logs of the sidecars when a cell fails.
struct Telling<'a> {
    folder: &'a Path,
    cell: String,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        eprintln!("failed: {}", self.cell);
        for name in
            ["a.log", "a-again.log", "b.log", "owner.log", "prober.log", "prober-again.log", "other.log", "ledger"]
        {
            if let Ok(text) = std::fs::read_to_string(self.folder.join(name)) {
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- the end of {name}\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
            }
        }
    }
}
