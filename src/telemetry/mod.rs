//! Log lines, to standard error. A reader of them that stalls, or a disk that is full, holds nothing up.

mod writer;

use std::backtrace::BacktraceStatus;
use std::io::{IsTerminal, stderr};
use std::panic::PanicHookInfo;
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

use self::writer::LogWriter;
use crate::config::{Log, LogFormat};

/// Logging that has been started. Dropped, it waits a moment for the last lines to be written.
pub struct Logging {
    filter: reload::Handle<Targets, Registry>,
}

/// Starts logging; where it has been started already, nothing changes.
pub fn start(log: &Log) -> Logging {
    let (filter, handle) = reload::Layer::new(filter(log.level));
    let writer = || LogWriter;
    let lines = match log.format {
        LogFormat::Text => {
            fmt::layer().with_writer(writer).with_ansi(stderr().is_terminal()).with_target(false).boxed()
        }
        LogFormat::Json => fmt::layer().with_writer(writer).json().flatten_event(true).with_target(false).boxed(),
    };
    // A second start in one process keeps the first. Without a thread to write it, there is no log.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    if writer::start().is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
    Logging { filter: handle }
}

/// A panic is told in the log's own format, and by way of its writer: the standard hook waits for standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("a panic");
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(place, backtrace, "a fault in onlyonce itself (panic): {message}");
}

/// Waits a moment for the last lines to be written: before the process ends.
pub fn flush() {
    writer::LINES.flush(LAST_LINES);
}

/// How long the end of a process waits for a reader of the log that may have stalled.
const LAST_LINES: Duration = Duration::from_secs(1);

impl Drop for Logging {
    fn drop(&mut self) {
        flush();
    }
}

impl Logging {
    /// From now on, lines of this level and above are written.
    pub fn set_level(&self, level: Level) {
        // It is gone only where logging was never started with it.
        let _ = self.filter.reload(filter(level));
    }
}

/// Libraries speak only when something is wrong: their ordinary lines are about their own insides.
fn filter(level: Level) -> Targets {
    let libraries = LevelFilter::WARN.min(LevelFilter::from_level(level));
    Targets::new().with_target("onlyonce", level).with_default(libraries)
}
