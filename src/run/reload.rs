//! Reload: at SIGHUP, and when the content of the file has changed.
//!
//! The content of the file, and of files that it names (certificates for example), is read once a second and compared.
//! That detects every kind of change: editing in place, renaming, and the symbolic links that Kubernetes swaps. It
//! needs no limit of watches. A change counts when the same content was found twice, so that a half-written file is not
//! loaded.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Rules;
use crate::advice::{self, Warning, Weight};
use crate::config::{Config, ConfigError, ConfigFile};
use crate::metrics::Reload;
use crate::rule::{FORGOTTEN, ForgottenRoute, Naming, Routes, forgotten};
use crate::telemetry::Logging;
use crate::text;

/// How often the file is read.
const PAUSE: Duration = Duration::from_secs(1);

/// Applies the rules of a file whenever they change, or on SIGHUP. `tried` is the content that was loaded at the start,
/// `warned` the warnings that were logged then, and `adjust` applies the options of the command line.
pub async fn follow(
    tried: ConfigFile,
    mut hangup: Hangup,
    rules: &Rules,
    logging: &Logging,
    warned: Vec<Warning>,
    adjust: impl Fn(&mut Config) + Send + Sync + 'static,
) -> Infallible {
    let mut watch = Watch { tried, seen: None };
    let (mut warned, adjust) = (Arc::new(warned), Arc::new(adjust));
    loop {
        let asked = tokio::select! {
            () = hangup.received() => true,
            () = tokio::time::sleep(PAUSE) => false,
        };
        let Some(now) = read(watch.tried.clone()).await else { continue };
        if !watch.still_matches(now, asked) {
            continue;
        }
        let (content, adjust) = (watch.tried.clone(), Arc::clone(&adjust));
        let (before, known) = (rules.routes(), Arc::clone(&warned));
        // Thousands of routes take longer than a connection should wait to be accepted.
        let check = move || {
            let mut config = content.check()?;
            adjust(&mut config);
            Ok(Checked::new(config, &before, &known))
        };
        match tokio::task::spawn_blocking(check).await.ok() {
            Some(Ok(checked)) => warned = Arc::new(apply(checked, rules, logging)),
            Some(Err(error)) => refuse(&error, rules),
            // A panic, which is logged.
            None => rules.count(Reload::Refused),
        }
    }
}

/// A configuration that can be applied, and its log lines.
struct Checked {
    config: Config,
    warnings: Vec<Warning>,
    /// Warnings that are new.
    notices: Vec<Notice>,
    forgotten: Vec<ForgottenRoute>,
}

impl Checked {
    fn new(config: Config, before: &Routes, known: &[Warning]) -> Self {
        let warnings = advice::warnings(&config);
        let notices = notices(&warnings, known);
        // The parts of key and scope are named in the key's digest: with others, no earlier key is found again.
        let forgotten = forgotten(&Naming::all(before), &Naming::all(&config.routes));
        Self { config, warnings, notices, forgotten }
    }
}

/// What is known of the content of the file.
struct Watch {
    /// What was last applied or refused.
    tried: ConfigFile,
    /// A different content, found once.
    seen: Option<ConfigFile>,
}

impl Watch {
    /// Whether to load `now`: it is new and was found twice, or a reload was asked for.
    fn still_matches(&mut self, now: ConfigFile, asked: bool) -> bool {
        let seen = self.seen.take();
        if asked || (now != self.tried && seen.as_ref() == Some(&now)) {
            self.tried = now;
            return true;
        }
        self.seen = Some(now);
        false
    }
}

/// The file may be on a disk that hangs. No request waits for this.
async fn read(before: ConfigFile) -> Option<ConfigFile> {
    tokio::task::spawn_blocking(move || before.again()).await.ok()
}

/// The present warnings.
fn apply(checked: Checked, rules: &Rules, logging: &Logging) -> Vec<Warning> {
    let Checked { config, warnings, notices, forgotten } = checked;
    logging.set_level(config.log.level);
    let routes = config.routes.rules().len();
    for ForgottenRoute { route, why } in forgotten {
        tracing::warn!(route, "{why}: {FORGOTTEN}");
    }
    for key in rules.replace(config) {
        tracing::warn!(key, "{key} changed: takes effect at the next start");
    }
    notices.iter().for_each(Notice::log);
    rules.count(Reload::Ok);
    tracing::info!(routes, "reloaded: the configuration is in force");
    warnings
}

