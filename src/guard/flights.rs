//! The attempts of this process, from the claim until their outcome is written: what it knows by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::decide::Verdict;
use super::lease::Lease;
use super::policy::Outcome;
use super::without_store::{Fallback, Known, without_store};
use crate::config::OnMismatch;
use crate::record::{Fingerprint, RecordName, Reply, State, Token};

/// What this process is at, by record.
#[derive(Default)]
pub(super) struct Flights {
    by_record: Mutex<HashMap<RecordName, Entry>>,
}

/// One operation.
#[derive(Default)]
struct Entry {
    /// Requests whose claim has no answer yet. One of them may own the operation without knowing it.
    claiming: usize,
    attempt: Option<Departed>,
}

/// An attempt.
struct Departed {
    lease: Arc<Lease>,
    landing: watch::Receiver<Landing>,
    progress: Progress,
}

/// How far an attempt came.
enum Progress {
    AtWork,
    /// It has ended, and this is still to be written: settled at this time.
    Unwritten(Outcome, u64),
}

/// The end of an attempt, for those who wait for it.
#[derive(Debug, Clone)]
pub(super) enum Landing {
    /// At work.
    Pending,
    /// Over; its response, where it is at hand whole.
    Landed(Option<Arc<Reply>>),
}

/// A claim that is on its way.
pub(super) struct Claiming {
    flights: Arc<Flights>,
    name: RecordName,
}

/// One attempt's entry. Dropping it forgets the attempt, and tells the waiters that it is over.
pub(super) struct Flight {
    flights: Arc<Flights>,
    lease: Arc<Lease>,
    landing: watch::Sender<Landing>,
}

impl Flights {
    /// Announces a claim before it is made: nobody may take the operation for free meanwhile.
    pub(super) fn claiming(self: &Arc<Self>, name: &RecordName) -> Claiming {
        self.by_record().entry(name.clone()).or_default().claiming += 1;
        Claiming { flights: Arc::clone(self), name: name.clone() }
    }

    /// The attempt at this very request, if one of this process is at work. The key may be in use for another by now.
    pub(super) fn find(&self, name: &RecordName, fingerprint: &Fingerprint) -> Option<watch::Receiver<Landing>> {
        let by_record = self.by_record();
        let Departed { lease, landing, progress } = by_record.get(name)?.attempt.as_ref()?;
        let same = fingerprint.compare(&lease.claim.fingerprint).may_be_same();
        (same && matches!(progress, Progress::AtWork)).then(|| landing.clone())
    }

    /// What a request gets for which the store cannot tell. Its own claim, if there is one, is still announced.
    pub(super) fn without_store(
        &self,
        name: &RecordName,
        fingerprint: &Fingerprint,
        on_mismatch: OnMismatch,
        own_claims: usize,
    ) -> Fallback {
        let by_record = self.by_record();
        let entry = by_record.get(name);
        let known = match entry.and_then(|entry| entry.attempt.as_ref()) {
            Some(departed) => departed.known(),
            None if entry.is_some_and(|entry| entry.claiming > own_claims) => Known::Doubtful,
            None => Known::Nothing,
        };
        without_store(known, fingerprint, on_mismatch)
    }

    /// An operator has freed this key: another request may run it, whatever the attempt of this process is at.
    pub(super) fn freed(&self, name: &RecordName) {
        if let Some(departed) = self.by_record().get(name).and_then(|entry| entry.attempt.as_ref()) {
            departed.lease.freed();
        }
    }

    fn forget(&self, name: &RecordName, forget: impl FnOnce(&mut Entry)) {
        let mut by_record = self.by_record();
        let Some(entry) = by_record.get_mut(name) else { return };
        forget(entry);
        if entry.claiming == 0 && entry.attempt.is_none() {
            by_record.remove(name);
        }
    }

