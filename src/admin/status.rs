//! What the page shows at a glance, as JSON. It is as open as `/metrics`: no record is in it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::history::{History, MINUTE, MINUTES, StoreHistory};
use super::{Timestamp, sentence};
use crate::metrics::{Metrics, RouteReading, UNMATCHED};
use crate::rule::{Mode, Routes, Rule};

/// `GET /status`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// By the sidecar's clock.
    pub now: Timestamp,
    /// When the process began to serve.
    pub started_at: Timestamp,
    /// Whether it is being stopped.
    pub draining: bool,
    /// Why this request's sender may not see records; `null` where it may.
    pub records: Option<NoRecords>,
    /// Whether it may change them.
    pub may_change: bool,
    /// Requests in each of the last ten seconds.
    pub per_second: f64,
    /// Guarded attempts at work.
    pub in_flight: i64,
    /// Repeats that wait for the first.
    pub waiting: i64,
    /// Records in the store of which nobody knows whether they took effect.
    pub unknown: i64,
    /// Attempts that found their record in other hands, since the start.
    pub lease_lost: u64,
    /// Client connections.
    pub connections: i64,
    /// Bytes of bodies in memory.
    pub buffered_bytes: i64,
    /// The store.
    pub store: StoreStatus,
    /// Reloads of the configuration.
    pub reload: ReloadStatus,
    /// How many counts each list below has, the oldest first,
    pub buckets: usize,
    /// and how many seconds each of them spans; the last one is under way.
    pub bucket_seconds: u64,
    /// The routes in force, in the order of the configuration, and what matches none of them.
    pub routes: Vec<RouteStatus>,
    /// Routes with less traffic that are left out.
    pub more_routes: usize,
}

/// Why records are not shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NoRecords {
    /// `unauthorized` where a token would help.
    pub code: String,
    /// In plain words.
    pub detail: String,
}

/// How the store does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Which one, without its credentials; `null` for those who may not see records.
    pub location: Option<String>,
    /// Whether it can be reached.
    pub up: bool,
    /// How full it is, from 0 to 1, where that can be told.
    pub used_ratio: Option<f64>,
    /// How often it was found to have lost its data.
    pub losses: u64,
    /// Whether it may drop records to make room.
    pub may_evict: bool,
    /// Calls.
    pub calls: Vec<u64>,
    /// Calls that failed.
    pub errors: Vec<u64>,
    /// The mean time of a call in milliseconds; `null` where there was none.
    pub typical_ms: Vec<Option<f64>>,
    /// What 99 of 100 calls took less than, in milliseconds.
    pub slow_ms: Vec<Option<f64>>,
}

/// Reloads since the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// Taken.
    pub ok: u64,
    /// Refused.
    pub refused: u64,
    /// Whether the file is in force as it is.
    pub last_ok: bool,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Its name; `unmatched` for what matches none.
    pub route: String,
    /// Which requests it is for; `null` for `unmatched` and for those who may not see records.
    #[serde(rename = "match")]
    pub matches: Option<String>,
    /// `enforce`, `observe` or `off`; `null` as above.
    pub mode: Option<String>,
    /// The selectors of its key, `null` as above,
    pub key: Option<Vec<String>>,
    /// and of its scope.
    pub scope: Option<Vec<String>>,
    /// Whether path and query belong to the names of its records.
    pub needs_url: bool,
    /// What the rule means, in plain words; nothing for those who may not see records.
    pub says: String,
    /// Guarded attempts at work.
    pub in_flight: i64,
    /// Repeats that wait.
    pub waiting: i64,
    /// Its records of which nobody knows whether they took effect.
    pub unknown: i64,
    /// Attempts that found their record in other hands, since the start.
    pub lease_lost: u64,
    /// What its requests got, by the label of `onlyonce_requests_total`; without what none got.
    pub outcomes: BTreeMap<String, Vec<u64>>,
}

/// The figures that the process keeps.
pub(super) struct Figures {
    started_at: Timestamp,
    history: Mutex<History>,
}

/// Routes that are shown.
const MOST: usize = 100;

