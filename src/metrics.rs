//! All metrics. Label values come from the configuration and from closed enums, never from a request.

mod durations;
mod exposition;
mod labels;
mod reading;
mod refused;
mod routes;
mod store_use;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

use durations::SECONDS;
use exposition::FAMILIES;
pub use labels::{
    FormGuardResult, ProbeResult, RecordState, Reload, ReplayAuthResult, RequestOutcome, ShadowVerdict, StoreOp,
};
pub use reading::{MetricsSnapshot, RouteReading, StoreReading};
pub use refused::{LastRefused, Refused};
use routes::{CLASSES, CountedRoutes, RouteCounts};
use store_use::StoreUse;

/// The route label of traffic that matches no route.
pub const UNMATCHED: &str = "unmatched";

/// The metrics of one kind of call to the store.
struct StoreCalls {
    durations: Histogram,
    errors: IntCounter,
}

/// All metrics of one process.
pub struct Metrics {
    registry: Registry,
    routes: CountedRoutes,
    /// One for each operation, found once: they are counted for every request.
    store_calls: [StoreCalls; StoreOp::ALL.len()],
    store_up: IntGauge,
    store_losses: IntCounter,
    store_used: StoreUse,
    store_may_evict: IntGauge,
    /// Registered with the first figure: only PostgreSQL has it.
    store_left_behind: OnceLock<IntGauge>,
    form_guard: IntCounterVec,
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

impl Metrics {
    /// Registers everything.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let seconds = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help)?);

        let store_durations = register(
            &registry,
            HistogramVec::new(seconds("onlyonce_store_duration_seconds", "Calls to the store."), &["op"])?,
        )?;
        let store_errors = counter("onlyonce_store_errors_total", "Calls to the store that failed.", &["op"])?;
        let metrics = Self {
            routes: CountedRoutes::default(),
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
            store_left_behind: OnceLock::new(),
            form_guard: counter(
                "onlyonce_form_guard_total",
                "Scripts that the form guard served, pages that it put its tag into or left as they are, and requests of outdated pages.",
                &["result"],
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
        for result in FormGuardResult::ALL {
            self.form_guard.with_label_values(&[result.as_str()]);
        }
        for result in Reload::ALL {
            self.reloads.with_label_values(&[result.as_str()]);
        }
        self.routes.with(UNMATCHED, |_| ());
    }

    /// Adds a route with zero counts, so that a rate over the first event is not lost. An existing route keeps its counts.
    pub fn route(&self, route: &str) {
        self.routes.introduce(route);
    }

    /// The same for what is counted only in observe mode.
    pub fn observed_route(&self, route: &str) {
        self.routes.with(route, |counts| _ = counts.observed());
    }

    /// The same for what is counted only with `replay_auth`.
    pub fn asking_route(&self, route: &str) {
        self.routes.with(route, |counts| _ = counts.replay_auth());
    }

    /// The same for what is counted only of routes with a probe.
    pub fn probed_route(&self, route: &str) {
        self.routes.with(route, |counts| _ = counts.probes());
    }

    /// The text exposition format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let (routes, mut of_routes) = (self.routes.all(), FAMILIES.iter().peekable());
        let mut out = String::new();
        for family in self.registry.gather() {
            while let Some(before) = of_routes.next_if(|next| next.name < family.name()) {
                before.write(&mut out, &routes);
            }
            TextEncoder::new().encode_utf8(std::slice::from_ref(&family), &mut out)?;
        }
        of_routes.for_each(|left| left.write(&mut out, &routes));
        Ok(out)
    }

    /// A request was answered.
    pub fn request(&self, route: &str, outcome: RequestOutcome, took: Duration) {
        self.routes.with(route, |counts| counts.request(outcome, took));
    }

