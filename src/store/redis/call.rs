//! One call to the store: the commands of a claim, an outcome or a look-up, and the meaning of their replies.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::cluster::{MOST_REDIRECTS, Redirect};
use super::command_error::CommandError;
use super::commands::{ExpectedRecord, ReplaceResult, ValueWithTtl};
use super::connected::{Connected, ServerDuty};
use super::hot::RecordKey;
use super::write_acks::Confirmation;
use super::{NOT_A_RECORD, Servers, SharedState};
use crate::record::chunks::Cut;
use crate::record::codec::{self, Placement, Unreadable};
use crate::record::transitions::{self, ClaimTransition, CompareAndSwap, StoredRecord};
use crate::record::{Claim, Phase, Record, RecordName, State, Token};
use crate::store::format::RecordFormat;
use crate::store::{Claimed, FOREVER, Released, Renewed, Settled, StoreError, StoreFuture, SwapResult};

/// One call: a record, a connection, and the time that is left for all round trips. A large body has its own time
/// limit.
pub(super) struct Call<'a> {
    pub(super) shared: &'a SharedState,
    pub(super) connected: Arc<Connected>,
    pub(super) name: &'a RecordName,
    pub(super) key: RecordKey<'a>,
    /// The time limit for the reply to one hot command, from the time of its write.
    timeout: Duration,
    /// The deadline for all other commands, except those that follow the write of a body.
    pub(super) deadline: Instant,
    /// The redirect from the last node, if it sent one.
    redirect: OnceLock<Redirect>,
    /// The body that this call wrote, if it wrote one.
    body: OnceLock<WrittenBody>,
}

/// A body that is written. The write may take longer than the time limit of a call. So the commands after it have a new
/// time limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrittenBody {
    cut: Cut,
    /// The deadline for the rest of the call.
    deadline: Instant,
}

/// Repeats a call on another node.
type Again<A, T> = for<'c> fn(&'c Call<'c>, &'c A) -> StoreFuture<'c, T>;

/// Larger bodies are stored apart from their record, because they would delay the records behind them.
const LARGE_BODY: u64 = 64 * 1024;
const ACKS_LATE: &str = "it was not acknowledged in time (store.replica_acks, store.fsync_acks)";

/// The result of one attempt to claim.
enum Acquired {
    Granted(Claim),
    Refused(Box<StoredRecord>),
    /// A record refused the claim, but was gone at the next look.
    Gone(Box<StoredRecord>),
}

impl Acquired {
    fn into_claimed(self) -> Claimed {
        match self {
            Self::Granted(claim) => Claimed::Granted(claim),
            // A claim that meets a vanishing record twice was still refused by a record.
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

    /// Returns the result of the call. If a node sent a redirect, the whole call is repeated on the other node. A node
    /// that redirects has not executed the command. All commands before it have the same effect if they are repeated.
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
        let mut deadline = self.rest_deadline();
        for _ in 0..MOST_REDIRECTS {
            let Some(to) = redirect.take() else { break };
            let Some(connected) = watched.cluster.follow(&to, deadline).await else { break };
            if !to.keeps_body() {
                body = OnceLock::new();
            }
            let timeout = deadline.saturating_duration_since(Instant::now());
            let call = Call { body, ..Call::new(self.shared, connected, self.name, self.key, timeout) };
            came_to = again(&call, argument).await;
            deadline = call.rest_deadline();
            (redirect, body) = (call.redirect.into_inner(), call.body);
        }
        came_to
    }

    /// The deadline for the commands that are still to be sent.
    fn rest_deadline(&self) -> Instant {
        self.body.get().map_or(self.deadline, |body| body.deadline)
    }

    pub(super) async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let acquired = match self.acquire(claim, self.timeout).await? {
            Acquired::Gone(_) => {
                let left = self.deadline.saturating_duration_since(Instant::now());
                Box::pin(self.acquire(claim, left)).await?
            }
            acquired => acquired,
        };
        // The value is moved as a whole. If it were kept here during the wait, the future of every request would be
        // larger.
        if self.connected.write_acks.is_some() {
            return Box::pin(self.acknowledge(acquired)).await;
        }
        Ok(acquired.into_claimed())
    }

