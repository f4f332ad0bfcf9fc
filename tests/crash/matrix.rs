//! The crash matrix: each victim at each step. `docs/crash-matrix.md` has the results.

use std::collections::VecDeque;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use crate::cell::probe::{Blow, PROBE_STEPS, ProbeCell, Prober};
use crate::cell::{Cell, Mode, Outcome, SIDECAR_STEPS, STEPS, Step, StoreKind, Victim};

struct Table {
    title: &'static str,
    steps: &'static [Step],
    columns: Columns,
}

enum Columns {
    Victims(Mode, StoreKind, &'static [(Victim, &'static str)]),
    /// Whether the attempt was executed, and who is struck while it asks.
    Probers(bool, &'static [(Prober, Blow, StoreKind, &'static str)]),
}

/// Either kind of cell.
#[derive(Clone, Copy)]
enum Play {
    Cell(Cell),
    Probe(ProbeCell),
}

const OWNER: (Victim, &str) = (Victim::Owner, "the owner is killed");
const FROZEN_OWNER: (Victim, &str) = (Victim::FrozenOwner, "the owner freezes");
const BACKEND: (Victim, &str) = (Victim::Backend, "the backend is killed");
const REDIS: (Victim, &str) = (Victim::Store, "Redis is killed");
const REDIS_FOR_LONG: (Victim, &str) = (Victim::StoreForLong, "Redis is away for longer than the lease");
const POSTGRES: (Victim, &str) = (Victim::Store, "PostgreSQL is killed");
const POSTGRES_FOR_LONG: (Victim, &str) = (Victim::StoreForLong, "PostgreSQL is away for longer than the lease");
const CLIENT: (Victim, &str) = (Victim::Client, "the client resets its connection");
const STREAM: (Victim, &str) = (Victim::Stream, "the client resets its stream (HTTP/2)");
const STALLED: (Victim, &str) = (Victim::Stalled, "the client reads nothing of the answer (HTTP/2)");
const WORK: (Victim, &str) = (Victim::Work, "a panic");
const DRAINED: (Victim, &str) = (Victim::Drained, "the owner is told to stop");

const PROBERS: [(Prober, Blow, StoreKind, &str); 7] = [
    (Prober::Owner, Blow::Killed, StoreKind::Redis, "the owner asks, and is killed"),
    (Prober::Owner, Blow::Frozen, StoreKind::Redis, "the owner asks, and freezes"),
    (Prober::Another, Blow::Killed, StoreKind::Redis, "another asks for a killed owner, and is killed"),
    (Prober::Another, Blow::Frozen, StoreKind::Redis, "another asks for a killed owner, and freezes"),
    (Prober::Owner, Blow::Killed, StoreKind::Embedded, "embedded: the owner asks, and is killed"),
    (Prober::Another, Blow::Killed, StoreKind::Embedded, "embedded: it asks after a kill, and is killed again"),
    (Prober::Another, Blow::Frozen, StoreKind::Postgres, "PostgreSQL: another asks for a killed owner, and freezes"),
];

const TABLES: [Table; 10] = [
    Table {
        title: "on_unknown = \"hold\"",
        steps: &STEPS,
        columns: Columns::Victims(Mode::Hold, StoreKind::Redis, &[OWNER, FROZEN_OWNER, BACKEND, REDIS, REDIS_FOR_LONG]),
    },
    Table {
        title: "on_unknown = \"retry\"",
        steps: &STEPS,
        columns: Columns::Victims(Mode::Retry, StoreKind::Redis, &[OWNER, FROZEN_OWNER]),
    },
    Table {
        title: "on_unknown = \"hold\"; all processes live",
        steps: &STEPS,
        columns: Columns::Victims(Mode::Hold, StoreKind::Redis, &[CLIENT, STREAM, STALLED, DRAINED]),
    },
    Table {
        title: "on_unknown = \"hold\"; records in PostgreSQL",
        steps: &STEPS,
        columns: Columns::Victims(
            Mode::Hold,
            StoreKind::Postgres,
            &[OWNER, FROZEN_OWNER, BACKEND, POSTGRES, POSTGRES_FOR_LONG],
        ),
    },
    Table {
        title: "on_unknown = \"retry\"; records in PostgreSQL",
        steps: &STEPS,
        columns: Columns::Victims(Mode::Retry, StoreKind::Postgres, &[OWNER, FROZEN_OWNER]),
    },
    Table {
        title: "on_unknown = \"hold\"; all processes live; records in PostgreSQL",
        steps: &STEPS,
        columns: Columns::Victims(Mode::Hold, StoreKind::Postgres, &[CLIENT, DRAINED]),
    },
    Table {
        title: "on_unknown = \"hold\"; work panics",
        steps: &SIDECAR_STEPS,
        columns: Columns::Victims(Mode::Hold, StoreKind::Redis, &[WORK]),
    },
    Table {
        title: "[route.probe]",
        steps: &STEPS,
        columns: Columns::Victims(Mode::Probe, StoreKind::Redis, &[OWNER, FROZEN_OWNER, BACKEND]),
    },
    Table {
        title: "[route.probe]; not executed, and who asks is struck",
        steps: &PROBE_STEPS,
        columns: Columns::Probers(false, &PROBERS),
    },
    Table {
        title: "[route.probe]; executed, and who asks is struck",
        steps: &PROBE_STEPS,
        columns: Columns::Probers(true, &PROBERS),
    },
];

