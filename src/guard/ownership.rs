//! What an owner holds between its claim and its attempt.

use std::sync::Arc;

use super::Guard;
use super::attempt::{Attempt, InFlightPermit, Recorder};
use super::cleanup::Arrival;
use super::in_flight::InFlightEntry;
use super::lease::{Lease, RecordWatch, SendFence};
use super::limit::Permit;
use super::probe::ProbePlan;
use super::running::RunningAttempt;
use super::send_outcome::SendOutcome;
use crate::metrics::GaugeGuard;
use crate::record::RecordName;
use crate::rule::Rule;
use crate::trace;

/// The right to run an operation. Dropping it gives the operation back.
pub struct Ownership {
    pub(super) rule: Arc<Rule>,
    pub(super) permit: Permit,
    pub(super) counted: GaugeGuard,
    pub(super) entry: InFlightEntry,
    pub(super) unused: UnusedLease,
}

impl Ownership {
    /// The attempt number. It is more than 1 after a takeover.
    pub fn attempt(&self) -> u32 {
        self.entry.lease().claim.attempt
    }

    /// The operation's record.
    pub fn record(&self) -> &RecordName {
        &self.entry.lease().name
    }

    /// Asks the backend this if the outcome of the attempt is unknown.
    pub fn ask_if_unknown(&self, plan: Arc<ProbePlan>) {
        self.entry.lease().ask_if_unknown(plan);
    }

    /// Gives access to what becomes of the record.
    pub fn settling(&self) -> RecordWatch {
        RecordWatch(Arc::clone(self.entry.lease()))
    }

    /// Runs the attempt, and measures the writing of its outcome under this parent. The attempt goes on if the returned
    /// future is dropped.
    pub fn run<R, F, Fut>(self, parent: trace::Parent, send: F) -> RunningAttempt<R>
    where
        R: Send + 'static,
        F: FnOnce(SendFence) -> Fut + Send + 'static,
        Fut: Future<Output = SendOutcome<R>> + Send + 'static,
    {
        let Self { rule, permit, counted, entry, unused } = self;
        let (guard, lease) = (unused.take(), Arc::clone(entry.lease()));
        let permit = InFlightPermit { _permit: permit, _counted: counted, _open: guard.attempts.token() };
        let attempt = Attempt { rule, entry, recorder: Recorder { lease, guard }, permit };
        RunningAttempt::new(attempt.run(parent, send))
    }
}

/// The lease of an attempt that has not begun. Dropping it deletes the claim.
pub(super) struct UnusedLease {
    guard: Arc<Guard>,
    /// `None`: it is used.
    lease: Option<Arc<Lease>>,
}

impl UnusedLease {
    pub(super) fn new(guard: &Arc<Guard>, lease: Arc<Lease>) -> Self {
        Self { guard: Arc::clone(guard), lease: Some(lease) }
    }

    /// The attempt begins. Its guard.
    fn take(mut self) -> Arc<Guard> {
        self.lease = None;
        Arc::clone(&self.guard)
    }
}

impl Drop for UnusedLease {
    fn drop(&mut self) {
        if let Some(lease) = &self.lease {
            self.guard.cleanup.add(&self.guard.store, &lease.name, lease.claim.token, Arrival::Possible);
        }
    }
}
