//! The program: see the library for its parts.

use std::process::ExitCode;

fn main() -> ExitCode {
    onlyonce::cli::main()
}
