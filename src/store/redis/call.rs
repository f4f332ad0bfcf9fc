//! One call to the store: the commands that a claim, an outcome or a look-up takes, and what their answers mean.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::cluster::{MOST_REDIRECTS, Redirect};
use super::command_error::CommandError;
use super::commands::{ExpectedRecord, ReplaceResult, ValueWithTtl};
use super::connected::{Connected, ServerDuty};
use super::hot::RecordKey;
use super::replication::Confirmation;
use super::{NOT_A_RECORD, Servers, SharedState};
use crate::record::chunks::Cut;
use crate::record::codec::{self, Placement, Unreadable};
use crate::record::transitions::{self, ClaimTransition, CompareAndSwap, StoredRecord};
use crate::record::{Claim, Phase, Record, RecordName, State, Token};
use crate::store::{Claimed, FOREVER, Released, Renewed, Settled, StoreError, StoreFuture, SwapResult};

/// One call: a record, a connection, and the time that is left for all its round trips. A large body has a time of its
/// own.
pub(super) struct Call<'a> {
    pub(super) shared: &'a SharedState,
    pub(super) connected: Arc<Connected>,
    pub(super) name: &'a RecordName,
    pub(super) key: RecordKey<'a>,
    /// How long the answer to one of its hot commands may take, from when that is written.
    timeout: Duration,
    /// When all the others are given up.
    pub(super) deadline: Instant,
    /// What the node said that was asked last, if it said that another is to be asked.
    redirect: OnceLock<Redirect>,
    /// How the body lies that this call has written, if it has.
    body: OnceLock<Cut>,
}

/// The same call at another node.
type Again<A, T> = for<'c> fn(&'c Call<'c>, &'c A) -> StoreFuture<'c, T>;

/// Larger bodies lie apart: they would hold up the records behind them.
const LARGE_BODY: u64 = 64 * 1024;
const REPLICAS_LATE: &str = "the replicas have not confirmed it in time (store.replica_acks)";

/// What one attempt to claim came to.
enum Acquired {
    Granted(Claim),
    Refused(Box<StoredRecord>),
    /// It was refused by a record that was gone at the next look.
    Gone(Box<StoredRecord>),
}

impl Acquired {
    fn into_claimed(self) -> Claimed {
        match self {
            Self::Granted(claim) => Claimed::Granted(claim),
            // Whoever meets a vanishing record twice was still refused by one that was there.
            Self::Refused(held) | Self::Gone(held) => Claimed::Refused(held),
        }
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(
        shared: &'a SharedState,
        connected: Arc<Connected>,
        name: &'a RecordName,
        key: RecordKey<'a>,
        timeout: Duration,
    ) -> Self {
        let (deadline, redirect, body) = (Instant::now() + timeout, OnceLock::new(), OnceLock::new());
        Self { shared, connected, name, key, timeout, deadline, redirect, body }
    }

    /// What the call came to; or, where a node said that another is to be asked, what that makes of the whole call. A node that
    /// says so has done nothing of what it was asked, and all that was done before is done once, however often it is asked for.
    pub(super) async fn or_elsewhere<A: Sync, T>(
        &self,
        came_to: Result<T, StoreError>,
        argument: &A,
        again: Again<A, T>,
    ) -> Result<T, StoreError> {
        if self.redirect.get().is_none() {
            return came_to;
        }
        Box::pin(self.elsewhere(came_to, argument, again)).await
    }

    async fn elsewhere<A: Sync, T>(
        &self,
        mut came_to: Result<T, StoreError>,
        argument: &A,
        again: Again<A, T>,
    ) -> Result<T, StoreError> {
        let Servers::Cluster(watched) = &self.shared.servers else { return came_to };
        let (mut redirect, mut body) = (self.redirect.get().cloned(), self.body.clone());
        for _ in 0..MOST_REDIRECTS {
            let Some(to) = redirect.take() else { break };
            let Some(connected) = watched.cluster.follow(&to, self.deadline).await else { break };
            let timeout = self.deadline.saturating_duration_since(Instant::now());
            let call = Call { body, ..Call::new(self.shared, connected, self.name, self.key, timeout) };
            came_to = again(&call, argument).await;
            (redirect, body) = (call.redirect.into_inner(), call.body);
        }
        came_to
    }

    pub(super) async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let acquired = match self.acquire(claim, self.timeout).await? {
            Acquired::Gone(_) => {
                let left = self.deadline.saturating_duration_since(Instant::now());
                Box::pin(self.acquire(claim, left)).await?
            }
            acquired => acquired,
        };
        // Handed over as a whole: a claim that was kept here meanwhile would make every request's future larger.
        if self.connected.replication.is_some() {
            return Box::pin(self.replicate(acquired)).await;
        }
        Ok(acquired.into_claimed())
    }

