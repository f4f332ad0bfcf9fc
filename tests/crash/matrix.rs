//! The crash matrix: each victim at each step. `docs/crash-matrix.md` has the results.

use std::collections::VecDeque;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use crate::cell::{Cell, Mode, Outcome, SIDECAR_STEPS, STEPS, Step, Victim};

struct Table {
    mode: Mode,
    title: &'static str,
    steps: &'static [Step],
    victims: &'static [(Victim, &'static str)],
}

const OWNER: (Victim, &str) = (Victim::Owner, "the owner is killed");
const FROZEN_OWNER: (Victim, &str) = (Victim::FrozenOwner, "the owner freezes");
const BACKEND: (Victim, &str) = (Victim::Backend, "the backend is killed");
const REDIS: (Victim, &str) = (Victim::Redis, "Redis is killed");
const REDIS_FOR_LONG: (Victim, &str) = (Victim::RedisForLong, "Redis is away for longer than the lease");
const POSTGRES: (Victim, &str) = (Victim::Postgres, "PostgreSQL is killed");
const CLIENT: (Victim, &str) = (Victim::Client, "the client resets its connection");
const STREAM: (Victim, &str) = (Victim::Stream, "the client resets its stream (HTTP/2)");
const WORK: (Victim, &str) = (Victim::Work, "a panic");
const DRAINED: (Victim, &str) = (Victim::Drained, "the owner is told to stop");

const TABLES: [Table; 5] = [
    Table {
        mode: Mode::Hold,
        title: "on_unknown = \"hold\"",
        steps: &STEPS,
        victims: &[OWNER, FROZEN_OWNER, BACKEND, REDIS, REDIS_FOR_LONG],
    },
    Table { mode: Mode::Retry, title: "on_unknown = \"retry\"", steps: &STEPS, victims: &[OWNER, FROZEN_OWNER] },
    Table {
        mode: Mode::Hold,
        title: "on_unknown = \"hold\"; all processes live",
        steps: &STEPS,
        victims: &[CLIENT, STREAM, DRAINED],
    },
    Table {
        mode: Mode::Hold,
        title: "on_unknown = \"hold\"; records in PostgreSQL",
        steps: &STEPS,
        victims: &[POSTGRES],
    },
    Table { mode: Mode::Hold, title: "on_unknown = \"hold\"; work panics", steps: &SIDECAR_STEPS, victims: &[WORK] },
];

/// The number of cells that run at once: they mostly wait for a lease or a reconnect.
const AT_ONCE: usize = 8;

const BEGIN: &str = "<!-- The tables from here on are written by the test. -->\n";

/// Runs every cell, prints the tables, and compares them with the file. With `ONLYONCE_BLESS=1` it writes the file.
pub fn run() {
    let begun = Instant::now();
    let outcomes = play(cells().collect());
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

fn cells() -> impl Iterator<Item = Cell> {
    TABLES.iter().flat_map(|table| {
        let row =
            move |step: Step| table.victims.iter().map(move |&(victim, _)| Cell { step, victim, mode: table.mode });
        table.steps.iter().copied().flat_map(row)
    })
}

/// `None` where a cell failed.
fn play(cells: Vec<Cell>) -> Vec<Option<Outcome>> {
    let outcomes: Vec<Mutex<Option<Outcome>>> = cells.iter().map(|_| Mutex::default()).collect();
    let left: Mutex<VecDeque<(usize, Cell)>> = Mutex::new(cells.into_iter().enumerate().collect());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((index, cell)) = { left.lock().expect("no panic").pop_front() } {
                    let outcome = catch_unwind(AssertUnwindSafe(|| cell.play())).ok();
                    *outcomes[index].lock().expect("no panic") = outcome;
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
        let titles: Vec<&str> = table.victims.iter().map(|(_, title)| *title).collect();
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
