//! Log lines, written to standard error. A stalled reader or a full disk does not block requests.
//!
//! Rare events use `tracing`. The line of each guarded request uses [`tell`], which formats it without `tracing`, in the same
//! format and order.

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

/// Running logging. On drop, it waits a moment for the last lines to be written.
pub struct Logging {
    filter: reload::Handle<Targets, Registry>,
}

/// Starts logging. Has no effect if it is running already.
pub fn start(log: &LogConfig) -> Logging {
    let (filter, handle) = reload::Layer::new(filter(log.level));
    let style = match log.format {
        LogFormat::Text if stderr().is_terminal() => Style::Coloured,
        LogFormat::Text => Style::Text,
        LogFormat::Json => Style::Json,
    };
    // A second start keeps the first. Without a writer thread, there is no log.
    let lines = lines(style, MakeLogWriter, SystemTime).with_filter(filter);
    if tracing_subscriber::registry().with(lines).try_init().is_ok() {
        let _ = STYLE.set(style);
    }
    if writer::start().is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
    Logging { filter: handle }
}

/// The format of this process; not set before logging is started.
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

/// Writes a line without `tracing`. Callers check the level with `tracing::enabled!`.
pub fn tell(level: Level, message: &'static str, fields: impl FnOnce(&mut LogLine<'_>)) {
    let Some(style) = STYLE.get() else { return };
    writer::put(level, |out, second| {
        let mut line = LogLine::begin(out, *style, (clock::wall(), second), level, message);
        fields(&mut line);
        line.end();
    });
}

/// Logs panics in the log's format through its writer, because the standard hook may block on standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("a panic");
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(place, backtrace, "a fault in onlyonce itself (panic): {message}");
}

/// Waits a moment for the last lines to be written before the process ends.
pub fn flush() {
    LOG.flush(LAST_LINES);
}

/// How long the process waits at its end for a reader that may have stalled.
const LAST_LINES: Duration = Duration::from_secs(1);

impl Drop for Logging {
    fn drop(&mut self) {
        flush();
    }
}

impl Logging {
    /// From now on, lines of this level and above are written.
    pub fn set_level(&self, level: Level) {
        // It fails only if logging was never started.
        let _ = self.filter.reload(filter(level));
    }
}

/// Libraries log only warnings and errors; their other lines are about their internals.
fn filter(level: Level) -> Targets {
    let libraries = LevelFilter::WARN.min(LevelFilter::from_level(level));
    Targets::new().with_target("onlyonce", level).with_default(libraries)
}
