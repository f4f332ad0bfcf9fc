//! Of all requests with one key, one runs, and the others get its result.
//!
//! [`Guard::claim`] asks the store who owns an operation. The owner's attempt is [run](Ownership::run) to its end, even
//! without its client ([`attempt`], `running`). A repeat gets a [`Verdict`] ([`decide()`]) or [waits](Guard::wait)
//! for the first. [`policy`] decides what becomes of the record after the attempt. There are no sockets here: the
//! caller sends, and returns a [`SendOutcome`].

pub mod attempt;
pub mod audit;
mod change;
mod claim;
pub mod cleanup;
pub mod decide;
mod in_flight;
pub mod lease;
mod lease_state;
mod limit;
mod observe;
mod ownership;
pub mod policy;
mod probe;
mod replay_permission;
mod running;
mod send_outcome;
#[cfg(test)]
mod tests;
mod unknown;
mod waiting;
pub mod without_store;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use tokio_util::task::TaskTracker;

pub use attempt::AttemptResult;
pub use change::{NotChanged, why_not_done};
pub use claim::{Admission, ClaimError};
pub use decide::{Difference, Forecast, Verdict, decide, forecast};
pub use lease::{RecordOutcome, RecordWatch, SendFence};
pub use observe::{Observation, ShadowResult};
pub use ownership::Ownership;
pub use probe::{
    AskFn, Inconclusive, NextAnswer, NotAsked, ProbeHost, ProbeOutcome, ProbePlan, ProbeReading, ProbedBy,
};
pub use replay_permission::{AuthAnswer, OriginalAnswer, ReplayPermission, Sealed};
pub use running::RunningAttempt;
pub use send_outcome::{BodyRemainder, LostReason, ReceivedResponse, SendOutcome};

use cleanup::Cleanup;
use in_flight::InFlightTable;
use limit::ConcurrencyLimit;
use probe::ProbeEntries;
use unknown::UnknownRecords;

use crate::metrics::Metrics;
use crate::record::RecordName;
use crate::store::Metered;
use crate::tick::Flag;

/// Guards operations with one store.
pub struct Guard {
    store: Arc<Metered>,
    metrics: Arc<Metrics>,
    in_flight: Arc<InFlightTable>,
    unknowns: Arc<UnknownRecords>,
    probes: Arc<ProbeEntries>,
    cleanup: Cleanup,
    attempt_limit: Arc<ConcurrencyLimit>,
    observations: Arc<ConcurrencyLimit>,
    /// The number of waiting repeats, by route.
    waiters: Arc<Mutex<HashMap<Arc<str>, usize>>>,
    attempts: TaskTracker,
    observed: TaskTracker,
    /// Raised when the drain ends: running attempts are settled at once.
    abandon: Arc<Flag>,
}

impl Guard {
    /// A guard that runs at most `max_in_flight` attempts at once, and observes at most as many requests.
    pub fn new(store: Arc<Metered>, metrics: Arc<Metrics>, max_in_flight: usize) -> Arc<Self> {
        Arc::new(Self {
            cleanup: Cleanup::start(),
            store,
            unknowns: Arc::new(UnknownRecords::new(Arc::clone(&metrics))),
            metrics,
            probes: Arc::new(ProbeEntries::new()),
            in_flight: Arc::default(),
            attempt_limit: ConcurrencyLimit::new(max_in_flight),
            observations: ConcurrencyLimit::new(max_in_flight),
            waiters: Arc::default(),
            attempts: TaskTracker::new(),
            observed: TaskTracker::new(),
            abandon: Arc::default(),
        })
    }

    /// The same guard with another handle to the same store, for another core. All else is shared.
    pub fn over(&self, store: Arc<Metered>) -> Arc<Self> {
        Arc::new(Self {
            store,
            metrics: Arc::clone(&self.metrics),
            in_flight: Arc::clone(&self.in_flight),
            unknowns: Arc::clone(&self.unknowns),
            probes: Arc::clone(&self.probes),
            cleanup: self.cleanup.clone(),
            attempt_limit: Arc::clone(&self.attempt_limit),
            observations: Arc::clone(&self.observations),
            waiters: Arc::clone(&self.waiters),
            attempts: self.attempts.clone(),
            observed: self.observed.clone(),
            abandon: Arc::clone(&self.abandon),
        })
    }

    /// An operator or a probe has freed this key. An attempt of this process does not block it any more.
    pub fn freed(&self, name: &RecordName) {
        self.in_flight.freed(name);
        self.unknowns.resolved(name);
    }

    /// An operator or a probe has settled this record.
    pub fn settled_by_another(&self, name: &RecordName) {
        self.unknowns.resolved(name);
    }

    /// The records that have been unknown for longest, as far as is known without asking the store.
    pub fn oldest_unknown(&self, count: usize) -> Vec<RecordName> {
        self.unknowns.oldest(count)
    }

    /// Counts the records that are unknown, for as long as this is polled.
    pub async fn survey(&self) -> Infallible {
        self.unknowns.survey(&*self.store).await
    }

    /// Waits until every attempt is recorded.
    pub async fn recorded(&self) {
        self.attempts.close();
        self.attempts.wait().await;
    }

    /// Waits until every claim that was given up is deleted, or has not arrived for a while.
    pub async fn cleaned_up(&self) {
        self.cleanup.settled().await;
    }

    /// Waits until all observations are recorded.
    pub async fn observed(&self) {
        self.observed.close();
        self.observed.wait().await;
    }

    /// Ends the running attempts: each is settled by its present state, and a write that fails is tried once more.
    /// Follow with [`recorded`](Self::recorded).
    pub fn abandon(&self) {
        self.abandon.raise();
    }

    /// The number of attempts that are not recorded yet.
    pub fn at_work(&self) -> usize {
        self.attempts.len()
    }

    /// The number of claims that were given up, and may still arrive.
    pub fn given_up(&self) -> usize {
        self.cleanup.open()
    }
}
