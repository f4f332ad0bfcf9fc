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
    /// How the backend is asked if the outcome is unknown.
    pub(super) plan: Option<Arc<ProbePlan>>,
}

impl Ownership {
    /// The attempt number. It is more than 1 after a takeover.
    pub fn attempt(&self) -> u32 {
        self.unused.lease.claim.attempt
    }

    /// The operation's record.
    pub fn record(&self) -> &RecordName {
        &self.unused.lease.name
    }

    /// Asks the backend this if the outcome of the attempt is unknown.
    pub fn ask_if_unknown(&mut self, plan: Arc<ProbePlan>) {
        self.plan = Some(plan);
    }

    /// Gives access to what becomes of the record.
    pub fn settling(&self) -> RecordWatch {
        RecordWatch(Arc::clone(&self.unused.lease))
    }

    /// Runs the attempt, and measures the writing of its outcome under this parent. The attempt goes on if the returned
    /// future is dropped.
    pub fn run<R, F, Fut>(self, parent: trace::Parent, send: F) -> RunningAttempt<R>
    where
        R: Send + 'static,
        F: FnOnce(SendFence) -> Fut + Send + 'static,
        Fut: Future<Output = SendOutcome<R>> + Send + 'static,
    {
        let Self { rule, permit, counted, entry, unused, plan } = self;
        let (guard, lease) = unused.take();
        let slot = InFlightPermit { _permit: permit, _counted: counted, _open: guard.attempts.token() };
        let attempt = Attempt { rule, entry, recorder: Recorder { lease, guard, plan }, slot };
        RunningAttempt::new(attempt.run(parent, send))
    }
}

/// The lease of an attempt that has not begun. Dropping it deletes the claim.
pub(super) struct UnusedLease {
    guard: Arc<Guard>,
    lease: Arc<Lease>,
    is_used: bool,
}

impl UnusedLease {
    pub(super) fn new(guard: &Arc<Guard>, lease: Arc<Lease>) -> Self {
        Self { guard: Arc::clone(guard), lease, is_used: false }
    }

    fn take(mut self) -> (Arc<Guard>, Arc<Lease>) {
        self.is_used = true;
        (Arc::clone(&self.guard), Arc::clone(&self.lease))
    }
}

impl Drop for UnusedLease {
    fn drop(&mut self) {
        if !self.is_used {
            self.guard.cleanup.add(&self.guard.store, &self.lease.name, self.lease.claim.token, Arrival::Possible);
        }
    }
}
