//! Crash tests with real processes.
//!
//! - [`matrix`]: one process is killed or frozen at one step of the protocol, for each process and step.
//! - [`storm`]: processes are killed at random, under load. Failovers of PostgreSQL are for `tests/run --all`.
//!
//! `cargo test --features fail-points --test crash` runs both; `-- matrix` or `-- storm` after it runs one. In both, a
//! backend keeps a ledger of what it executed, in a process of its own, which is this program under another argument.

#![allow(clippy::disallowed_methods)]
// In a binary, nothing is reachable from outside.
#![allow(unreachable_pub)]

mod audit;
mod backend;
mod cell;
mod client;
mod matrix;
#[path = "../support/postgres_server.rs"]
mod postgres_server;
mod process;
#[path = "../support/redis_server.rs"]
mod redis_server;
#[path = "../support/small_disk.rs"]
mod small_disk;
mod storm;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == backend::ARGUMENT
    {
        return backend::main(rest);
    }
    process::check_program();
    let is_asked_for = |part: &str| {
        // Arguments with a dash are for the standard test harness, which is not used here.
        let mut parts = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
        parts.peek().is_none() || parts.any(|argument| argument == part)
    };
    if is_asked_for("matrix") {
        matrix::run();
    }
    if is_asked_for("storm") {
        storm::run();
    }
    if is_asked_for("failover")
        && (arguments.iter().any(|argument| argument == "--include-ignored" || argument == "failover"))
    {
        storm::run_long();
    }
}
