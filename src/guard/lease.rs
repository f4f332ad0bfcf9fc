//! How an owner shows that it is alive, and checks that others still accept it as the owner.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::lease_state::{LeaseState, SendRefusal};
use super::probe::ProbePlan;
use crate::clock::{millis, since_boot};
use crate::metrics::Metrics;
use crate::record::{Claim, RecordName, Token, UnknownPolicy};
use crate::store::{Metered, Renewed, Store, StoreError};
use crate::tick;

/// Whether an owner may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The first byte may be sent now.
    Send,
    /// The lease is too old and must be renewed first.
    Renew,
}

/// Decides just before the first byte is sent. `age` is the time since the last successful claim or renewal was begun.
/// Others may take over after a whole lease. Half of it is kept in reserve for the time between this check and the
/// write.
pub fn readiness(age: Duration, lease: Duration) -> Readiness {
    if age > lease / 2 { Readiness::Renew } else { Readiness::Send }
}

/// The lease of one attempt on its record.
pub(super) struct Lease {
    store: Arc<Metered>,
    metrics: Arc<Metrics>,
    /// The record.
    pub name: RecordName,
    /// The claim that owns it.
    pub claim: Claim,
    /// When the last claim or renewal that succeeded was begun, in milliseconds of [`since_boot`].
    confirmed: AtomicU64,
    state: Mutex<LeaseState>,
    /// Claims and renewals without an answer. They may still arrive.
    unanswered: AtomicU32,
    /// Set when the outcome is written for the first time.
    became: OnceLock<RecordOutcome>,
    /// How the backend is asked if the outcome is unknown.
    probe: OnceLock<Arc<ProbePlan>>,
}

/// What became of the record when the attempt had ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordOutcome {
    /// The response is stored.
    Stored,
    /// It took effect, and the response is not stored.
    Unreplayable,
    /// The key is free.
    Released,
    /// It is unknown whether it took effect.
    Unknown,
    /// The record of another owner is there, and stays.
    Replaced,
    /// Left for a repeat to take over.
    InFlight,
    /// The store has not taken it yet. It is tried again.
    Unrecorded,
}

impl RecordOutcome {
    /// The value in the log line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Unreplayable => "unreplayable",
            Self::Released => "released",
            Self::Unknown => "unknown",
            Self::Replaced => "replaced",
            Self::InFlight => "in_flight",
            Self::Unrecorded => "not_recorded_yet",
        }
    }
}

/// Gives access to the outcome of the record, after the attempt has taken the lease.
pub struct RecordWatch(pub(super) Arc<Lease>);

impl RecordWatch {
    /// `None` while the attempt is running.
    pub fn became(&self) -> Option<RecordOutcome> {
        self.0.became.get().copied()
    }
}

impl Lease {
    pub(super) fn new(
        store: Arc<Metered>,
        metrics: Arc<Metrics>,
        name: RecordName,
        claim: Claim,
        confirmed: Duration,
        unanswered: u32,
    ) -> Self {
        let (confirmed, unanswered) = (AtomicU64::new(millis(confirmed)), AtomicU32::new(unanswered));
        let (state, became, probe) = (Mutex::default(), OnceLock::new(), OnceLock::new());
        Self { store, metrics, name, claim, confirmed, state, unanswered, became, probe }
    }

    /// Asks the backend this if the outcome is unknown.
    pub(super) fn ask_if_unknown(&self, plan: Arc<ProbePlan>) {
        // Set once, before the attempt.
        let _ = self.probe.set(plan);
    }

    /// How the backend is asked if the outcome is unknown.
    pub(super) fn probe(&self) -> Option<&Arc<ProbePlan>> {
        self.probe.get()
    }

    /// Renews the lease each time a third of it has passed, for as long as this is polled. The first pause counts from
    /// the last renewal: an attempt calls this once for each of its phases.
    pub(super) async fn keep(&self) -> Infallible {
        let third = self.claim.terms.lease / 3;
        let mut pause = third.saturating_sub(self.age());
        loop {
            tick::sleep(pause).await;
            pause = third;
            // The timeout also makes the end of the drain reach this future while it renews, see [`tick::Flag`].
            let _ = tick::timeout(self.claim.terms.lease, pin!(self.renew())).await;
        }
    }

