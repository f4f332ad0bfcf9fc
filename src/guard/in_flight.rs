//! The attempts of this process, from the claim until the outcome is written.
//!
//! Every guarded request enters here, on every core. The table is divided into shards by the digest, so that two
//! requests rarely wait for one lock. Digests are keyed: a client cannot choose names that share a shard.

use std::array;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::decide::Verdict;
use super::lease::Lease;
use super::policy::Outcome;
use super::without_store::{Fallback, LocalKnowledge, without_store};
use crate::record::{Extensions, Fingerprint, RecordName, Reply, State, Token};
use crate::rule::OnMismatch;
use crate::tick;

/// The attempts of this process, by record.
pub(super) struct InFlightTable {
    shards: [Mutex<Shard>; SHARDS],
}

/// One for each value of the first byte of a digest.
const SHARDS: usize = 256;

/// Short enough for a linear search.
type Shard = Vec<OperationEntry>;

/// One operation.
struct OperationEntry {
    name: RecordName,
    /// Requests that wait for the answer to their claim. One of them may be the owner already.
    claiming: usize,
    attempt: Option<LocalAttempt>,
}

/// An attempt.
struct LocalAttempt {
    lease: Arc<Lease>,
    /// Made for the first waiter. Most attempts have none.
    waiters: Option<watch::Sender<AttemptEnd>>,
    progress: AttemptProgress,
}

/// How far an attempt is.
enum AttemptProgress {
    AtWork,
    /// It has ended. This outcome and its time are still to be written.
    Unwritten(Outcome, u64),
}

/// The end of an attempt, as its waiters see it.
#[derive(Debug, Clone)]
pub(super) enum AttemptEnd {
    /// The attempt is running.
    Pending,
    /// The attempt has ended. Its response, if all of it is in memory, and what else its record keeps.
    Over(Option<(Arc<Reply>, Extensions)>),
}

/// A claim that the store has not answered yet.
pub(super) struct AnnouncedClaim<'a> {
    in_flight: &'a Arc<InFlightTable>,
    name: &'a RecordName,
    is_registered: bool,
}

/// The entry of one attempt. Dropping it removes the attempt and wakes the waiters.
pub(super) struct InFlightEntry {
    in_flight: Arc<InFlightTable>,
    lease: Arc<Lease>,
    is_entered: bool,
}

impl Default for InFlightTable {
    fn default() -> Self {
        Self { shards: array::from_fn(|_| Mutex::default()) }
    }
}

impl InFlightTable {
    /// Announces a claim before it is sent. From now on, no other request treats the operation as free.
    pub(super) fn claiming<'a>(self: &'a Arc<Self>, name: &'a RecordName) -> AnnouncedClaim<'a> {
        let mut shard = self.shard(name);
        match shard.iter_mut().find(|entry| entry.name == *name) {
            Some(entry) => entry.claiming += 1,
            None => shard.push(OperationEntry { name: name.clone(), claiming: 1, attempt: None }),
        }
        AnnouncedClaim { in_flight: self, name, is_registered: false }
    }

    /// Subscribes to the attempt for the same request, if this process runs one.
    pub(super) fn find(&self, name: &RecordName, fingerprint: &Fingerprint) -> Option<watch::Receiver<AttemptEnd>> {
        let mut shard = self.shard(name);
        let entry = shard.iter_mut().find(|entry| entry.name == *name)?;
        let LocalAttempt { lease, waiters, progress } = entry.attempt.as_mut()?;
        let same = fingerprint.compare(&lease.claim.fingerprint).may_be_same();
        (same && matches!(progress, AttemptProgress::AtWork))
            .then(|| waiters.get_or_insert_with(|| watch::Sender::new(AttemptEnd::Pending)).subscribe())
    }

    /// What a request gets if the store cannot answer. `own_claims` is the number of claims that the request itself has
    /// announced.
    pub(super) fn without_store(
        &self,
        name: &RecordName,
        fingerprint: &Fingerprint,
        on_mismatch: OnMismatch,
        own_claims: usize,
    ) -> Fallback {
        let shard = self.shard(name);
        let entry = shard.iter().find(|entry| entry.name == *name);
        let known = match entry.and_then(|entry| entry.attempt.as_ref()) {
            Some(attempt) => attempt.known(),
            None if entry.is_some_and(|entry| entry.claiming > own_claims) => LocalKnowledge::Doubtful,
            None => LocalKnowledge::Nothing,
        };
        without_store(known, fingerprint, on_mismatch)
    }

    /// Whether the owner with this token is an attempt of this process, and still the owner as far as is known.
    pub(super) fn is_owner(&self, name: &RecordName, token: Token) -> bool {
        let shard = self.shard(name);
        let attempt = shard.iter().find(|entry| entry.name == *name).and_then(|entry| entry.attempt.as_ref());
        attempt.is_some_and(|attempt| attempt.token() == token && attempt.lease.is_certain())
    }

    /// An operator or a probe has freed this key. The attempt of this process does not block it any more.
    pub(super) fn freed(&self, name: &RecordName) {
        let shard = self.shard(name);
        let entry = shard.iter().find(|entry| entry.name == *name);
        if let Some(attempt) = entry.and_then(|entry| entry.attempt.as_ref()) {
            attempt.lease.freed();
        }
    }

    /// Changes an entry, and removes it if it is empty afterwards.
    fn change<T>(&self, name: &RecordName, change: impl FnOnce(&mut OperationEntry) -> T) -> Option<T> {
        let mut shard = self.shard(name);
        let at = shard.iter().position(|entry| entry.name == *name)?;
        let changed = change(&mut shard[at]);
        let gone = (shard[at].claiming == 0 && shard[at].attempt.is_none()).then(|| shard.swap_remove(at));
        drop(shard);
        // Dropped outside of the lock.
        drop(gone);
        Some(changed)
    }

