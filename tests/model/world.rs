//! The state of the model.

use std::fmt;
use std::sync::{Arc, LazyLock};

use http::StatusCode;
use onlyonce::guard::lease::{Readiness, readiness};
use onlyonce::guard::policy::{self, Outcome};
use onlyonce::guard::{
    AttemptResult, AuthAnswer, BodyRemainder, LostReason, ReceivedResponse, Sealed, SendOutcome, Verdict,
};
use onlyonce::record::Reply;
use onlyonce::rule::{Policy, PolicyTable};

use crate::prober::{Prober, SentAges};
use crate::protocol::Protocol;
use crate::store::{Age, Call, Ending, Id, Stored, TICK, created, creator, failed, terms};

static POLICY: LazyLock<PolicyTable> = LazyLock::new(|| PolicyTable::new(Policy::Standard, &[]));

/// One state of the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub record: Option<Stored>,
    pub requests: Vec<Request>,
    /// Pending calls to the store, sorted.
    pub network: Vec<Message>,
    /// The requests that were sent to the backend, in order, without failures before the last release of the key.
    pub upstream: Vec<Sent>,
    pub past: Past,
    pub faults: u8,
    pub duplicates: u8,
    pub crashes: u8,
    pub probers: Vec<Prober>,
}

/// A request, and its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    pub stage: Stage,
    /// The attempt number of its claim.
    pub attempt: u8,
    /// The age of the lease, until the request is sent: since the begin of the last successful claim or renewal.
    pub age: Age,
    /// A claim or a renewal was never answered, and may still arrive.
    pub unanswered: bool,
    /// The response of its client. Only successes are kept.
    pub seen: Option<Seen>,
}

/// The stage of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It has not arrived.
    Ahead,
    /// Its claim is pending; it may be retried this often.
    Claiming { tries: u8 },
    /// It owns the operation; nothing is sent.
    Owner,
    /// It may send, and has not sent yet.
    Cleared,
    /// The backend has it.
    Sent,
    /// It has ended, and the outcome is being recorded.
    Recording(End),
    /// Its claim was given up, and is being cleaned up.
    Orphan,
    /// It has ended, or its sidecar died.
    Over,
}

/// How an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Nothing was sent.
    NotSent,
    /// It ran, and its response arrived.
    Created,
    /// It ran, and its response was aborted.
    Torn,
    /// The backend reports a failure.
    Failed,
    /// It is unknown whether it ran.
    Silent,
}

/// What a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    /// A success of its own attempt.
    Own(Id),
    /// A success, from the record.
    Replay(Id),
    AlreadyCompleted,
    InFlight,
    OutcomeUnknown,
    /// A failure of the backend or of the sidecar: nothing that a client may rely on.
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

/// One request to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sent {
    pub by: Id,
    /// Its attempt number, until the key is freed.
    pub attempt: Option<u8>,
    /// It certainly had no effect: the backend said so. Otherwise it has succeeded, may have succeeded, or may still
    /// succeed.
    pub failed: bool,
    /// It has run. Only told where there are probers, like the ages.
    pub ran: bool,
    pub ages: SentAges,
}

/// The history that the properties need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Past {
    /// The first final state of the record.
    pub ended: Option<Ending>,
    /// A record was taken over from an owner that was not silent for a lease.
    pub robbed: bool,
    /// A request was sent after the record was final.
    pub sent_after_end: bool,
    /// The key was freed.
    pub freed: bool,
    /// An abandoned claim was just deleted.
    pub cleaned: bool,
    /// By what a probe had found.
    pub completed_by_probe: bool,
    /// By what a probe had not found.
    pub freed_by_probe: bool,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = if self.ghost { ", late" } else { "" };
        write!(f, "{:?} of {}{late}", self.call, self.from)
    }
}

impl World {
    /// Whether something happened that no sidecar can repair: one died, or the network repeated a call.
    pub fn was_disturbed(&self, protocol: &Protocol) -> bool {
        self.crashes < protocol.crashes || self.duplicates < protocol.duplicates
    }
}

impl Request {
    pub fn may_send(&self, protocol: &Protocol) -> bool {
        readiness(TICK * u32::from(self.age), terms(protocol.retry).lease) == Readiness::Send
    }

    /// Whether its lease is renewed: until it has ended and a known outcome is recorded.
    pub fn is_renewed(&self, id: Id, protocol: &Protocol) -> bool {
        match self.stage {
            Stage::Owner | Stage::Sent => true,
            // After its client has the response, recording is tried again.
            Stage::Recording(end) => self.seen.is_some() && matches!(end.outcome(id, protocol), Outcome::Settle(_)),
            Stage::Ahead | Stage::Claiming { .. } | Stage::Cleared | Stage::Orphan | Stage::Over => false,
        }
    }

    /// Its client gets this, unless it has a response already.
    pub fn is_told(&mut self, ended: &AttemptResult<()>) {
        self.seen = self.seen.or(Some(Seen::ended(ended)));
    }

    pub fn is_at_work(&self) -> bool {
        !matches!(self.stage, Stage::Ahead | Stage::Over)
    }
}

impl End {
    /// The outcome for the record.
    pub fn outcome(self, by: Id, protocol: &Protocol) -> Outcome {
        policy::outcome(&self.send_outcome(by), &POLICY, terms(protocol.retry).on_unknown)
    }

    pub fn send_outcome(self, by: Id) -> SendOutcome<()> {
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
            AttemptResult::Recorded(reply) => Self::Replay(creator(shown(reply).status)),
            AttemptResult::AlreadyCompleted(_) => Self::AlreadyCompleted,
            AttemptResult::Answered(_) | AttemptResult::Streamed(..) | AttemptResult::Lost(_) => Self::Trouble,
            AttemptResult::NotSent | AttemptResult::InDoubt | AttemptResult::Replaced => Self::Trouble,
        }
    }

    pub fn verdict(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Replay(reply, _) => Self::Replay(creator(shown(reply).status)),
            Verdict::InFlight => Self::InFlight,
            Verdict::OutcomeUnknown => Self::OutcomeUnknown,
            Verdict::AlreadyCompleted(_) => Self::AlreadyCompleted,
            Verdict::KeyReused(_) => unreachable!("all requests are the same"),
        }
    }
}

/// The response, as the clients of the model may see it.
fn shown(reply: &Sealed<Arc<Reply>>) -> Arc<Reply> {
    match AuthAnswer::of(StatusCode::OK) {
        AuthAnswer::Allowed(permission) => reply.clone().open(permission),
        AuthAnswer::Denied | AuthAnswer::Neither => unreachable!("2xx is a permission"),
    }
}
