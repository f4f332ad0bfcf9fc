//! `onlyonce demo`: a backend, the proxy in front of it, and a page to try both.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use super::{LogArgs, block_on, ended};
use crate::config::{LogConfig, LogFormat};
use crate::demo::{Demo, DemoError};
use crate::rule::LogKeys;
use crate::{run, telemetry};

pub(super) fn demo(listen: SocketAddr, log: &LogArgs) -> ExitCode {
    let mut settings = LogConfig { format: LogFormat::Text, level: tracing::Level::INFO, keys: LogKeys::Plain };
    log.apply(&mut settings);
    let level = settings.level;
    // The instructions come first. Messages about a new store and the limit of open files are omitted.
    if log.log_level.is_none() {
        settings.level = tracing::Level::ERROR;
    }
    let logging = telemetry::start(&settings);
    let running = block_on(async {
        // Before the instructions, which name Ctrl-C.
        let stop = run::signalled(run::STOP_OR_HANGUP);
        let demo = Demo::start(listen).await?;
        // It keeps running when its output is closed, as by `| head`.
        let _ = writeln!(io::stdout(), "{}", demo.welcome());
        logging.set_level(level);
        Ok::<_, DemoError>(demo.serve(stop).await)
    });
    ended(running, settings.format)
}
