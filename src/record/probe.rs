//! What the backend's answers to a probe do to a record: the time rule, and the two exchanges.
//!
//! A probe asks the backend what became of an attempt whose outcome is unknown. *Found* completes the record, *absent*
//! frees the key, and every other answer changes nothing. Both exchanges are like an operator's without force: they are
//! void once the record has changed, see [`CompareAndSwap::still_matches`].
//!
//! A looker reads the record, asks the backend, and then calls [`ProbeProgress::next`]:
//!
//! ```text
//!                 absent, and it counts            absent again, long enough after
//!   nothing yet ───────────────────────▶ absent once ───────────────────────▶ release
//!       ▲                                  │ any other answer; the record was renewed, or is another
//!       └──────────────────────────────────┘
//!   found, at any time ─────▶ complete
//! ```

mod facts;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::transitions::{CompareAndSwap, OwnerState, RecordSnapshot};
use super::{Phase, Reply, SettledRecord, Settlement, Token};

pub use facts::ProbeFacts;

/// What one answer of the backend means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeVerdict {
    /// The attempt took effect.
    Found,
    /// There is no trace of the attempt.
    Absent,
    /// It tells neither, or there was no answer.
    Inconclusive,
}

/// When an absence counts.
///
/// A key that is released runs again, so an absence must not be wrong. What it rests on is one assumption: **what is
/// absent this long after the attempt can have ended stays absent.** Nothing in this program can check it. It is false,
/// and the operation may run twice, if
///
/// - the backend, or a proxy or a queue before it, may begin or finish the work later than `after` when nobody waits for
///   it any more. `after` must be longer than the backend works on a request whose client is gone;
/// - the effect becomes visible later than `after`: a search index, a replica that lags, a cache that ignores `no-cache`;
/// - the question sees less than the attempt could do: other credentials, another tenant, region or database, a filter,
///   a page that is not the first;
/// - the question names the operation in another way than the backend stored it: cut, folded, trimmed, decoded twice;
/// - the effect was undone, deleted or archived in the meantime: absent does not tell "not any more" from "never";
/// - something else than the application says absent: the 404 of an ingress, an empty list of a rollout. A witness that
///   only the application writes is against this;
/// - an owner is frozen after its last check and before the write to the socket, or in the middle of a long request, and
///   goes on after the release. It is beyond the reach of any rule of time, and of the lease;
/// - the network delivers the request later, or the operating system of an owner that was killed does, which goes on with
///   what it has for a minute or two;
/// - the store's clock jumps forward while an owner that is cut off from the store works on;
/// - a failover of the store loses the release of the key and the claim after it: the record of before is asked about
///   once more, while the next attempt runs;
/// - those who ask have other configurations: each goes by the question, the signs and the `after` of its own.
///
/// What the rule itself does against a wrong absence:
///
/// - The attempt can have ended at the latest of these, and an absence counts only `after` that:
///   - its owner says so: it has recorded the outcome as unknown;
///   - the end of the lease, where the owner was lost. Before it the owner may be at work;
///   - the last sign of the owner, half a lease and `attempt_timeout`. An owner may send until half a lease after it was
///     confirmed. This is never earlier than the claim and `attempt_timeout`, and it is known by the store's clock alone:
///     when the claim was made is known only by the wall clock of another machine.
/// - It must be seen twice by one looker, `after` apart on the looker's own clock, with no other answer in between. So a
///   store whose clock has jumped forward does not free a key within `after`.
/// - A looker that is kept from asking, since another one asks, has got no answer: what it saw stays. Each looker goes by
///   its own answers, whether one or several ask at a time.
/// - For a record in flight the two are also a lease apart. A store that has failed over may have lost the last
///   renewals, and an owner that lives renews within its lease.
/// - Between the two the record must be the same, and not renewed. The exchange checks this once more, at the store.
/// - An answer that takes longer than an owner had been silent before the question counts for nothing: the owner may have
///   renewed, sent and been lost again in that time, and the exchange would not notice. Whoever asks must make the
///   exchange within the same time.
/// - A record that a repeat may take over is never released. A takeover needs no release, and its attempt number grows.
/// - What an owner that lives has not sent when its attempt ends, before an answer has begun, is never sent: `proxy/upstream/socket.rs` cuts the
///   connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsenceRule {
    /// The configured time.
    pub after: Duration,
    /// The longest time that the attempt could take, by the configuration of its owner.
    pub attempt_timeout: Duration,
}

impl AbsenceRule {
    /// How long it takes until an absence counts. `None`: it never does while the record is as it was seen. Then an owner
    /// is at work, a repeat may take over, or the outcome is known.
    pub fn counts_in(&self, seen: &RecordSnapshot) -> Option<Duration> {
        let needed = match (seen.summary.phase, seen.owner()) {
            (Phase::Unknown, _) => self.after,
            (Phase::InFlight, OwnerState::Lost) => self.after_lost(seen.summary.claim.terms.lease),
            (Phase::InFlight, OwnerState::Alive | OwnerState::Abandoned)
            | (Phase::Completed | Phase::Unreplayable, _) => return None,
        };
        Some(needed.saturating_sub(seen.unchanged_for()))
    }

    /// How far two absences must be apart.
    pub fn apart(&self, seen: &RecordSnapshot) -> Duration {
        match seen.summary.phase {
            Phase::InFlight => self.apart_of_lost(seen.summary.claim.terms.lease),
            Phase::Unknown | Phase::Completed | Phase::Unreplayable => self.after,
        }
    }

