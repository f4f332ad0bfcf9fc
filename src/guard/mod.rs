//! The idea: of all requests with one key, one runs, and the others get its result.
//!
//! [`Guard::claim`] asks the store who owns an operation. The owner's attempt is [run](Ownership::run), whatever
//! becomes of its client ([`attempt`], [`running`]); a repeat gets a [`Verdict`] ([`decide()`]) or [waits](Guard::wait) for the first.
//! [`policy`] says what becomes of the record when an attempt has ended. No sockets here: what "send" means
//! is the caller's, and comes back as a [`SendOutcome`].

pub mod attempt;
pub mod cleanup;
pub mod decide;
mod in_flight;
pub mod lease;
mod lease_state;
mod limit;
mod observe;
pub mod policy;
mod random;
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

use attempt::{Attempt, InFlightPermit, Recorder};
use cleanup::Cleanup;
use in_flight::{InFlightEntry, InFlightTable};
use lease::Lease;
use limit::{ConcurrencyLimit, Permit};
use random::random;
use unknown::UnknownRecords;
use without_store::Fallback;

use crate::clock;
use crate::config::{OnMismatch, Rule};
use crate::fail_point::{self, Step};
use crate::key::Operation;
use crate::metrics::{GaugeGuard, Metrics};
use crate::record::codec::Bodiless;
use crate::record::transitions::{OwnerState, StoredRecord};
use crate::record::{Claim, Comparison, Extensions, RecordName, State, Token};
use crate::store::{Claimed, FoundRecord, Metered, Store, StoreError};
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
    /// Repeats waiting now, by route.
    waiters: Arc<Mutex<HashMap<Arc<str>, usize>>>,
    attempts: TaskTracker,
    observed: TaskTracker,
    /// Raised when the drain runs out: what is left is settled at once.
    abandon: Arc<Flag>,
}

/// What a request is to its operation.
pub enum Admission {
    /// It owns it.
    Owner(Ownership),
    /// Another request came first.
    Repeat(Verdict),
    /// Another request came first, and its answer is to be replayed; the body of that is still to be read.
    Stored(StoredReply),
}

/// What a repeat gets that waited for the first.
pub enum WaitResult {
    /// This.
    Verdict(Verdict),
    /// Its answer, the body of which is still to be read.
    Stored(StoredReply),
}

/// An answer whose body lies apart in the store.
pub struct StoredReply {
    store: Arc<Metered>,
    name: RecordName,
    bodiless: Box<Bodiless>,
}

impl StoredReply {
    /// Bytes of the body.
    pub fn length(&self) -> u64 {
        self.bodiless.cut().length()
    }

    /// Reads it, and says what the repeat gets. That there is a record is certain, whatever becomes of this.
    pub async fn read(self) -> Result<Verdict, StoreError> {
        let record = self.store.body(&self.name, *self.bodiless).await.map_err(StoreError::there_may_be_a_record)?;
        let fingerprint = record.claim.fingerprint;
        Ok(decide(StoredRecord::settled(record), &fingerprint, OnMismatch::Replay))
    }
}

