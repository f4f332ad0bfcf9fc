//! How an owner shows that it is alive, and how it knows that others still believe it.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::lease_state::{LeaseState, SendRefusal};
use crate::clock::since_boot;
use crate::metrics::Metrics;
use crate::record::{Claim, RecordName, Token, UnknownPolicy};
use crate::store::{Metered, Renewed, Store, StoreError};
use crate::tick;

/// Whether an owner may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The first byte may leave now.
    Send,
    /// Its hold on the record is too old to rely on.
    Renew,
}

/// Decides, just before the first byte leaves. `age` is that of the owner's hold on its record: the time since the
/// last claim or renewal that succeeded was begun. Others may take over after a whole lease; half of it is left for
/// what comes between this check and the write.
pub fn readiness(age: Duration, lease: Duration) -> Readiness {
    if age > lease / 2 { Readiness::Renew } else { Readiness::Send }
}

/// One attempt's hold on its record.
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
    /// Claims and renewals without a certain answer: they may yet arrive.
    unanswered: AtomicU32,
    /// What became of the record, once that is tried to be written.
    became: OnceLock<RecordOutcome>,
}

/// What became of a record when its attempt had ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordOutcome {
    /// The answer is kept.
    Stored,
    /// It was done, and the answer is not kept.
    Unreplayable,
    /// The key is free.
    Released,
    /// Nobody knows whether it took effect.
    Unknown,
    /// Another's record is there, and stays.
    Replaced,
    /// Left for a repeat to take over.
    InFlight,
    /// The store has not taken it yet; it is tried again.
    Unrecorded,
}

impl RecordOutcome {
    /// The word in the log line.
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

/// Tells what becomes of an attempt's record.
pub struct RecordWatch(pub(super) Arc<Lease>);

impl RecordWatch {
    /// `None` while it is at work.
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
        Self { store, metrics, name, claim, confirmed, state: Mutex::default(), unanswered, became: OnceLock::new() }
    }

    /// Renews whenever a third of the lease has passed, for as long as it is polled; the first time counted from the last
    /// renewal, for an attempt begins to keep its lease anew where its next part begins.
    pub(super) async fn keep(&self) -> Infallible {
        let third = self.claim.terms.lease / 3;
        let mut pause = third.saturating_sub(self.age());
        loop {
            tick::sleep(pause).await;
            pause = third;
            // Also while it renews, it waits for a time: so the end of the drain reaches it ([`tick::Flag`]).
            let _ = tick::timeout(self.claim.terms.lease, pin!(self.renew())).await;
        }
    }

    async fn renew(&self) -> bool {
        // A renewal that finds nothing claims the key again, which an operator has freed.
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
            // The outcome may have been written, its answer lost: the next try to write it will tell.
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

    /// Whether the record that is there is a claim of this process, which was given back and is not deleted yet.
    pub(super) async fn is_in_the_way_of_itself(&self) -> bool {
        if !self.state().has_given_back_any() {
            return false;
        }
        match self.store.find(&self.name).await {
            Ok(Some(held)) => self.has_given_back(held.record.claim.token),
            // It is gone by now, or the next renewal tells.
            Ok(None) | Err(_) => true,
        }
    }

    /// The store granted this claim to a request of this process, which was answered by what this attempt is at.
    pub(super) fn give_back(&self, token: Token) {
        self.state().give_back(token);
    }

    /// Whether this is a claim of this process that is to be deleted.
    pub(super) fn has_given_back(&self, token: Token) -> bool {
        self.state().has_given_back(token)
    }

    fn state(&self) -> MutexGuard<'_, LeaseState> {
        // Every step leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operator has freed the key: it is another's from now on.
    pub(super) fn freed(&self) {
        let is_news = self.state().free();
        self.report_lost(is_news);
    }

    /// From now on, the store may have freed the key.
    pub(super) fn begin_release(&self) {
        self.state().begin_release();
    }

    /// Whether the store may have freed the key for its owner.
    pub(super) fn is_releasing(&self) -> bool {
        self.state().is_releasing()
    }

    /// From now on, a record that is not in flight any more may have been settled by this owner itself.
    pub(super) fn begin_settle(&self) {
        self.state().begin_settle();
    }

    /// Whether this process can tell by itself that the record is its own. Not when it was told of another owner; nor when
    /// another may have taken over unseen.
    pub(super) fn is_certain(&self) -> bool {
        let may_be_taken_over = match self.claim.terms.on_unknown {
            UnknownPolicy::Retry => self.age() >= self.claim.terms.lease,
            UnknownPolicy::Hold(_) => false,
        };
        !may_be_taken_over && !self.state().is_lost()
    }

    /// Counts and logs, once, that the record is in other hands.
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

    /// Whether a claim or renewal of this owner may arrive after all else that it asks of the store. Where it finds no
    /// record by then, it makes one.
    pub(super) fn may_write_late(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) > 0
    }

    /// Asked just before the first byte leaves: whether this owner may still send. A hold on the record that is
    /// older than half a lease is renewed first: the connection may have taken long, or the machine may
    /// have slept, and somebody else may be about to take over.
    async fn may_send(&self) -> bool {
        let ready = match self.readiness() {
            // Its answer may have been long on its way, and this process may have slept: so the age counts again.
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

    /// Why this lease did not let the request leave, if it did not.
    pub(super) fn send_refusal(&self) -> Option<SendRefusal> {
        self.state().send_refusal()
    }

    /// What is written of it, or was to be.
    pub(super) fn note(&self, became: RecordOutcome) {
        // Said once: what is tried again is the same.
        let _ = self.became.set(became);
    }

    /// Whether the request may have left.
    pub(super) fn may_have_sent(&self) -> bool {
        self.state().may_have_sent()
    }
}

/// Stands before the first byte of an attempt.
pub struct SendFence(pub(super) Arc<Lease>);

impl SendFence {
    /// Whether the request may leave now. From a `true` on, it counts as sent.
    pub async fn may_send(&self) -> bool {
        self.0.may_send().await
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