    /// How long after the last sign of a lost owner with this lease its key can be free, at the earliest.
    pub fn frees_lost(&self, lease: Duration) -> Duration {
        self.after_lost(lease).saturating_add(self.apart_of_lost(lease))
    }

    /// How long a lost owner must have been silent until an absence counts.
    fn after_lost(&self, lease: Duration) -> Duration {
        lease.max(self.attempt_timeout.saturating_add(lease / 2)).saturating_add(self.after)
    }

    fn apart_of_lost(&self, lease: Duration) -> Duration {
        self.after.max(lease)
    }
}

/// One question, and the record that it was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeLook {
    /// The record, read before the question was asked.
    pub seen: RecordSnapshot,
    /// When reading it began, on the looker's clock. That clock must not jump; it may stand still while the machine
    /// sleeps.
    pub read_at: Duration,
    /// When the answer was there, on the same clock.
    pub answered_at: Duration,
}

/// What one looker has seen so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ProbeProgress {
    /// No absence that counts.
    #[default]
    NothingYet,
    /// One absence that counts.
    AbsentOnce(FirstAbsence),
}

/// The first absence that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstAbsence {
    phase: Phase,
    token: Token,
    attempt: u32,
    unchanged_for: Duration,
    read_at: Duration,
    answered_at: Duration,
}

/// What to do after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeStep {
    /// Record that it took effect: [`complete_by_probe`].
    Complete,
    /// Free the key.
    Release(Box<CompareAndSwap>),
    /// Ask again, not before this time on the looker's clock.
    AskAgain {
        /// The earliest time.
        at: Duration,
        /// What has been seen until then.
        progress: ProbeProgress,
    },
    /// The answer says nothing, or nothing about this record. All that was seen before is forgotten, too.
    Leave,
}

impl ProbeProgress {
    /// The next step after an answer.
    pub fn next(self, verdict: ProbeVerdict, look: ProbeLook, rule: &AbsenceRule) -> ProbeStep {
        match verdict {
            ProbeVerdict::Found => ProbeStep::Complete,
            ProbeVerdict::Inconclusive => ProbeStep::Leave,
            ProbeVerdict::Absent => self.absent(look, rule),
        }
    }

    fn absent(self, look: ProbeLook, rule: &AbsenceRule) -> ProbeStep {
        let took = look.answered_at.saturating_sub(look.read_at);
        if look.seen.summary.phase == Phase::InFlight && took >= look.seen.unchanged_for() {
            return ProbeStep::Leave;
        }
        match rule.counts_in(&look.seen) {
            None => return ProbeStep::Leave,
            Some(Duration::ZERO) => {}
            Some(wait) => {
                return ProbeStep::AskAgain { at: look.answered_at.saturating_add(wait), progress: Self::NothingYet };
            }
        }
        let apart = rule.apart(&look.seen);
        let first = match self {
            Self::AbsentOnce(first) if first.is_of(&look) => first,
            Self::AbsentOnce(_) | Self::NothingYet => FirstAbsence::new(&look),
        };
        let again_at = first.answered_at.saturating_add(apart);
        if look.read_at < again_at {
            return ProbeStep::AskAgain { at: again_at, progress: Self::AbsentOnce(first) };
        }
        ProbeStep::Release(Box::new(CompareAndSwap { seen: look.seen, to: None }))
    }
}

impl FirstAbsence {
    fn new(look: &ProbeLook) -> Self {
        let ProbeLook { seen, read_at, answered_at } = look;
        let claim = &seen.summary.claim;
        Self {
            phase: seen.summary.phase,
            token: claim.token,
            attempt: claim.attempt,
            unchanged_for: seen.unchanged_for(),
            read_at: *read_at,
            answered_at: *answered_at,
        }
    }

    /// Whether the record is still the same, and was not written or renewed in between.
    fn is_of(&self, look: &ProbeLook) -> bool {
        let claim = &look.seen.summary.claim;
        let same = (self.phase, self.token, self.attempt) == (look.seen.summary.phase, claim.token, claim.attempt);
        let passed = look.read_at.saturating_sub(self.read_at);
        let expected = self.unchanged_for.saturating_add(passed);
        // It counted, so it was unchanged for a lease or for `after`. A renewal takes all of that away, and the clocks of
        // two machines do not drift apart by half of it.
        same && look.seen.unchanged_for() >= expected.saturating_sub(self.unchanged_for / 2)
    }
}

/// What is recorded of an effect that a probe has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundEffect {
    /// Repeats get `already-completed`, with this of the answer to the probe.
    Unreplayable {
        /// Its status.
        status: StatusCode,
        /// Its `Location`.
        location: Option<HeaderValue>,
    },
    /// Repeats get the answer to the probe.
    Completed(Arc<Reply>),
}

impl From<FoundEffect> for Settlement {
    fn from(found: FoundEffect) -> Self {
        match found {
            FoundEffect::Unreplayable { status, location } => Self::Unreplayable { status, location },
            FoundEffect::Completed(reply) => Self::Completed(reply),
        }
    }
}

/// The effect was found of a request whose outcome is not known, and whose owner is not at work: the record becomes final.
/// The claim stays: repeats are compared with its fingerprint, and a late answer of the attempt finds the record settled.
pub fn complete_by_probe(seen: RecordSnapshot, found: FoundEffect, settled_at: u64) -> CompareAndSwap {
    let to = SettledRecord::new(seen.summary.claim.clone(), &found.into(), settled_at).by_probe();
    CompareAndSwap { seen, to: Some(to) }
}

#[cfg(test)]
mod tests;
