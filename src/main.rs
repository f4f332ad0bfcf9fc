//! The program: see the library for its parts.

use std::process::ExitCode;

/// Beside glibc's allocator, at most 4,500 user instructions less for a first request, 5,500 for a replay and 2,300 for one
/// that passes, in the same memory: it does not ask for huge pages (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    onlyonce::cli::main()
}
