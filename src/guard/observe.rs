//! Observe mode: whether a request would have been a repeat, told without any effect on it.
//!
//! Its records have a name space of their own, in which enforce mode never looks: a route that is switched to enforce
//! begins with none. They hold no answer, only that there was one. Nothing is renewed: their lease is as long as an
//! attempt may take.

use std::sync::Arc;
use std::time::Duration;

use super::decide::{Verdict, decide};
use super::limit::Permit;
use super::policy::{self, Outcome};
use super::send_outcome::SendOutcome;
use super::{Guard, random};
use crate::clock;
use crate::config::Rule;
use crate::key::Operation;
use crate::metrics::ShadowVerdict;
use crate::record::transitions::StoredRecord;
use crate::record::{Claim, Extensions, Record, RecordName, Terms, Token};
use crate::store::{Claimed, Store, StoreError};

/// The right to observe one request, of which there are so many at once.
pub struct Observation {
    guard: Arc<Guard>,
    _permit: Permit,
}

/// What a request is to its operation.
pub enum ShadowResult {
    /// It came first. What becomes of it is to be [settled](Observation::settle).
    First(ShadowClaim),
    /// It would not have run.
    Repeat(ShadowVerdict),
}

/// That a request came first.
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

    /// Does this beside all requests; [`observed`](Self::observed) waits for it.
    pub fn spawn_observation(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.observed.spawn(work);
    }
}

impl Observation {
    /// Asks the store whether the operation was seen before. An attempt lasts for `longest`.
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
            Claimed::Apart(bodiless) => {
                let held = StoredRecord::settled(bodiless.record().clone());
                ShadowResult::Repeat(would(&decide(held, &operation.fingerprint, rule.on_mismatch)))
            }
        })
    }

    /// Records what became of the first, as the route's policy has it. `fate` holds no body.
    pub async fn settle<R>(&self, rule: &Rule, shadow: ShadowClaim, fate: &SendOutcome<R>) -> Result<(), StoreError> {
        let ShadowClaim { name, claim } = shadow;
        let outcome = policy::outcome(fate, &rule.policy, claim.terms.on_unknown);
        match outcome {
            Outcome::Leave => {}
            Outcome::Release => drop(self.guard.store.release(&name, claim.token).await?),
            Outcome::Settle(settlement) => {
                let record = Record { claim, state: settlement.at(clock::unix_millis()) };
                drop(self.guard.store.settle(&name, &record).await?);
            }
        }
        Ok(())
    }
}

/// Without an answer that could be replayed, a repeat gets 409 either way: whether the first is at work, or nobody
/// knows what became of it.
fn would(verdict: &Verdict) -> ShadowVerdict {
    match verdict {
        Verdict::Replay(_) | Verdict::AlreadyCompleted { .. } => ShadowVerdict::Replay,
        Verdict::InFlight | Verdict::OutcomeUnknown => ShadowVerdict::InFlight,
        Verdict::KeyReused(_) => ShadowVerdict::KeyReused,
    }
}
