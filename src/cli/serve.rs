//! `onlyonce serve`: runs the proxy until a signal ends it.

use std::path::Path;
use std::process::ExitCode;

use super::{BAD_USAGE, LogArgs, VERSION, block_on, ended, failed, refused};
use crate::config::{Config, ConfigFile, LogConfig, LogFormat};
use crate::rule::LogKeys;
use crate::run::reload::{self, Hangup};
use crate::run::{self, InheritedSockets, Sidecar, StartError};
use crate::{advice, telemetry, trace};

pub(super) fn serve(file: &Path, log: &LogArgs) -> ExitCode {
    let content = ConfigFile::of(file);
    let mut config = match content.check() {
        Ok(config) => config,
        Err(error) if log.is_json() || content.asks_for_json() => {
            let mut settings =
                LogConfig { format: LogFormat::Json, level: tracing::Level::INFO, keys: LogKeys::Hashed };
            log.apply(&mut settings);
            let _logging = telemetry::start(&settings);
            tracing::error!("{error}");
            return ExitCode::from(BAD_USAGE);
        }
        Err(error) => return refused(&error),
    };
    log.apply(&mut config.log);
    let format = config.log.format;
    let logging = telemetry::start(&config.log);
    let warnings = advice::warnings(&config);
    reload::log_warnings(&warnings);
    run::allow_open_files();
    let traces = match trace::start() {
        Ok(traces) => traces,
        Err(error) => return failed(&StartError::Traces(error), format),
    };
    let passed = match InheritedSockets::take() {
        Ok(passed) => passed,
        Err(error) => return failed(&StartError::InheritedSockets(error), format),
    };
    let (upstream, store) = (config.upstream.address.to_string(), config.store.location.to_string());
    let routes = config.routes.rules().len();
    let running = block_on(async {
        let (stop, hangup) = (run::signalled(run::STOP), Hangup::take());
        let sidecar = Sidecar::start_on(passed, config).await?;
        let listen: Vec<String> = sidecar.listening().iter().map(ToString::to_string).collect();
        tracing::info!(
            config = %std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).display(),
            listen = listen.join(", "),
            upstream,
            store,
            routes,
            threads = sidecar.threads(),
            traces = traces.endpoint(),
            admin = sidecar.admin_address().map_or_else(|| "off".to_owned(), |address| address.to_string()),
            version = VERSION.as_str(),
            "serving"
        );
        let rules = sidecar.rules();
        let log = log.clone();
        let adjust = move |config: &mut Config| log.apply(&mut config.log);
        Ok::<_, StartError>(tokio::select! {
            stopped = sidecar.serve(stop) => stopped,
            never = reload::follow(content, hangup, &rules, &logging, warnings, adjust) => match never {},
        })
    });
    traces.finish();
    ended(running, format)
}
