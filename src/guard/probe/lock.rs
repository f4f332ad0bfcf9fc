//! One at a time for each record, of all sidecars that share the store: whoever asks holds a lock, a record beside the
//! record in question.
//!
//! It is taken just before a question, and released when the answer has been acted on: in a pause, anybody may ask. Only a
//! sidecar that has all that it needs to ask takes it, so it does not lock out an owner for one that cannot ask. A sidecar
//! that dies or freezes while it asks is in the way of others for `probe.timeout` and [`SLACK`].
//!
//! No safety rests on it. It can be lost, to a store that is slow or has lost data, and then two may ask at once: what
//! an answer does to a record is decided by [`crate::record::probe`] for each of them by itself, and by the exchange at the
//! store. A refusal is no answer of the backend, and changes nothing of what a looker has seen.

use std::time::Duration;

use crate::clock;
use crate::random::random;
use crate::record::{Claim, Extensions, Fingerprint, RecordName, Terms, Token, UnknownPolicy};
use crate::store::{Renewed, Store, StoreError};

/// For the calls to the store around a question.
const SLACK: Duration = Duration::from_secs(2);

/// The right to ask one question about one record.
pub(in crate::guard) struct ProbeLock {
    name: RecordName,
    claim: Claim,
}

impl ProbeLock {
    /// It is not taken yet. `timeout` is that of the question.
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
        Self { name: record.probe_lock(), claim }
    }

    /// `false`: another holds it.
    pub(in crate::guard) async fn take(&self, store: &dyn Store) -> Result<bool, StoreError> {
        // A renewal claims what is gone, and takes nothing over.
        match store.renew(&self.name, &self.claim).await? {
            Renewed::Extended | Renewed::ClaimedAgain => Ok(true),
            Renewed::Lost => Ok(false),
        }
    }

    /// Lets the next one ask. Where the store does not take that, the lock ends by itself.
    pub(in crate::guard) async fn release(&self, store: &dyn Store) {
        if let Err(error) = store.release(&self.name, self.claim.token).await {
            tracing::debug!(record = %self.name, error = &error as &dyn std::error::Error,
                "the lock of a probe could not be released; it ends by itself");
        }
    }
}
