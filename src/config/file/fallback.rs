//! Defaults that depend on other keys. A default adapts to the keys of the file, so that it never contradicts them.

use std::time::Duration;

use super::layer::{Layer, MissingKey};
use super::setting::Setting;
use crate::rule::Selector;

/// The shortest lease, which is renewed every third of it; also the lower bound of the durations that must exceed it.
pub(super) const SHORTEST_LEASE: Duration = Duration::from_secs(1);

const LEASE: Duration = Duration::from_secs(30);
const RETENTION: Duration = Duration::from_secs(24 * 3600);
pub(super) const WINDOW: Duration = Duration::from_secs(10);
const WAIT: Duration = Duration::from_secs(10);
const RESPONSE: Duration = Duration::from_secs(60);
const ATTEMPT: Duration = Duration::from_secs(600);

/// A record outlives the lease, and an outcome becomes unknown only after the lease.
pub(super) fn lease(merged: &Layer) -> Setting<Duration> {
    let within = [merged.retention.given().map(|retention| *retention / 2), merged.hold_for.given().copied()];
    merged.lease.clone().or(shortest(LEASE, within).max(SHORTEST_LEASE))
}

/// The retention of a preset adapts too.
pub(super) fn retention(merged: &Layer, key: &Setting<Vec<Selector>>) -> Setting<Duration> {
    let has_window = matches!(merged.on_missing_key.get(), Some(MissingKey::Fingerprint));
    let buckets = [key, &merged.scope].into_iter().filter_map(Setting::get).flatten().filter_map(|part| match part {
        Selector::Date(period) => Some(period.longest()),
        Selector::Header(_) | Selector::Cookie(_) | Selector::Query(_) | Selector::Json(_) => None,
        Selector::Form(_) | Selector::Path(_) | Selector::Host | Selector::Jwt(_) | Selector::Ip => None,
    });
    let without = [
        merged.lease.given().map(|lease| *lease * 2),
        merged.hold_for.given().copied(),
        merged.fingerprint_window.given().copied().filter(|_| has_window),
        buckets.max(),
    ];
    match merged.retention.clone() {
        Setting::Absent => Setting::Default(longest(RETENTION, without)),
        Setting::Preset(retention) => Setting::Preset(longest(retention, without)),
        said => said,
    }
}

/// The window is a part of the retention.
pub(super) fn window(merged: &Layer) -> Setting<Duration> {
    merged.fingerprint_window.clone().or(shortest(WINDOW, [merged.retention.given().copied()]))
}

/// No attempt lasts longer than its timeout, so that a longer wait is pointless.
pub(super) fn wait(merged: &Layer, attempt_timeout: &Setting<Duration>) -> Setting<Duration> {
    merged.wait_timeout.clone().or(shortest(WAIT, [attempt_timeout.get().copied()]))
}

/// `upstream.response_timeout` and `upstream.attempt_timeout`. An attempt lasts as long as any client may wait.
pub(super) fn timeouts(
    response: Setting<Duration>,
    attempt: Setting<Duration>,
    longest_wait: Option<Duration>,
) -> [Setting<Duration>; 2] {
    let within = [attempt.given().copied()];
    let without = [response.given().copied(), longest_wait];
    [response.or(shortest(RESPONSE, within)), attempt.or(longest(ATTEMPT, without))]
}

fn shortest<const N: usize>(default: Duration, within: [Option<Duration>; N]) -> Duration {
    within.into_iter().flatten().fold(default, Duration::min)
}

fn longest<const N: usize>(default: Duration, without: [Option<Duration>; N]) -> Duration {
    without.into_iter().flatten().fold(default, Duration::max)
}
