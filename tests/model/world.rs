//! What there is at one moment.

use std::fmt;
use std::sync::LazyLock;

use onlyonce::guard::lease::{Readiness, readiness};
use onlyonce::guard::policy::{self, Outcome};
use onlyonce::guard::{AttemptResult, BodyRemainder, LostReason, ReceivedResponse, SendOutcome, Verdict};
use onlyonce::rule::{Policy, PolicyTable};

use crate::protocol::Protocol;
use crate::store::{Age, Call, Ending, Id, Stored, TICK, created, creator, failed, terms};

static POLICY: LazyLock<PolicyTable> = LazyLock::new(|| PolicyTable::new(Policy::Standard, &[]));

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub record: Option<Stored>,
    pub requests: Vec<Request>,
    /// Calls on their way to the store, sorted.
    pub network: Vec<Message>,
    /// What was sent to the backend, in this order, without failures from before the key was last freed.
    pub upstream: Vec<Sent>,
    pub past: Past,
    pub faults: u8,
    pub duplicates: u8,
    pub crashes: u8,
}

/// A request, and the attempt that it may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    pub stage: Stage,
    /// Of its claim.
    pub attempt: u8,
    /// Until it is sent: since the last claim or renewal that succeeded was begun.
    pub age: Age,
    /// A claim or a renewal was never answered, and may yet arrive.
    pub unanswered: bool,
    /// What its client got. Only successes are remembered for longer than a moment.
    pub seen: Option<Seen>,
}

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It has not arrived.
    Ahead,
    /// Its claim is on its way; it may be tried so many times more.
    Claiming { tries: u8 },
    /// It owns the operation; nothing is sent.
    Owner,
    /// It was told that it may send, and has not yet sent.
    Cleared,
    /// It is with the backend.
    Sent,
    /// It ended like this, and the outcome is being recorded.
    Recording(End),
    /// Its claim was given up, and is being cleaned up.
    Orphan,
    /// Nobody works for it any more.
    Over,
}

/// How an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Nothing was sent.
    NotSent,
    /// It ran, and its answer is here.
    Created,
    /// It ran, and its answer broke off.
    Torn,
    /// The backend says that it failed.
    Failed,
    /// Nobody knows.
    Silent,
}

/// What a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    /// A success, its own.
    Own(Id),
    /// A success, from the record.
    Replay(Id),
    AlreadyCompleted,
    InFlight,
    OutcomeUnknown,
    /// The backend's failure, or one of the sidecar's own: nothing that a client may rely on.
    Trouble,
}

/// One call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    pub from: Id,
    pub call: Call,
    /// The caller no longer waits for the answer.
    pub ghost: bool,
}

/// One sending to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sent {
    pub by: Id,
    /// Its number, until the key is freed.
    pub attempt: Option<u8>,
    /// It certainly had no effect, by the word of the backend. Otherwise it has succeeded, or may have, or may yet.
    pub failed: bool,
}

/// What properties need to know of what was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Past {
    /// The first final state of the record.
    pub ended: Option<Ending>,
    /// A record passed from an owner to another that was not a lease behind.
    pub robbed: bool,
    /// Something was sent when the record had been final.
    pub sent_after_end: bool,
    /// The key was freed.
    pub freed: bool,
    /// A claim that had been given up has just been deleted.
    pub cleaned: bool,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = if self.ghost { ", late" } else { "" };
        write!(f, "{:?} of {}{late}", self.call, self.from)
    }
}

impl World {
    /// Whether something happened that no sidecar can make good: one died, or the network repeated a call.
    pub fn was_disturbed(&self, protocol: &Protocol) -> bool {
        self.crashes < protocol.crashes || self.duplicates < protocol.duplicates
    }
}

impl Request {
    pub fn may_send(&self, protocol: &Protocol) -> bool {
        readiness(TICK * u32::from(self.age), terms(protocol.retry).lease) == Readiness::Send
    }

    /// Whether its lease is renewed now: until it has ended, and until what can be told of it is recorded.
    pub fn is_renewed(&self, id: Id, protocol: &Protocol) -> bool {
        match self.stage {
            Stage::Owner | Stage::Sent => true,
            // Once its client is told, recording is tried again.
            Stage::Recording(end) => self.seen.is_some() && matches!(end.outcome(id, protocol), Outcome::Settle(_)),
            Stage::Ahead | Stage::Claiming { .. } | Stage::Cleared | Stage::Orphan | Stage::Over => false,
        }
    }

    /// Its client gets this, unless it has something already.
    pub fn is_told(&mut self, ended: &AttemptResult<()>) {
        self.seen = self.seen.or(Some(Seen::ended(ended)));
    }

    pub fn is_at_work(&self) -> bool {
        !matches!(self.stage, Stage::Ahead | Stage::Over)
    }
}

impl End {
    /// What it makes of the record.
    pub fn outcome(self, by: Id, protocol: &Protocol) -> Outcome {
        policy::outcome(&self.fate(by), &POLICY, terms(protocol.retry).on_unknown)
    }

    pub fn fate(self, by: Id) -> SendOutcome<()> {
        let whole = |reply| ReceivedResponse { reply, origin_directive: None, rest: BodyRemainder::Nothing };
        match self {
            Self::NotSent => SendOutcome::NotSent,
            Self::Created => SendOutcome::Answered(whole(created(by))),
            Self::Torn => SendOutcome::Answered(ReceivedResponse {
                rest: BodyRemainder::Broken(LostReason::Broken),
                ..whole(created(by))
            }),
            Self::Failed => SendOutcome::Answered(whole(failed())),
            Self::Silent => SendOutcome::Unknown(LostReason::Timeout),
        }
    }
}

impl Seen {
    pub fn ended(ended: &AttemptResult<()>) -> Self {
        match ended {
            AttemptResult::Answered(reply) if reply.status.is_success() => Self::Own(creator(reply.status)),
            AttemptResult::Recorded(reply) => Self::Replay(creator(reply.status)),
            AttemptResult::Answered(_) | AttemptResult::Streamed(..) | AttemptResult::Silent(_) => Self::Trouble,
            AttemptResult::NotSent | AttemptResult::InDoubt | AttemptResult::Replaced => Self::Trouble,
        }
    }

    pub fn verdict(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Replay(reply) => Self::Replay(creator(reply.status)),
            Verdict::InFlight => Self::InFlight,
            Verdict::OutcomeUnknown => Self::OutcomeUnknown,
            Verdict::AlreadyCompleted { .. } => Self::AlreadyCompleted,
            Verdict::KeyReused(_) => unreachable!("all requests are the same"),
        }
    }
}