/// The number of cells that run at once, beside those that take long: they mostly wait for a lease or a reconnect.
const AT_ONCE: usize = 8;

const BEGIN: &str = "<!-- The tables from here on are written by the test. -->\n";

/// Runs every cell, prints the tables, and compares them with the file. With `ONLYONCE_BLESS=1` it writes the file.
pub fn run() {
    let begun = Instant::now();
    let outcomes = play(plays());
    let failed = outcomes.iter().filter(|outcome| outcome.is_none()).count();
    let tables = write_tables(&outcomes);
    println!("{tables}\n{} cells in {:.1?}", outcomes.len(), begun.elapsed());
    assert_eq!(failed, 0, "cells failed: see above");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/crash-matrix.md");
    let file = std::fs::read_to_string(&path).expect("docs/crash-matrix.md");
    let (introduction, kept) = file.split_once(BEGIN).expect("the line that the tables come after");
    if std::env::var("ONLYONCE_BLESS").is_ok_and(|bless| bless == "1") {
        std::fs::write(&path, format!("{introduction}{BEGIN}{tables}")).expect("a writable folder");
        return;
    }
    let differences = || kept.lines().zip(tables.lines()).filter(|(kept, now)| kept != now);
    for (kept, now) in differences() {
        eprintln!("- {kept}\n+ {now}");
    }
    assert!(kept == tables, "this is not what docs/crash-matrix.md says; ONLYONCE_BLESS=1 writes it anew");
}

fn plays() -> Vec<Play> {
    let mut plays = Vec::new();
    for table in &TABLES {
        for &step in table.steps {
            match table.columns {
                Columns::Victims(mode, store, victims) => {
                    plays.extend(victims.iter().map(|&(victim, _)| Play::Cell(Cell { step, victim, mode, store })));
                }
                Columns::Probers(executed, probers) => {
                    plays.extend(probers.iter().map(|&(prober, blow, store, _)| {
                        Play::Probe(ProbeCell { step, prober, blow, store, executed })
                    }));
                }
            }
        }
    }
    plays
}

impl Columns {
    fn titles(&self) -> Vec<&'static str> {
        match self {
            Self::Victims(_, _, victims) => victims.iter().map(|(_, title)| *title).collect(),
            Self::Probers(_, probers) => probers.iter().map(|(.., title)| *title).collect(),
        }
    }
}

impl Play {
    fn play(self) -> Outcome {
        match self {
            Self::Cell(cell) => cell.play(),
            Self::Probe(cell) => cell.play(),
        }
    }

    /// Most of its time it waits until an absence counts.
    fn takes_long(self) -> bool {
        match self {
            Self::Cell(cell) => cell.waits_for_absence(),
            Self::Probe(cell) => cell.waits_for_absence(),
        }
    }
}

/// `None` where a cell failed.
fn play(plays: Vec<Play>) -> Vec<Option<Outcome>> {
    let outcomes: Vec<Mutex<Option<Outcome>>> = plays.iter().map(|_| Mutex::default()).collect();
    let (long, short): (Vec<_>, Vec<_>) = plays.into_iter().enumerate().partition(|(_, play)| play.takes_long());
    let run = |(index, play): (usize, Play)| {
        let outcome = catch_unwind(AssertUnwindSafe(|| play.play())).ok();
        *outcomes[index].lock().expect("no panic") = outcome;
    };
    let left: Mutex<VecDeque<(usize, Play)>> = Mutex::new(short.into());
    thread::scope(|scope| {
        let (run, left) = (&run, &left);
        for numbered in long {
            scope.spawn(move || run(numbered));
        }
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(numbered) = { left.lock().expect("no panic").pop_front() } {
                    run(numbered);
                }
            });
        }
    });
    outcomes.into_iter().map(|outcome| outcome.into_inner().expect("no panic")).collect()
}

fn write_tables(outcomes: &[Option<Outcome>]) -> String {
    let mut text = String::new();
    let mut outcomes = outcomes.iter();
    for table in &TABLES {
        let titles = table.columns.titles();
        let rule = "|---".repeat(titles.len());
        writeln!(text, "\n## `{}`\n\n| at | {} |\n|---{rule}|", table.title, titles.join(" | ")).expect("memory");
        for step in table.steps {
            let entries: Vec<String> = outcomes
                .by_ref()
                .take(titles.len())
                .map(|outcome| outcome.as_ref().map_or_else(|| "FAILED".to_owned(), ToString::to_string))
                .collect();
            writeln!(text, "| {} | {} |", step.name(), entries.join(" | ")).expect("memory");
        }
    }
    text
}
