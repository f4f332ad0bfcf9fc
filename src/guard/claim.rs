//! The claim: one request asks the store whether it owns the operation.

use std::sync::Arc;

use super::Guard;
use super::cleanup::Arrival;
use super::decide::{Verdict, decide};
use super::lease::Lease;
use super::ownership::{Ownership, UnusedLease};
use super::without_store::Fallback;
use crate::clock;
use crate::fail_point::{self, Step};
use crate::key::Operation;
use crate::random::random;
use crate::record::encryption::Encryption;
use crate::record::transitions::{OwnerState, StoredRecord};
use crate::record::{Claim, Comparison, RecordName, State, Token};
use crate::rule::Rule;
use crate::store::{Claimed, Store, StoreError};

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
    /// Claims the operation. Dropping this future leaves no claim behind.
    pub async fn claim(self: &Arc<Self>, rule: &Arc<Rule>, operation: &Operation) -> Result<Admission, ClaimError> {
        let Some(permit) = self.attempt_limit.take() else {
            // A repeat of an attempt of this process needs neither a permit nor the store.
            return match self.by_itself(rule, operation, 0) {
                Fallback::Repeat(verdict) => Ok(Admission::Repeat(verdict)),
                Fallback::Refuse | Fallback::AsConfigured => Err(ClaimError::Overloaded),
            };
        };
        fail_point::reach(Step::BeforeClaim).await;
        let begun = clock::since_boot();
        let mut wanted = Claim {
            token: Token(random()),
            attempt: 1,
            terms: operation.terms,
            fingerprint: operation.fingerprint,
            claimed_at: clock::unix_millis(),
            extensions: operation.extensions.clone(),
        };
        if let Some(facts) = operation.probe.as_ref().and_then(|probe| probe.kept.as_ref()) {
            let encryption = self.store.encryption_keys().first().map(|key| Encryption { key, nonce: random });
            facts.keep(&mut wanted, &operation.name, encryption);
        }
        let claiming = self.in_flight.claiming(&operation.name);
        let mut pending =
            PendingClaim { guard: self, name: &operation.name, token: wanted.token, leaves: Some(Arrival::Possible) };
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
                pending.leaves = None;
                let counted = self.metrics.in_flight(&rule.name);
                let (unused, rule) = (UnusedLease::new(self, lease), Arc::clone(rule));
                Ok(Admission::Owner(Ownership { rule, permit, counted, entry, unused }))
            }
            Ok(Claimed::Refused(held)) => {
                pending.leaves = leaves(None, unanswered);
                Ok(Admission::Repeat(self.verdict(rule, operation, *held)))
            }
            Err(error @ StoreError::Unreadable { .. }) => {
                pending.leaves = leaves(Some(&error), unanswered);
                Err(error.into())
            }
            Err(error) => {
                pending.leaves = leaves(Some(&error), unanswered);
                match self.by_itself(rule, operation, 1) {
                    Fallback::Repeat(verdict) => Ok(Admission::Repeat(verdict)),
                    Fallback::Refuse => Err(error.there_may_be_a_record().into()),
                    Fallback::AsConfigured => Err(error.into()),
                }
            }
        }
    }

    /// What a request gets by the knowledge of this process, if the store cannot answer.
    pub(super) fn by_itself(&self, rule: &Rule, operation: &Operation, own_claims: usize) -> Fallback {
        self.in_flight.without_store(&operation.name, &operation.fingerprint, rule.on_mismatch, own_claims)
    }

    /// What a request gets whose claim was refused.
    fn verdict(&self, rule: &Rule, operation: &Operation, held: StoredRecord) -> Verdict {
        if operation.fingerprint.compare(&held.record.claim.fingerprint) == Comparison::Incomparable {
            tracing::warn!(record = %operation.name,
                "the route's fingerprint has changed since this record was made; a repeat counts as the same");
        }
        decide(self.with_own_attempt(&operation.name, held), &operation.fingerprint, rule.on_mismatch)
    }

    /// The record, with what this process knows better: its own attempt is alive, even where it could not renew.
    pub(super) fn with_own_attempt(&self, name: &RecordName, held: StoredRecord) -> StoredRecord {
        let looks_lost = held.record.state == State::InFlight && held.owner() != OwnerState::Alive;
        if looks_lost && self.in_flight.is_owner(name, held.record.claim.token) {
            return StoredRecord::fresh(held.record);
        }
        held
    }

    /// Claims, and claims once more if the answer or an acknowledgement is missing. The token makes that safe. Also
    /// returns the number of tries without an answer.
    async fn ask(&self, name: &RecordName, wanted: &Claim) -> (Result<Claimed, StoreError>, u32) {
        let unanswered = match self.store.claim(name, wanted).await {
            Err(StoreError::Uncertain(_)) => 1,
            Err(StoreError::Unacknowledged(_)) => 0,
            certain => return (certain, 0),
        };
        match self.store.claim(name, wanted).await {
            Err(error @ StoreError::Uncertain(_)) => (Err(error), unanswered + 1),
            // This try failed for certain; the first may have succeeded.
            Err(StoreError::Unavailable(cause) | StoreError::Refused(cause)) => {
                (Err(StoreError::Uncertain(cause)), unanswered)
            }
            answered => (answered, unanswered),
        }
    }
}

/// Whether the tries of a claim that was not granted may have left it at the store, and whether it may still arrive.
fn leaves(error: Option<&StoreError>, unanswered: u32) -> Option<Arrival> {
    match error {
        _ if unanswered > 0 => Some(Arrival::Possible),
        // It was written, and too few replicas or disks have it.
        Some(StoreError::Uncertain(_) | StoreError::Unacknowledged(_)) => Some(Arrival::Over),
        Some(StoreError::Unavailable(_) | StoreError::Refused(_) | StoreError::Unreadable { .. }) | None => None,
    }
}

/// A claim that is not granted yet. Dropping it deletes what it `leaves` at the store.
struct PendingClaim<'a> {
    guard: &'a Guard,
    name: &'a RecordName,
    token: Token,
    leaves: Option<Arrival>,
}

impl Drop for PendingClaim<'_> {
    fn drop(&mut self) {
        if let Some(arrival) = self.leaves {
            self.guard.cleanup.add(&self.guard.store, self.name, self.token, arrival);
        }
    }
}
