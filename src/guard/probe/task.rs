//! The task that asks about one record: reads it, asks, acts on the answer, and asks again.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::{CONTENT_LOCATION, LOCATION, SET_COOKIE};
use tokio::time::Instant;

use super::super::limit::Permit;
use super::super::{Guard, NotChanged};
use super::lock::ProbeLock;
use super::{
    LONGEST_PAUSE, NotAsked, ProbeEntry, ProbeHost, ProbeOutcome, ProbePlan, ProbeReading, ProbeStage, ProbedAttempt,
    ProbedBy,
};
use crate::clock;
use crate::fail_point::{self, Step};
use crate::key::ProbeValues;
use crate::metrics::RecordState;
use crate::record::probe::{
    AbsenceRule, FoundEffect, ProbeFacts, ProbeLook, ProbeProgress, ProbeStep, complete_by_probe,
};
use crate::record::transitions::{CompareAndSwap, RecordSnapshot};
use crate::record::{Phase, RecordName, Reply, State};
use crate::rule::ProbeAnswer;
use crate::store::{Store, StoreError, SwapResult};

/// A run of questions about one record, with all that it needs.
pub(super) struct ProbeTask {
    pub(super) guard: Arc<Guard>,
    pub(super) name: RecordName,
    pub(super) plan: Arc<ProbePlan>,
    pub(super) entry: Arc<ProbeEntry>,
    pub(super) _permit: Permit,
}

/// Until the next question.
struct Pause {
    /// Also where somebody waits for it.
    at_least: Duration,
    at_most: Duration,
    /// Also where nobody waits for it by then. Else this is left to the next repeat.
    asks_when_due: bool,
}

/// The tries of a run so far.
#[derive(Default)]
struct Tries {
    /// Answers that told nothing.
    in_vain: u32,
    /// Another had the lock.
    refused: u32,
}

/// Why a pause is over.
enum Woken {
    /// Somebody waits for the next answer.
    Wanted,
    Due,
    /// The process stops, or another run has taken the place of this one.
    Stops,
}

/// What is asked, and of which record.
struct ProbeQuestion {
    seen: RecordSnapshot,
    /// When reading it began, by the clock since boot.
    read_at: Duration,
    rule: AbsenceRule,
    target: String,
    host: Option<HeaderValue>,
}

/// The shortest pause between two questions, where `after` is not shorter.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// After so many answers that tell nothing, the record is left to the next repeat.
const TRIES: u32 = 12;

impl ProbeTask {
    /// Asks until the outcome is known, or nothing more is to be expected.
    pub(super) async fn go_on(self) {
        let (mut progress, mut tries) = (ProbeProgress::default(), Tries::default());
        loop {
            let outcome = self.look(&mut progress).await;
            if let Some(result) = outcome.result() {
                self.guard.metrics.probe(&self.name.route, result);
            }
            self.log(&outcome);
            let Some(pause) = self.pause_after(&outcome, &progress, &mut tries) else {
                // Before it is told, so that whoever comes then begins anew.
                self.guard.probes.remove(&self.name, &self.entry);
                return self.entry.tell(outcome, ProbeStage::Over);
            };
            self.entry.tell(outcome, ProbeStage::Pausing(Instant::now() + pause.at_least));
            match self.wait(&pause).await {
                Woken::Wanted => self.entry.asks(),
                Woken::Due if pause.asks_when_due => self.entry.asks(),
                Woken::Due | Woken::Stops => return,
            }
        }
    }

