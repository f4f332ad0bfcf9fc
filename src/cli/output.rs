//! Output of commands, and its errors.

use std::io::{self, Write};
use std::process::ExitCode;

use super::FAILED;
use super::text::fitted;

/// Prints to standard output. A full disk is an error; a closed pipe, as with `head`, is not.
pub(super) fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => not_written(&error),
    }
}

/// The command failed, because its output is lost.
pub(super) fn not_written(error: &io::Error) -> ExitCode {
    complain(format_args!("error: standard output cannot be written to: {error}"));
    ExitCode::from(FAILED)
}

/// Prints to standard error, broken at 80 columns. A failure to do so is ignored, because it cannot be reported.
pub(super) fn complain(message: impl std::fmt::Display) {
    let _ = write!(io::stderr(), "{}", fitted(&message.to_string()));
}
