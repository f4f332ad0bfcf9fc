//! Those who ask the backend about an unknown outcome, and when the backend may still run a request.

use std::time::Duration;

use onlyonce::record::SettledRecord;
use onlyonce::record::probe::{
    AbsenceRule, FoundEffect, ProbeLook, ProbeProgress, ProbeStep, ProbeVerdict, complete_by_probe,
};
use onlyonce::record::transitions::{CompareAndSwap, OwnerState};

use crate::protocol::Protocol;
use crate::store::{Age, Ending, Id, LEASE, Stored, TICK, created};
use crate::world::{Seen, Sent, World};

/// Two ticks for an attempt, and one more until an absence counts.
pub const RULE: AbsenceRule = AbsenceRule { after: TICK, attempt_timeout: TICK.saturating_mul(2) };
const AFTER: Age = 1;
const ATTEMPT_TIMEOUT: Age = 2;
/// No decision of a prober distinguishes longer silences: the second absence counts after an attempt, half a lease, twice
/// `after`, and what a lease is longer than `after`.
pub const LONGEST_SILENCE: Age = ATTEMPT_TIMEOUT + 1 + AFTER + LEASE;

/// One who asks. It may stop anywhere, for ever: then it has died.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Prober {
    pub stage: ProberStage,
    /// The ticks since it has read the record.
    pub since_read: Age,
    /// The record of the first absence that counted, and the ticks since the answer.
    pub first: Option<(Stored, Age)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ProberStage {
    #[default]
    Idle,
    /// It has read the record, and the question is under way.
    Asking(Stored),
    /// It is about to make an exchange.
    Completing(Stored, Id),
    Releasing(Stored),
}

/// How long ago a request was sent, and since when its owner knows that it has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SentAges {
    since_sent: Age,
    since_end: Option<Age>,
}

impl SentAges {
    pub fn end(&mut self) {
        self.since_end = self.since_end.or(Some(0));
    }

    pub fn time_passes(&mut self) {
        self.since_sent = (self.since_sent + 1).min(ATTEMPT_TIMEOUT + AFTER);
        self.since_end.iter_mut().for_each(|age| *age = (*age + 1).min(AFTER));
    }
}

impl Sent {
    /// The assumption: a request does not run once `after` has passed since its attempt has ended, or can have ended.
    pub fn may_run(&self, protocol: &Protocol) -> bool {
        let in_time =
            self.ages.since_sent < ATTEMPT_TIMEOUT + AFTER && self.ages.since_end.is_none_or(|age| age < AFTER);
        !self.failed && !self.ran && (in_time || protocol.runs_late)
    }
}

impl Prober {
    /// The record that it may ask about now.
    pub fn looks_at(&self, record: Option<Stored>, protocol: &Protocol) -> Option<Stored> {
        let record = record.filter(|_| self.stage == ProberStage::Idle)?;
        let is_unknown = match record.ending {
            Ending::InFlight => record.held(protocol.retry).owner() != OwnerState::Alive,
            Ending::Unknown => true,
            Ending::Completed(_) | Ending::Unreplayable(_) => false,
        };
        is_unknown.then_some(record)
    }

    /// The backend answers, and it decides. `found`: by whom the effect is.
    pub fn decides(&mut self, verdict: ProbeVerdict, found: Option<Id>, protocol: &Protocol) {
        let ProberStage::Asking(seen) = self.stage else { unreachable!("it has asked") };
        // The first question is at zero of its clock.
        let before = self.first.map_or_else(ProbeProgress::default, |(first, _)| once(first, protocol));
        // The ticks since the first answer are those until the record was read, and those since then.
        let read_at = self.first.map_or(0, |(_, passed)| passed.saturating_sub(self.since_read));
        let read_at = TICK * u32::from(read_at);
        let answered_at = read_at + TICK * u32::from(self.since_read);
        let look = ProbeLook { seen: seen.held(protocol.retry).seen(), read_at, answered_at };
        let step = before.clone().next(verdict, look, &RULE);
        self.stage = match (step, found) {
            (ProbeStep::Complete, found) => ProberStage::Completing(seen, found.expect("it was found")),
            (ProbeStep::Release(_), _) => ProberStage::Releasing(seen),
            (ProbeStep::AskAgain { progress, .. }, _) => {
                if progress != before {
                    self.first = (progress != ProbeProgress::NothingYet).then_some((seen, 0));
                }
                ProberStage::Idle
            }
            (ProbeStep::Leave, _) => {
                self.first = None;
                ProberStage::Idle
            }
        };
        if self.stage == ProberStage::Idle {
            self.since_read = 0;
        } else {
            self.first = None;
        }
    }