    /// How long it waits for its next question. `None`: this was the last one.
    fn pause_after(&self, outcome: &ProbeOutcome, progress: &ProbeProgress, tries: &mut Tries) -> Option<Pause> {
        // What another is asking about is asked about. An owner, who may know more, and who has seen an absence go on
        // by themselves all the same.
        let goes_on = self.plan.by == ProbedBy::Owner || *progress != ProbeProgress::NothingYet;
        match outcome {
            ProbeOutcome::Absent(again_in) => {
                Some(Pause { at_least: self.pause(0).min(*again_in), at_most: *again_in, asks_when_due: true })
            }
            ProbeOutcome::Inconclusive(_) | ProbeOutcome::NotAsked(NotAsked::Store) => {
                tries.in_vain += 1;
                let pause = self.pause(tries.in_vain);
                (tries.in_vain < TRIES).then_some(Pause { at_least: pause, at_most: pause, asks_when_due: true })
            }
            ProbeOutcome::NotAsked(NotAsked::AnotherAsks) => {
                // It is no try of this one. What goes on does so for as long as the record is unknown.
                tries.refused += 1;
                let pause = self.pause(tries.refused).max(SHORTEST_PAUSE);
                Some(Pause { at_least: pause, at_most: pause, asks_when_due: goes_on })
            }
            ProbeOutcome::NotAsked(
                NotAsked::NotKept
                | NotAsked::HostNotKept
                | NotAsked::TimeoutNotKept
                | NotAsked::Unusable(_)
                | NotAsked::NoProbe
                | NotAsked::NoCredential
                | NotAsked::Unreadable
                | NotAsked::Busy,
            )
            | ProbeOutcome::Completed(_)
            | ProbeOutcome::Released
            | ProbeOutcome::Changed => None,
        }
    }

    /// Waits until the next question is due, or somebody waits for it.
    async fn wait(&self, pause: &Pause) -> Woken {
        let due = Instant::now() + pause.at_most;
        let waiting = async {
            if !self.guard.abandon.sleep(pause.at_least).await {
                return Woken::Stops;
            }
            tokio::select! {
                biased;
                goes_on = self.guard.abandon.sleep(due.saturating_duration_since(Instant::now())) => {
                    if goes_on { Woken::Due } else { Woken::Stops }
                }
                () = self.entry.hurry.notified() => Woken::Wanted,
            }
        };
        tokio::select! {
            biased;
            () = self.entry.replaced.notified() => Woken::Stops,
            woken = waiting => woken,
        }
    }