/// Logs the warnings of a configuration. The same warning about several routes is logged once.
pub fn log_warnings(warnings: &[Warning]) {
    notices(warnings, &[]).iter().for_each(Notice::log);
}

/// A warning, and the routes that it is about.
struct Notice {
    warning: Warning,
    routes: Option<String>,
}

/// Without those of `known`.
fn notices(warnings: &[Warning], known: &[Warning]) -> Vec<Notice> {
    let mut notices: Vec<Notice> = Vec::new();
    for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
        let Warning { name, text, advice, .. } = warning;
        let is_same = |other: &Warning| other.text == *text && other.advice == *advice;
        if notices.iter().any(|told| told.warning.name == *name && is_same(&told.warning)) {
            continue;
        }
        let same = warnings.iter().filter(|other| is_same(other));
        let routes: Vec<&str> = same.filter_map(|other| other.route.as_deref()).collect();
        let routes = (!routes.is_empty()).then(|| text::listed(&routes));
        notices.push(Notice { warning: warning.clone(), routes });
    }
    notices
}

impl Notice {
    fn log(&self) {
        let Self { warning: Warning { name, weight, text, advice, .. }, routes } = self;
        match weight {
            Weight::Note => tracing::info!(warning = name, routes, advice, "{text}"),
            Weight::Warning => tracing::warn!(warning = name, routes, advice, "{text}"),
        }
    }
}

fn refuse(error: &ConfigError, rules: &Rules) {
    rules.count(Reload::Refused);
    tracing::error!("the configuration was not reloaded, and the rules in force stay:\n{error}");
}

/// SIGHUP. Without a handler it would end the process.
pub struct Hangup(Option<Signal>);

impl Hangup {
    /// Installs the handler.
    pub fn take() -> Self {
        let signal = signal(SignalKind::hangup()).inspect_err(|error| {
            tracing::error!(error = error as &dyn Error, "SIGHUP cannot be received; a changed file is still noticed");
        });
        Self(signal.ok())
    }

    async fn received(&mut self) {
        let received = match &mut self.0 {
            Some(signal) => signal.recv().await,
            None => None,
        };
        if received.is_none() {
            pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str) -> ConfigFile {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, text).expect("to write");
        ConfigFile::of(&file)
    }

    #[test]
    fn the_line_of_a_warning_names_a_few_of_its_routes() {
        let of = |route: &str| Warning {
            name: "memory-store",
            weight: Weight::Warning,
            route: Some(route.into()),
            text: "a text".to_owned(),
            advice: "an advice".to_owned(),
        };
        let routes = |warnings: &[Warning]| notices(warnings, &[])[0].routes.clone();
        assert_eq!(routes(&["a", "b", "c", "d"].map(of)).as_deref(), Some("a, b, c, d"));
        assert_eq!(routes(&["a", "b", "c", "d", "e", "f"].map(of)).as_deref(), Some("a, b, c, d and 2 more"));
    }

    #[test]
    fn new_content_is_tried_once_when_it_was_found_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("onlyonce.toml");
        let found = |text: &str| {
            std::fs::write(&file, text).expect("to write");
            ConfigFile::of(&file)
        };
        let mut watch = Watch { tried: found("old"), seen: None };
        let looks = ["old", "old", "n", "ne", "new", "new", "new", "old", "new", "new", "old", "old", "old"];
        let due: Vec<bool> = looks.iter().map(|text| watch.still_matches(found(text), false)).collect();
        let expected = [false, false, false, false, false, true, false, false, false, false, false, true, false];
        assert_eq!(due, expected);
    }

    #[test]
    fn a_signal_does_not_wait_and_is_not_followed_by_another_try() {
        let same = content("");
        let mut watch = Watch { tried: same.clone(), seen: None };
        assert!(watch.still_matches(same.clone(), true));
        assert!(!watch.still_matches(same.clone(), false));
        assert!(!watch.still_matches(same, false));
    }

    #[test]
    fn a_file_that_is_gone_is_content_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let gone = || ConfigFile::of(&folder.path().join("gone"));
        let mut watch = Watch { tried: content(""), seen: None };
        assert!(!watch.still_matches(gone(), false));
        assert!(watch.still_matches(gone(), false));
        assert!(!watch.still_matches(gone(), false));
        assert!(watch.tried.check().is_err());
    }
}
