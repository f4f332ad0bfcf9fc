//! One at a time for each record, of all sidecars that share the store: whoever asks holds a lock, a record beside that
//! which is asked about.
//!
//! It is taken just before a question. It is kept until the answer has been acted on, and on to the next question, but for
//! [`LONGEST_PAUSE`](super::LONGEST_PAUSE) at most: so the others keep to the pauses of the one that asks. A sidecar that dies or freezes is in
//! nobody's way for longer than `probe.timeout` and [`SLACK`]. It is taken only by whoever has all that it needs to ask,
//! so it does not lock out an owner for one who cannot ask.
//!
//! No safety rests on it. It can be lost, to a store that is slow or has lost data, and then two may ask at once: what
//! an answer does to a record is decided by [`crate::record::probe`] for each of them by itself, and by the exchange at the
//! store. A refusal is no answer of the backend, and changes nothing of what a looker has seen.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::random::random;
use crate::record::{Claim, Extensions, Fingerprint, RecordName, Terms, Token, UnknownPolicy};
use crate::store::{Renewed, Store, StoreError};
use crate::tick;

/// For the calls to the store around a question.
const SLACK: Duration = Duration::from_secs(2);

/// The right of one run to ask about one record.
pub(in crate::guard) struct ProbeLock {
    name: RecordName,
    claim: Claim,
    is_held: bool,
}

impl ProbeLock {
    /// It is not taken yet.
    pub(in crate::guard) fn new(record: &RecordName, timeout: Duration) -> Self {
        let lives = timeout.saturating_add(SLACK);
        let claim = Claim {
            token: Token(random()),
            attempt: 1,
            terms: Terms { lease: lives, retention: lives, on_unknown: UnknownPolicy::Hold(lives) },
            fingerprint: Fingerprint { target: [0; 16], recipe: 0, body: [0; 16] },
            claimed_at: clock::unix_millis(),
            extensions: Extensions::default(),
        };
        Self { name: record.probe_lock(), claim, is_held: false }
    }

    /// Takes it, or keeps it for another while: a renewal does both. `false`: another holds it.
    pub(in crate::guard) async fn take(&mut self, store: &dyn Store) -> Result<bool, StoreError> {
        self.is_held = match store.renew(&self.name, &self.claim).await? {
            Renewed::Extended | Renewed::ClaimedAgain => true,
            Renewed::Lost => false,
        };
        Ok(self.is_held)
    }

    /// Keeps it during this work, if it is held, for this time at most.
    pub(in crate::guard) async fn keep<T>(
        &mut self,
        store: &dyn Store,
        at_most: Duration,
        work: impl Future<Output = T>,
    ) -> T {
        let (work, keeping) = (pin!(work), pin!(self.renew(store, at_most)));
        tokio::select! {
            biased;
            done = work => done,
            never = keeping => match never {},
        }
    }

    async fn renew(&mut self, store: &dyn Store, at_most: Duration) -> Infallible {
        let begun = Instant::now();
        while self.is_held && begun.elapsed() < at_most {
            tick::sleep(self.claim.terms.retention / 3).await;
            if let Err(error) = self.take(store).await {
                tracing::debug!(record = %self.name, error = &error as &dyn std::error::Error,
                    "the lock of a probe could not be renewed; it is tried again");
            }
        }
        pending().await
    }

    /// Lets the next one ask. Where the store does not take that, the lock ends by itself.
    pub(in crate::guard) async fn release(&mut self, store: &dyn Store) {
        if std::mem::take(&mut self.is_held)
            && let Err(error) = store.release(&self.name, self.claim.token).await
        {
            tracing::debug!(record = %self.name, error = &error as &dyn std::error::Error,
                "the lock of a probe could not be released; it ends by itself");
        }
    }
}
