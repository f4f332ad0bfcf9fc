//! The life of one attempt: send, renew, settle, keep trying.
//!
//! The client may leave, or get a timeout; the attempt goes on, and its outcome is recorded.
//! `guard/running.rs` says which task polls it.

use std::error::Error;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Guard;
use super::cleanup::Arrival;
use super::in_flight::InFlightEntry;
use super::lease::{Lease, RecordOutcome, SendFence};
use super::lease_state::SendRefusal;
use super::limit::Permit;
use super::policy::{self, Outcome};
use super::replay_permission::{OriginalAnswer, Sealed};
use super::send_outcome::{BodyRemainder, LostReason, ReceivedResponse, SendOutcome};
use super::waiting;
use crate::clock;
use crate::fail_point::{self, Step};
use crate::metrics::{GaugeGuard, RecordState};
use crate::record::{Claim, Record, Reply, SettledRecord, Settlement, State, transitions};
use crate::rule::Rule;
use crate::store::{Health, Released, Settled, Store, StoreError};
use crate::tick::Flag;
use crate::trace;

/// What the client of an attempt gets.
#[derive(Debug)]
pub enum AttemptResult<R> {
    /// The response of this attempt.
    Answered(Arc<Reply>),
    /// The response of this attempt: what was read of it, and the rest of the body.
    Streamed(Arc<Reply>, R),
    /// The response that another owner, an operator or a probe recorded first.
    Recorded(Sealed<Arc<Reply>>),
    /// Another recorded first that the operation took effect, without a response.
    AlreadyCompleted(Sealed<OriginalAnswer>),
    /// The request certainly did not run.
    NotSent,
    /// The request was not sent: the owner could not confirm its lease.
    InDoubt,
    /// The request was not sent: the record had another owner by then.
    Replaced,
    /// No response, or an incomplete one.
    Lost(LostReason),
}

/// One attempt, and all that it holds.
pub(super) struct Attempt {
    pub(super) rule: Arc<Rule>,
    pub(super) recorder: Recorder,
    pub(super) entry: InFlightEntry,
    /// Kept until the outcome is recorded. So outcomes that cannot be recorded are limited too.
    pub(super) permit: InFlightPermit,
}

/// One of `max_in_flight` places.
pub(super) struct InFlightPermit {
    pub(super) _permit: Permit,
    pub(super) _counted: GaugeGuard,
    /// The shutdown waits for it.
    pub(super) _open: TaskTrackerToken,
}

/// An attempt that has ended.
pub(super) struct Finished<R> {
    /// What its client gets.
    pub(super) ended: AttemptResult<R>,
    /// What remains to be done for the record.
    pub(super) recorded: Recorded,
}

/// The record of an attempt that has ended.
pub(super) struct Recorded {
    recorder: Recorder,
    outcome: Outcome,
    settled_at: u64,
    /// Set if the outcome is not written, or is left to a takeover.
    left: Option<Unfinished>,
}

/// An attempt that this process keeps in memory after its end.
struct Unfinished {
    entry: InFlightEntry,
    written: Result<(), StoreError>,
    _permit: InFlightPermit,
}

impl Attempt {
    /// Sends the request and records the outcome. Whoever polls this must poll it to its end.
    pub(super) async fn run<R, F, Fut>(self, parent: trace::Parent, send: F) -> Finished<R>
    where
        F: FnOnce(SendFence) -> Fut,
        Fut: Future<Output = SendOutcome<R>>,
    {
        let begun = Instant::now();
        let (lease, guard) = (&self.recorder.lease, &self.recorder.guard);
        let sent = send_and_renew(send, lease, &guard.abandon).await;
        let status = match &sent {
            SendOutcome::Answered(answer) => Some(answer.reply.status),
            SendOutcome::NotSent | SendOutcome::Unknown(_) => None,
        };
        guard.metrics.attempt(&self.rule.name, begun.elapsed(), status);

        let outcome = policy::outcome(&sent, &self.rule.policy, lease.claim.terms.on_unknown);
        // A store that cannot be written now may have room when it can.
        let used = guard.store.used_ratio().filter(|_| guard.store.health() == Health::Up);
        let outcome = policy::within_room(outcome, used);
        let settled_at = clock::unix_millis();
        let settling = parent.step("settle");
        fail_point::reach(Step::BeforeComplete).await;
        let written = self.recorder.write_and_renew(&outcome, settled_at).await;
        settling.end();
        lease.note(became(&outcome, &written));
        fail_point::reach(Step::AfterComplete).await;
        let (another, written) = match written {
            Ok(WriteResult::Another(kept)) => (kept, Ok(())),
            Ok(WriteResult::Asked) => (None, Ok(())),
            Err(error) => (None, Err(error)),
        };
        let ended = match AttemptResult::new(sent, another) {
            AttemptResult::NotSent => match lease.send_refusal() {
                None => AttemptResult::NotSent,
                Some(SendRefusal::InDoubt) => AttemptResult::InDoubt,
                Some(SendRefusal::Replaced) => AttemptResult::Replaced,
            },
            ended => ended,
        };
        let Self { rule: _, recorder, entry, permit } = self;
        let left = if written.is_ok() && outcome != Outcome::Leave {
            entry.complete(|| ended.whole());
            None
        } else {
            entry.complete_unwritten(&outcome, settled_at, || ended.whole());
            Some(Unfinished { entry, written, _permit: permit })
        };
        Finished { ended, recorded: Recorded { recorder, outcome, settled_at, left } }
    }
}