    /// The same, once enough replicas have a claim that was granted.
    async fn replicate(&self, acquired: Acquired) -> Result<Claimed, StoreError> {
        match acquired {
            Acquired::Granted(claim) => self.replicate_claim(claim).await,
            refused @ (Acquired::Refused(_) | Acquired::Gone(_)) => Ok(refused.into_claimed()),
        }
    }

    /// Waits until enough replicas have the claim. One that they do not have stays: the caller tries again with the same
    /// token, which gives the replicas another chance, and deletes it when it has given up. A release from here could still
    /// be on its way when the second try finds the claim, and would free the key of a request that is being sent.
    async fn replicate_claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        self.replicated().await?;
        Ok(Claimed::Granted(claim))
    }

    /// Waits until enough replicas have all that was written until now, for as long as the call may take. What they do not
    /// have is written all the same.
    async fn replicated(&self) -> Result<(), StoreError> {
        let Some(replication) = &self.connected.replication else { return Ok(()) };
        let uncertain = |why: String| Err(StoreError::Uncertain(why.into()));
        match replication.confirm(self.deadline).await {
            Ok(Confirmation::Enough) => Ok(()),
            Ok(Confirmation::Short(count)) => uncertain(format!("only {count} replicas have it (store.replica_acks)")),
            Ok(Confirmation::Failed(error)) => match CommandError::of(error) {
                CommandError::Refused(_, error) => uncertain(error.to_string()),
                fault => Err(self.error(fault)),
            },
            Err(CommandError::Late) => uncertain(REPLICAS_LATE.to_owned()),
            Err(fault) => Err(self.error(fault)),
        }
    }

    /// The steps that not every claim takes are boxed, so that all the others are small.
    async fn acquire(&self, claim: &Claim, timeout: Duration) -> Result<Acquired, StoreError> {
        let bytes = encode_claim(claim);
        let there = match self.connected.acquire(&self.key.parts(), &bytes, claim.terms.retention, timeout).await {
            Ok(None) => return Ok(Acquired::Granted(claim.clone())),
            Ok(Some(there)) => there,
            Err(CommandError::Refused(code, error)) => {
                return Box::pin(self.look_instead(claim, CommandError::Refused(code, error))).await;
            }
            Err(fault) => return Err(self.error(fault)),
        };
        // The answer does not tell for how long the owner has been silent. What is refused to one who supposes that
        // it always was, is refused; anything else takes a closer look.
        let held = StoredRecord { record: self.decode(&there)?, silent_for: Duration::MAX };
        match transitions::claim(Some(held.clone()), claim) {
            ClaimTransition::AlreadyMine(claim) => Ok(Acquired::Granted(claim)),
            ClaimTransition::Refuse(held) => {
                Ok(Acquired::Refused(Box::new(StoredRecord { silent_for: Duration::ZERO, ..*held })))
            }
            ClaimTransition::Write(_) => {
                Box::pin(self.try_takeover(claim, held)).await.map_err(StoreError::there_may_be_a_record)
            }
        }
    }

    /// Claims what somebody holds in flight.
    async fn try_takeover(&self, claim: &Claim, seen: StoredRecord) -> Result<Acquired, StoreError> {
        let Some(there) = self.look().await? else {
            return Ok(Acquired::Gone(Box::new(StoredRecord { silent_for: Duration::ZERO, ..seen })));
        };
        let held = self.held(&there)?;
        // Of what is there now: another may have taken it over since the first look, with another lease.
        let lease = held.record.claim.terms.lease;
        let takeover = match transitions::claim(Some(held), claim) {
            ClaimTransition::AlreadyMine(claim) => return Ok(Acquired::Granted(claim)),
            ClaimTransition::Refuse(held) => return Ok(Acquired::Refused(held)),
            ClaimTransition::Write(takeover) => takeover,
        };
        if !self.connected.changed.may_take_over(lease) {
            return Ok(Acquired::Refused(Box::new(StoredRecord { silent_for: Duration::ZERO, ..seen })));
        }
        let bytes = encode_claim(&takeover);
        let retention = takeover.terms.retention;
        let replaced = self.connected.replace(&self.key(), &there, &bytes, retention, self.deadline).await;
        let there = match replaced.map_err(|fault| self.error(fault))? {
            ReplaceResult::Done => return Ok(Acquired::Granted(takeover)),
            ReplaceResult::Gone => {
                return Ok(Acquired::Gone(Box::new(StoredRecord { silent_for: Duration::ZERO, ..seen })));
            }
            ReplaceResult::Changed(there) => there,
        };
        self.refused(&there, claim)
    }

    /// What is there refuses the claim, unless it is that very claim.
    fn refused(&self, there: &ValueWithTtl, claim: &Claim) -> Result<Acquired, StoreError> {
        let held = self.held(there)?;
        Ok(match transitions::claim(Some(held.clone()), claim) {
            ClaimTransition::AlreadyMine(claim) => Acquired::Granted(claim),
            ClaimTransition::Refuse(_) | ClaimTransition::Write(_) => Acquired::Refused(Box::new(held)),
        })
    }

    /// The server took no claim. A full one, or one whose replicas are away, still knows what was done before.
    async fn look_instead(&self, claim: &Claim, refusal: CommandError) -> Result<Acquired, StoreError> {
        if refusal.is_wrong_type() || refusal.is_elsewhere_in_cluster() {
            return Err(self.error(refusal));
        }
        let there = match self.connected.look(&self.key(), self.deadline).await {
            Ok(Some(there)) => there,
            Ok(None) | Err(CommandError::Refused(..)) => return Err(self.error(refusal)),
            Err(fault) => return Err(self.error(fault)),
        };
        self.refused(&there, claim)
    }

    pub(super) async fn renew(&self, claim: &Claim) -> Result<Renewed, StoreError> {
        let renewed = self.connected.renew(self.key, &encode_claim(claim), claim.terms.retention, self.timeout).await;
        let renewed = renewed.map_err(|fault| self.error(fault))?;
        if renewed == Renewed::ClaimedAgain && self.connected.replication.is_some() {
            // It is a claim like the first: a failover must not forget it either.
            Box::pin(self.replicated()).await?;
        }
        Ok(renewed)
    }

    /// Writes `record`, which is `settled` in the form in which it is stored.
    pub(super) async fn settle(&self, (record, settled): (&Record, &Record)) -> Result<Settled, StoreError> {
        let time_to_live = transitions::time_to_live(record);
        let mut placement = Placement::Within;
        if let State::Completed { reply, .. } = &record.state
            && reply.body.stored_len() > LARGE_BODY
        {
            let cut = match self.body.get() {
                Some(cut) => *cut,
                None => Box::pin(self.write_body(record.claim.token, reply.body.stored(), time_to_live)).await?,
            };
            // Another node may be asked for the rest.
            let _ = self.body.set(cut);
            placement = Placement::Apart(cut);
        }
        let bytes = self.shared.format.encode(self.name, record, placement);
        let kept = self.connected.settle(self.key, &bytes, time_to_live, self.timeout).await;
        let kept = kept.map_err(|fault| self.error(fault))?;
        if self.connected.replication.is_some() {
            // An outcome that a failover forgets would be an attempt that may be taken over. Whoever settles tries again.
            Box::pin(self.replicated()).await?;
        }
        let Some(kept) = kept else { return Ok(Settled::Written) };
        // Of an earlier try of the same, the body is at hand.
        let kept = if kept == bytes { settled.clone() } else { self.decode(&kept)? };
        // Encrypted twice, it is not the same bytes. Nobody else writes a body apart under this token.
        let is_own = kept.apart_body().is_some_and(|body| body.token == record.claim.token);
        Ok(Settled::Kept(Box::new(if is_own { settled.clone() } else { kept })))
    }

    pub(super) async fn release(&self, token: Token) -> Result<Released, StoreError> {
        self.connected.release(self.key, token, self.timeout).await.map_err(|fault| self.error(fault))
    }

    pub(super) async fn compare_and_swap(&self, swap: &CompareAndSwap) -> Result<SwapResult, StoreError> {
        let seen = &swap.seen.summary;
        // A body of any size lies within: under the name for one apart, the owner may be writing another just now.
        let to = swap.to.as_ref().map(|record| {
            let time_to_live = transitions::time_to_live(record);
            (self.shared.format.encode(self.name, record, Placement::Within), time_to_live)
        });
        let at_most = match swap.least_silence() {
            Duration::ZERO => FOREVER,
            silence => seen.claim.terms.retention.min(FOREVER).saturating_sub(silence),
        };
        let expected = ExpectedRecord { identity: codec::identity(seen), at_most };
        // How many chunks the body has, the record says.
        let body = match seen.phase {
            Phase::Completed => self.find().await?.and_then(|held| held.record.apart_body().cloned()),
            Phase::InFlight | Phase::Unreplayable | Phase::Unknown => None,
        };
        let there = self.connected.compare_and_swap(&self.key(), &expected, to, self.deadline).await;
        match there.map_err(|fault| self.error(fault))? {
            None => {
                if let Some(body) = body.filter(|body| body.token == seen.claim.token) {
                    self.outlived(body).await;
                }
                Ok(SwapResult::Done)
            }
            Some(None) => Ok(SwapResult::Changed(None)),
            Some(Some(there)) => Ok(SwapResult::Changed(Some(Box::new(self.held(&there)?)))),
        }
    }

    pub(super) async fn find(&self) -> Result<Option<StoredRecord>, StoreError> {
        match self.look().await? {
            Some(there) => Ok(Some(self.held(&there)?)),
            None => Ok(None),
        }
    }

    pub(super) async fn look(&self) -> Result<Option<ValueWithTtl>, StoreError> {
        self.connected.look(&self.key(), self.deadline).await.map_err(|fault| self.error(fault))
    }

    fn held(&self, there: &ValueWithTtl) -> Result<StoredRecord, StoreError> {
        let record = self.decode(&there.bytes)?;
        let silent_for = silence(record.claim.terms.retention, there.left);
        Ok(StoredRecord { record, silent_for })
    }

    fn decode(&self, bytes: &Bytes) -> Result<Record, StoreError> {
        self.shared.format.read(self.name, bytes)
    }

    pub(super) fn key(&self) -> String {
        self.key.to_string()
    }

    pub(super) fn error(&self, fault: CommandError) -> StoreError {
        if fault.is_wrong_type() {
            return self.unreadable(Unreadable::Damaged(NOT_A_RECORD));
        }
        if self.connected.duty != ServerDuty::Alone
            && let CommandError::Refused(_, error) = &fault
            && let Some(redirect) = Redirect::of(error, &self.connected.endpoint)
        {
            // A call ends with the first of them.
            let _ = self.redirect.set(redirect);
        }
        fault.into()
    }

    fn unreadable(&self, source: Unreadable) -> StoreError {
        StoreError::Unreadable { name: self.name.to_string(), source }
    }
}

/// For how long the owner has been silent, by what is left of the record's life.
pub(super) fn silence(retention: Duration, left: Option<Duration>) -> Duration {
    left.map_or(Duration::ZERO, |left| retention.min(FOREVER).saturating_sub(left))
}

fn encode_claim(claim: &Claim) -> Vec<u8> {
    codec::encode_claim(claim)
}
