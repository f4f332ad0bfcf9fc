//! What all counters say at one moment.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus::core::Metric;

use super::{Metrics, RequestOutcome, RouteCounts, SECONDS};

/// Counts and amounts.
#[derive(Debug, Clone, Default)]
pub struct MetricsSnapshot {
    /// Each route that there was since the start, by its name, and requests that match none.
    pub routes: BTreeMap<String, RouteReading>,
    /// All calls to the store.
    pub store: StoreReading,
    /// Client connections now.
    pub connections: i64,
    /// Bytes of bodies in memory now.
    pub buffered: i64,
    /// Reloads that were taken.
    pub reloads: u64,
    /// Reloads that were refused.
    pub reloads_refused: u64,
    /// Whether the last one was taken.
    pub last_reload_taken: bool,
}

/// What is counted of a route.
#[derive(Debug, Clone, Default)]
pub struct RouteReading {
    /// Requests, in the order of [`RequestOutcome::ALL`].
    pub outcomes: [u64; RequestOutcome::ALL.len()],
    /// Attempts at work.
    pub in_flight: i64,
    /// Repeats that wait.
    pub waiting: i64,
    /// Records of which nobody knows whether they took effect.
    pub unknown: i64,
    /// Attempts that lost their record.
    pub lease_lost: u64,
}

/// What is counted of calls to the store.
#[derive(Debug, Clone, Default)]
pub struct StoreReading {
    /// All of them.
    pub calls: u64,
    /// Those that failed.
    pub errors: u64,
    /// How long they took together.
    pub seconds: f64,
    /// How many took no longer than each bound of the histogram.
    pub buckets: [u64; SECONDS.len()],
}

impl Metrics {
    /// Reads all of them.
    pub fn read(&self) -> MetricsSnapshot {
        let routes =
            self.routes.all().into_iter().map(|(route, counts)| (route.to_string(), RouteReading::of(&counts)));
        let routes = routes.collect();
        let mut store = StoreReading::default();
        for calls in &self.store_calls {
            store.errors += calls.errors.get();
            let told = calls.durations.metric();
            let told = told.get_histogram();
            store.calls += told.get_sample_count();
            store.seconds += told.get_sample_sum();
            for (sum, bucket) in store.buckets.iter_mut().zip(told.get_bucket()) {
                *sum += bucket.cumulative_count();
            }
        }
        MetricsSnapshot {
            routes,
            store,
            connections: self.connections.get(),
            buffered: self.buffered.get(),
            reloads: self.reloads.with_label_values(&[super::Reload::Ok.as_str()]).get(),
            reloads_refused: self.reloads.with_label_values(&[super::Reload::Refused.as_str()]).get(),
            last_reload_taken: self.last_reload.get() == 1,
        }
    }
}

impl RouteReading {
    fn of(counts: &RouteCounts) -> Self {
        Self {
            outcomes: std::array::from_fn(|at| counts.requests[at].load(Ordering::Relaxed)),
            in_flight: counts.in_flight.load(Ordering::Relaxed),
            waiting: counts.waiting.load(Ordering::Relaxed),
            unknown: counts.records_unknown.load(Ordering::Relaxed),
            lease_lost: counts.lease_lost.load(Ordering::Relaxed),
        }
    }
}

impl MetricsSnapshot {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.routes.values().flat_map(|route| route.outcomes).sum()
    }
}

impl StoreReading {
    /// Adds what happened between two readings.
    pub fn add(&mut self, before: &Self, after: &Self) {
        self.calls += after.calls.saturating_sub(before.calls);
        self.errors += after.errors.saturating_sub(before.errors);
        self.seconds += (after.seconds - before.seconds).max(0.0);
        for (at, bucket) in self.buckets.iter_mut().enumerate() {
            *bucket += after.buckets[at].saturating_sub(before.buckets[at]);
        }
    }

    /// The mean time of a call.
    pub fn mean(&self) -> Option<Duration> {
        // A count of calls is exact in a float for longer than anybody counts.
        (self.calls > 0).then(|| Duration::try_from_secs_f64(self.seconds / self.calls as f64).unwrap_or_default())
    }

    /// The bound under which 99 of 100 calls stayed.
    pub fn slow(&self) -> Option<Duration> {
        let enough = self.calls.saturating_sub(self.calls / 100);
        let bound = self.buckets.iter().zip(SECONDS).find(|(count, _)| **count >= enough).map(|(_, bound)| bound);
        (self.calls > 0).then(|| Duration::from_secs_f64(bound.unwrap_or(SECONDS[SECONDS.len() - 1])))
    }
}