    /// The pause after so many answers in vain.
    fn pause(&self, in_vain: u32) -> Duration {
        let first = self.plan.probe.after.min(SHORTEST_PAUSE);
        first.saturating_mul(1 << in_vain.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
    }

    /// One question, if it is this run's turn.
    async fn look(&self, progress: &mut ProbeProgress) -> ProbeOutcome {
        // Whoever has nothing to ask, or cannot, takes no lock.
        if let Err(outcome) = self.read().await {
            return outcome;
        }
        let store = &*self.guard.store;
        let lock = ProbeLock::new(&self.name, self.plan.probe.timeout);
        let outcome = match lock.take(store).await {
            Ok(true) => self.ask(progress).await,
            Ok(false) => return ProbeOutcome::NotAsked(NotAsked::AnotherAsks),
            Err(error) => ProbeOutcome::NotAsked(self.failed(&error)),
        };
        // Before the outcome is told, so that whoever comes then is not in the way of itself.
        lock.release(store).await;
        outcome
    }

    /// Reads the record, and makes the question.
    async fn read(&self) -> Result<ProbeQuestion, ProbeOutcome> {
        let read_at = clock::since_boot();
        let held = match self.guard.store.find(&self.name).await {
            Ok(Some(held)) => held,
            Ok(None) => return Err(ProbeOutcome::Changed),
            Err(error) => return Err(ProbeOutcome::NotAsked(self.failed(&error))),
        };
        let seen = held.seen();
        let attempt = ProbedAttempt::of(&seen.summary.claim);
        if *self.entry.about.get_or_init(|| attempt) != attempt {
            // The key was freed, and is used again.
            return Err(ProbeOutcome::Changed);
        }
        let facts = ProbeFacts::of(&seen.summary.claim, &self.name, self.guard.store.encryption_keys());
        let rule = self.absence_rule(facts.as_ref());
        if rule.counts_in(&seen).is_none() {
            return Err(ProbeOutcome::Changed);
        }
        let (target, host) = self.question(seen.summary.phase, facts).map_err(ProbeOutcome::NotAsked)?;
        Ok(ProbeQuestion { seen, read_at, rule, target, host })
    }

    /// Asks, and acts on the answer. The record is read again: whoever had the lock before may have settled it.
    async fn ask(&self, progress: &mut ProbeProgress) -> ProbeOutcome {
        let ProbePlan { probe, ask, .. } = &*self.plan;
        let ProbeQuestion { seen, read_at, rule, target, host } = match self.read().await {
            Ok(question) => question,
            Err(outcome) => return outcome,
        };
        fail_point::reach(Step::BeforeProbe).await;
        let reading = ask(target, host).await;
        let answered_at = clock::since_boot();
        let look = ProbeLook { seen: seen.clone(), read_at, answered_at };
        match (std::mem::take(progress).next(reading.verdict(), look, &rule), reading) {
            (ProbeStep::Complete, ProbeReading::Found(reply)) => {
                let status = reply.status;
                let swap = complete_by_probe(seen, effect(probe.answer, reply), clock::unix_millis());
                self.exchange(&swap, None, ProbeOutcome::Completed(status)).await
            }
            (ProbeStep::Release(swap), _) => {
                let void_at = swap.void_at(read_at);
                self.exchange(&swap, void_at, ProbeOutcome::Released).await
            }
            (ProbeStep::AskAgain { at, progress: seen }, _) => {
                *progress = seen;
                ProbeOutcome::Absent(at.saturating_sub(clock::since_boot()))
            }
            (ProbeStep::Leave, ProbeReading::Inconclusive(why)) => ProbeOutcome::Inconclusive(why),
            (ProbeStep::Leave | ProbeStep::Complete, _) => ProbeOutcome::Changed,
        }
    }

    /// When an absence counts. What is kept with the record tells how long its attempt may take.
    fn absence_rule(&self, facts: Option<&ProbeFacts>) -> AbsenceRule {
        let ProbePlan { probe, attempt_timeout, .. } = &*self.plan;
        let kept = facts.map_or(Duration::ZERO, |facts| facts.attempt_timeout);
        AbsenceRule { after: probe.after, attempt_timeout: kept.max(*attempt_timeout) }
    }

    /// Path, query and host of the question.
    fn question(&self, phase: Phase, facts: Option<ProbeFacts>) -> Result<(String, Option<HeaderValue>), NotAsked> {
        let ProbePlan { probe, by, values, host, .. } = &*self.plan;
        let kept_host = facts.as_ref().map(ProbeFacts::host);
        let target = match (facts, values) {
            (Some(facts), _) => ProbeValues::kept(facts.values).in_path(&probe.path),
            (None, Some(Ok(values))) => values.in_path(&probe.path),
            (None, Some(Err(why))) => Err(why.clone()),
            (None, None) => return Err(NotAsked::NotKept),
        };
        let target = target.map_err(NotAsked::Unusable)?;
        match (by, kept_host, host) {
            // That of the attempt, whatever the configuration says by now.
            (ProbedBy::Another, Some(host), _) => Ok((target, host)),
            // The configuration of its owner may have been another one.
            (ProbedBy::Another, None, _) if phase == Phase::InFlight => Err(NotAsked::TimeoutNotKept),
            (_, _, ProbeHost::Known(host)) => Ok((target, host.clone())),
            (_, _, ProbeHost::Kept) => Err(NotAsked::HostNotKept),
        }
    }

    /// Acts on the answer, if the record is still as it was read.
    async fn exchange(&self, swap: &CompareAndSwap, void_at: Option<Duration>, done: ProbeOutcome) -> ProbeOutcome {
        let Self { guard, name, plan, .. } = self;
        let state = match swap.to.as_deref().map(|record| &record.state) {
            None => RecordState::Released,
            Some(State::Completed { .. }) => RecordState::Completed,
            Some(State::Unreplayable { .. } | State::InFlight | State::Unknown { .. }) => RecordState::Unreplayable,
        };
        match guard.change_by_probe(name, swap, &plan.probe.path.to_string(), void_at).await {
            Ok(SwapResult::Done) => {
                guard.metrics.record(&name.route, state);
                done
            }
            Ok(SwapResult::Changed(_)) => ProbeOutcome::Changed,
            Err(NotChanged::NotAnnounced(error) | NotChanged::Store(error)) => {
                ProbeOutcome::NotAsked(self.failed(&error))
            }
        }
    }

    /// What a failure of the store means.
    fn failed(&self, error: &StoreError) -> NotAsked {
        tracing::debug!(record = %self.name, error = error as &dyn Error, "the store has failed a probe");
        match error {
            StoreError::Unreadable { .. } => NotAsked::Unreadable,
            StoreError::Unavailable(_)
            | StoreError::Refused(_)
            | StoreError::Uncertain(_)
            | StoreError::Unacknowledged(_) => NotAsked::Store,
        }
    }

    fn log(&self, outcome: &ProbeOutcome) {
        let record = &self.name;
        match outcome {
            ProbeOutcome::Absent(again_in) => tracing::debug!(%record, again_in_ms = again_in.as_millis() as u64,
                "the backend has nothing of an unknown attempt; it is asked again"),
            ProbeOutcome::Inconclusive(why) => tracing::warn!(event = "probe_in_vain", %record, %why,
                "a probe tells nothing of an unknown attempt"),
            ProbeOutcome::NotAsked(why @ NotAsked::AnotherAsks) => tracing::debug!(%record, %why,
                "the backend is not asked about an unknown attempt"),
            ProbeOutcome::NotAsked(why) => tracing::info!(event = "probe_not_asked", %record, %why,
                "the backend is not asked about an unknown attempt"),
            // The change itself is logged where it is made.
            ProbeOutcome::Completed(_) | ProbeOutcome::Released | ProbeOutcome::Changed => {}
        }
    }
}

/// Also where the task ends without its last word: the record may be asked about again, and nobody waits for it.
impl Drop for ProbeTask {
    fn drop(&mut self) {
        self.guard.probes.remove(&self.name, &self.entry);
        self.entry.end();
    }
}

/// What is recorded of an answer.
fn effect(answer: ProbeAnswer, mut reply: Arc<Reply>) -> FoundEffect {
    match answer {
        ProbeAnswer::Probe => {
            // What the backend sets for whoever asks is not for the clients of the key, whatever replay_set_cookie says.
            Arc::make_mut(&mut reply).headers.remove(SET_COOKIE);
            FoundEffect::Completed(reply)
        }
        ProbeAnswer::AlreadyCompleted => {
            // Else where the representation is found that was asked for (RFC 9110, 8.7).
            let location = reply.headers.get(LOCATION).or_else(|| reply.headers.get(CONTENT_LOCATION));
            FoundEffect::Unreplayable { status: reply.status, location: location.cloned() }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    #[test]
    fn a_cookie_that_the_backend_sets_for_the_service_goes_to_no_client() {
        let headers = [(SET_COOKIE, "session=s3cret"), (LOCATION, "/orders/7")];
        let headers: HeaderMap =
            headers.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
        let reply = Reply { status: StatusCode::OK, headers, body: Vec::new().into(), trailers: HeaderMap::new() };
        let FoundEffect::Completed(kept) = effect(ProbeAnswer::Probe, Arc::new(reply)) else { panic!("an answer") };
        assert_eq!((kept.headers.get(SET_COOKIE), kept.headers.len()), (None, 1));
    }
}
