//! All metrics. Label values come from the configuration and from closed enums, never from a request.

mod reading;
mod refused;
mod store_use;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

pub use reading::{MetricsSnapshot, RouteReading, StoreReading};
pub use refused::{LastRefused, Refused};
use store_use::StoreUse;

/// The route label of traffic that matches no route.
pub const UNMATCHED: &str = "unmatched";

/// The outcome of a request: the `outcome` label of `onlyonce_requests_total`, and the word in the log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// It was forwarded, and the client got the backend's answer.
    Executed,
    /// It was answered from the record.
    Replayed,
    /// 409: the first is still running.
    InFlight,
    /// The key was used for something else.
    KeyReused,
    /// 409: the outcome of the first is unknown.
    Unknown,
    /// 409: completed, but not replayable.
    Unreplayable,
    /// 400: the route requires a key.
    MissingKey,
    /// 400: the key is invalid.
    InvalidKey,
    /// 410: a key that is older than any record.
    KeyExpired,
    /// 401: the token that identifies the caller is not verified.
    InvalidToken,
    /// 400: the body that should contain the key does not parse.
    InvalidBody,
    /// 400: the request cannot be forwarded safely.
    BadRequest,
    /// 413.
    TooLarge,
    /// 408: the body came too slowly.
    RequestTimeout,
    /// 503: the store.
    StoreUnavailable,
    /// 503: the record.
    RecordUnreadable,
    /// 503: too much work at once.
    Overloaded,
    /// Forwarded unguarded.
    Unguarded,
    /// 502 or 504: the backend.
    UpstreamError,
}

impl RequestOutcome {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Executed,
        Self::Replayed,
        Self::InFlight,
        Self::KeyReused,
        Self::Unknown,
        Self::Unreplayable,
        Self::MissingKey,
        Self::InvalidKey,
        Self::KeyExpired,
        Self::InvalidToken,
        Self::InvalidBody,
        Self::BadRequest,
        Self::TooLarge,
        Self::RequestTimeout,
        Self::StoreUnavailable,
        Self::RecordUnreadable,
        Self::Overloaded,
        Self::Unguarded,
        Self::UpstreamError,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Replayed => "replayed",
            Self::InFlight => "in_flight",
            Self::KeyReused => "key_reused",
            Self::Unknown => "unknown",
            Self::Unreplayable => "unreplayable",
            Self::MissingKey => "missing_key",
            Self::InvalidKey => "invalid_key",
            Self::KeyExpired => "key_expired",
            Self::InvalidToken => "invalid_token",
            Self::InvalidBody => "invalid_body",
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::RequestTimeout => "request_timeout",
            Self::StoreUnavailable => "store_unavailable",
            Self::RecordUnreadable => "record_unreadable",
            Self::Overloaded => "overloaded",
            Self::Unguarded => "unguarded",
            Self::UpstreamError => "upstream_error",
        }
    }
}

/// A call to the store: the `op` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOp {
    /// A claim, or a takeover.
    Claim,
    /// The body of an answer that is stored separately from its record.
    Body,
    /// A renewal.
    Renew,
    /// An outcome.
    Settle,
    /// A release.
    Release,
    /// A look-up.
    Find,
    /// A page of a list.
    List,
    /// An operator's change.
    Exchange,
}

impl StoreOp {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Claim, Self::Body, Self::Renew, Self::Settle, Self::Release, Self::Find, Self::List, Self::Exchange];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Body => "body",
            Self::Renew => "renew",
            Self::Settle => "settle",
            Self::Release => "release",
            Self::Find => "find",
            Self::List => "list",
            Self::Exchange => "exchange",
        }
    }
}

/// The new state of a record: the `state` label of `onlyonce_records_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// The answer is kept.
    Completed,
    /// Completed; the answer is not kept.
    Unreplayable,
    /// The outcome is unknown.
    Unknown,
    /// The key was freed.
    Released,
}

impl RecordState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Unreplayable, Self::Unknown, Self::Released];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Unreplayable => "unreplayable",
            Self::Unknown => "unknown",
            Self::Released => "released",
        }
    }
}

/// What would have happened to an observed request: the `would` label of
/// `onlyonce_duplicates_observed_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShadowVerdict {
    /// It repeats a completed request.
    Replay,
    /// It repeats a request that is in flight or whose outcome is unknown.
    InFlight,
    /// Its key was used for something else.
    KeyReused,
    /// It has no key.
    MissingKey,
    /// Its key is invalid, or its body does not parse.
    InvalidKey,
    /// Its body is too large to be guarded.
    TooLarge,
}

