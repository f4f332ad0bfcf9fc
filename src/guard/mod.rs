//! Of all requests with one key, one runs, and the others get its result.
//!
//! [`Guard::claim`] asks the store who owns an operation. The owner's attempt is [run](Ownership::run) to its end, even
//! without its client ([`attempt`], `running`). A repeat gets a [`Verdict`] ([`decide()`]) or [waits](Guard::wait)
//! for the first. [`policy`] decides what becomes of the record after the attempt. There are no sockets here: the
//! caller sends, and returns a [`SendOutcome`].

pub mod attempt;
pub mod cleanup;
pub mod decide;
mod in_flight;
pub mod lease;
mod lease_state;
mod limit;
mod observe;
pub mod policy;
mod running;
mod send_outcome;
#[cfg(test)]
mod tests;
mod unknown;
mod waiting;
pub mod without_store;

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use attempt::AttemptResult;
pub use decide::{Difference, Forecast, Verdict, decide, forecast};
pub use lease::{RecordOutcome, RecordWatch, SendFence};
pub use observe::{Observation, ShadowResult};
pub use running::RunningAttempt;
pub use send_outcome::{BodyRemainder, LostReason, ReceivedResponse, SendOutcome};

use crate::random::random;
use attempt::{Attempt, InFlightPermit, Recorder};
use cleanup::Cleanup;
use in_flight::{InFlightEntry, InFlightTable};
use lease::Lease;
use limit::{ConcurrencyLimit, Permit};
use unknown::UnknownRecords;
use without_store::Fallback;

use crate::clock;
use crate::fail_point::{self, Step};
use crate::key::Operation;
use crate::metrics::{GaugeGuard, Metrics};
use crate::record::transitions::{OwnerState, StoredRecord};
use crate::record::{Claim, Comparison, Extensions, RecordName, State, Token};
use crate::rule::Rule;
use crate::store::{Claimed, Metered, Store, StoreError};
use crate::tick::{self, Flag};

/// Guards operations with one store.
pub struct Guard {
    store: Arc<Metered>,
    metrics: Arc<Metrics>,
    in_flight: Arc<InFlightTable>,
    unknowns: Arc<UnknownRecords>,
    cleanup: Cleanup,
    slots: Arc<ConcurrencyLimit>,
    observations: Arc<ConcurrencyLimit>,
    /// The number of waiting repeats, by route.
    waiters: Arc<Mutex<HashMap<Arc<str>, usize>>>,
    attempts: TaskTracker,
    observed: TaskTracker,
    /// Raised when the drain ends: running attempts are settled at once.
    abandon: Arc<Flag>,
}

/// What a claim comes to.
pub enum Admission {
    /// This request owns the operation.
    Owner(Ownership),
    /// Another request was first.
    Repeat(Verdict),
}

