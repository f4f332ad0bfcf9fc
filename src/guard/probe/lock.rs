//! One at a time for each record, of all sidecars that share the store: whoever asks holds a lock, a record beside the
//! record in question.
//!
//! It is taken just before a question, and kept until the answer has been acted on. Through the pause after that it is
//! kept as well, for [`LONGEST_PAUSE`](super::LONGEST_PAUSE) at most: so the others keep to the pauses of the sidecar that
//! asks. Each time it is written once, with the time to live that this step needs: a backend that is down leaves many
//! records to ask about, and renewals for all of them would be a load on the store. A sidecar that dies or freezes is in
//! the way of others until its step should have been over, and [`SLACK`]. Only a sidecar that has all that it needs to ask
//! takes the lock, so it does not lock out an owner for one that cannot ask.
//!
//! No safety rests on it. It can be lost, to a store that is slow or has lost data, and then two may ask at once: what
//! an answer does to a record is decided by [`crate::record::probe`] for each of them by itself, and by the exchange at the
//! store. A refusal is no answer of the backend, and changes nothing of what a looker has seen.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::random::random;
use crate::record::{Claim, Extensions, Fingerprint, RecordName, Terms, Token, UnknownPolicy};
use crate::store::{Renewed, Store, StoreError};

/// For the calls to the store around a question.
const SLACK: Duration = Duration::from_secs(2);

/// The right of one run to ask about one record.
pub(in crate::guard) struct ProbeLock {
    name: RecordName,
    token: Token,
    /// The time to live that it is written with.
    lives: Duration,
    hold: Hold,
}

/// Whether the store has the lock for this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    No,
    /// The store did not say.
    Perhaps,
    /// At least until then.
    Until(Instant),
}

impl ProbeLock {
    /// It is not taken yet.
    pub(in crate::guard) fn new(record: &RecordName) -> Self {
        Self { name: record.probe_lock(), token: Token(random()), lives: SLACK, hold: Hold::No }
    }

    /// Takes it for this time at least, or makes sure that it is still held. `false`: another holds it.
    pub(in crate::guard) async fn take(&mut self, store: &dyn Store, needed: Duration) -> Result<bool, StoreError> {
        let begun = Instant::now();
        if !self.is_held_until(begun + needed) {
            // A renewal keeps the time to live of the claim.
            self.release(store).await;
            self.lives = needed.saturating_add(SLACK);
        }
        let claim = self.claim();
        self.hold = Hold::Perhaps;
        self.hold = match store.renew(&self.name, &claim).await? {
            Renewed::ClaimedAgain | Renewed::Extended => Hold::Until(begun + self.lives),
            Renewed::Lost => Hold::No,
        };
        Ok(self.hold != Hold::No)
    }

    /// Keeps it for this time, if it is held. Where the store does not take that, it ends earlier.
    pub(in crate::guard) async fn keep(&mut self, store: &dyn Store, needed: Duration) {
        if let Hold::Until(end) = self.hold
            && end < Instant::now() + needed
            && let Err(error) = self.take(store, needed).await
        {
            tracing::debug!(record = %self.name, error = &error as &dyn std::error::Error,
                "the lock of a probe could not be kept; it ends by itself");
        }
    }

    fn is_held_until(&self, end: Instant) -> bool {
        matches!(self.hold, Hold::Until(held) if held >= end)
    }

    /// Lets the next one ask. Where the store does not take that, the lock ends by itself.
    pub(in crate::guard) async fn release(&mut self, store: &dyn Store) {
        if std::mem::replace(&mut self.hold, Hold::No) != Hold::No
            && let Err(error) = store.release(&self.name, self.token).await
        {
            tracing::debug!(record = %self.name, error = &error as &dyn std::error::Error,
                "the lock of a probe could not be released; it ends by itself");
        }
    }

    fn claim(&self) -> Claim {
        let lives = self.lives;
        Claim {
            token: self.token,
            attempt: 1,
            terms: Terms { lease: lives, retention: lives, on_unknown: UnknownPolicy::Hold(lives) },
            fingerprint: Fingerprint { target: [0; 16], recipe: 0, body: [0; 16] },
            claimed_at: clock::unix_millis(),
            extensions: Extensions::default(),
        }
    }
}