    fn attempt<T>(&self, lease: &Lease, change: impl FnOnce(&mut Departed) -> T) -> Option<T> {
        let mut by_record = self.by_record();
        let departed = by_record.get_mut(&lease.name)?.attempt.as_mut()?;
        (departed.token() == lease.claim.token).then(|| change(departed))
    }

    fn by_record(&self) -> MutexGuard<'_, HashMap<RecordName, Entry>> {
        // Every step leaves the map whole.
        self.by_record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Departed {
    fn token(&self) -> Token {
        self.lease.claim.token
    }

    fn known(&self) -> Known {
        if !self.lease.is_certain() {
            return Known::Doubtful;
        }
        if self.lease.is_releasing() {
            return Known::Free;
        }
        let claim = self.lease.claim.clone();
        match &self.progress {
            Progress::AtWork | Progress::Unwritten(Outcome::Leave, _) => Known::Record(claim, State::InFlight),
            Progress::Unwritten(Outcome::Settle(settlement), at) => Known::Record(claim, settlement.at(*at)),
            Progress::Unwritten(Outcome::Release, _) => Known::Free,
        }
    }
}

impl Claiming {
    /// The claim was granted. Where the store has lost the record of an attempt that this process knows, the claim must be
    /// given back, and its request gets this verdict.
    pub(super) fn depart(self, lease: &Arc<Lease>, on_mismatch: OnMismatch) -> Result<Flight, Verdict> {
        let mut by_record = self.flights.by_record();
        let entry = by_record.entry(self.name.clone()).or_default();
        // A takeover rests on the record that it found; a first attempt rests on there being none.
        if let Some(first) = entry.attempt.as_ref().filter(|_| lease.claim.attempt == 1)
            && let Fallback::Repeat(verdict) = without_store(first.known(), &lease.claim.fingerprint, on_mismatch)
        {
            first.lease.gave_back(lease.claim.token);
            return Err(verdict);
        }
        let (landing, receiver) = watch::channel(Landing::Pending);
        // In the place of an attempt that this one took over from.
        entry.attempt = Some(Departed { lease: Arc::clone(lease), landing: receiver, progress: Progress::AtWork });
        drop(by_record);
        Ok(Flight { flights: Arc::clone(&self.flights), lease: Arc::clone(lease), landing })
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        self.flights.forget(&self.name, |entry| entry.claiming = entry.claiming.saturating_sub(1));
    }
}

impl Flight {
    /// Tells the waiters how it ended.
    pub(super) fn land(&self, reply: Option<Arc<Reply>>) {
        self.landing.send_replace(Landing::Landed(reply));
    }

    /// It has ended, and this is still to be written.
    pub(super) fn unwritten(&self, outcome: &Outcome, settled_at: u64) {
        self.flights
            .attempt(&self.lease, |departed| departed.progress = Progress::Unwritten(outcome.clone(), settled_at));
    }

    /// It has ended, and its record is left to a takeover. Until that may come, this process knows that it is in flight.
    pub(super) fn leave(self) {
        self.unwritten(&Outcome::Leave, 0);
        #[expect(clippy::disallowed_methods, reason = "nobody waits: it holds an entry in memory, and nothing else")]
        tokio::spawn(async move {
            tokio::time::sleep(self.lease.claim.terms.lease).await;
            drop(self);
        });
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let token = self.lease.claim.token;
        self.flights.forget(&self.lease.name, |entry| {
            // A takeover by this same process may have put its own attempt here.
            if entry.attempt.as_ref().is_some_and(|departed| departed.token() == token) {
                entry.attempt = None;
            }
        });
    }
}

/// Waits until the attempt is over. `None`: it ended without a response at hand.
pub(super) async fn landed(mut receiver: watch::Receiver<Landing>) -> Option<Arc<Reply>> {
    // An error means that the sender is gone: the attempt is over either way.
    match receiver.wait_for(|landing| matches!(landing, Landing::Landed(_))).await.as_deref() {
        Ok(Landing::Landed(reply)) => reply.clone(),
        Ok(Landing::Pending) | Err(_) => None,
    }
}