impl ShadowVerdict {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Replay, Self::InFlight, Self::KeyReused, Self::MissingKey, Self::InvalidKey, Self::TooLarge];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::InFlight => "in_flight",
            Self::KeyReused => "key_reused",
            Self::MissingKey => "missing_key",
            Self::InvalidKey => "invalid_key",
            Self::TooLarge => "too_large",
        }
    }
}

/// The result of a reload: the `result` label of `onlyonce_config_reloads_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The new rules are in force.
    Ok,
    /// The file is invalid, and the old rules stay.
    Refused,
}

impl Reload {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ok, Self::Refused];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
        }
    }
}

/// The metrics of one kind of call to the store.
struct StoreCalls {
    durations: Histogram,
    errors: IntCounter,
}

/// The metrics of a route, looked up once: a look-up by labels takes 150 instructions, and a request needs up to six.
struct RouteMetrics {
    requests: [IntCounter; RequestOutcome::ALL.len()],
    request_durations: [Histogram; RequestOutcome::ALL.len()],
    upstream_duration: Histogram,
    answers: [IntCounter; CLASSES.len()],
    in_flight: IntGauge,
    records: [IntCounter; RecordState::ALL.len()],
}

/// FNV-1a: names of routes are short, and come from the configuration. The hasher of the standard library took 180
/// instructions for one.
struct RouteHasher(u64);

impl Default for RouteHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for RouteHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All metrics of one process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    upstream_duration: HistogramVec,
    answers: IntCounterVec,
    /// One for each operation, found once: they are counted for every request.
    store_calls: [StoreCalls; StoreOp::ALL.len()],
    store_up: IntGauge,
    store_losses: IntCounter,
    store_used: StoreUse,
    store_may_evict: IntGauge,
    in_flight: IntGaugeVec,
    waiting: IntGaugeVec,
    lease_lost: IntCounterVec,
    records: IntCounterVec,
    records_unknown: IntGaugeVec,
    /// The routes that are or were there.
    routes: RwLock<HashMap<String, RouteMetrics, BuildHasherDefault<RouteHasher>>>,
    observed: IntCounterVec,
    unobserved: IntCounterVec,
    reloads: IntCounterVec,
    last_reload: IntGauge,
    connections: IntGauge,
    buffered: IntGauge,
    /// No metric: the last requests that were refused.
    refused: LastRefused,
}

/// Global, because a process has one log.
static LOG_DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Log lines that were dropped: their reader did not keep up, or the disk was full.";
    IntCounter::new("onlyonce_log_dropped_total", help).expect("a name that Prometheus takes")
});

/// Counts dropped log lines.
pub fn count_dropped_log_lines(lines: u64) {
    LOG_DROPPED.inc_by(lines);
}

/// The `status` label of `onlyonce_upstream_responses_total`.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// From a replay from memory to the longest attempt. Each bound is at most 2.5 times the one before.
const SECONDS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0, 600.0];

impl Metrics {
    /// Registers everything.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let seconds = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help)?);

