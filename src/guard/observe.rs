//! Observe mode: finds out whether a request would have been a repeat, without any effect on it.
//!
//! The records of this mode have names of their own, which enforce mode never reads. So a route that is switched to
//! enforce begins without records. They hold no response. They are not renewed: their lease is as long as an attempt
//! may take.

use std::sync::Arc;
use std::time::Duration;

use super::Guard;
use super::decide::{Verdict, decide};
use super::limit::Permit;
use super::policy::{self, Outcome};
use super::send_outcome::SendOutcome;
use crate::clock;
use crate::key::Operation;
use crate::metrics::ShadowVerdict;
use crate::random::random;
use crate::record::{Claim, Extensions, RecordName, SettledRecord, Terms, Token};
use crate::rule::Rule;
use crate::store::{Claimed, Store, StoreError};

/// The right to observe one request. The number of them is limited.
pub struct Observation {
    guard: Arc<Guard>,
    _permit: Permit,
}

/// What an observed request is to its operation.
pub enum ShadowResult {
    /// It came first. Its outcome must be [settled](Observation::settle).
    First(ShadowClaim),
    /// It would not have run.
    Repeat(ShadowVerdict),
}

/// The record of a request that came first.
pub struct ShadowClaim {
    name: RecordName,
    claim: Claim,
}

impl Guard {
    /// `None`: too many requests are being observed already.
    pub fn observe(self: &Arc<Self>) -> Option<Observation> {
        let permit = self.observations.take()?;
        Some(Observation { guard: Arc::clone(self), _permit: permit })
    }

    /// Spawns the observation of a request. [`observed`](Self::observed) waits for it.
    pub fn spawn_observation(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.observed.spawn(work);
    }
}

impl Observation {
    /// Asks the store whether the operation was seen before. `longest` is the longest time of an attempt.
    pub async fn look(
        &self,
        rule: &Rule,
        operation: &Operation,
        longest: Duration,
    ) -> Result<ShadowResult, StoreError> {
        let Terms { lease, retention, on_unknown } = operation.terms;
        let terms = Terms { lease: lease.max(longest).min(retention), retention, on_unknown };
        let name = operation.name.observed();
        let claim = Claim {
            token: Token(random()),
            attempt: 1,
            terms,
            fingerprint: operation.fingerprint,
            claimed_at: clock::unix_millis(),
            extensions: Extensions::default(),
        };
        Ok(match self.guard.store.claim(&name, &claim).await? {
            Claimed::Granted(claim) => ShadowResult::First(ShadowClaim { name, claim }),
            Claimed::Refused(held) => {
                ShadowResult::Repeat(would(&decide(*held, &operation.fingerprint, rule.on_mismatch)))
            }
        })
    }

    /// Records the outcome of the first by the policy of the route. `sent` holds no body.
    pub async fn settle<R>(&self, rule: &Rule, shadow: ShadowClaim, sent: &SendOutcome<R>) -> Result<(), StoreError> {
        let ShadowClaim { name, claim } = shadow;
        let outcome = policy::outcome(sent, &rule.policy, claim.terms.on_unknown);
        match outcome {
            Outcome::Leave => {}
            Outcome::Release => drop(self.guard.store.release(&name, claim.token).await?),
            Outcome::Settle(settlement) => {
                let record = SettledRecord::new(claim, &settlement, clock::unix_millis());
                drop(self.guard.store.settle(&name, &record).await?);
            }
        }
        Ok(())
    }
}

/// Without a stored response, a repeat gets 409 either way: in flight or unknown.
fn would(verdict: &Verdict) -> ShadowVerdict {
    match verdict {
        Verdict::Replay(..) | Verdict::AlreadyCompleted(_) => ShadowVerdict::Replay,
        Verdict::InFlight | Verdict::OutcomeUnknown => ShadowVerdict::InFlight,
        Verdict::KeyReused(_) => ShadowVerdict::KeyReused,
    }
}
