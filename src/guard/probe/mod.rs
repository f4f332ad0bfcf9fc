//! Asks the backend about records whose outcome is unknown.
//!
//! For each record there is one run at most in a process, and one at a time asks of all that share the store ([`lock`]). It reads the record, asks, and acts on the answer, until the outcome is
//! known or nothing more can be learnt. It begins when the owner's attempt has ended unknown, when a repeat meets such a
//! record, or when an operator asks. A repeat waits for one answer, and never longer than `probe.timeout`. Which answer
//! means what is decided by [`reading`], and what follows from it by [`crate::record::probe`].

mod lock;
mod outcome;
mod reading;
mod task;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

#[cfg(test)]
pub(super) use lock::ProbeLock;
pub use outcome::{NextAnswer, NotAsked, ProbeOutcome};
pub use reading::{Inconclusive, ProbeReading};

use super::Guard;
use super::decide::{Verdict, decide};
use super::limit::{ConcurrencyLimit, Permit};
use crate::key::{NoProbe, Operation, ProbeValues};
use crate::record::{Claim, RecordName, Token};
use crate::rule::{ProbeRule, Rule};
use crate::store::Store;
use crate::tick;

/// How the backend is asked about one record.
pub struct ProbePlan {
    /// The route's settings.
    pub probe: Arc<ProbeRule>,
    /// The longest that an attempt may take.
    pub attempt_timeout: Duration,
    /// Who asks.
    pub by: ProbedBy,
    /// The values of the first request, as far as whoever asks knows them. Others are read from the record.
    pub values: Option<Result<ProbeValues, NoProbe>>,
    /// The host that the question names.
    pub host: ProbeHost,
    /// Asks once.
    pub ask: AskFn,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbedBy {
    /// The owner, after its attempt has ended.
    Owner,
    /// Whoever met the record.
    Another,
}

/// The host that a question names: that of the attempt. A backend may go by it.
pub enum ProbeHost {
    /// It is fixed by the configuration, or whoever asks has the request. `None`: the upstream's own.
    Known(Option<HeaderValue>),
    /// It is read from the record.
    Kept,
}

/// Asks once for this path and query, of this host. It ends within `probe.timeout`.
pub type AskFn =
    Box<dyn Fn(String, Option<HeaderValue>) -> Pin<Box<dyn Future<Output = ProbeReading> + Send>> + Send + Sync>;

/// The runs of this process, by record.
pub(super) struct ProbeEntries {
    entries: Mutex<HashMap<RecordName, Arc<ProbeEntry>>>,
    /// Runs are limited in number: each is kept in memory for as long as it waits for its next answer.
    room: Arc<ConcurrencyLimit>,
}

/// The run of one record.
pub(super) struct ProbeEntry {
    /// The attempt that it is about: the owner's, or that of the record as it was first read.
    about: OnceLock<ProbedAttempt>,
    status: watch::Sender<ProbeStatus>,
    /// Somebody waits for the next answer.
    hurry: Notify,
    /// Another run has taken its place.
    replaced: Notify,
}

/// One attempt of one owner. What is learnt of it says nothing of another one under the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProbedAttempt {
    token: Token,
    attempt: u32,
}

impl ProbedAttempt {
    pub(super) fn of(claim: &Claim) -> Self {
        Self { token: claim.token, attempt: claim.attempt }
    }
}

/// What a run has come to.
struct ProbeStatus {
    /// Answers so far.
    answers: u32,
    /// What the last one came to. `None`: there was none yet.
    last: Option<ProbeOutcome>,
    stage: ProbeStage,
}

/// What a run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProbeStage {
    /// The backend is being asked.
    Asking,
    /// It is not asked again before this, even for somebody who waits.
    Pausing(Instant),
    /// It has ended with the last answer.
    Over,
    /// It has ended without a word.
    BrokenOff,
}

impl ProbeStage {
    fn is_end(self) -> bool {
        match self {
            Self::Asking | Self::Pausing(_) => false,
            Self::Over | Self::BrokenOff => true,
        }
    }
}

/// The longest pause after an answer that tells nothing.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs at once.
const MOST: usize = 1024;

/// How long an operator waits for an answer. Its client waits for longer.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);