impl Recorded {
    /// Whether nothing remains to be done.
    pub(super) fn is_done(&self) -> bool {
        self.left.is_none()
    }

    /// Logs that nobody waited for the end.
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

    /// Writes the outcome if it is not written yet. Tries until it succeeds or the record would have expired.
    pub(super) async fn finish(self) {
        let Self { recorder, outcome, settled_at, left } = self;
        let Some(Unfinished { entry, written, _permit: permit }) = left else { return };
        if let Err(error) = written {
            tracing::error!(record = %recorder.lease.name, error = &error as &dyn Error,
                "an outcome could not be recorded; its client has the answer, and recording is tried again");
            // The lease is renewed while this process is the only one that knows the outcome. An owner that frees its
            // key does not renew: a renewal after the release would claim the key again.
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
        drop(permit);
    }
}

/// Sends the request, and renews the lease meanwhile.
async fn send_and_renew<R, F, Fut>(send: F, lease: &Arc<Lease>, abandon: &Flag) -> SendOutcome<R>
where
    F: FnOnce(SendFence) -> Fut,
    Fut: Future<Output = SendOutcome<R>>,
{
    let mut sending = pin!(send(SendFence(Arc::clone(lease))));
    let mut keeping = pin!(lease.keep());
    let sent = poll_fn(|cx| {
        if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
            return Poll::Ready(sent);
        }
        match keeping.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            // Checked after the lease: the flag wakes the sleep until the next renewal.
            Poll::Pending if abandon.is_raised() => Poll::Ready(SendOutcome::Unknown(LostReason::Broken)),
            Poll::Pending => Poll::Pending,
        }
    });
    match sent.await {
        // Nothing is sent before the fence grants it.
        SendOutcome::Unknown(_) if !lease.may_have_sent() => SendOutcome::NotSent,
        sent => sent,
    }
}

/// The result of writing an outcome.
enum WriteResult {
    /// It is written as asked.
    Asked,
    /// Another record is there, and stays. What every client of the key is told by it, if it is final.
    Another(Option<RecordedResult>),
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

/// The result of an operation that another has recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordedResult {
    /// Its response.
    Reply(Arc<Reply>),
    /// It took effect, and its response is not stored. Rare, so it is boxed.
    Unreplayable(Box<OriginalAnswer>),
}

impl<R> AttemptResult<R> {
    /// What is recorded is final, and every client of the key gets it, also that of an attempt whose own response came
    /// too late. Else it gets the response of the attempt.
    pub fn new(sent: SendOutcome<R>, recorded: Option<RecordedResult>) -> Self {
        match (recorded, sent) {
            (Some(RecordedResult::Reply(reply)), _) => Self::Recorded(Sealed(reply)),
            (Some(RecordedResult::Unreplayable(original)), _) => Self::AlreadyCompleted(Sealed(*original)),
            (None, SendOutcome::NotSent) => Self::NotSent,
            (None, SendOutcome::Unknown(reason)) => Self::Lost(reason),
            (None, SendOutcome::Answered(ReceivedResponse { reply, rest, .. })) => match rest {
                BodyRemainder::Nothing => Self::Answered(reply),
                BodyRemainder::Oversized(rest) => Self::Streamed(reply, rest),
                BodyRemainder::Broken(reason) => Self::Lost(reason),
            },
        }
    }

