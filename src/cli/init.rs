//! `onlyonce init`: a configuration file to start from.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use super::{BAD_USAGE, FAILED, output};

/// The file's text.
const STARTER: &str = include_str!("onlyonce.toml");

/// Writes it, but never over an existing file.
pub(super) fn init(path: &Path) -> ExitCode {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(STARTER.as_bytes())?;
        file.sync_all()
    });
    match written {
        Ok(()) => output::print(&format!(
            "wrote {0}: say in it where your backend is, and what to guard; then\n  onlyonce check {0}\n  \
             onlyonce serve -c {0}\n",
            path.display()
        )),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            output::complain(format_args!(
                "error: {0} is there already, and stays as it is\nhelp: name another file: onlyonce init other.toml; or \
                 look at this one: onlyonce check {0}",
                path.display()
            ));
            ExitCode::from(BAD_USAGE)
        }
        Err(error) => {
            output::complain(format_args!("error: {} cannot be written: {error}", path.display()));
            ExitCode::from(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn the_starter_is_right_and_fits_a_terminal_of_120_columns() {
        config::parse("onlyonce.toml", STARTER, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        assert!(STARTER.lines().all(|line| line.chars().count() <= 125));
    }
}
