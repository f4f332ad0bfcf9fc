//! The life of one attempt: send, renew, settle, keep trying.
//!
//! An attempt is a task of its own. Its client may leave, or be told that it took too long; the attempt goes
//! on, and what it brings back is recorded.

use std::error::Error;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cleanup::Cleanup;
use super::fate::{Answer, Fate, Rest, Silence};
use super::flights::Flight;
use super::lease::{Became, Gate, Lease};
use super::policy::{self, Outcome, Settlement};
use super::waiting;
use crate::clock;
use crate::config::Rule;
use crate::fail_point::{self, Step};
use crate::metrics::{Counted, Metrics, RecordState};
use crate::record::{Claim, Record, Reply, State};
use crate::store::{Released, Settled, Store, StoreError};

/// What the client of an attempt gets.
#[derive(Debug)]
pub enum Ended<R> {
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
    Silent(Silence),
}

/// One attempt, and all that it holds on to.
pub(super) struct Attempt {
    pub(super) rule: Arc<Rule>,
    pub(super) recorder: Recorder,
    pub(super) flight: Flight,
    /// Cancelled when the drain runs out: what is left is settled at once.
    pub(super) abandon: CancellationToken,
    /// Held until the outcome is recorded, so that work that cannot be recorded is bounded too.
    pub(super) slot: Slot,
}

/// One of the attempts that may be at work at once.
pub(super) struct Slot {
    pub(super) _permit: OwnedSemaphorePermit,
    pub(super) _counted: Counted,
}

impl Attempt {
    /// Sends, records, then answers the client.
    pub(super) async fn run<R, F, Fut>(self, send: F, client: oneshot::Sender<Ended<R>>)
    where
        F: FnOnce(Gate) -> Fut,
        Fut: Future<Output = Fate<R>>,
    {
        let Self { rule, recorder, flight, abandon, slot } = self;
        let begun = Instant::now();
        let fate = fate(send, &recorder.lease, &abandon).await;
        recorder.metrics.upstream(&rule.name, begun.elapsed());
        if let Fate::Answered(answer) = &fate {
            recorder.metrics.answer(&rule.name, answer.reply.status);
        }

        let outcome = policy::outcome(&fate, &rule.policy, recorder.lease.claim.terms.on_unknown);
        let outcome = policy::within_room(outcome, recorder.store.used_ratio());
        let settled_at = clock::unix_millis();
        fail_point::reach(Step::BeforeComplete).await;
        let recorded = recorder.write(&outcome, settled_at).await;
        recorder.lease.note(became(&outcome, &recorded));
        fail_point::reach(Step::AfterComplete).await;
        let another = match &recorded {
            Ok(Written::Another(reply)) => reply.clone(),
            Ok(Written::Asked) | Err(_) => None,
        };
        let ended = match Ended::new(fate, another) {
            Ended::NotSent => recorder.lease.why_not_sent(),
            ended => ended,
        };
        flight.land(ended.whole());
        if recorded.is_err() {
            flight.unwritten(&outcome, settled_at);
        }
        if client.send(ended).is_err() {
            const LATE: &str = "an attempt ended after its client had left, or was told that it takes too long";
            match outcome {
                Outcome::Settle(Settlement::Unknown) => {
                    tracing::warn!(record = %recorder.lease.name, ?outcome, "{LATE}");
                }
                Outcome::Settle(_) | Outcome::Release | Outcome::Leave => {
                    tracing::info!(record = %recorder.lease.name, ?outcome, "{LATE}");
                }
            }
        }
        if let Err(error) = recorded {
            tracing::error!(record = %recorder.lease.name, error = &error as &dyn Error,
                "an outcome could not be recorded; its client has the answer, and recording is tried again");
            // The owner is alive for as long as it knows what nobody else can know. Who frees its key knows nothing, and
            // a renewal after the release would claim the key again.
            let renewing = async {
                match outcome {
                    Outcome::Settle(_) => {
                        recorder.lease.settling();
                        recorder.lease.keep().await
                    }
                    Outcome::Release | Outcome::Leave => pending().await,
                }
            };
            tokio::select! {
                () = recorder.keep_trying(&outcome, settled_at, &abandon) => {}
                never = renewing => match never {},
            }
        }
        match outcome {
            Outcome::Leave => flight.leave(),
            Outcome::Release | Outcome::Settle(_) => drop(flight),
        }
        drop(slot);
    }
}

