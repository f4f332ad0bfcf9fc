//! What is counted of each route.
//!
//! There may be ten thousand of them, and most outcomes never happen to most: a count takes eight bytes, and a histogram
//! nothing until something is counted in it. Every series is shown all the same. (As metrics of the `prometheus` crate,
//! which keep their names and labels each, they took 46 kB for a route.)

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use super::durations::{DurationCounts, Durations};
use super::labels::{ProbeResult, RecordState, ReplayAuthResult, RequestOutcome, ShadowVerdict};

/// The `status` label of `onlyonce_upstream_responses_total`.
pub(super) const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The counts of one route.
#[derive(Default)]
pub(super) struct RouteCounts {
    /// The configuration has, or had, a route of this name: all its series are shown.
    is_introduced: bool,
    pub(super) requests: [AtomicU64; RequestOutcome::ALL.len()],
    request_durations: [LazyDurations; RequestOutcome::ALL.len()],
    upstream_duration: LazyDurations,
    pub(super) answers: [AtomicU64; CLASSES.len()],
    pub(super) in_flight: AtomicI64,
    pub(super) waiting: AtomicI64,
    pub(super) lease_lost: AtomicU64,
    pub(super) records: [AtomicU64; RecordState::ALL.len()],
    pub(super) records_unknown: AtomicI64,
    /// In observe mode only.
    observed: OnceLock<Box<ObservedCounts>>,
    /// With `replay_auth` only.
    replay_auth: OnceLock<Box<ReplayAuthCounts>>,
    /// Of routes with a probe only, in the order of [`ProbeResult::ALL`].
    probes: OnceLock<Box<[AtomicU64; ProbeResult::ALL.len()]>>,
}

/// By [`ReplayAuthResult`].
pub(super) type ReplayAuthCounts = [AtomicU64; ReplayAuthResult::ALL.len()];

/// What is counted in observe mode.
#[derive(Default)]
pub(super) struct ObservedCounts {
    pub(super) would: [AtomicU64; ShadowVerdict::ALL.len()],
    pub(super) unobserved: AtomicU64,
}

/// A histogram that may never be needed.
#[derive(Default)]
struct LazyDurations(OnceLock<Box<Durations>>);

impl LazyDurations {
    fn observe(&self, took: Duration) {
        self.0.get_or_init(Box::default).observe(took);
    }

    fn read(&self) -> DurationCounts {
        self.0.get().map_or_else(DurationCounts::default, |durations| durations.read())
    }
}

impl RouteCounts {
    /// A request was answered.
    pub(super) fn request(&self, outcome: RequestOutcome, took: Duration) {
        self.requests[outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.request_durations[outcome as usize].observe(took);
    }

    /// A guarded attempt ended, and the backend answered with a status of this class, if it did.
    pub(super) fn attempt(&self, took: Duration, class: Option<usize>) {
        self.upstream_duration.observe(took);
        if let Some(class) = class {
            self.answers[class].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn observed(&self) -> &ObservedCounts {
        self.observed.get_or_init(Box::default)
    }

    /// `None`: it was never in observe mode.
    pub(super) fn known_observed(&self) -> Option<&ObservedCounts> {
        self.observed.get().map(|observed| &**observed)
    }

    pub(super) fn replay_auth(&self) -> &ReplayAuthCounts {
        self.replay_auth.get_or_init(Box::default)
    }

    /// `None`: it never had `replay_auth`.
    pub(super) fn known_replay_auth(&self) -> Option<&ReplayAuthCounts> {
        self.replay_auth.get().map(|counts| &**counts)
    }

    pub(super) fn probes(&self) -> &[AtomicU64; ProbeResult::ALL.len()] {
        self.probes.get_or_init(Box::default)
    }

    /// `None`: it never had a probe.
    pub(super) fn known_probes(&self) -> Option<&[AtomicU64; ProbeResult::ALL.len()]> {
        self.probes.get().map(|probes| &**probes)
    }

    pub(super) fn request_duration(&self, outcome: RequestOutcome) -> DurationCounts {
        self.request_durations[outcome as usize].read()
    }

    pub(super) fn upstream_duration(&self) -> DurationCounts {
        self.upstream_duration.read()
    }

    /// Whether a series is shown that says nothing yet.
    pub(super) fn is_introduced(&self) -> bool {
        self.is_introduced
    }
}

/// The routes that are or were there, and what was counted without being one.
#[derive(Default)]
pub(super) struct CountedRoutes(RwLock<KnownRoutes>);

#[derive(Default)]
struct KnownRoutes {
    /// For requests.
    by_name: HashMap<Arc<str>, Arc<RouteCounts>, BuildHasherDefault<RouteHasher>>,
    /// The same in order, for whoever shows them all every few seconds.
    in_order: BTreeMap<Arc<str>, Arc<RouteCounts>>,
}

impl KnownRoutes {
    fn insert(&mut self, route: &str, counts: RouteCounts) -> &Arc<RouteCounts> {
        let (route, counts) = (Arc::from(route), Arc::new(counts));
        self.in_order.insert(Arc::clone(&route), Arc::clone(&counts));
        self.by_name.entry(route).insert_entry(counts).into_mut()
    }
}

impl CountedRoutes {
    /// Adds a route. One that is there keeps its counts.
    pub(super) fn introduce(&self, route: &str) {
        let mut routes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !routes.by_name.contains_key(route) {
            routes.insert(route, RouteCounts { is_introduced: true, ..RouteCounts::default() });
        }
    }

    /// Shows `count` the counts of a route.
    pub(super) fn with<T>(&self, route: &str, count: impl FnOnce(&Arc<RouteCounts>) -> T) -> T {
        {
            let routes = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(counts) = routes.by_name.get(route) {
                return count(counts);
            }
        }
        let mut routes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let found = routes.by_name.get(route).cloned();
        match &found {
            // Another was faster.
            Some(counts) => count(counts),
            None => count(routes.insert(route, RouteCounts::default())),
        }
    }

    /// All of them, in the order of their names.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<RouteCounts>)> {
        let routes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        routes.in_order.iter().map(|(route, counts)| (Arc::clone(route), Arc::clone(counts))).collect()
    }
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