    /// The same, after a granted claim is acknowledged.
    async fn acknowledge(&self, acquired: Acquired) -> Result<Claimed, StoreError> {
        match acquired {
            Acquired::Granted(claim) => self.acknowledge_claim(claim).await,
            refused @ (Acquired::Refused(_) | Acquired::Gone(_)) => Ok(refused.into_claimed()),
        }
    }

    /// Waits until the claim is acknowledged. If it is not, the claim stays in the store. The caller tries again with
    /// the same token, which gives replicas and disks more time, and deletes the claim when it gives up. This function
    /// must not release it: the release could arrive after the second try has found the claim, and would free the key of
    /// a request that is being sent.
    async fn acknowledge_claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        self.acknowledged().await?;
        Ok(Claimed::Granted(claim))
    }

    /// Waits until all earlier writes have their [acknowledgements](super::write_acks), for as long as the call may
    /// take. The writes stay even if they are not acknowledged.
    async fn acknowledged(&self) -> Result<(), StoreError> {
        let Some(write_acks) = &self.connected.write_acks else { return Ok(()) };
        let uncertain = |why: String| Err(StoreError::Uncertain(why.into()));
        match write_acks.confirm(self.rest_deadline()).await {
            Ok(Confirmation::Enough) => Ok(()),
            Ok(Confirmation::Short(shortfall)) => Err(StoreError::Unacknowledged(shortfall.to_string().into())),
            Ok(Confirmation::Failed(error)) => match CommandError::of(error) {
                CommandError::Refused(_, error) => uncertain(error.to_string()),
                fault => Err(self.error(fault)),
            },
            Ok(Confirmation::Late) | Err(CommandError::Late) => uncertain(ACKS_LATE.to_owned()),
            Err(fault) => Err(self.error(fault)),
        }
    }

    /// Rare steps are boxed, so that the future of a common claim is small.
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
        // The reply does not tell how long the owner has been silent. So the decision is first made for the longest
        // possible silence. A claim that is refused even then is refused. Anything else needs a look at the time to
        // live.
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

    /// Claims a record that another owner holds in flight.
    async fn try_takeover(&self, claim: &Claim, seen: StoredRecord) -> Result<Acquired, StoreError> {
        let Some(there) = self.look().await? else {
            return Ok(Acquired::Gone(Box::new(StoredRecord { silent_for: Duration::ZERO, ..seen })));
        };
        let held = self.held(&there)?;
        let takeover = match transitions::claim(Some(held), claim) {
            ClaimTransition::AlreadyMine(claim) => return Ok(Acquired::Granted(claim)),
            ClaimTransition::Refuse(held) => return Ok(Acquired::Refused(held)),
            ClaimTransition::Write(takeover) => takeover,
        };
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

    /// The record refuses the claim, unless it is this very claim.
    fn refused(&self, there: &ValueWithTtl, claim: &Claim) -> Result<Acquired, StoreError> {
        let held = self.held(there)?;
        Ok(match transitions::claim(Some(held.clone()), claim) {
            ClaimTransition::AlreadyMine(claim) => Acquired::Granted(claim),
            ClaimTransition::Refuse(_) | ClaimTransition::Write(_) => Acquired::Refused(Box::new(held)),
        })
    }

    /// The server did not accept the claim. A server that is full or has no replicas can still report an existing
    /// record.
    async fn look_instead(&self, claim: &Claim, refusal: CommandError) -> Result<Acquired, StoreError> {
        if refusal.is_wrong_type() || refusal.is_elsewhere_in_cluster() {
            return Err(self.error(refusal));
        }
        let there = match self.connected.look(&self.key(), self.deadline).await {
            Ok(Some(there)) => there,
            Ok(None) | Err(CommandError::Refused(..)) => return Err(self.error(refusal)),
            Err(fault) => return Err(self.error(fault)),
        };
        match self.refused(&there, claim)? {
            // An earlier try has written the claim here, which proves nothing about another server.
            Acquired::Granted(_) if refusal.may_be_of_former_primary() => {
                Err(StoreError::Uncertain(refusal.to_string().into()))
            }
            acquired => Ok(acquired),
        }
    }

    pub(super) async fn renew(&self, claim: &Claim) -> Result<Renewed, StoreError> {
        let renewed = self.connected.renew(self.key, &encode_claim(claim), claim.terms.retention, self.timeout).await;
        let renewed = renewed.map_err(|fault| self.error(fault))?;
        match renewed {
            // This may be a new claim, which a failover must not lose. An extended claim may be one, too: an earlier
            // renewal may have made it, and may have had no acknowledgement.
            Renewed::Extended | Renewed::ClaimedAgain if self.connected.write_acks.is_some() => {
                Box::pin(self.acknowledged()).await?;
            }
            Renewed::Extended | Renewed::ClaimedAgain | Renewed::Lost => {}
        }
        Ok(renewed)
    }

    /// Writes `record`, which is `settled` in its stored form.
    pub(super) async fn settle(&self, (record, settled): (&Record, &Record)) -> Result<Settled, StoreError> {
        let time_to_live = transitions::time_to_live(record);
        let (mut placement, mut timeout) = (Placement::Within, self.timeout);
        if let State::Completed { reply, .. } = &record.state
            && reply.body.stored_len() > LARGE_BODY
        {
            let body = match self.body.get() {
                Some(body) => *body,
                None => Box::pin(self.write_apart(record, reply.body.stored())).await?,
            };
            placement = Placement::Apart(body.cut);
            timeout = body.deadline.saturating_duration_since(Instant::now());
        }
        let bytes = self.shared.format.encode(self.name, record, placement);
        let kept = self.connected.settle(self.key, &bytes, time_to_live, timeout).await;
        let kept = kept.map_err(|fault| self.error(fault))?;
        if self.connected.write_acks.is_some() {
            // If a failover lost the outcome, the attempt could be taken over. The caller tries again.
            Box::pin(self.acknowledged()).await?;
        }
        let Some(kept) = kept else { return Ok(Settled::Written) };
        // Two encryptions of a record differ, so different bytes may be the same record.
        let kept =
            if kept == bytes { settled.clone() } else { RecordFormat::kept(self.decode(&kept)?, record, settled) };
        Ok(Settled::Kept(Box::new(kept)))
    }

    /// Writes a body, and keeps note of it for the case that the record is redirected to another node.
    pub(super) async fn write_apart(&self, record: &Record, pieces: &[Bytes]) -> Result<WrittenBody, StoreError> {
        let time_to_live = transitions::time_to_live(record);
        let cut = self.write_body(record.claim.token, pieces, time_to_live).await?;
        let deadline = Instant::now() + self.shared.settings.config.timeout;
        Ok(*self.body.get_or_init(|| WrittenBody { cut, deadline }))
    }

    pub(super) async fn release(&self, token: Token) -> Result<Released, StoreError> {
        self.connected.release(self.key, token, self.timeout).await.map_err(|fault| self.error(fault))
    }

    pub(super) async fn compare_and_swap(&self, swap: &CompareAndSwap) -> Result<SwapResult, StoreError> {
        let seen = &swap.seen.summary;
        // The body is stored within the record, whatever its size. The owner may be writing another body under the name
        // of a body that is stored apart.
        let to = swap.to.as_ref().map(|record| {
            let time_to_live = transitions::time_to_live(record);
            (self.shared.format.encode(self.name, record, Placement::Within), time_to_live)
        });
        let at_most = match swap.least_silence() {
            Duration::ZERO => FOREVER,
            silence => seen.claim.terms.retention.min(FOREVER).saturating_sub(silence),
        };
        let expected = ExpectedRecord { identity: codec::identity(seen), at_most };
        // The record states the number of chunks of its body.
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
        let (phase, retention) = (record.state.phase(), record.claim.terms.retention);
        let silent_for = self.connected.usable_since.silence(phase, retention, there.left);
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
            // Only the first redirect of a call counts, because a call ends with it.
            let _ = self.redirect.set(redirect);
        }
        fault.into()
    }

    fn unreadable(&self, source: Unreadable) -> StoreError {
        StoreError::Unreadable { name: self.name.to_string(), source }
    }
}

fn encode_claim(claim: &Claim) -> Vec<u8> {
    codec::encode_claim(claim)
}