    async fn renew(&self) -> bool {
        // An operator or a probe has freed the key. A renewal would claim it again.
        if self.state().is_freed() {
            return false;
        }
        let begun = since_boot();
        // Counted first: this future may be dropped while it waits.
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        let renewed = self.store.renew(&self.name, &self.claim).await;
        if !matches!(renewed, Err(StoreError::Uncertain(_))) {
            self.unanswered.fetch_sub(1, Ordering::Relaxed);
        }
        match renewed {
            Ok(Renewed::Extended) => {}
            Ok(Renewed::ClaimedAgain) => {
                tracing::error!(record = %self.name, "the store had lost the record of a running attempt; claimed again");
            }
            // The outcome may have been written, and the reply lost. The next try to write it will tell.
            Ok(Renewed::Lost) if self.state().is_settling() => return false,
            Ok(Renewed::Lost) => {
                if !self.is_in_the_way_of_itself().await {
                    self.count_lost();
                }
                return false;
            }
            Err(error) => {
                tracing::warn!(record = %self.name, error = &error as &dyn std::error::Error,
                    "a lease could not be renewed; the attempt goes on");
                return false;
            }
        }
        self.confirmed.store(millis(begun), Ordering::Relaxed);
        true
    }

    /// Whether the record at the store is a later claim of this process, which was given back and is not deleted yet.
    pub(super) async fn is_in_the_way_of_itself(&self) -> bool {
        if !self.state().has_given_back_any() {
            return false;
        }
        match self.store.find(&self.name).await {
            Ok(Some(held)) => self.has_given_back(held.record.claim.token),
            // It may be gone by now. The next renewal will tell.
            Ok(None) | Err(_) => true,
        }
    }

    /// The store granted this claim to another request of this process, which was answered from memory.
    pub(super) fn give_back(&self, token: Token) {
        self.state().give_back(token);
    }

    /// Whether this is a claim of this process that was given back.
    pub(super) fn has_given_back(&self, token: Token) -> bool {
        self.state().has_given_back(token)
    }

    fn state(&self) -> MutexGuard<'_, LeaseState> {
        // Every step leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operator or a probe has freed the key. It does not belong to this attempt any more.
    pub(super) fn freed(&self) {
        let is_news = self.state().free();
        self.report_lost(is_news);
    }

    /// From now on, the owner may have freed the key itself.
    pub(super) fn begin_release(&self) {
        self.state().begin_release();
    }

    /// Whether the owner may have freed the key itself.
    pub(super) fn is_releasing(&self) -> bool {
        self.state().is_releasing()
    }

    /// A release has no answer: the key may be free.
    pub(super) fn may_be_released(&self) {
        self.state().may_be_released();
    }

    /// Whether a release had no answer.
    pub(super) fn may_have_released(&self) -> bool {
        self.state().may_have_released()
    }

    /// From now on, the owner may have settled the record itself.
    pub(super) fn begin_settle(&self) {
        self.state().begin_settle();
    }

    /// Whether this process can be sure that the record is its own. Not if it has heard of another owner, and not if
    /// another one may have taken over unnoticed.
    pub(super) fn is_certain(&self) -> bool {
        let may_be_taken_over = match self.claim.terms.on_unknown {
            UnknownPolicy::Retry => self.age() >= self.claim.terms.lease,
            UnknownPolicy::Hold(_) => false,
        };
        !may_be_taken_over && !self.state().is_lost()
    }

    /// Logs and counts, once, that the record has another owner.
    pub(super) fn count_lost(&self) {
        let is_news = self.state().lose();
        self.report_lost(is_news);
    }

    fn report_lost(&self, is_news: bool) {
        if is_news {
            self.metrics.lease_lost(&self.name.route);
            tracing::warn!(record = %self.name, attempt = self.claim.attempt,
                "a running attempt found its record in other hands");
        }
    }

    /// Whether a claim or renewal of this owner may still arrive after its release. It would then make a new record.
    pub(super) fn may_write_late(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) > 0
    }

    /// Called just before the first byte is sent. A lease that is older than half its time is renewed first: connecting
    /// may have taken long, or the machine may have been suspended.
    async fn may_send(&self) -> bool {
        let ready = match self.readiness() {
            // The renewal may have taken long too, so the age is checked again.
            Readiness::Renew if self.renew().await => self.readiness(),
            as_it_is => as_it_is,
        };
        self.state().grant_send(ready == Readiness::Send)
    }

    fn readiness(&self) -> Readiness {
        readiness(self.age(), self.claim.terms.lease)
    }

    fn age(&self) -> Duration {
        since_boot().saturating_sub(Duration::from_millis(self.confirmed.load(Ordering::Relaxed)))
    }

    /// Why this lease did not let the request be sent. `None` if it did.
    pub(super) fn send_refusal(&self) -> Option<SendRefusal> {
        self.state().send_refusal()
    }

    /// Notes the outcome for the log line.
    pub(super) fn note(&self, became: RecordOutcome) {
        // Only the first counts: what is tried again is the same.
        let _ = self.became.set(became);
    }

    /// Whether the request may have been sent.
    pub(super) fn may_have_sent(&self) -> bool {
        self.state().may_have_sent()
    }
}

/// Must be asked before the first byte of an attempt is sent.
pub struct SendFence(pub(super) Arc<Lease>);

impl SendFence {
    /// Whether the request may be sent now. After `true`, it counts as sent.
    pub async fn may_send(&self) -> bool {
        self.0.may_send().await
    }
}
