//! The life of one attempt: send, renew, settle, keep trying.
//!
//! Its client may leave, or be told that it took too long; the attempt goes on, and what it brings back is recorded.
//! Who polls it meanwhile is told in [`running`](super::running).

use std::error::Error;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Guard;
use super::in_flight::InFlightEntry;
use super::lease::{Lease, RecordOutcome, SendFence};
use super::lease_state::SendRefusal;
use super::limit::Permit;
use super::policy::{self, Outcome, Settlement};
use super::send_outcome::{BodyRemainder, LostReason, ReceivedResponse, SendOutcome};
use super::waiting;
use crate::clock;
use crate::config::Rule;
use crate::fail_point::{self, Step};
use crate::metrics::{GaugeGuard, RecordState};
use crate::record::{Claim, Record, Reply, State, transitions};
use crate::store::{Released, Settled, Store, StoreError};
use crate::tick::Flag;

/// What the client of an attempt gets.
#[derive(Debug)]
pub enum AttemptResult<R> {
    /// The attempt's own answer.
    Answered(Arc<Reply>),
    /// The attempt's own answer, the beginning of it here and the rest to come.
    Streamed(Arc<Reply>, R),
    /// The answer that was recorded already, by whoever came first.
    Recorded(Arc<Reply>),
    /// It certainly did not run.
    NotSent,
    /// It did not run either: the owner could not make sure that the operation was still its own.
    InDoubt,
    /// It did not run either: the operation was another's by then.
    Replaced,
    /// No answer, or half of one.
    Silent(LostReason),
}

/// One attempt, and all that it holds on to.
pub(super) struct Attempt {
    pub(super) rule: Arc<Rule>,
    pub(super) recorder: Recorder,
    pub(super) entry: InFlightEntry,
    /// StoredRecord until the outcome is recorded, so that work that cannot be recorded is bounded too.
    pub(super) slot: InFlightPermit,
}

/// One of the attempts that may be at work at once.
pub(super) struct InFlightPermit {
    pub(super) _permit: Permit,
    pub(super) _counted: GaugeGuard,
    /// A stop waits for it.
    pub(super) _open: TaskTrackerToken,
}

/// An attempt that has ended.
pub(super) struct Finished<R> {
    /// What its client gets.
    pub(super) ended: AttemptResult<R>,
    /// What is to be done after that.
    pub(super) recorded: Recorded,
}

/// What became of the record of an attempt that has ended.
pub(super) struct Recorded {
    recorder: Recorder,
    outcome: Outcome,
    settled_at: u64,
    /// Where its outcome is not written, or left to a takeover.
    left: Option<Unfinished>,
}

/// An attempt that this process is to know of for longer.
struct Unfinished {
    entry: InFlightEntry,
    written: Result<(), StoreError>,
    _slot: InFlightPermit,
}

impl Attempt {
    /// Sends, and records what comes of it. It is the guard's own: whoever polls it lets it come to its end.
    pub(super) async fn run<R, F, Fut>(self, send: F) -> Finished<R>
    where
        F: FnOnce(SendFence) -> Fut,
        Fut: Future<Output = SendOutcome<R>>,
    {
        let begun = Instant::now();
        let (lease, guard) = (&self.recorder.lease, &self.recorder.guard);
        let fate = fate(send, lease, &guard.abandon).await;
        guard.metrics.upstream(&self.rule.name, begun.elapsed());
        if let SendOutcome::Answered(answer) = &fate {
            guard.metrics.answer(&self.rule.name, answer.reply.status);
        }

        let outcome = policy::outcome(&fate, &self.rule.policy, lease.claim.terms.on_unknown);
        let outcome = policy::within_room(outcome, guard.store.used_ratio());
        let settled_at = clock::unix_millis();
        fail_point::reach(Step::BeforeComplete).await;
        let written = self.recorder.write_and_renew(&outcome, settled_at).await;
        lease.note(became(&outcome, &written));
        fail_point::reach(Step::AfterComplete).await;
        let (another, written) = match written {
            Ok(WriteResult::Another(reply)) => (reply, Ok(())),
            Ok(WriteResult::Asked) => (None, Ok(())),
            Err(error) => (None, Err(error)),
        };
        let ended = match AttemptResult::new(fate, another) {
            AttemptResult::NotSent => match lease.send_refusal() {
                None => AttemptResult::NotSent,
                Some(SendRefusal::InDoubt) => AttemptResult::InDoubt,
                Some(SendRefusal::Replaced) => AttemptResult::Replaced,
            },
            ended => ended,
        };
        let Self { rule: _, recorder, entry, slot } = self;
        let left = if written.is_ok() && outcome != Outcome::Leave {
            entry.complete(|| ended.whole());
            None
        } else {
            entry.complete_unwritten(&outcome, settled_at, || ended.whole());
            Some(Unfinished { entry, written, _slot: slot })
        };
        Finished { ended, recorded: Recorded { recorder, outcome, settled_at, left } }
    }
}

impl Recorded {
    /// Whether nothing is left to be done.
    pub(super) fn is_done(&self) -> bool {
        self.left.is_none()
    }