    /// The response, if all of it is in memory.
    fn whole(&self) -> Option<Arc<Reply>> {
        match self {
            Self::Answered(reply) | Self::Recorded(Sealed(reply)) => Some(Arc::clone(reply)),
            Self::AlreadyCompleted(_)
            | Self::Streamed(..)
            | Self::NotSent
            | Self::InDoubt
            | Self::Replaced
            | Self::Lost(_) => None,
        }
    }
}

/// What the record says that was kept when the owner of `claim` settled, if that is final. Every client of the key gets
/// it, unless the key was used for another request in the meantime.
pub fn recorded(claim: &Claim, kept: Record) -> Option<RecordedResult> {
    if !claim.fingerprint.compare(&kept.claim.fingerprint).may_be_same() {
        return None;
    }
    match kept.state {
        State::Completed { reply, .. } => Some(RecordedResult::Reply(reply)),
        State::Unreplayable { status, location, .. } => {
            Some(RecordedResult::Unreplayable(Box::new(OriginalAnswer { status, location })))
        }
        State::InFlight | State::Unknown { .. } => None,
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
                let released = self.guard.store.release(&lease.name, lease.claim.token).await;
                if let Err(StoreError::Uncertain(_)) = released {
                    lease.may_be_released();
                }
                let written = match released? {
                    Released::Deleted => {
                        self.count(RecordState::Released);
                        WriteResult::Asked
                    }
                    Released::Absent => WriteResult::Asked,
                    // An earlier try of this release succeeded, and a repeat has claimed the key since.
                    Released::Kept if lease.may_have_released() => WriteResult::Asked,
                    Released::Kept if lease.is_in_the_way_of_itself().await => WriteResult::Asked,
                    Released::Kept => WriteResult::Another(self.instead_of_release().await),
                };
                if lease.may_write_late() {
                    self.guard.cleanup.add(&self.guard.store, &lease.name, lease.claim.token, Arrival::Possible);
                }
                Ok(written)
            }
            Outcome::Settle(settlement) => {
                let record = SettledRecord::new(lease.claim.clone(), settlement, settled_at);
                match self.settle(&record).await? {
                    Settled::Written => {
                        self.count_settled(settlement);
                        if let Settlement::Unknown = settlement {
                            self.guard.unknowns.add(&lease.name, transitions::time_to_live(&record));
                            // Also where an earlier try has written it: an unknown outcome may be written over.
                            if let Some(plan) = lease.probe() {
                                self.guard.begin_probe(&lease.name, &lease.claim, plan);
                            }
                        }
                        Ok(WriteResult::Asked)
                    }
                    // An earlier try of this write succeeded, and its reply was lost.
                    Settled::Kept(kept) if *kept == record => {
                        self.count_settled(settlement);
                        Ok(WriteResult::Asked)
                    }
                    Settled::Kept(kept) => Ok(WriteResult::Another(self.instead(*kept))),
                }
            }
        }
    }

    /// Writes the outcome, and renews the lease meanwhile: writing a large response may take longer than the lease. An
    /// owner that frees its key does not renew, see [`Recorded::finish`].
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

    /// Settles the record. A later claim of this process, which was given back, is deleted if it is in the way.
    async fn settle(&self, record: &SettledRecord) -> Result<Settled, StoreError> {
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

    /// The release found another record. Where an operator or a probe has settled this very claim, its client gets that.
    async fn instead_of_release(&self) -> Option<RecordedResult> {
        let lease = &self.lease;
        match self.guard.store.find(&lease.name).await {
            Ok(Some(held)) if held.record.claim.token == lease.claim.token => recorded(&lease.claim, held.record),
            Ok(_) | Err(_) => {
                lease.count_lost();
                None
            }
        }
    }

    /// The settling found another record.
    fn instead(&self, kept: Record) -> Option<RecordedResult> {
        let is_another_attempt = kept.claim.token != self.lease.claim.token;
        if is_another_attempt {
            self.lease.count_lost();
        }
        match recorded(&self.lease.claim, kept) {
            // That another attempt has no stored response says nothing of this one's.
            Some(RecordedResult::Unreplayable(_)) if is_another_attempt => None,
            recorded => recorded,
        }
    }

    /// Tries until the store takes the outcome, the record would have expired, or the drain ends.
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
                Err(
                    StoreError::Unavailable(_)
                    | StoreError::Refused(_)
                    | StoreError::Uncertain(_)
                    | StoreError::Unacknowledged(_),
                ) => tries += 1,
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
