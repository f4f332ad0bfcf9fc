//! `POST /records/{record}/probe`: an operator has the backend asked about a record.
//!
//! Like any change, it is told in the record's audit before it is made, and marked as not done where nothing came of it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::Timestamp;
use super::error::{AdminError, AdminErrorKind};
use super::records::{ChangeAuthor, RecordApi};
use super::shape::{ProbeRequest, ProbeResponse, ProbeWord, RecordEntry};
use crate::guard::audit::AuditAction;
use crate::guard::{NextAnswer, ProbeOutcome};
use crate::record::transitions::{OwnerState, RecordSnapshot};
use crate::record::{Phase, RecordName};
use crate::store::causes;
use crate::units::HumanDuration;

/// Asks the backend about a record, and acts on the answer.
pub type AskBackend = Arc<dyn Fn(RecordName) -> Pin<Box<dyn Future<Output = NextAnswer> + Send>> + Send + Sync>;

impl RecordApi {
    pub(super) async fn probe(
        &self,
        name: &RecordName,
        wanted: ProbeRequest,
        by: &ChangeAuthor,
        ask: AskBackend,
    ) -> Result<ProbeResponse, AdminError> {
        let seen = self.seen(name, None).await?;
        is_unknown(&seen).map_err(|refusal| refusal.about(name))?;
        let keep_for = seen.summary.claim.terms.retention;
        let line = by.audit_line(AuditAction::Probe, wanted.reason, &seen)?;
        let announced = self.guard.announce(name, &line, keep_for).await;
        announced.map_err(|error| AdminError::untold(&error).about(name))?;
        let (probe, mut detail, again_in) = words(&ask(name.clone()).await);
        match probe {
            ProbeWord::Found | ProbeWord::Released | ProbeWord::Pending => {}
            ProbeWord::Absent | ProbeWord::Inconclusive | ProbeWord::NotAsked | ProbeWord::Changed => {
                self.guard.withdraw(name, &line, &detail, keep_for).await;
            }
        }
        let (was, did) = (line.was.as_str(), line.did);
        let (by, from, reason) = (line.by, line.from, line.reason);
        tracing::info!(target: "onlyonce", event = "record_probed", record = %name, did, was, by, from, reason, detail,
            "an operator had the backend asked about a record");
        let now = Timestamp::now();
        let held = match self.store.find(name).await {
            Ok(held) => held,
            // What was done is done, and told.
            Err(error) => {
                detail = format!("{detail}; the record could not be read after that: {}", causes(&error));
                None
            }
        };
        Ok(ProbeResponse {
            record: name.to_string(),
            was: RecordEntry::new(name, Ok(&seen), now),
            probe,
            detail,
            again_in_ms: again_in,
            now: held.map(|held| RecordEntry::new(name, Ok(&held.seen()), now)),
        })
    }
}

/// Only an unknown outcome is asked about.
fn is_unknown(seen: &RecordSnapshot) -> Result<(), AdminError> {
    let refused = |why, detail| Err(AdminError::new(why, detail));
    match (seen.summary.phase, seen.owner()) {
        (Phase::Unknown, _) | (Phase::InFlight, OwnerState::Lost) => Ok(()),
        (Phase::InFlight, OwnerState::Alive) => refused(
            AdminErrorKind::OwnerAlive,
            "The owner of this record is alive: the request is running, and its outcome will be recorded.",
        ),
        (Phase::InFlight, OwnerState::Abandoned) => refused(
            AdminErrorKind::BadRequest,
            "The next repeat takes this record over: there is nothing to ask about.",
        ),
        (Phase::Completed | Phase::Unreplayable, _) => {
            refused(AdminErrorKind::Completed, "It is known what came of this request: there is nothing to ask about.")
        }
    }
}

/// What came of it, and when the backend is asked again, in milliseconds.
fn words(answer: &NextAnswer) -> (ProbeWord, String, Option<u64>) {
    match answer {
        NextAnswer::Came(outcome) => words_of(outcome),
        NextAnswer::NotDue { last: ProbeOutcome::NotAsked(why), due_in } => {
            let detail = format!("{why}; it may be asked about again in {}", seconds(*due_in));
            (ProbeWord::NotAsked, detail, Some(millis(*due_in)))
        }
        NextAnswer::NotDue { last, due_in } => {
            let (_, last, _) = words_of(last);
            let detail = format!("it was asked a moment ago ({last}), and may be asked again in {}", seconds(*due_in));
            (ProbeWord::NotAsked, detail, Some(millis(*due_in)))
        }
        NextAnswer::Outstanding => {
            let detail = "the backend has not answered yet; what it says is acted on when it comes";
            (ProbeWord::Pending, detail.to_owned(), None)
        }
        NextAnswer::Never => {
            let detail = "whoever asked has stopped without an answer; it may be asked again now";
            (ProbeWord::NotAsked, detail.to_owned(), None)
        }
    }
}

fn words_of(outcome: &ProbeOutcome) -> (ProbeWord, String, Option<u64>) {
    match outcome {
        ProbeOutcome::Completed(status) => {
            let detail = format!("the backend has what the request made ({})", status.as_u16());
            (ProbeWord::Found, detail, None)
        }
        ProbeOutcome::Released => {
            (ProbeWord::Released, "the backend has nothing of the request, seen twice".to_owned(), None)
        }
        ProbeOutcome::Absent(again_in) => {
            let again = seconds(*again_in);
            let detail = format!("the backend has nothing of the request so far; it is asked again in {again}");
            (ProbeWord::Absent, detail, Some(millis(*again_in)))
        }
        ProbeOutcome::Inconclusive(why) => (ProbeWord::Inconclusive, why.to_string(), None),
        ProbeOutcome::NotAsked(why) => (ProbeWord::NotAsked, why.to_string(), None),
        ProbeOutcome::Changed => (ProbeWord::Changed, "the record changed meanwhile".to_owned(), None),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// In whole seconds, for people.
fn seconds(time: Duration) -> HumanDuration {
    HumanDuration(Duration::from_secs(time.as_secs().max(1)))
}
