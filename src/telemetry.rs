//! Log lines, to standard error.

use std::io::{IsTerminal, stderr};

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

use crate::config::{Log, LogFormat};

/// Logging that has been started.
pub struct Logging {
    filter: reload::Handle<Targets, Registry>,
}

/// Starts logging; where it has been started already, nothing changes.
pub fn start(log: &Log) -> Logging {
    let (filter, handle) = reload::Layer::new(filter(log.level));
    let lines = match log.format {
        LogFormat::Text => {
            fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).with_target(false).boxed()
        }
        LogFormat::Json => fmt::layer().with_writer(stderr).json().flatten_event(true).with_target(false).boxed(),
    };
    // A second start in one process, as in tests, keeps the first.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    Logging { filter: handle }
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
