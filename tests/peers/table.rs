//! The tables in `docs/clients.md` that the tests hold: `ONLYONCE_BLESS=1` writes their rows anew.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

/// A table, identified by the comment before it.
#[derive(Debug, Clone, Copy)]
pub enum Table {
    /// How often the backend executed, and what the caller saw.
    Executions,
    /// How often a client sends its request, for each refusal.
    Refusals,
}

/// Tests run in parallel and write into one file.
static PAGE: Mutex<()> = Mutex::new(());

/// Fails unless the row of this client has these cells.
pub fn holds(table: Table, client: &str, cells: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md");
    let marker = match table {
        Table::Executions => "<!-- executions -->",
        Table::Refusals => "<!-- refusals -->",
    };
    let (row, start) = (format!("| {client} | {} |", cells.join(" | ")), format!("| {client} |"));
    let page = PAGE.lock();
    let text = fs::read_to_string(&path).expect("docs/clients.md");
    let (before, after) = text.split_once(marker).unwrap_or_else(|| panic!("docs/clients.md has no {marker}"));
    let (rows, rest) = after.split_at(after.find("\n\n").unwrap_or(after.len()));
    let mut rows: Vec<&str> = rows.lines().collect();
    let there = rows.iter().position(|row| row.starts_with(&start));
    if std::env::var_os("ONLYONCE_BLESS").is_some() {
        match there {
            Some(there) => rows[there] = &row,
            None => rows.push(&row),
        }
        fs::write(&path, format!("{before}{marker}{}{rest}", rows.join("\n"))).expect("a writable page");
        return;
    }
    // A failed test must not make others fail.
    drop(page);
    let there = there.map_or("no row", |there| rows[there]);
    assert_eq!(there, row, "{table:?} in docs/clients.md (ONLYONCE_BLESS=1 writes it)");
}