/// Why a claim was not made.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// As many attempts as may be are at work, and this process knows nothing of the operation. Nothing was asked of the
    /// store.
    #[error("too many attempts at work")]
    Overloaded,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Guard {
    /// A guard that lets `max_in_flight` attempts be at work at once, and observes as many requests.
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

    /// The same guard, whose calls go over this handle to the same store. All else is shared: what one core claims, the
    /// others know of.
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
            // A repeat of what runs here needs no place, and no store.
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
                        // At once, so that no other request is held against it. It is pending still: should this fail, the
                        // clean-up goes on.
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
            Ok(Claimed::Apart(bodiless)) => {
                pending.armed = unanswered > 0;
                let held = StoredRecord::settled(bodiless.record().clone());
                match self.verdict(rule, operation, held) {
                    Verdict::Replay(_) => {
                        let (store, name) = (Arc::clone(&self.store), operation.name.clone());
                        Ok(Admission::Stored(StoredReply { store, name, bodiless }))
                    }
                    verdict => Ok(Admission::Repeat(verdict)),
                }
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

    /// What a request gets by what this process knows, when the store cannot tell.
    fn by_itself(&self, rule: &Rule, operation: &Operation, own_claims: usize) -> Fallback {
        self.in_flight.without_store(&operation.name, &operation.fingerprint, rule.on_mismatch, own_claims)
    }

    /// What a claim gets that was refused.
    fn verdict(&self, rule: &Rule, operation: &Operation, held: StoredRecord) -> Verdict {
        if operation.fingerprint.compare(&held.record.claim.fingerprint) == Comparison::Incomparable {
            tracing::warn!(record = %operation.name,
                "the route's fingerprint has changed since this record was made; a repeat counts as the same");
        }
        decide(held, &operation.fingerprint, rule.on_mismatch)
    }

    /// Claims, and once more where the answer is lost: the token makes that safe. Also says how many tries were without
    /// an answer.
    async fn ask(&self, name: &RecordName, wanted: &Claim) -> (Result<Claimed, StoreError>, u32) {
        match self.store.claim(name, wanted).await {
            Err(StoreError::Uncertain(_)) => {}
            certain => return (certain, 0),
        }
        match self.store.claim(name, wanted).await {
            Err(StoreError::Uncertain(cause)) => (Err(StoreError::Uncertain(cause)), 2),
            // This try was not carried out; the first may have been.
            Err(StoreError::Unavailable(cause) | StoreError::Refused(cause)) => (Err(StoreError::Uncertain(cause)), 1),
            certain => (certain, 1),
        }
    }

    /// Waits for the first, at most for `patience`; then says what a repeat gets. It may still be
    /// [`Verdict::InFlight`]: the time is up, or the record is gone without an answer. `None`: too many wait already.
    pub async fn wait(&self, rule: &Rule, operation: &Operation, patience: Duration) -> Option<WaitResult> {
        let _permit = self.waiter_permit(rule)?;
        let _counted = self.metrics.waiting(&rule.name);
        let deadline = Instant::now() + patience;
        let waiting = pin!(self.wait_until_settled(rule, operation, patience));
        Some(tick::timeout_at(deadline, waiting).await.unwrap_or(WaitResult::Verdict(Verdict::InFlight)))
    }

    async fn wait_until_settled(&self, rule: &Rule, operation: &Operation, patience: Duration) -> WaitResult {
        let mut changes = None;
        for looks in 0.. {
            match self.in_flight.find(&operation.name, &operation.fingerprint) {
                Some(entry) => {
                    if let Some(reply) = in_flight::wait_for_end(entry).await {
                        return WaitResult::Verdict(Verdict::Replay(reply));
                    }
                }
                None => {
                    let changes = changes.get_or_insert_with(|| self.store.subscribe(&operation.name, patience));
                    waiting::wait_for_change(changes.as_mut(), looks).await;
                }
            }
            match self.store.find_apart(&operation.name).await {
                Ok(None) => return WaitResult::Verdict(Verdict::InFlight),
                Ok(Some(FoundRecord::Apart(bodiless))) => {
                    let held = StoredRecord::settled(bodiless.record().clone());
                    return match decide(held, &operation.fingerprint, rule.on_mismatch) {
                        Verdict::Replay(_) => {
                            let (store, name) = (Arc::clone(&self.store), operation.name.clone());
                            WaitResult::Stored(StoredReply { store, name, bodiless })
                        }
                        verdict => WaitResult::Verdict(verdict),
                    };
                }
                Ok(Some(FoundRecord::Whole(held))) => {
                    // Its lease has run out under `retry`: nothing more comes of it, and the next repeat takes over.
                    let is_abandoned = held.record.state == State::InFlight && held.owner() == OwnerState::Abandoned;
                    match decide(*held, &operation.fingerprint, rule.on_mismatch) {
                        Verdict::InFlight if !is_abandoned => {}
                        verdict => return WaitResult::Verdict(verdict),
                    }
                }
                // The store's trouble is not the waiter's answer: it may be over before the waiting is. What this process
                // knows by itself is.
                Err(_) => match self.by_itself(rule, operation, 0) {
                    Fallback::Repeat(Verdict::InFlight) | Fallback::Refuse | Fallback::AsConfigured => {}
                    Fallback::Repeat(verdict) => return WaitResult::Verdict(verdict),
                },
            }
        }
        WaitResult::Verdict(Verdict::InFlight)
    }

    /// An operator has freed this key: an attempt at it that runs here keeps it from nobody any more.
    pub fn freed(&self, name: &RecordName) {
        self.in_flight.freed(name);
        self.unknowns.resolved(name);
    }

    /// An operator has said what came of it.
    pub fn settled_by_hand(&self, name: &RecordName) {
        self.unknowns.resolved(name);
    }

    /// Keeps count of the records that are unknown now, for as long as it is polled.
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

    /// Waits until every claim that was given up is deleted, or has not come for a while.
    pub async fn cleaned_up(&self) {
        self.cleanup.settled().await;
    }

    /// Waits until everything that is being observed is noted.
    pub async fn observed(&self) {
        self.observed.close();
        self.observed.wait().await;
    }

    /// Gives up on what is still at work: it is settled as its fate stands, tried once more where the store
    /// did not answer. Follow with [`recorded`](Self::recorded).
    pub fn abandon(&self) {
        self.abandon.raise();
    }

    /// Attempts that are not recorded yet.
    pub fn at_work(&self) -> usize {
        self.attempts.len()
    }

    /// Claims that were given up, and may still arrive.
    pub fn given_up(&self) -> usize {
        self.cleanup.open()
    }
}

/// The right to run an operation. Dropped without being run, it gives the operation back.
pub struct Ownership {
    rule: Arc<Rule>,
    permit: Permit,
    counted: GaugeGuard,
    entry: InFlightEntry,
    unused: UnusedLease,
}

impl Ownership {
    /// Which attempt at the operation this is; more than 1 after a takeover.
    pub fn attempt(&self) -> u32 {
        self.unused.lease.claim.attempt
    }

    /// The operation's record.
    pub fn record(&self) -> &RecordName {
        &self.unused.lease.name
    }

    /// Tells what becomes of the record.
    pub fn settling(&self) -> RecordWatch {
        RecordWatch(Arc::clone(&self.unused.lease))
    }

    /// Runs the attempt. What becomes of the one that is returned changes nothing.
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

/// The lease of an attempt that has not begun. Dropped without being taken, it is given back.
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

/// A claim that is on its way. Dropped while it is, it is deleted when it arrives.
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

/// One waiter's place.
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
