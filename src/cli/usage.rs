//! What is printed where no command runs: help, the version, or what is wrong with the command line.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{BAD_USAGE, output};
use crate::text::WIDTH;

/// Without what may be a credential: the value of a header line or URL, or a part of a header line without quotes.
pub(super) fn without_credentials(mut error: clap::Error) -> clap::Error {
    let hidden = || ContextValue::String("(not shown)".to_owned());
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg).cloned() else { return error };
    if argument.contains("<NAME: VALUE>") || argument.contains("<URL>") {
        if error.get(ContextKind::InvalidValue).is_some() {
            error.insert(ContextKind::InvalidValue, hidden());
        }
    } else if error.kind() == ErrorKind::UnknownArgument && !argument.starts_with('-') && has_header_lines() {
        error.insert(ContextKind::InvalidArg, hidden());
        error.remove(ContextKind::Suggested);
    }
    error
}

fn has_header_lines() -> bool {
    let begins = |argument: OsString| {
        let argument = argument.to_string_lossy();
        ["-H", "--header", "--other-caller"].iter().any(|option| argument.starts_with(option))
    };
    std::env::args_os().any(begins)
}

/// Help, the version, or bad usage. The library breaks the lines of help only.
pub(super) fn not_run(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if error.use_stderr() && text.lines().any(|line| line.chars().count() > WIDTH) {
        output::complain(text.trim_end());
    } else if let Err(failure) = error.print() {
        return if failure.kind() == io::ErrorKind::BrokenPipe {
            ExitCode::SUCCESS
        } else {
            output::not_written(&failure)
        };
    }
    if error.use_stderr() { ExitCode::from(BAD_USAGE) } else { ExitCode::SUCCESS }
}