    /// Nobody waited for it.
    pub(super) fn is_late(&self) {
        const LATE: &str = "an attempt ended after its client had left, or was told that it takes too long";
        let Self { recorder, outcome, .. } = self;
        match outcome {
            Outcome::Settle(Settlement::Unknown) => {
                tracing::warn!(record = %recorder.lease.name, ?outcome, "{LATE}");
            }
            Outcome::Settle(_) | Outcome::Release | Outcome::Leave => {
                tracing::info!(record = %recorder.lease.name, ?outcome, "{LATE}");
            }
        }
    }

    /// Has the outcome written where it is not, however long that takes.
    pub(super) async fn finish(self) {
        let Self { recorder, outcome, settled_at, left } = self;
        let Some(Unfinished { entry, written, _slot: slot }) = left else { return };
        if let Err(error) = written {
            tracing::error!(record = %recorder.lease.name, error = &error as &dyn Error,
                "an outcome could not be recorded; its client has the answer, and recording is tried again");
            // The owner is alive for as long as it knows what nobody else can know. Who frees its key knows nothing, and
            // a renewal after the release would claim the key again.
            let renewing = async {
                match outcome {
                    Outcome::Settle(_) => {
                        recorder.lease.begin_settle();
                        recorder.lease.keep().await
                    }
                    Outcome::Release | Outcome::Leave => pending().await,
                }
            };
            tokio::select! {
                () = recorder.keep_trying(&outcome, settled_at) => {}
                never = renewing => match never {},
            }
        }
        match outcome {
            Outcome::Leave => entry.leave(),
            Outcome::Release | Outcome::Settle(_) => drop(entry),
        }
        drop(slot);
    }
}

async fn fate<R, F, Fut>(send: F, lease: &Arc<Lease>, abandon: &Flag) -> SendOutcome<R>
where
    F: FnOnce(SendFence) -> Fut,
    Fut: Future<Output = SendOutcome<R>>,
{
    let mut sending = pin!(send(SendFence(Arc::clone(lease))));
    let mut keeping = pin!(lease.keep());
    let fate = poll_fn(|cx| {
        if let Poll::Ready(fate) = sending.as_mut().poll(cx) {
            return Poll::Ready(fate);
        }
        match keeping.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            // Looked at last: who waits for the next renewal is woken when it is raised.
            Poll::Pending if abandon.is_raised() => Poll::Ready(SendOutcome::Unknown(LostReason::Broken)),
            Poll::Pending => Poll::Pending,
        }
    });
    match fate.await {
        // Nothing leaves before the gate.
        SendOutcome::Unknown(_) if !lease.may_have_sent() => SendOutcome::NotSent,
        fate => fate,
    }
}

/// What was written of an outcome.
enum WriteResult {
    /// What was asked for.
    Asked,
    /// Another record is there, and stays. Its answer, where every client of the key is to get it.
    Another(Option<Arc<Reply>>),
}

fn became(outcome: &Outcome, written: &Result<WriteResult, StoreError>) -> RecordOutcome {
    match (outcome, written) {
        (Outcome::Leave, _) => RecordOutcome::InFlight,
        (_, Err(_)) => RecordOutcome::Unrecorded,
        (_, Ok(WriteResult::Another(_))) => RecordOutcome::Replaced,
        (Outcome::Release, Ok(WriteResult::Asked)) => RecordOutcome::Released,
        (Outcome::Settle(Settlement::Completed(_)), Ok(WriteResult::Asked)) => RecordOutcome::Stored,
        (Outcome::Settle(Settlement::Unreplayable { .. }), Ok(WriteResult::Asked)) => RecordOutcome::Unreplayable,
        (Outcome::Settle(Settlement::Unknown), Ok(WriteResult::Asked)) => RecordOutcome::Unknown,
    }
}

impl<R> AttemptResult<R> {
    /// What the client gets: the answer that was recorded before, where there is one, else the attempt's own.
    pub fn new(fate: SendOutcome<R>, recorded: Option<Arc<Reply>>) -> Self {
        match (recorded, fate) {
            (Some(reply), _) => Self::Recorded(reply),
            (None, SendOutcome::NotSent) => Self::NotSent,
            (None, SendOutcome::Unknown(silence)) => Self::Silent(silence),
            (None, SendOutcome::Answered(ReceivedResponse { reply, rest, .. })) => match rest {
                BodyRemainder::Nothing => Self::Answered(reply),
                BodyRemainder::Oversized(rest) => Self::Streamed(reply, rest),
                BodyRemainder::Broken(silence) => Self::Silent(silence),
            },
        }
    }

    /// The response, where it is at hand whole.
    fn whole(&self) -> Option<Arc<Reply>> {
        match self {
            Self::Answered(reply) | Self::Recorded(reply) => Some(Arc::clone(reply)),
            Self::Streamed(..) | Self::NotSent | Self::InDoubt | Self::Replaced | Self::Silent(_) => None,
        }
    }
}

