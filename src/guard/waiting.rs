//! Repeats that wait for the first request.
//!
//! A waiter never becomes an owner. If the attempt runs in this process, the waiter is woken when it ends. Otherwise it
//! is woken when the store reports a change. It also looks at the record from time to time.

use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::decide::{Verdict, decide};
use super::replay_permission::Sealed;
use super::without_store::Fallback;
use super::{Guard, in_flight};
use crate::key::Operation;
use crate::record::State;
use crate::record::transitions::OwnerState;
use crate::rule::Rule;
use crate::store::{Changes, Store};
use crate::tick;

impl Guard {
    /// Waits for the first request for at most `patience`, and returns what the repeat gets. That is still
    /// [`Verdict::InFlight`] if the time is over or the record is gone. `None`: too many requests wait already.
    pub async fn wait(&self, rule: &Rule, operation: &Operation, patience: Duration) -> Option<Verdict> {
        let _permit = self.waiter_permit(rule)?;
        let _counted = self.metrics.waiting(&rule.name);
        let deadline = Instant::now() + patience;
        let waiting = pin!(self.wait_until_settled(rule, operation, patience));
        Some(tick::timeout_at(deadline, waiting).await.unwrap_or(Verdict::InFlight))
    }

    async fn wait_until_settled(&self, rule: &Rule, operation: &Operation, patience: Duration) -> Verdict {
        let mut changes = None;
        for looks in 0.. {
            match self.in_flight.find(&operation.name, &operation.fingerprint) {
                Some(entry) => {
                    if let Some((reply, extensions)) = in_flight::wait_for_end(entry).await {
                        return Verdict::Replay(Sealed(reply), extensions);
                    }
                }
                None => {
                    let changes = changes.get_or_insert_with(|| self.store.subscribe(&operation.name, patience));
                    wait_for_change(changes.as_mut(), looks).await;
                }
            }
            match self.store.find(&operation.name).await {
                Ok(None) => return Verdict::InFlight,
                Ok(Some(held)) => {
                    let held = self.with_own_attempt(&operation.name, held);
                    // The lease is over under `retry`: the next repeat takes over, and there is nothing to wait for.
                    let is_abandoned = held.record.state == State::InFlight && held.owner() == OwnerState::Abandoned;
                    match decide(held, &operation.fingerprint, rule.on_mismatch) {
                        Verdict::InFlight if !is_abandoned => {}
                        verdict => return verdict,
                    }
                }
                // The store may answer again before the time is over, so an error does not end the waiting. What this
                // process knows itself does.
                Err(_) => match self.by_itself(rule, operation, 0) {
                    Fallback::Repeat(Verdict::InFlight) | Fallback::Refuse | Fallback::AsConfigured => {}
                    Fallback::Repeat(verdict) => return verdict,
                },
            }
        }
        Verdict::InFlight
    }

    fn waiter_permit(&self, rule: &Rule) -> Option<WaiterPermit<'_>> {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = waiters.entry(Arc::clone(&rule.name)).or_default();
        (*waiting < rule.max_waiters).then(|| {
            *waiting += 1;
            WaiterPermit { guard: self, route: Arc::clone(&rule.name) }
        })
    }
}

/// The permit of one waiting repeat.
struct WaiterPermit<'a> {
    guard: &'a Guard,
    route: Arc<str>,
}

impl Drop for WaiterPermit<'_> {
    fn drop(&mut self) {
        let mut waiters = self.guard.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = waiters.get_mut(&self.route) {
            *waiting -= 1;
        }
    }
}

/// Waits for a reason to look at a record of another process: a change is reported, or a pause is over.
pub(super) async fn wait_for_change(changes: Option<&mut Changes>, looks: u32) {
    let told = pin!(async {
        let told = match changes {
            Some(changes) => changes.changed().await.is_ok(),
            None => false,
        };
        if !told {
            std::future::pending::<()>().await;
        }
    });
    // A late or lost notification costs time only.
    let _ = tick::timeout(backoff(looks), told).await;
}

/// The pause before the next look at a record: 50 ms, growing by 1.6 up to a second. Half of it is random, so that many
/// waiters do not look at once.
pub(super) fn backoff(looks: u32) -> Duration {
    let full = 0.05 * 1.6_f64.powi(looks.min(10).cast_signed());
    let chance = f64::from(u8::from_le_bytes(crate::random::random())) / 255.0;
    Duration::from_secs_f64(full.min(1.0) * (0.5 + chance / 2.0))
}
