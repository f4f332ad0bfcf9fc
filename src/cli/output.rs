//! What a command prints, and what it does where that cannot be written.

use std::io::{self, Write};
use std::process::ExitCode;

use super::FAILED;

/// Prints to standard output. A disk that is full makes the command fail; a reader who has read enough, as `head` does,
/// does not.
pub(super) fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => not_written(&error),
    }
}

/// The command failed: what it was to print is lost.
pub(super) fn not_written(error: &io::Error) -> ExitCode {
    complain(format_args!("error: standard output cannot be written to: {error}"));
    ExitCode::from(FAILED)
}

/// Prints a line to standard error. Where that cannot be written to, nobody is left to be told.
pub(super) fn complain(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