impl ProbeEntries {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::default(), room: ConcurrencyLimit::new(MOST) }
    }

    /// The run of this record, and the permit for one that begins now. An owner, who knows its attempt, replaces the run
    /// of another: that may be about an earlier attempt, or not have what it takes to ask.
    fn entry_or_begin(
        &self,
        name: &RecordName,
        about: Option<ProbedAttempt>,
    ) -> Option<(Arc<ProbeEntry>, Option<Permit>)> {
        let mut entries = self.entries();
        if let (Some(entry), None) = (entries.get(name), about) {
            return Some((Arc::clone(entry), None));
        }
        let permit = self.room.take()?;
        let status = watch::Sender::new(ProbeStatus { answers: 0, last: None, stage: ProbeStage::Asking });
        let about = about.map_or_else(OnceLock::new, OnceLock::from);
        let entry = Arc::new(ProbeEntry { about, status, hurry: Notify::new(), replaced: Notify::new() });
        if let Some(replaced) = entries.insert(name.clone(), Arc::clone(&entry)) {
            // It asks no more.
            replaced.replaced.notify_one();
        }
        Some((entry, Some(permit)))
    }

    /// The run of this record, if there is one.
    pub(super) fn known(&self, name: &RecordName) -> Option<Arc<ProbeEntry>> {
        self.entries().get(name).cloned()
    }

    /// Removes this run, and not one that has replaced it.
    fn remove(&self, name: &RecordName, entry: &Arc<ProbeEntry>) {
        let mut entries = self.entries();
        if entries.get(name).is_some_and(|known| Arc::ptr_eq(known, entry)) {
            entries.remove(name);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<RecordName, Arc<ProbeEntry>>> {
        // Every step leaves the table whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guard {
    /// The owner of this claim begins to ask what became of its attempt.
    pub(super) fn begin_probe(self: &Arc<Self>, name: &RecordName, claim: &Claim, plan: &Arc<ProbePlan>) {
        self.join_or_begin(name, Some(ProbedAttempt::of(claim)), plan);
    }

    /// What a repeat gets that has met an unknown outcome, after the backend was asked. Without a plan of its own it
    /// waits for what another asks.
    pub async fn probe_for_repeat(
        self: &Arc<Self>,
        rule: &Rule,
        probe: &ProbeRule,
        operation: &Operation,
        plan: Option<Arc<ProbePlan>>,
    ) -> Verdict {
        let entry = match &plan {
            Some(plan) => self.join_or_begin(&operation.name, None, plan),
            None => self.probes.known(&operation.name),
        };
        let Some(entry) = entry else { return Verdict::OutcomeUnknown };
        match entry.next_answer(probe.timeout).await {
            NextAnswer::Came(outcome) | NextAnswer::NotDue { last: outcome, .. } => match outcome {
                ProbeOutcome::Completed(_) | ProbeOutcome::Released | ProbeOutcome::Changed => {}
                ProbeOutcome::Absent(_) | ProbeOutcome::Inconclusive(_) | ProbeOutcome::NotAsked(_) => {
                    return Verdict::OutcomeUnknown;
                }
            },
            // An owner's own run has replaced it, and may have come further.
            NextAnswer::Never => {}
            NextAnswer::Outstanding => return Verdict::OutcomeUnknown,
        }
        match self.store.find(&operation.name).await {
            // The next repeat runs.
            Ok(None) => Verdict::InFlight,
            Ok(Some(held)) => decide(held, &operation.fingerprint, rule.on_mismatch),
            Err(_) => Verdict::OutcomeUnknown,
        }
    }

    /// An operator asks about this record.
    pub async fn probe_by_hand(self: &Arc<Self>, name: &RecordName, plan: &Arc<ProbePlan>) -> NextAnswer {
        // The store is asked, too.
        let patience = plan.probe.timeout.saturating_mul(2).clamp(SHORTEST_PATIENCE, LONGEST_PATIENCE);
        match self.join_or_begin(name, None, plan) {
            Some(entry) => entry.next_answer(patience).await,
            None => NextAnswer::Came(ProbeOutcome::NotAsked(NotAsked::Busy)),
        }
    }

    /// The run of this record, which begins now if there is none. `None`: there are too many.
    fn join_or_begin(
        self: &Arc<Self>,
        name: &RecordName,
        about: Option<ProbedAttempt>,
        plan: &Arc<ProbePlan>,
    ) -> Option<Arc<ProbeEntry>> {
        let Some((entry, begins)) = self.probes.entry_or_begin(name, about) else {
            tracing::warn!(record = %name, most = MOST, "too many unknown outcomes are asked about; this one is not");
            return None;
        };
        if let Some(permit) = begins {
            let work = task::ProbeTask {
                guard: Arc::clone(self),
                name: name.clone(),
                plan: Arc::clone(plan),
                entry: Arc::clone(&entry),
                _permit: permit,
            };
            #[expect(clippy::disallowed_methods, reason = "nobody waits for it: a later repeat asks again")]
            tokio::spawn(work.go_on());
        }
        Some(entry)
    }
}

impl ProbeEntry {
    /// What the answer comes to that is under way; else the next one, unless it is too early for it.
    pub(super) async fn next_answer(&self, patience: Duration) -> NextAnswer {
        let mut status = self.status.subscribe();
        let (answers, stage, last) = {
            let now = status.borrow();
            (now.answers, now.stage, now.last.clone())
        };
        if let ProbeStage::Pausing(until) = stage {
            let due_in = until.saturating_duration_since(Instant::now());
            match last {
                Some(last) if !due_in.is_zero() => return NextAnswer::NotDue { last, due_in },
                Some(_) | None => self.hurry.notify_one(),
            }
        }
        let answer = std::pin::pin!(async {
            let answered = status.wait_for(|status| status.answers > answers || status.stage.is_end()).await;
            // An error: the sender is gone, which this run has.
            let answered = answered.ok().filter(|status| status.answers > answers || status.stage == ProbeStage::Over);
            answered.and_then(|status| status.last.clone())
        });
        match tick::timeout(patience, answer).await {
            Ok(Some(outcome)) => NextAnswer::Came(outcome),
            Ok(None) => NextAnswer::Never,
            Err(_) => NextAnswer::Outstanding,
        }
    }

    /// The backend is asked now.
    fn asks(&self) {
        self.status.send_modify(|status| status.stage = ProbeStage::Asking);
    }

    /// Tells what the last question came to.
    fn tell(&self, outcome: ProbeOutcome, stage: ProbeStage) {
        self.status.send_modify(|status| {
            status.answers += 1;
            status.last = Some(outcome);
            status.stage = stage;
        });
    }

    /// The run has ended. Whoever still waits for the next answer gets none of it.
    fn end(&self) {
        self.status.send_if_modified(|status| {
            let is_news = !status.stage.is_end();
            if is_news {
                status.stage = ProbeStage::BrokenOff;
            }
            is_news
        });
    }
}
