//! A change of a record by somebody else than its owner: told in its audit first, then made.

use std::error::Error;
use std::time::Duration;

use super::Guard;
use super::audit::{self, AuditAction, AuditLine};
use crate::clock;
use crate::fail_point::{self, Step};
use crate::record::transitions::CompareAndSwap;
use crate::record::{RecordName, StateName};
use crate::rule::BY_PROBE;
use crate::store::{Store, StoreError, SwapResult};
use crate::timestamp::Timestamp;

/// Why a change is not made, or may not be.
#[derive(Debug)]
pub enum NotChanged {
    /// Its line for the audit could not be written: nothing was done.
    NotAnnounced(StoreError),
    /// The store did not make it, or nobody knows.
    Store(StoreError),
}

impl Guard {
    /// Makes a change, and tells of it with this line. What was then not done is marked so.
    pub async fn change(
        &self,
        name: &RecordName,
        swap: &CompareAndSwap,
        line: &AuditLine,
    ) -> Result<SwapResult, NotChanged> {
        self.change_before(name, swap, line, None).await
    }

    /// The same, unless it is too late: by the clock since boot, see [`CompareAndSwap::void_at`].
    async fn change_before(
        &self,
        name: &RecordName,
        swap: &CompareAndSwap,
        line: &AuditLine,
        void_at: Option<Duration>,
    ) -> Result<SwapResult, NotChanged> {
        let keep_for = swap.seen.summary.claim.terms.retention;
        if let Err(error) = self.announce(name, line, keep_for).await {
            log_not_changed(name, line, "its line for the audit could not be written", Some(&error));
            return Err(NotChanged::NotAnnounced(error));
        }
        if void_at.is_some_and(|void_at| clock::since_boot() >= void_at) {
            let why = "it took so long that its owner may have been back";
            self.withdraw(name, line, why, keep_for).await;
            log_not_changed(name, line, why, None);
            return Ok(SwapResult::Changed(None));
        }
        let done = self.store.compare_and_swap(name, swap).await;
        if let Some(why) = why_not_done(&done) {
            self.withdraw(name, line, why, keep_for).await;
            if !matches!(done, Err(StoreError::Uncertain(_) | StoreError::Unacknowledged(_))) {
                log_not_changed(name, line, why, done.as_ref().err());
            }
        }
        if let Ok(SwapResult::Done) = done {
            match swap.to {
                None => self.freed(name),
                Some(_) => self.settled_by_another(name),
            }
        }
        done.map_err(NotChanged::Store)
    }

    /// Makes the change that an answer of the backend has brought. `asked` is the question as it is configured, without
    /// values of the request. `void_at`: see [`CompareAndSwap::void_at`].
    pub async fn change_by_probe(
        &self,
        name: &RecordName,
        swap: &CompareAndSwap,
        asked: &str,
        void_at: Option<Duration>,
    ) -> Result<SwapResult, NotChanged> {
        let status = swap.to.as_ref().and_then(|record| record.summary().status).map(|status| status.as_u16());
        let line = AuditLine {
            at: Timestamp::now(),
            did: AuditAction::of(swap).as_str().to_owned(),
            by: BY_PROBE.to_owned(),
            from: None,
            asked: Some(asked.to_owned()),
            reason: None,
            force: false,
            was: swap.seen.summary.phase.into(),
            status,
            not_done: None,
        };
        fail_point::reach(Step::BeforeProbeExchange).await;
        let done = self.change_before(name, swap, &line, void_at).await;
        fail_point::reach(Step::AfterProbeExchange).await;
        let (event, what) = match swap.to {
            None => ("record_released", "the backend has nothing of an unknown attempt, seen twice: its key is free"),
            Some(_) => ("record_completed", "the backend has what an unknown attempt made: its record is completed"),
        };
        let was = line.was.as_str();
        match &done {
            Ok(SwapResult::Done) => {
                tracing::info!(target: "onlyonce", event, record = %name, was, status, by = BY_PROBE, asked, "{what}");
            }
            Err(NotChanged::Store(error @ (StoreError::Uncertain(_) | StoreError::Unacknowledged(_)))) => {
                tracing::warn!(target: "onlyonce", event, record = %name, was, status, by = BY_PROBE, asked, error = error as &dyn Error,
                    "{what}, or it was not done: the store did not answer");
            }
            Ok(SwapResult::Changed(_)) | Err(NotChanged::Store(_) | NotChanged::NotAnnounced(_)) => {}
        }
        done
    }

    /// Adds the line of a change to the audit, before it is made.
    pub async fn announce(&self, name: &RecordName, line: &AuditLine, keep_for: Duration) -> Result<(), StoreError> {
        let added = audit::add(&*self.store, name, line, keep_for).await;
        if let Err(StoreError::Uncertain(_) | StoreError::Unacknowledged(_)) = added {
            // It may be there all the same.
            self.withdraw(name, line, "the line could not be written for certain", keep_for).await;
        }
        added
    }

    /// Marks a line as not done. Where the store does not take that either, the log has it.
    pub async fn withdraw(&self, name: &RecordName, line: &AuditLine, why: &str, keep_for: Duration) {
        if let Err(error) = audit::withdraw(&*self.store, name, line, why, keep_for).await {
            tracing::warn!(target: "onlyonce", event = "audit_not_marked", record = %name, did = line.did, why,
                error = &error as &dyn Error, "the audit of this record may tell of a change that was not made");
        }
    }
}

/// Why a change was not made, or may not have been.
pub fn why_not_done(done: &Result<SwapResult, StoreError>) -> Option<&'static str> {
    match done {
        Ok(SwapResult::Done) => None,
        Ok(SwapResult::Changed(_)) => Some("the record had changed"),
        Err(StoreError::Uncertain(_)) => Some("the store did not answer: it may have been done"),
        Err(StoreError::Unacknowledged(_)) => Some("the store may lose it: it may have been done"),
        Err(StoreError::Unavailable(_)) => Some("the store could not be reached"),
        Err(StoreError::Refused(_)) => Some("the store refused"),
        Err(StoreError::Unreadable { .. }) => Some("the record cannot be read"),
    }
}

/// Logs a change that was wanted, and that was certainly not made.
fn log_not_changed(name: &RecordName, line: &AuditLine, why: &'static str, error: Option<&StoreError>) {
    let AuditLine { did, force, by, from, reason, .. } = line;
    let (was, error) = (StateName::as_str(line.was), error.map(|error| error as &dyn Error));
    let what =
        if by == BY_PROBE { "what a probe has found was not recorded" } else { "an operator's change was not made" };
    tracing::warn!(target: "onlyonce", event = "record_not_changed", record = %name, did, was, force, by, from, reason,
        why, error, "{what}");
}