    fn shard(&self, name: &RecordName) -> MutexGuard<'_, Shard> {
        // Every step leaves the shard whole.
        self.shards[usize::from(name.digest[0])].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LocalAttempt {
    fn token(&self) -> Token {
        self.lease.claim.token
    }

    fn known(&self) -> LocalKnowledge {
        if !self.lease.is_certain() {
            return LocalKnowledge::Doubtful;
        }
        if self.lease.is_releasing() {
            return LocalKnowledge::Free;
        }
        let claim = self.lease.claim.clone();
        match &self.progress {
            AttemptProgress::AtWork | AttemptProgress::Unwritten(Outcome::Leave, _) => {
                LocalKnowledge::Record(claim, State::InFlight)
            }
            AttemptProgress::Unwritten(Outcome::Settle(settlement), at) => {
                LocalKnowledge::Record(claim, settlement.at(*at))
            }
            AttemptProgress::Unwritten(Outcome::Release, _) => LocalKnowledge::Free,
        }
    }
}

impl AnnouncedClaim<'_> {
    /// The claim was granted. An error: the store has lost the record of an attempt that runs in this process. Then the
    /// claim must be given back, and its request gets this verdict.
    pub(super) fn register(mut self, lease: &Arc<Lease>, on_mismatch: OnMismatch) -> Result<InFlightEntry, Verdict> {
        self.is_registered = true;
        let attempt = LocalAttempt { lease: Arc::clone(lease), waiters: None, progress: AttemptProgress::AtWork };
        let entered = self.in_flight.change(self.name, |entry| {
            entry.claiming = entry.claiming.saturating_sub(1);
            // A takeover follows from the record that the store holds. A first attempt requires that there was none.
            if let Some(first) = entry.attempt.as_ref().filter(|_| lease.claim.attempt == 1)
                && let Fallback::Repeat(verdict) = without_store(first.known(), &lease.claim.fingerprint, on_mismatch)
            {
                first.lease.give_back(lease.claim.token);
                return Err(verdict);
            }
            // This replaces an attempt that was taken over.
            Ok(entry.attempt.replace(attempt))
        });
        entered.transpose()?;
        Ok(InFlightEntry { in_flight: Arc::clone(self.in_flight), lease: Arc::clone(lease), is_entered: true })
    }
}

impl Drop for AnnouncedClaim<'_> {
    fn drop(&mut self) {
        if !self.is_registered {
            self.in_flight.change(self.name, |entry| entry.claiming = entry.claiming.saturating_sub(1));
        }
    }
}

impl InFlightEntry {
    /// The lease of the attempt.
    pub(super) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// The attempt has ended, and its outcome is written. Tells the waiters.
    pub(super) fn complete(mut self, ended: impl FnOnce() -> Option<Arc<Reply>>) {
        if let Some(waiters) = self.forget() {
            waiters.send_replace(self.over(ended()));
        }
    }

    /// The attempt has ended, and its outcome is not written yet, or is left to a takeover. Tells the waiters.
    pub(super) fn complete_unwritten(
        &self,
        outcome: &Outcome,
        settled_at: u64,
        ended: impl FnOnce() -> Option<Arc<Reply>>,
    ) {
        let progress = AttemptProgress::Unwritten(outcome.clone(), settled_at);
        let waiters = self.own(|attempt| {
            attempt.progress = progress;
            attempt.waiters.take()
        });
        if let Some(waiters) = waiters.flatten() {
            waiters.send_replace(self.over(ended()));
        }
    }

    fn over(&self, reply: Option<Arc<Reply>>) -> AttemptEnd {
        AttemptEnd::Over(reply.map(|reply| (reply, self.lease.claim.extensions.clone())))
    }

    /// The record is left to a takeover. Until the lease is over, this process knows that the attempt is in flight.
    pub(super) fn leave(self) {
        #[expect(clippy::disallowed_methods, reason = "nobody waits: it holds an entry in memory, and nothing else")]
        tokio::spawn(async move {
            tick::sleep(self.lease.claim.terms.lease).await;
            drop(self);
        });
    }

    /// Changes the entry of this attempt, unless a takeover in this process has replaced it.
    fn own<T>(&self, change: impl FnOnce(&mut LocalAttempt) -> T) -> Option<T> {
        let token = self.lease.claim.token;
        let attempt =
            |entry: &mut OperationEntry| entry.attempt.as_mut().filter(|attempt| attempt.token() == token).map(change);
        self.in_flight.change(&self.lease.name, attempt).flatten()
    }

    /// Removes the entry, and returns its waiters.
    fn forget(&mut self) -> Option<watch::Sender<AttemptEnd>> {
        if !std::mem::take(&mut self.is_entered) {
            return None;
        }
        let token = self.lease.claim.token;
        let attempt =
            self.in_flight.change(&self.lease.name, |entry| entry.attempt.take_if(|attempt| attempt.token() == token));
        attempt.flatten()?.waiters
    }
}

impl Drop for InFlightEntry {
    fn drop(&mut self) {
        drop(self.forget());
    }
}

/// Waits for the end of the attempt. `None`: its response is not in memory.
pub(super) async fn wait_for_end(mut receiver: watch::Receiver<AttemptEnd>) -> Option<(Arc<Reply>, Extensions)> {
    // An error: the sender was dropped, so the attempt has ended.
    match receiver.wait_for(|end| matches!(end, AttemptEnd::Over(_))).await.as_deref() {
        Ok(AttemptEnd::Over(ended)) => ended.clone(),
        Ok(AttemptEnd::Pending) | Err(_) => None,
    }
}