    /// Whether it still makes its exchange: it is not frozen before that for longer than the record had been silent. An
    /// owner may renew, send and be lost again in that time.
    pub fn is_in_time(&self) -> bool {
        match self.stage {
            ProberStage::Releasing(seen) if seen.ending == Ending::InFlight => self.since_read < seen.silent,
            ProberStage::Idle | ProberStage::Asking(_) | ProberStage::Completing(..) | ProberStage::Releasing(_) => {
                true
            }
        }
    }

    /// The exchange that it is about to make.
    pub fn exchange(&self, protocol: &Protocol) -> Option<CompareAndSwap> {
        match self.stage {
            ProberStage::Idle | ProberStage::Asking(_) => None,
            ProberStage::Completing(seen, by) => {
                let found = if protocol.found_is_kept {
                    FoundEffect::Completed(created(by))
                } else {
                    FoundEffect::Unreplayable { status: created(by).status, location: None }
                };
                Some(complete_by_probe(seen.held(protocol.retry).seen(), found, 0))
            }
            ProberStage::Releasing(seen) => Some(CompareAndSwap { seen: seen.held(protocol.retry).seen(), to: None }),
        }
    }

    pub fn time_passes(&mut self) {
        // A lease and a tick: the second absence counts, and a later one does, too.
        self.first.iter_mut().for_each(|(_, passed)| *passed = (*passed + 1).min(LEASE + 1 + self.since_read));
        if self.stage != ProberStage::Idle {
            self.since_read = (self.since_read + 1).min(LONGEST_SILENCE);
        }
    }
}

fn once(first: Stored, protocol: &Protocol) -> ProbeProgress {
    let seen = first.held(protocol.retry).seen();
    let look = ProbeLook { seen, read_at: Duration::ZERO, answered_at: Duration::ZERO };
    let step = ProbeProgress::default().next(ProbeVerdict::Absent, look, &RULE);
    match step {
        ProbeStep::AskAgain { progress, .. } => progress,
        other => unreachable!("it was the first absence that counted: {other:?}"),
    }
}

impl World {
    /// What the backend may answer: it tells the truth of this moment, or nothing.
    pub fn verdicts(&self) -> [ProbeVerdict; 2] {
        let has_run = self.upstream.iter().any(|sent| sent.ran);
        [if has_run { ProbeVerdict::Found } else { ProbeVerdict::Absent }, ProbeVerdict::Inconclusive]
    }

    pub fn prober_decides(&mut self, protocol: &Protocol, prober: usize, verdict: ProbeVerdict) {
        let found = self.upstream.iter().find(|sent| sent.ran).map(|sent| sent.by);
        self.probers[prober].decides(verdict, found, protocol);
    }

    /// The store makes the exchange, if the record still matches.
    pub fn prober_exchanges(&mut self, protocol: &Protocol, prober: usize) {
        let swap = self.probers[prober].exchange(protocol).expect("it is about to make one");
        self.probers[prober] = Prober::default();
        let Some(stored) = self.record.filter(|stored| swap.still_matches(&stored.held(protocol.retry))) else {
            return;
        };
        match swap.to.map(SettledRecord::into_record) {
            None => {
                self.record = None;
                self.past.freed_by_probe = true;
            }
            Some(record) => {
                self.record = Some(Stored { ending: Ending::new(&record.state), silent: 0, ..stored });
                self.past.completed_by_probe = true;
            }
        }
    }

    /// Whether a client got the answer of its own request from the record, which a probe had completed.
    pub fn told_by_probe(&self) -> bool {
        self.past.completed_by_probe
            && (0..).zip(&self.requests).any(|(id, request)| request.seen == Some(Seen::Replay(id)))
    }
}