async fn fate<R, F, Fut>(send: F, lease: &Arc<Lease>, abandon: &CancellationToken) -> Fate<R>
where
    F: FnOnce(Gate) -> Fut,
    Fut: Future<Output = Fate<R>>,
{
    let fate = tokio::select! {
        biased;
        fate = send(Gate(Arc::clone(lease))) => fate,
        () = abandon.cancelled() => Fate::Unknown(Silence::Broken),
        never = lease.keep() => match never {},
    };
    match fate {
        // Nothing leaves before the gate.
        Fate::Unknown(_) if !lease.may_have_sent() => Fate::NotSent,
        fate => fate,
    }
}

/// What was written of an outcome.
enum Written {
    /// What was asked for.
    Asked,
    /// Another record is there, and stays. Its answer, where every client of the key is to get it.
    Another(Option<Arc<Reply>>),
}

fn became(outcome: &Outcome, written: &Result<Written, StoreError>) -> Became {
    match (outcome, written) {
        (Outcome::Leave, _) => Became::InFlight,
        (_, Err(_)) => Became::Unrecorded,
        (_, Ok(Written::Another(_))) => Became::Replaced,
        (Outcome::Release, Ok(Written::Asked)) => Became::Released,
        (Outcome::Settle(Settlement::Completed(_)), Ok(Written::Asked)) => Became::Stored,
        (Outcome::Settle(Settlement::Unreplayable { .. }), Ok(Written::Asked)) => Became::Unreplayable,
        (Outcome::Settle(Settlement::Unknown), Ok(Written::Asked)) => Became::Unknown,
    }
}

impl<R> Ended<R> {
    /// What the client gets: the answer that was recorded before, where there is one, else the attempt's own.
    pub fn new(fate: Fate<R>, recorded: Option<Arc<Reply>>) -> Self {
        match (recorded, fate) {
            (Some(reply), _) => Self::Recorded(reply),
            (None, Fate::NotSent) => Self::NotSent,
            (None, Fate::Unknown(silence)) => Self::Silent(silence),
            (None, Fate::Answered(Answer { reply, rest, .. })) => match rest {
                Rest::Nothing => Self::Answered(reply),
                Rest::Oversized(rest) => Self::Streamed(reply, rest),
                Rest::Broken(silence) => Self::Silent(silence),
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
    pub(super) store: Arc<dyn Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) cleanup: Cleanup,
}

impl Recorder {
    async fn write(&self, outcome: &Outcome, settled_at: u64) -> Result<Written, StoreError> {
        let lease = &self.lease;
        match outcome {
            Outcome::Leave => Ok(Written::Asked),
            Outcome::Release => {
                lease.releasing();
                let written = match self.store.release(&lease.name, lease.claim.token).await? {
                    Released::Deleted => {
                        self.count(RecordState::Released);
                        Written::Asked
                    }
                    Released::Absent => Written::Asked,
                    Released::Kept if lease.is_in_the_way_of_itself().await => Written::Asked,
                    Released::Kept => {
                        lease.count_lost();
                        Written::Another(None)
                    }
                };
                if lease.may_echo() {
                    self.cleanup.add(&lease.name, lease.claim.token);
                }
                Ok(written)
            }
            Outcome::Settle(settlement) => {
                let record = Record { claim: lease.claim.clone(), state: settlement.at(settled_at) };
                match self.settle(&record).await? {
                    Settled::Written => {
                        self.count_settled(settlement);
                        Ok(Written::Asked)
                    }
                    // An earlier try of this very write, whose answer was lost.
                    Settled::Kept(kept) if *kept == record => {
                        self.count_settled(settlement);
                        Ok(Written::Asked)
                    }
                    Settled::Kept(kept) => Ok(Written::Another(self.instead(*kept))),
                }
            }
        }
    }

    /// Writes the record. Nothing is in its way that this process has given back: it is deleted here, if it is still there.
    async fn settle(&self, record: &Record) -> Result<Settled, StoreError> {
        let name = &self.lease.name;
        loop {
            match self.store.settle(name, record).await? {
                Settled::Kept(kept) if self.lease.has_given_back(kept.claim.token) => {
                    self.store.release(name, kept.claim.token).await?;
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
    async fn keep_trying(&self, outcome: &Outcome, settled_at: u64, abandon: &CancellationToken) {
        let until = Instant::now() + self.lease.claim.terms.retention;
        let mut tries = 0;
        let mut last = false;
        while !last && Instant::now() < until {
            last = abandon.run_until_cancelled(tokio::time::sleep(waiting::pause(tries))).await.is_none();
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
        self.metrics.record(&self.lease.name.route, state);
    }
}