impl Figures {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { started_at: Timestamp::now(), history: Mutex::new(History::new(metrics.read(), Instant::now())) }
    }

    /// Looks at the counters, unless somebody just did.
    pub(super) fn look(&self, metrics: &Metrics) {
        let now = Instant::now();
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.is_due(now) {
            history.add(metrics.read(), now);
        }
    }

    /// All of it but what only the listener knows, which is given.
    pub(super) fn status(&self, routes: &Routes, store: StoreStatus, draining: bool) -> Status {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = history.last();
        let total = |of: fn(&RouteReading) -> i64| reading.routes.values().map(of).sum();
        let (shown, more_routes) = shown(&history, routes);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: Timestamp::now(),
            started_at: self.started_at,
            draining,
            records: None,
            may_change: false,
            per_second: history.per_second(),
            in_flight: total(|route| route.in_flight),
            waiting: total(|route| route.waiting),
            unknown: total(|route| route.unknown),
            lease_lost: reading.routes.values().map(|route| route.lease_lost).sum(),
            connections: reading.connections,
            buffered_bytes: reading.buffered,
            store: store.with(history.store()),
            reload: ReloadStatus {
                ok: reading.reloads,
                refused: reading.reloads_refused,
                last_ok: reading.last_reload_taken,
            },
            buckets: MINUTES,
            bucket_seconds: MINUTE.as_secs(),
            routes: shown,
            more_routes,
        }
    }
}

impl Status {
    /// Leaves out what `/metrics` does not tell: the configuration is for those who may see records. It would show an
    /// attacker where the records are, what requests are recognised by, and which of them nothing guards.
    pub(super) fn hide_configuration(&mut self, why: NoRecords) {
        self.records = Some(why);
        self.store.location = None;
        for route in self.routes.iter_mut().filter(|route| route.matches.is_some()) {
            (route.matches, route.mode, route.key, route.scope) = (None, None, None, None);
            route.needs_url = false;
            route.says.clear();
        }
    }
}

/// The busiest where there are many, in the order of the configuration.
fn shown(history: &History, routes: &Routes) -> (Vec<RouteStatus>, usize) {
    let readings = &history.last().routes;
    let mut known: Vec<(&RouteReading, &Rule)> =
        routes.rules().iter().filter_map(|rule| Some((readings.get(&*rule.name)?, &**rule))).collect();
    let all = known.len();
    if all > MOST {
        let mut traffic: Vec<(u64, &str)> =
            known.iter().map(|(_, rule)| (history.traffic(&rule.name), &*rule.name)).collect();
        traffic.sort_unstable_by_key(|(count, name)| (std::cmp::Reverse(*count), *name));
        let busiest: HashSet<&str> = traffic[..MOST].iter().map(|(_, name)| *name).collect();
        known.retain(|(_, rule)| busiest.contains(&*rule.name));
    }
    let more = all - known.len();
    let of = |(reading, rule): (&RouteReading, &Rule)| RouteStatus::new(history, &rule.name, reading, Some(rule));
    let mut shown: Vec<RouteStatus> = known.into_iter().map(of).collect();
    let unmatched = readings.get(UNMATCHED).filter(|_| history.traffic(UNMATCHED) > 0);
    shown.extend(unmatched.map(|reading| RouteStatus::new(history, UNMATCHED, reading, None)));
    (shown, more)
}

impl RouteStatus {
    fn new(history: &History, route: &str, reading: &RouteReading, rule: Option<&Rule>) -> Self {
        let texts = |selectors: &[crate::rule::Selector]| selectors.iter().map(ToString::to_string).collect();
        let mode = |mode: Mode| match mode {
            Mode::Enforce => "enforce",
            Mode::Observe => "observe",
            Mode::Off => "off",
        };
        Self {
            route: route.to_owned(),
            matches: rule.map(Rule::matches),
            mode: rule.map(|rule| mode(rule.mode).to_owned()),
            key: rule.filter(|rule| rule.mode != Mode::Off).map(|rule| texts(&rule.key)),
            scope: rule.map(|rule| texts(&rule.scope)),
            needs_url: rule.is_some_and(|rule| rule.target_in_name),
            says: rule.map_or_else(|| "Requests that match no route: they pass untouched.".to_owned(), sentence::of),
            in_flight: reading.in_flight,
            waiting: reading.waiting,
            unknown: reading.unknown,
            lease_lost: reading.lease_lost,
            outcomes: history.outcomes(route).into_iter().map(|(name, counts)| (name.to_owned(), counts)).collect(),
        }
    }
}

impl StoreStatus {
    fn with(self, history: StoreHistory) -> Self {
        let millis = |times: Vec<Option<Duration>>| {
            times.into_iter().map(|time| time.map(|time| time.as_secs_f64() * 1000.0)).collect()
        };
        let StoreHistory { calls, errors, mean, slow } = history;
        Self { calls, errors, typical_ms: millis(mean), slow_ms: millis(slow), ..self }
    }
}
