//! Log lines, to standard error. A reader of them that stalls, or a disk that is full, holds nothing up.
//!
//! What is rare is told with `tracing`. The line that every request of a route writes goes by [`tell`], which formats it
//! without `tracing`: it looks the same, and stands in the same order among the others.

mod line;
mod writer;

use std::backtrace::BacktraceStatus;
use std::io::{IsTerminal, stderr};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

pub use self::line::LogLine;
use self::line::Style;
use self::writer::{LOG, MakeLogWriter};
use crate::clock;
use crate::config::{LogConfig, LogFormat};

/// Logging that has been started. Dropped, it waits a moment for the last lines to be written.
pub struct Logging {
    filter: reload::Handle<Targets, Registry>,
}

/// Starts logging; where it has been started already, nothing changes.
pub fn start(log: &LogConfig) -> Logging {
    let (filter, handle) = reload::Layer::new(filter(log.level));
    let style = match log.format {
        LogFormat::Text if stderr().is_terminal() => Style::Coloured,
        LogFormat::Text => Style::Text,
        LogFormat::Json => Style::Json,
    };
    // A second start in one process keeps the first. Without a thread to write it, there is no log.
    let lines = lines(style, MakeLogWriter, SystemTime).with_filter(filter);
    if tracing_subscriber::registry().with(lines).try_init().is_ok() {
        let _ = STYLE.set(style);
    }
    if writer::start().is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
    Logging { filter: handle }
}

/// How the lines of this process look; not set where nobody has started a log.
static STYLE: OnceLock<Style> = OnceLock::new();

/// The lines of `tracing`.
fn lines<W, T>(style: Style, writer: W, time: T) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    T: FormatTime + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer).with_timer(time).with_target(false);
    match style {
        Style::Text | Style::Coloured => layer.with_ansi(style == Style::Coloured).boxed(),
        Style::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Writes a line of its own. Whether its level is wanted is asked before: `tracing::enabled!`.
pub fn tell(level: Level, message: &'static str, fields: impl FnOnce(&mut LogLine<'_>)) {
    let Some(style) = STYLE.get() else { return };
    writer::put(level, |out, second| {
        let mut line = LogLine::begin(out, *style, (clock::wall(), second), level, message);
        fields(&mut line);
        line.end();
    });
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
    LOG.flush(LAST_LINES);
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