/// Why a claim was not made.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// `max_in_flight` is reached, and this process knows nothing of the operation. The store was not asked.
    #[error("too many attempts at work")]
    Overloaded,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Guard {
    /// A guard that runs at most `max_in_flight` attempts at once, and observes at most as many requests.
    pub fn new(store: Arc<Metered>, metrics: Arc<Metrics>, max_in_flight: usize) -> Arc<Self> {
        Arc::new(Self {
            cleanup: Cleanup::start(),
            store,
            unknowns: Arc::new(UnknownRecords::new(Arc::clone(&metrics))),
            metrics,
            in_flight: Arc::default(),
            slots: ConcurrencyLimit::new(max_in_flight),
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
            cleanup: self.cleanup.clone(),
            slots: Arc::clone(&self.slots),
            observations: Arc::clone(&self.observations),
            waiters: Arc::clone(&self.waiters),
            attempts: self.attempts.clone(),
            observed: self.observed.clone(),
            abandon: Arc::clone(&self.abandon),
        })
    }

    /// Claims the operation. Dropping this future leaves no claim behind.
    pub async fn claim(self: &Arc<Self>, rule: &Arc<Rule>, operation: &Operation) -> Result<Admission, ClaimError> {
        let Some(permit) = self.slots.take() else {
            // A repeat of an attempt of this process needs neither a permit nor the store.
            return match self.by_itself(rule, operation, 0) {
                Fallback::Repeat(verdict) => Ok(Admission::Repeat(verdict)),
                Fallback::Refuse | Fallback::AsConfigured => Err(ClaimError::Overloaded),
            };
        };
        fail_point::reach(Step::BeforeClaim).await;
        let begun = clock::since_boot();
        let wanted = Claim {
            token: Token(random()),
            attempt: 1,
            terms: operation.terms,
            fingerprint: operation.fingerprint,
            claimed_at: clock::unix_millis(),
            extensions: Extensions::default(),
        };
        let claiming = self.in_flight.claiming(&operation.name);
        let mut pending = UnansweredClaim { guard: self, name: &operation.name, token: wanted.token, armed: true };
        let (claimed, unanswered) = self.ask(&operation.name, &wanted).await;
        match claimed {
            Ok(Claimed::Granted(claim)) => {
                fail_point::reach(Step::AfterClaim).await;
                if claim.attempt > 1 {
                    tracing::warn!(record = %operation.name, attempt = claim.attempt, "took over from a lost owner");
                }
                let lease = Lease::new(
                    Arc::clone(&self.store),
                    Arc::clone(&self.metrics),
                    operation.name.clone(),
                    claim,
                    begun,
                    unanswered,
                );
                let lease = Arc::new(lease);
                let entry = match claiming.register(&lease, rule.on_mismatch) {
                    Ok(entry) => entry,
                    Err(verdict) => {
                        tracing::error!(record = %operation.name,
                            "the store has lost the record of an attempt of this process: the request is answered from \
                             memory, and its claim is given back");
                        // Released at once, so that no other request is compared with it. It is still pending: if this
                        // fails, the clean-up goes on.
                        let _ = self.store.release(&operation.name, wanted.token).await;
                        return Ok(Admission::Repeat(verdict));
                    }
                };
                pending.armed = false;
                let counted = self.metrics.in_flight(&rule.name);
                let unused = UnusedLease { guard: Arc::clone(self), lease, is_used: false };
                Ok(Admission::Owner(Ownership { rule: Arc::clone(rule), permit, counted, entry, unused }))
            }
            Ok(Claimed::Refused(held)) => {
                pending.armed = unanswered > 0;
                Ok(Admission::Repeat(self.verdict(rule, operation, *held)))
            }
            Err(error @ StoreError::Unreadable { .. }) => {
                pending.armed = unanswered > 0;
                Err(error.into())
            }
            Err(error) => {
                pending.armed = unanswered > 0;
                match self.by_itself(rule, operation, 1) {
                    Fallback::Repeat(verdict) => Ok(Admission::Repeat(verdict)),
                    Fallback::Refuse => Err(error.there_may_be_a_record().into()),
                    Fallback::AsConfigured => Err(error.into()),
                }
            }
        }
    }

    /// What a request gets by the knowledge of this process, if the store cannot answer.
    fn by_itself(&self, rule: &Rule, operation: &Operation, own_claims: usize) -> Fallback {
        self.in_flight.without_store(&operation.name, &operation.fingerprint, rule.on_mismatch, own_claims)
    }

    /// What a request gets whose claim was refused.
    fn verdict(&self, rule: &Rule, operation: &Operation, held: StoredRecord) -> Verdict {
        if operation.fingerprint.compare(&held.record.claim.fingerprint) == Comparison::Incomparable {
            tracing::warn!(record = %operation.name,
                "the route's fingerprint has changed since this record was made; a repeat counts as the same");
        }
        decide(held, &operation.fingerprint, rule.on_mismatch)
    }

    /// Claims, and claims once more if the answer is lost. The token makes that safe. Also returns the number of tries
    /// without an answer.
    async fn ask(&self, name: &RecordName, wanted: &Claim) -> (Result<Claimed, StoreError>, u32) {
        match self.store.claim(name, wanted).await {
            Err(StoreError::Uncertain(_)) => {}
            certain => return (certain, 0),
        }
        match self.store.claim(name, wanted).await {
            Err(StoreError::Uncertain(cause)) => (Err(StoreError::Uncertain(cause)), 2),
            // This try failed for certain; the first may have succeeded.
            Err(StoreError::Unavailable(cause) | StoreError::Refused(cause)) => (Err(StoreError::Uncertain(cause)), 1),
            certain => (certain, 1),
        }
    }

    /// Waits for the first request for at most `patience`, and returns what the repeat gets. That is still
    /// [`Verdict::InFlight`] if the time is over or the record is gone. `None`: too many requests wait already.
    pub async fn wait(&self, rule: &Rule, operation: &Operation, patience: Duration) -> Option<Verdict> {
        let _permit = self.waiter_permit(rule)?;
        let _counted = self.metrics.waiting(&rule.name);
        let deadline = Instant::now() + patience;
        let waiting = pin!(self.wait_until_settled(rule, operation, patience));
        Some(tick::timeout_at(deadline, waiting).await.unwrap_or(Verdict::InFlight))
    }

    async fn wait_until_settled(&self, rule: &Rule, operation: &Operation, patience: Duration) -> Verdict {
        let mut changes = None;
        for looks in 0.. {
            match self.in_flight.find(&operation.name, &operation.fingerprint) {
                Some(entry) => {
                    if let Some(reply) = in_flight::wait_for_end(entry).await {
                        return Verdict::Replay(reply);
                    }
                }
                None => {
                    let changes = changes.get_or_insert_with(|| self.store.subscribe(&operation.name, patience));
                    waiting::wait_for_change(changes.as_mut(), looks).await;
                }
            }
            match self.store.find(&operation.name).await {
                Ok(None) => return Verdict::InFlight,
                Ok(Some(held)) => {
                    // The lease is over under `retry`: the next repeat takes over, and there is nothing to wait for.
                    let is_abandoned = held.record.state == State::InFlight && held.owner() == OwnerState::Abandoned;
                    match decide(held, &operation.fingerprint, rule.on_mismatch) {
                        Verdict::InFlight if !is_abandoned => {}
                        verdict => return verdict,
                    }
                }
                // The store may answer again before the time is over, so an error does not end the waiting. What this
                // process knows itself does.
                Err(_) => match self.by_itself(rule, operation, 0) {
                    Fallback::Repeat(Verdict::InFlight) | Fallback::Refuse | Fallback::AsConfigured => {}
                    Fallback::Repeat(verdict) => return verdict,
                },
            }
        }
        Verdict::InFlight
    }

    /// An operator has freed this key. An attempt of this process does not block it any more.
    pub fn freed(&self, name: &RecordName) {
        self.in_flight.freed(name);
        self.unknowns.resolved(name);
    }

    /// An operator has settled this record.
    pub fn settled_by_hand(&self, name: &RecordName) {
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

    fn waiter_permit(&self, rule: &Rule) -> Option<WaiterPermit<'_>> {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = waiters.entry(Arc::clone(&rule.name)).or_default();
        (*waiting < rule.max_waiters).then(|| {
            *waiting += 1;
            WaiterPermit { guard: self, route: Arc::clone(&rule.name) }
        })
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

/// The right to run an operation. Dropping it gives the operation back.
pub struct Ownership {
    rule: Arc<Rule>,
    permit: Permit,
    counted: GaugeGuard,
    entry: InFlightEntry,
    unused: UnusedLease,
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

    /// Gives access to what becomes of the record.
    pub fn settling(&self) -> RecordWatch {
        RecordWatch(Arc::clone(&self.unused.lease))
    }

    /// Runs the attempt. The attempt goes on if the returned future is dropped.
    pub fn run<R, F, Fut>(self, send: F) -> RunningAttempt<R>
    where
        R: Send + 'static,
        F: FnOnce(SendFence) -> Fut + Send + 'static,
        Fut: Future<Output = SendOutcome<R>> + Send + 'static,
    {
        let Self { rule, permit, counted, entry, unused } = self;
        let (guard, lease) = unused.take();
        let slot = InFlightPermit { _permit: permit, _counted: counted, _open: guard.attempts.token() };
        let attempt = Attempt { rule, entry, recorder: Recorder { lease, guard }, slot };
        RunningAttempt::new(attempt.run(send))
    }
}

/// The lease of an attempt that has not begun. Dropping it deletes the claim.
struct UnusedLease {
    guard: Arc<Guard>,
    lease: Arc<Lease>,
    is_used: bool,
}

impl UnusedLease {
    fn take(mut self) -> (Arc<Guard>, Arc<Lease>) {
        self.is_used = true;
        (Arc::clone(&self.guard), Arc::clone(&self.lease))
    }
}

impl Drop for UnusedLease {
    fn drop(&mut self) {
        if !self.is_used {
            self.guard.cleanup.add(&self.guard.store, &self.lease.name, self.lease.claim.token);
        }
    }
}

/// A claim without an answer. Dropping it while `armed` deletes the claim when it arrives.
struct UnansweredClaim<'a> {
    guard: &'a Guard,
    name: &'a RecordName,
    token: Token,
    armed: bool,
}

impl Drop for UnansweredClaim<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.guard.cleanup.add(&self.guard.store, self.name, self.token);
        }
    }
}

/// The permit of one waiting repeat.
struct WaiterPermit<'a> {
    guard: &'a Guard,
    route: Arc<str>,
}

impl Drop for WaiterPermit<'_> {
    fn drop(&mut self) {
        let mut waiters = self.guard.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = waiters.get_mut(&self.route) {
            *waiting -= 1;
        }
    }
}