/// The answer of the record that was kept when the owner of `claim` settled: where it is completed, every client of the
/// key gets it. Not where the key was used for something else by then: that answer is to another request.
pub fn recorded(claim: &Claim, kept: Record) -> Option<Arc<Reply>> {
    if !claim.fingerprint.compare(&kept.claim.fingerprint).may_be_same() {
        return None;
    }
    match kept.state {
        State::Completed { reply, .. } => Some(reply),
        State::InFlight | State::Unreplayable { .. } | State::Unknown { .. } => None,
    }
}

/// Writes outcomes under one lease.
pub(super) struct Recorder {
    pub(super) lease: Arc<Lease>,
    pub(super) guard: Arc<Guard>,
}

impl Recorder {
    async fn write(&self, outcome: &Outcome, settled_at: u64) -> Result<WriteResult, StoreError> {
        let lease = &self.lease;
        match outcome {
            Outcome::Leave => Ok(WriteResult::Asked),
            Outcome::Release => {
                lease.begin_release();
                let written = match self.guard.store.release(&lease.name, lease.claim.token).await? {
                    Released::Deleted => {
                        self.count(RecordState::Released);
                        WriteResult::Asked
                    }
                    Released::Absent => WriteResult::Asked,
                    Released::Kept if lease.is_in_the_way_of_itself().await => WriteResult::Asked,
                    Released::Kept => {
                        lease.count_lost();
                        WriteResult::Another(None)
                    }
                };
                if lease.may_write_late() {
                    self.guard.cleanup.add(&self.guard.store, &lease.name, lease.claim.token);
                }
                Ok(written)
            }
            Outcome::Settle(settlement) => {
                let record = Record { claim: lease.claim.clone(), state: settlement.at(settled_at) };
                match self.settle(&record).await? {
                    Settled::Written => {
                        self.count_settled(settlement);
                        if let Settlement::Unknown = settlement {
                            self.guard.unknowns.add(&lease.name, transitions::time_to_live(&record));
                        }
                        Ok(WriteResult::Asked)
                    }
                    // An earlier try of this very write, whose answer was lost.
                    Settled::Kept(kept) if *kept == record => {
                        self.count_settled(settlement);
                        Ok(WriteResult::Asked)
                    }
                    Settled::Kept(kept) => Ok(WriteResult::Another(self.instead(*kept))),
                }
            }
        }
    }

    /// Writes the outcome, and renews meanwhile: a large answer may take longer to write than the lease lasts. Who frees its
    /// key does not renew, for a renewal after the release would claim it again.
    async fn write_and_renew(&self, outcome: &Outcome, settled_at: u64) -> Result<WriteResult, StoreError> {
        let renews = matches!(outcome, Outcome::Settle(_));
        if renews {
            self.lease.begin_settle();
        }
        let mut writing = pin!(self.write(outcome, settled_at));
        let mut keeping = pin!(self.lease.keep());
        poll_fn(|cx| match writing.as_mut().poll(cx) {
            Poll::Ready(written) => Poll::Ready(written),
            Poll::Pending if renews => match keeping.as_mut().poll(cx) {
                Poll::Ready(never) => match never {},
                Poll::Pending => Poll::Pending,
            },
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Writes the record. Nothing is in its way that this process has given back: it is deleted here, if it is still there.
    async fn settle(&self, record: &Record) -> Result<Settled, StoreError> {
        let name = &self.lease.name;
        loop {
            match self.guard.store.settle(name, record).await? {
                Settled::Kept(kept) if self.lease.has_given_back(kept.claim.token) => {
                    self.guard.store.release(name, kept.claim.token).await?;
                }
                settled => return Ok(settled),
            }
        }
    }

    /// Another record is there.
    fn instead(&self, kept: Record) -> Option<Arc<Reply>> {
        if kept.claim.token != self.lease.claim.token {
            self.lease.count_lost();
        }
        recorded(&self.lease.claim, kept)
    }

    /// Tries until the store has taken it, the record would have expired, or the drain has run out.
    async fn keep_trying(&self, outcome: &Outcome, settled_at: u64) {
        let until = Instant::now() + self.lease.claim.terms.retention;
        let mut tries = 0;
        let mut last = false;
        while !last && Instant::now() < until {
            last = !self.guard.abandon.sleep(waiting::backoff(tries)).await;
            match self.write(outcome, settled_at).await {
                Ok(_) => {
                    tracing::info!(record = %self.lease.name, tries = tries + 1, "the outcome is recorded now");
                    return;
                }
                Err(StoreError::Unreadable { .. }) => break,
                Err(StoreError::Unavailable(_) | StoreError::Refused(_) | StoreError::Uncertain(_)) => tries += 1,
            }
        }
        tracing::error!(record = %self.lease.name, tries, "an outcome was never recorded; its key stays claimed");
    }

    fn count_settled(&self, settlement: &Settlement) {
        self.count(match settlement {
            Settlement::Completed(_) => RecordState::Completed,
            Settlement::Unreplayable { .. } => RecordState::Unreplayable,
            Settlement::Unknown => RecordState::Unknown,
        });
    }

    fn count(&self, state: RecordState) {
        self.guard.metrics.record(&self.lease.name.route, state);
    }
}
