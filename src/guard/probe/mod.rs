//! Asks the backend about records whose outcome is unknown.
//!
//! For each record there is one run at most: it reads the record, asks, and acts on the answer, until the outcome is
//! known or nothing more can be learnt. It begins when the owner's attempt has ended unknown, when a repeat meets such a
//! record, or when an operator asks. A repeat waits for one answer, and never longer than `probe.timeout`. Which answer
//! means what is decided by [`reading`], and what follows from it by [`crate::record::probe`].

mod outcome;
mod reading;
mod run;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use outcome::{NotAsked, ProbeOutcome};
pub use reading::{Inconclusive, ProbeReading};

use super::Guard;
use super::decide::{Verdict, decide};
use super::limit::{ConcurrencyLimit, Permit};
use crate::key::{NoProbe, Operation, ProbeValues};
use crate::record::probe::ProbedBy;
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
pub(super) struct Probes {
    runs: Mutex<HashMap<RecordName, Arc<ProbeRun>>>,
    /// Runs are limited in number: each is kept in memory for as long as it waits for its next answer.
    room: Arc<ConcurrencyLimit>,
}

/// The run of one record.
pub(super) struct ProbeRun {
    /// The attempt that it is about: the owner's, or that of the record as it was first read.
    about: OnceLock<ProbedAttempt>,
    looks: watch::Sender<ProbeLooks>,
    /// Somebody waits for the next answer.
    hurry: Notify,
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
#[derive(Clone)]
struct ProbeLooks {
    /// Answers so far.
    count: u32,
    /// What the last one came to.
    last: ProbeOutcome,
    /// The backend is being asked.
    is_asking: bool,
    /// Not earlier, even for somebody who waits.
    not_before: Instant,
}

/// Runs at once.
const MOST: usize = 1024;

impl Probes {
    pub(super) fn new() -> Self {
        Self { runs: Mutex::default(), room: ConcurrencyLimit::new(MOST) }
    }

    /// The run of this record, and the permit for one that begins now. An owner, who knows its attempt, replaces the run
    /// of another: that may be about an earlier attempt, or not have what it takes to ask.
    fn run(&self, name: &RecordName, about: Option<ProbedAttempt>) -> Option<(Arc<ProbeRun>, Option<Permit>)> {
        let mut runs = self.runs();
        if let (Some(run), None) = (runs.get(name), about) {
            return Some((Arc::clone(run), None));
        }
        let permit = self.room.take()?;
        let (count, last, not_before) = (0, ProbeOutcome::Changed, Instant::now());
        let looks = watch::Sender::new(ProbeLooks { count, last, is_asking: true, not_before });
        let about = about.map_or_else(OnceLock::new, OnceLock::from);
        let run = Arc::new(ProbeRun { about, looks, hurry: Notify::new() });
        runs.insert(name.clone(), Arc::clone(&run));
        Some((run, Some(permit)))
    }

    /// The run of this record, if there is one.
    pub(super) fn known(&self, name: &RecordName) -> Option<Arc<ProbeRun>> {
        self.runs().get(name).cloned()
    }

    /// Whether this is still the run of this record.
    fn is_current(&self, name: &RecordName, run: &Arc<ProbeRun>) -> bool {
        self.runs().get(name).is_some_and(|known| Arc::ptr_eq(known, run))
    }

    /// Removes this run, and not one that has replaced it.
    fn remove(&self, name: &RecordName, run: &Arc<ProbeRun>) {
        let mut runs = self.runs();
        if runs.get(name).is_some_and(|known| Arc::ptr_eq(known, run)) {
            runs.remove(name);
        }
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<RecordName, Arc<ProbeRun>>> {
        // Every step leaves the table whole.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guard {
    /// The owner of this claim begins to ask what became of its attempt.
    pub(super) fn begin_probe(self: &Arc<Self>, name: &RecordName, claim: &Claim, plan: &Arc<ProbePlan>) {
        self.probing(name, Some(ProbedAttempt::of(claim)), plan);
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
        let run = match &plan {
            Some(plan) => self.probing(&operation.name, None, plan),
            None => self.probes.known(&operation.name),
        };
        let Some(run) = run else { return Verdict::OutcomeUnknown };
        match run.next_look(probe.timeout).await {
            ProbeOutcome::Completed(_) | ProbeOutcome::Released | ProbeOutcome::Changed => {}
            ProbeOutcome::Absent(_) | ProbeOutcome::Inconclusive(_) | ProbeOutcome::NotAsked(_) => {
                return Verdict::OutcomeUnknown;
            }
        }
        match self.store.find(&operation.name).await {
            // The next repeat runs.
            Ok(None) => Verdict::InFlight,
            Ok(Some(held)) => decide(held, &operation.fingerprint, rule.on_mismatch),
            Err(_) => Verdict::OutcomeUnknown,
        }
    }

    /// An operator asks about this record.
    pub async fn probe_by_hand(self: &Arc<Self>, name: &RecordName, plan: &Arc<ProbePlan>) -> ProbeOutcome {
        // The store is asked, too.
        let patience = plan.probe.timeout.saturating_mul(2).max(Duration::from_secs(5));
        match self.probing(name, None, plan) {
            Some(run) => run.next_look(patience).await,
            None => ProbeOutcome::NotAsked(NotAsked::Busy),
        }
    }

    /// The run of this record, which begins now if there is none. `None`: there are too many.
    fn probing(
        self: &Arc<Self>,
        name: &RecordName,
        about: Option<ProbedAttempt>,
        plan: &Arc<ProbePlan>,
    ) -> Option<Arc<ProbeRun>> {
        let Some((run, begins)) = self.probes.run(name, about) else {
            tracing::warn!(record = %name, most = MOST, "too many unknown outcomes are asked about; this one is not");
            return None;
        };
        if let Some(permit) = begins {
            let work = run::Run {
                guard: Arc::clone(self),
                name: name.clone(),
                plan: Arc::clone(plan),
                run: Arc::clone(&run),
                _permit: permit,
            };
            #[expect(clippy::disallowed_methods, reason = "nobody waits for it: a later repeat asks again")]
            tokio::spawn(work.go_on());
        }
        Some(run)
    }
}

impl ProbeRun {
    /// What the answer comes to that is under way; else the next one, unless it is too early for it.
    async fn next_look(&self, patience: Duration) -> ProbeOutcome {
        let mut looks = self.looks.subscribe();
        let (count, is_asking, is_early) = {
            let now = looks.borrow();
            (now.count, now.is_asking, Instant::now() < now.not_before)
        };
        if is_asking || !is_early {
            if !is_asking {
                self.hurry.notify_one();
            }
            let next = std::pin::pin!(looks.wait_for(|looks| looks.count > count));
            // An error: the run has ended, or the time is over.
            let _ = tick::timeout(patience, next).await;
        }
        self.looks.borrow().last.clone()
    }
}