    /// A guarded attempt ended; `status` is what the backend answered, if it did.
    pub fn attempt(&self, route: &str, took: Duration, status: Option<http::StatusCode>) {
        let class =
            |status: http::StatusCode| usize::from(status.as_u16() / 100).saturating_sub(2).min(CLASSES.len() - 1);
        self.routes.with(route, |counts| counts.attempt(took, status.map(class)));
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

    /// Sets at how many sessions of lost connections the store's server is still at work.
    pub fn store_left_behind(&self, sessions: u64) {
        const HELP: &str = "Sessions of lost connections at which PostgreSQL is still at work.";
        let gauge = self.store_left_behind.get_or_init(|| {
            let gauge =
                IntGauge::new("onlyonce_store_sessions_left_behind", HELP).expect("a name that Prometheus takes");
            // It is registered once, and its name is its own.
            let _ = self.registry.register(Box::new(gauge.clone()));
            gauge
        });
        gauge.set(i64::try_from(sessions).unwrap_or(i64::MAX));
    }

    /// The last requests that were refused.
    pub fn refused(&self) -> &LastRefused {
        &self.refused
    }

    /// An attempt lost its record to another owner.
    pub fn lease_lost(&self, route: &str) {
        self.routes.with(route, |counts| counts.lease_lost.fetch_add(1, Ordering::Relaxed));
    }

    /// A record reached a state.
    pub fn record(&self, route: &str, state: RecordState) {
        self.routes.with(route, |counts| counts.records[state as usize].fetch_add(1, Ordering::Relaxed));
    }

    /// The backend was asked about an unknown outcome.
    pub fn probe(&self, route: &str, result: ProbeResult) {
        self.routes.with(route, |counts| counts.probes()[result as usize].fetch_add(1, Ordering::Relaxed));
    }

    /// Sets the number of unknown records of each route.
    pub fn records_unknown(&self, count: impl Fn(&str) -> usize) {
        for (route, counts) in self.routes.all() {
            if counts.is_introduced() {
                let count = i64::try_from(count(&route)).unwrap_or(i64::MAX);
                counts.records_unknown.store(count, Ordering::Relaxed);
            }
        }
    }

    /// Counts what an observed request would have been.
    pub fn observed(&self, route: &str, would: ShadowVerdict) {
        self.routes.with(route, |counts| counts.observed().would[would as usize].fetch_add(1, Ordering::Relaxed));
    }

    /// Counts what came of a question whether a caller may see a recorded answer.
    pub fn replay_auth(&self, route: &str, result: ReplayAuthResult) {
        self.routes.with(route, |counts| counts.replay_auth()[result as usize].fetch_add(1, Ordering::Relaxed));
    }

    /// Counts an observed request whose verdict is unknown.
    pub fn unobserved(&self, route: &str) {
        self.routes.with(route, |counts| counts.observed().unobserved.fetch_add(1, Ordering::Relaxed));
    }

    /// The form guard served its script, or came by a page.
    pub fn form_guard(&self, result: FormGuardResult) {
        self.form_guard.with_label_values(&[result.as_str()]).inc();
    }

    /// A reload ended.
    pub fn reload(&self, result: Reload) {
        self.reloads.with_label_values(&[result.as_str()]).inc();
        self.last_reload.set(i64::from(result == Reload::Ok));
    }

    /// Counts an attempt in flight until it is dropped.
    pub fn in_flight(&self, route: &str) -> GaugeGuard {
        GaugeGuard::new(CountedGauge::InFlight(self.routes.with(route, Arc::clone)), 1)
    }

    /// Counts a waiter until it is dropped.
    pub fn waiting(&self, route: &str) -> GaugeGuard {
        GaugeGuard::new(CountedGauge::Waiting(self.routes.with(route, Arc::clone)), 1)
    }

    /// Counts a client connection until it is dropped.
    pub fn connection(&self) -> GaugeGuard {
        GaugeGuard::new(CountedGauge::Own(self.connections.clone()), 1)
    }

    /// Counts bytes in memory until it is dropped, starting with none.
    pub fn buffered(&self) -> GaugeGuard {
        GaugeGuard::new(CountedGauge::Own(self.buffered.clone()), 0)
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// An amount that a gauge holds for as long as this lives.
pub struct GaugeGuard {
    gauge: CountedGauge,
    amount: i64,
}

enum CountedGauge {
    Own(IntGauge),
    InFlight(Arc<RouteCounts>),
    Waiting(Arc<RouteCounts>),
}

impl CountedGauge {
    fn add(&self, amount: i64) {
        let add = |gauge: &AtomicI64| _ = gauge.fetch_add(amount, Ordering::Relaxed);
        match self {
            Self::Own(gauge) => gauge.add(amount),
            Self::InFlight(counts) => add(&counts.in_flight),
            Self::Waiting(counts) => add(&counts.waiting),
        }
    }
}

impl GaugeGuard {
    fn new(gauge: CountedGauge, amount: i64) -> Self {
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
        self.gauge.add(-self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(!metrics.render().expect("an exposition").contains("onlyonce_replay_auth_total"));
        metrics.asking_route("orders");
        for (number, result) in ReplayAuthResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, number);
            let series = format!("onlyonce_replay_auth_total{{result=\"{}\",route=\"orders\"}}", result.as_str());
            assert!(metrics.render().expect("an exposition").contains(&format!("{series} 0")), "{series}");
            metrics.replay_auth("orders", result);
            assert!(metrics.render().expect("an exposition").contains(&format!("{series} 1")), "{series}");
        }
        metrics.reload(Reload::Refused);
        assert!(metrics.render().expect("an exposition").contains("onlyonce_config_last_reload_successful 0"));
    }

    fn count(metrics: &Metrics, class: &str) -> u64 {
        let told = metrics.render().expect("an exposition");
        let series = format!("onlyonce_upstream_responses_total{{route=\"orders\",status=\"{class}\"}} ");
        let count = told.lines().find_map(|line| line.strip_prefix(&series)).expect("a series");
        count.parse().expect("a number")
    }
}
