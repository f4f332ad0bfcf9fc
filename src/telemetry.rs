//! Log lines, to standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Log, LogFormat};

/// Starts logging; where it has been started already, nothing changes.
pub fn start(log: &Log) {
    // Libraries speak only when something is wrong: their ordinary lines are about their own insides.
    let libraries = LevelFilter::WARN.min(LevelFilter::from_level(log.level));
    let filter = Targets::new().with_target("onlyonce", log.level).with_default(libraries);
    let lines = match log.format {
        LogFormat::Text => {
            fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).with_target(false).boxed()
        }
        LogFormat::Json => fmt::layer().with_writer(stderr).json().flatten_event(true).with_target(false).boxed(),
    };
    // A second start in one process, as in tests, keeps the first.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
