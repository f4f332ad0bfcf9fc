//! The claim: one request asks the store whether it owns the operation.

use std::sync::Arc;

use super::Guard;
use super::decide::{Verdict, decide};
use super::lease::Lease;
use super::ownership::{Ownership, UnusedLease};
use super::without_store::Fallback;
use crate::clock;
use crate::fail_point::{self, Step};
use crate::key::Operation;
use crate::random::random;
use crate::record::transitions::StoredRecord;
use crate::record::{Claim, Comparison, RecordName, Token};
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
            extensions: operation.extensions.clone(),
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
                let unused = UnusedLease::new(self, lease);
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
    pub(super) fn by_itself(&self, rule: &Rule, operation: &Operation, own_claims: usize) -> Fallback {
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