        let store_durations = register(
            &registry,
            HistogramVec::new(seconds("onlyonce_store_duration_seconds", "Calls to the store."), &["op"])?,
        )?;
        let store_errors = counter("onlyonce_store_errors_total", "Calls to the store that failed.", &["op"])?;
        let metrics = Self {
            requests: counter("onlyonce_requests_total", "Requests by what they got.", &["route", "outcome"])?,
            request_duration: register(
                &registry,
                HistogramVec::new(
                    seconds("onlyonce_request_duration_seconds", "From the request's head to the answer's head."),
                    &["route", "outcome"],
                )?,
            )?,
            upstream_duration: register(
                &registry,
                HistogramVec::new(
                    seconds("onlyonce_upstream_duration_seconds", "Guarded attempts, from sending to the answer."),
                    &["route"],
                )?,
            )?,
            answers: counter(
                "onlyonce_upstream_responses_total",
                "What the backend answered to guarded attempts.",
                &["route", "status"],
            )?,
            store_calls: StoreOp::ALL.map(|op| StoreCalls {
                durations: store_durations.with_label_values(&[op.as_str()]),
                errors: store_errors.with_label_values(&[op.as_str()]),
            }),
            store_up: gauge("onlyonce_store_up", "1 while the store can be reached.")?,
            store_losses: register(
                &registry,
                IntCounter::new(
                    "onlyonce_store_losses_total",
                    "Times that the store was found to have lost its data.",
                )?,
            )?,
            store_used: register(&registry, StoreUse::new()?)?,
            store_may_evict: gauge("onlyonce_store_may_evict", "1 while the store may drop records to make room.")?,
            in_flight: gauges("onlyonce_in_flight", "Guarded attempts at work.", &["route"])?,
            waiting: gauges("onlyonce_waiting", "Repeats waiting for the first.", &["route"])?,
            lease_lost: counter(
                "onlyonce_lease_lost_total",
                "Attempts that found their record in other hands.",
                &["route"],
            )?,
            records: counter("onlyonce_records_total", "What became of records.", &["route", "state"])?,
            records_unknown: gauges(
                "onlyonce_records_unknown",
                "Records in the store, now, of which nobody knows whether they took effect.",
                &["route"],
            )?,
            routes: RwLock::default(),
            observed: counter(
                "onlyonce_duplicates_observed_total",
                "Requests in observe mode that a guard would not simply have run.",
                &["route", "would"],
            )?,
            unobserved: counter(
                "onlyonce_unobserved_total",
                "Requests in observe mode of which nothing could be told.",
                &["route"],
            )?,
            reloads: counter("onlyonce_config_reloads_total", "Reloads of the configuration.", &["result"])?,
            last_reload: gauge(
                "onlyonce_config_last_reload_successful",
                "1 while the file is in force as it is; 0 after it was refused.",
            )?,
            connections: gauge("onlyonce_connections", "Client connections.")?,
            buffered: gauge("onlyonce_buffered_bytes", "Bytes of bodies held in memory.")?,
            refused: LastRefused::default(),
            registry,
        };
        register(&metrics.registry, LOG_DROPPED.clone())?;
        let build = IntGaugeVec::new(Opts::new("onlyonce_build_info", "Always 1."), &["version"])?;
        register(&metrics.registry, build)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        metrics.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        metrics.start_at_zero();
        Ok(metrics)
    }

    fn start_at_zero(&self) {
        self.last_reload.set(1);
        for result in Reload::ALL {
            self.reloads.with_label_values(&[result.as_str()]);
        }
        let unmatched = [UNMATCHED, RequestOutcome::Unguarded.as_str()];
        self.requests.with_label_values(&unmatched);
        self.request_duration.with_label_values(&unmatched);
    }

    /// Adds a route with zero counts, so that a rate over the first event is not lost. An existing route keeps its counts.
    pub fn route(&self, route: &str) {
        let metrics = RouteMetrics {
            requests: RequestOutcome::ALL.map(|outcome| self.requests.with_label_values(&[route, outcome.as_str()])),
            request_durations: RequestOutcome::ALL
                .map(|outcome| self.request_duration.with_label_values(&[route, outcome.as_str()])),
            upstream_duration: self.upstream_duration.with_label_values(&[route]),
            answers: CLASSES.map(|class| self.answers.with_label_values(&[route, class])),
            in_flight: self.in_flight.with_label_values(&[route]),
            records: RecordState::ALL.map(|state| self.records.with_label_values(&[route, state.as_str()])),
        };
        self.records_unknown.with_label_values(&[route]);
        self.waiting.with_label_values(&[route]);
        self.lease_lost.with_label_values(&[route]);
        self.routes.write().unwrap_or_else(PoisonError::into_inner).insert(route.to_owned(), metrics);
    }

    /// What `known` makes of the route's metrics; of one that was never introduced, what `other` does.
    fn of_route<T>(&self, route: &str, known: impl FnOnce(&RouteMetrics) -> T, other: impl FnOnce() -> T) -> T {
        match self.routes.read().unwrap_or_else(PoisonError::into_inner).get(route) {
            Some(metrics) => known(metrics),
            None => other(),
        }
    }

    /// The same for what is counted only in observe mode.
    pub fn observed_route(&self, route: &str) {
        for would in ShadowVerdict::ALL {
            self.observed.with_label_values(&[route, would.as_str()]);
        }
        self.unobserved.with_label_values(&[route]);
    }

    /// The text exposition format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// A request was answered.
    pub fn request(&self, route: &str, outcome: RequestOutcome, took: Duration) {
        let seconds = took.as_secs_f64();
        let known = |metrics: &RouteMetrics| {
            // In the order of `RequestOutcome::ALL`.
            metrics.requests[outcome as usize].inc();
            metrics.request_durations[outcome as usize].observe(seconds);
        };
        self.of_route(route, known, || {
            let labels = [route, outcome.as_str()];
            self.requests.with_label_values(&labels).inc();
            self.request_duration.with_label_values(&labels).observe(seconds);
        });
    }

    /// A guarded attempt ended; `status` is what the backend answered, if it did.
    pub fn attempt(&self, route: &str, took: Duration, status: Option<http::StatusCode>) {
        let seconds = took.as_secs_f64();
        let class =
            |status: http::StatusCode| usize::from(status.as_u16() / 100).saturating_sub(2).min(CLASSES.len() - 1);
        let class = status.map(class);
        let known = |metrics: &RouteMetrics| {
            metrics.upstream_duration.observe(seconds);
            if let Some(class) = class {
                metrics.answers[class].inc();
            }
        };
        self.of_route(route, known, || {
            self.upstream_duration.with_label_values(&[route]).observe(seconds);
            if let Some(class) = class {
                self.answers.with_label_values(&[route, CLASSES[class]]).inc();
            }
        });
    }

    /// A call to the store ended.
    pub fn store(&self, op: StoreOp, took: Duration, failed: bool) {
        // In the order of `StoreOp::ALL`.
        let calls = &self.store_calls[op as usize];
        calls.durations.observe(took.as_secs_f64());
        if failed {
            calls.errors.inc();
        }
    }

    /// Sets the state of the store: whether it is reachable, how often it lost its data, how full it is, or each node of it,
    /// and whether it may drop records.
    pub fn store_state(&self, up: bool, losses: u64, used: Vec<(Option<String>, f64)>, may_evict: bool) {
        self.store_up.set(i64::from(up));
        self.store_used.set(used);
        self.store_may_evict.set(i64::from(may_evict));
        self.store_losses.inc_by(losses.saturating_sub(self.store_losses.get()));
    }

    /// The last requests that were refused.
    pub fn refused(&self) -> &LastRefused {
        &self.refused
    }

    /// An attempt lost its record to another owner.
    pub fn lease_lost(&self, route: &str) {
        self.lease_lost.with_label_values(&[route]).inc();
    }

    /// A record reached a state.
    pub fn record(&self, route: &str, state: RecordState) {
        let other = || self.records.with_label_values(&[route, state.as_str()]).inc();
        // In the order of `RecordState::ALL`.
        self.of_route(route, |metrics| metrics.records[state as usize].inc(), other);
    }

    /// Sets the number of unknown records of each route.
    pub fn records_unknown(&self, count: impl Fn(&str) -> usize) {
        for route in self.routes.read().unwrap_or_else(PoisonError::into_inner).keys() {
            let count = i64::try_from(count(route)).unwrap_or(i64::MAX);
            self.records_unknown.with_label_values(&[route]).set(count);
        }
    }

    /// Counts what an observed request would have been.
    pub fn observed(&self, route: &str, would: ShadowVerdict) {
        self.observed.with_label_values(&[route, would.as_str()]).inc();
    }

    /// Counts an observed request whose verdict is unknown.
    pub fn unobserved(&self, route: &str) {
        self.unobserved.with_label_values(&[route]).inc();
    }

    /// A reload ended.
    pub fn reload(&self, result: Reload) {
        self.reloads.with_label_values(&[result.as_str()]).inc();
        self.last_reload.set(i64::from(result == Reload::Ok));
    }

    /// Counts an attempt in flight until it is dropped.
    pub fn in_flight(&self, route: &str) -> GaugeGuard {
        let other = || self.in_flight.with_label_values(&[route]);
        GaugeGuard::new(self.of_route(route, |metrics| metrics.in_flight.clone(), other), 1)
    }

    /// Counts a waiter until it is dropped.
    pub fn waiting(&self, route: &str) -> GaugeGuard {
        GaugeGuard::new(self.waiting.with_label_values(&[route]), 1)
    }

    /// Counts a client connection until it is dropped.
    pub fn connection(&self) -> GaugeGuard {
        GaugeGuard::new(self.connections.clone(), 1)
    }

    /// Counts bytes in memory until it is dropped, starting with none.
    pub fn buffered(&self) -> GaugeGuard {
        GaugeGuard::new(self.buffered.clone(), 0)
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// An amount that a gauge holds for as long as this lives.
pub struct GaugeGuard {
    gauge: IntGauge,
    amount: i64,
}

impl GaugeGuard {
    fn new(gauge: IntGauge, amount: i64) -> Self {
        gauge.add(amount);
        Self { gauge, amount }
    }

    /// Adds to the amount.
    pub fn add(&mut self, amount: i64) {
        self.gauge.add(amount);
        self.amount += amount;
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.gauge.sub(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_from_a_millisecond_to_ten_minutes_without_gaps() {
        assert_eq!((SECONDS[0], SECONDS[SECONDS.len() - 1]), (0.001, 600.0));
        for pair in SECONDS.windows(2) {
            let step = pair[1] / pair[0];
            assert!(step > 1.0 && step <= 2.5 + 1e-9, "{pair:?}");
        }
    }

    #[test]
    fn what_is_counted_for_a_route_has_the_labels_of_it() {
        let metrics = Metrics::new().expect("metrics");
        metrics.route("orders");
        for route in ["orders", "never-introduced"] {
            for (number, outcome) in RequestOutcome::ALL.into_iter().enumerate() {
                assert_eq!(outcome as usize, number);
                metrics.request(route, outcome, Duration::from_secs(1));
                let told = metrics.render().expect("an exposition");
                let labels = format!("outcome=\"{}\",route=\"{route}\"", outcome.as_str());
                assert!(told.contains(&format!("onlyonce_requests_total{{{labels}}} 1")), "{labels}");
                assert!(told.contains(&format!("onlyonce_request_duration_seconds_count{{{labels}}} 1")), "{labels}");
            }
            for (number, state) in RecordState::ALL.into_iter().enumerate() {
                assert_eq!(state as usize, number);
                metrics.record(route, state);
                let series = format!("onlyonce_records_total{{route=\"{route}\",state=\"{}\"}} 1", state.as_str());
                assert!(metrics.render().expect("an exposition").contains(&series), "{series}");
            }
            metrics.attempt(route, Duration::from_secs(1), None);
            let counted = metrics.in_flight(route);
            let told = metrics.render().expect("an exposition");
            for series in ["onlyonce_upstream_duration_seconds_count", "onlyonce_in_flight"] {
                assert!(told.contains(&format!("{series}{{route=\"{route}\"}} 1")), "{series}");
            }
            drop(counted);
        }
    }

    #[test]
    fn every_count_of_a_route_is_there_from_the_start() {
        let metrics = Metrics::new().expect("metrics");
        metrics.route("orders");
        let told = metrics.render().expect("an exposition");
        for outcome in RequestOutcome::ALL {
            let series = format!("onlyonce_requests_total{{outcome=\"{}\",route=\"orders\"}} 0", outcome.as_str());
            assert!(told.contains(&series), "{series}");
        }
        for class in CLASSES {
            let series = format!("onlyonce_upstream_responses_total{{route=\"orders\",status=\"{class}\"}} 0");
            assert!(told.contains(&series), "{series}");
        }
        for outcome in RequestOutcome::ALL {
            let labels = format!("outcome=\"{}\",route=\"orders\"", outcome.as_str());
            let series = format!("onlyonce_request_duration_seconds_count{{{labels}}} 0");
            assert!(told.contains(&series), "{series}");
        }
        for series in ["onlyonce_upstream_duration_seconds_count", "onlyonce_records_unknown", "onlyonce_in_flight"] {
            assert!(told.contains(&format!("{series}{{route=\"orders\"}} 0")), "{series}");
        }
        assert!(told.contains("onlyonce_config_last_reload_successful 1"));
        for (status, class) in [(200, "2xx"), (307, "3xx"), (404, "4xx"), (503, "5xx"), (599, "5xx")] {
            let before = count(&metrics, class);
            let status = http::StatusCode::from_u16(status).expect("a status");
            metrics.attempt("orders", Duration::from_secs(1), Some(status));
            assert_eq!(count(&metrics, class), before + 1, "{status}");
        }
        for op in StoreOp::ALL {
            metrics.store(op, Duration::from_secs(1), true);
            let told = metrics.render().expect("an exposition");
            for series in ["onlyonce_store_errors_total", "onlyonce_store_duration_seconds_count"] {
                let series = format!("{series}{{op=\"{}\"}} 1", op.as_str());
                assert!(told.contains(&series), "{series}");
            }
        }
        metrics.reload(Reload::Refused);
        assert!(metrics.render().expect("an exposition").contains("onlyonce_config_last_reload_successful 0"));
    }

    fn count(metrics: &Metrics, class: &str) -> u64 {
        metrics.answers.with_label_values(&["orders", class]).get()
    }
}
