//! One call to the store: its statements, and the meaning of their rows. [`super::sql`] says what makes them safe.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_postgres::{Row, Statement};

use super::PostgresShared;
use super::bodies::Writer;
use super::error::StatementError;
use super::link::ConnectedPrimary;
use super::session::{Session, StatementParameters};
use super::sql::Statements;
use crate::record::codec::{self, Placement, VERSION};
use crate::record::transitions::{self, ClaimTransition, CompareAndSwap, RenewTransition, StoredRecord};
use crate::record::{Claim, Phase, Record, RecordName, State, Token};
use crate::store::format::RecordFormat;
use crate::store::{Claimed, FOREVER, Released, Renewed, Settled, StoreError, SwapResult};

/// One call: a record, a session, and the time that is left for all its statements.
pub(super) struct PostgresCall<'a> {
    pub(super) shared: &'a PostgresShared,
    pub(super) primary: Arc<ConnectedPrimary>,
    pub(super) session: Arc<Session>,
    pub(super) name: &'a RecordName,
    /// The record's key in the table.
    pub(super) key: String,
    pub(super) deadline: Instant,
}

/// A row as it was read.
struct SeenRow {
    bytes: Bytes,
    expires_at: SystemTime,
    /// The time to live that was left.
    left: Duration,
}

/// A record that comes and goes this often within one call is in other hands.
const TRIES: usize = 8;

const KEEPS_CHANGING: &str = "the record changes as fast as it is read";
const NO_COMMITS: &str = "commits of PostgreSQL do not end, or its connections are being opened again";
const UNCONFIRMED: &str = "PostgreSQL has the outcome, and no commit has ended there since this sidecar connected: a standby may \
                           lack it";
const LEFT_BEHIND: &str = "PostgreSQL may still be at work on an earlier call: what that commits is not seen yet";

/// Larger bodies lie apart, so that rows are narrow: a row that does not fit into a quarter of a page is moved out of it by the
/// server, in pieces.
const NARROW: u64 = 1024;

/// What a claim has met.
enum ClaimRow {
    /// The name was free, and has this claim now.
    Inserted,
    Held(SeenRow),
    /// Somebody else's claim was committed after this one had looked.
    Raced,
}

impl SeenRow {
    fn of(row: &Row) -> Result<Self, StatementError> {
        let (bytes, expires_at): (&[u8], SystemTime) =
            (row.try_get(0).map_err(StatementError::strange)?, row.try_get(1).map_err(StatementError::strange)?);
        let now: SystemTime = row.try_get(2).map_err(StatementError::strange)?;
        let left = expires_at.duration_since(now).unwrap_or(Duration::ZERO);
        Ok(Self { bytes: Bytes::copy_from_slice(bytes), expires_at, left })
    }
}

impl ClaimRow {
    fn of(row: Option<&Row>) -> Result<Self, StatementError> {
        let Some(row) = row else { return Ok(Self::Raced) };
        // The first column is empty where the name was free.
        match row.try_get::<_, Option<&[u8]>>(0).map_err(StatementError::strange)? {
            None => Ok(Self::Inserted),
            Some(_) => SeenRow::of(row).map(Self::Held),
        }
    }
}

impl PostgresCall<'_> {
    pub(super) async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let (bytes, lives) = (codec::encode_claim(claim), millis(claim.terms.retention));
        for _ in 0..TRIES {
            let seen = match self.insert_or_read(&bytes, lives).await? {
                ClaimRow::Inserted => return Ok(Claimed::Granted(claim.clone())),
                ClaimRow::Held(seen) => Some(seen),
                ClaimRow::Raced => {
                    self.read().await.map_err(|fault| StoreError::from(fault).there_may_be_a_record())?
                }
            };
            // It is gone again.
            let Some(seen) = seen else { continue };
            match self.decide(claim, &seen).await? {
                Some(claimed) => return Ok(claimed),
                None => continue,
            }
        }
        Err(StoreError::Uncertain(KEEPS_CHANGING.into()))
    }

    /// What becomes of a claim that cannot be committed now: it is refused where it meets a record that refuses it.
    pub(super) async fn claim_without_commit(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        // Nothing was written, whatever became of the question.
        let seen = self.read().await.map_err(|error| StoreError::Refused(error.into()))?;
        let Some(seen) = seen else { return Err(StoreError::Refused(NO_COMMITS.into())) };
        match transitions::claim(Some(self.held(&seen).await?), claim) {
            ClaimTransition::Refuse(held) => Ok(Claimed::Refused(held)),
            ClaimTransition::AlreadyMine(_) => Err(StoreError::Uncertain(NO_COMMITS.into())),
            ClaimTransition::Write(_) => Err(StoreError::Refused(NO_COMMITS.into())),
        }
    }

    /// What becomes of a claim that meets a record. `None`: the record has changed.
    async fn decide(&self, claim: &Claim, seen: &SeenRow) -> Result<Option<Claimed>, StoreError> {
        match transitions::claim(Some(self.held(seen).await?), claim) {
            ClaimTransition::Refuse(held) => Ok(Some(Claimed::Refused(held))),
            // An earlier try of it has arrived. Whether the server's replicas have it as well is not known.
            ClaimTransition::AlreadyMine(claim) => {
                self.confirm().await.map_err(StoreError::there_may_be_a_record)?;
                Ok(Some(Claimed::Granted(claim)))
            }
            ClaimTransition::Write(claim) => {
                let (bytes, lives) = (codec::encode_claim(&claim), millis(claim.terms.retention));
                let parameters: StatementParameters<'_> =
                    &[&self.key, &bytes, &lives, &&seen.bytes[..], &seen.expires_at];
                let taken = self.ask(|all| &all.take_over, parameters).await;
                let taken = taken.map_err(|fault| StoreError::from(fault).there_may_be_a_record())?;
                Ok((!taken.is_empty()).then_some(Claimed::Granted(claim)))
            }
        }
    }

    pub(super) async fn renew(&self, claim: &Claim) -> Result<Renewed, StoreError> {
        let (bytes, lives) = (codec::encode_claim(claim), millis(claim.terms.retention));
        for _ in 0..TRIES {
            let token = &claim.token.0[..];
            let renewed = self.ask(|all| &all.renew, &[&self.key, &token, &lives]).await?;
            if !renewed.is_empty() {
                return Ok(Renewed::Extended);
            }
            let seen = match self.insert_or_read(&bytes, lives).await? {
                ClaimRow::Inserted => return Ok(Renewed::ClaimedAgain),
                ClaimRow::Held(seen) => Some(seen),
                ClaimRow::Raced => self.read().await?,
            };
            let Some(seen) = seen else { continue };
            match transitions::renew(Some(&self.record(&seen)?), claim.token) {
                RenewTransition::Refuse => return Ok(Renewed::Lost),
                RenewTransition::Extend | RenewTransition::ClaimAgain => continue,
            }
        }
        Err(StoreError::Uncertain(KEEPS_CHANGING.into()))
    }

    /// Writes `record`, which is `settled` as it is to be stored.
    pub(super) async fn settle(&self, record: &Record, settled: &Record) -> Result<Settled, StoreError> {
        let mut call = None;
        let (placement, body_at) = match wide_body(record) {
            Some(body) => {
                let lives = transitions::time_to_live(record);
                let (cut, body_at) = self.write_body(record.claim.token, Writer::Owner, body, lives).await?;
                // That may have taken its time, and the session.
                call = Some(self.again()?);
                (Placement::Apart(cut), Some(body_at))
            }
            None => (Placement::Within, None),
        };
        call.as_ref().unwrap_or(self).write(record, settled, placement, body_at).await
    }

    async fn write(
        &self,
        record: &Record,
        settled: &Record,
        placement: Placement,
        body_at: Option<SystemTime>,
    ) -> Result<Settled, StoreError> {
        let bytes = self.shared.format.encode(self.name, record, placement);
        let (lives, token) = (millis(transitions::time_to_live(record)), &record.claim.token.0[..]);
        for _ in 0..TRIES {
            let written = self.ask(|all| &all.settle, &[&self.key, &bytes, &lives, &body_at, &token]).await?;
            if !written.is_empty() {
                self.tell();
                return Ok(Settled::Written);
            }
            let Some(seen) = self.read().await? else { continue };
            let kept = self.record(&seen)?;
            if transitions::settles(Some(&kept), record.claim.token) {
                continue;
            }
            // A body that lies apart is not compared; what is beside it is.
            let is_same = kept.summary() == record.summary();
            let kept = if is_same && !self.is_exchanged(record.claim.token).await? {
                RecordFormat::kept(kept, record, settled)
            } else {
                kept
            };
            self.may_be_told(&kept).await.map_err(StoreError::there_may_be_a_record)?;
            if kept == *settled {
                // An earlier try has written it. Its client is answered only if a failover cannot forget that.
                self.confirm().await?;
                self.tell();
            }
            return Ok(Settled::Kept(Box::new(kept)));
        }
        Err(StoreError::Uncertain(KEEPS_CHANGING.into()))
    }

    /// A claim that was given up may be in the hands of a process that waits, and would be seen by nobody until that ends. So
    /// no record of this token is an answer only where no such process was left before it was looked for.
    pub(super) async fn release(&self, token: Token) -> Result<Released, StoreError> {
        let may_come = self.primary.committing.leaves_any_behind();
        let none = |found| if may_come { Err(StoreError::Uncertain(LEFT_BEHIND.into())) } else { Ok(found) };
        for _ in 0..TRIES {
            let released = self.ask(|all| &all.release, &[&self.key, &&token.0[..]]).await?;
            if !released.is_empty() {
                self.tell();
                return Ok(Released::Deleted);
            }
            let Some(seen) = self.read().await? else { return none(Released::Absent) };
            if !transitions::releases(&self.record(&seen)?, token) {
                return none(Released::Kept);
            }
        }
        Err(StoreError::Uncertain(KEEPS_CHANGING.into()))
    }

    pub(super) async fn find(&self) -> Result<Option<StoredRecord>, StoreError> {
        match self.read().await? {
            Some(seen) => self.held(&seen).await.map(Some).map_err(StoreError::there_may_be_a_record),
            None => Ok(None),
        }
    }

    pub(super) async fn compare_and_swap(&self, swap: &CompareAndSwap) -> Result<SwapResult, StoreError> {
        let seen = &swap.seen.summary;
        let (state, owner) = codec::identity(seen);
        let state = [VERSION, state];
        let at_most = match swap.least_silence() {
            Duration::ZERO => FOREVER,
            silence => seen.claim.terms.retention.min(FOREVER).saturating_sub(silence),
        };
        let (state, owner, at_most) = (&state[..], &owner[..], millis(at_most));
        let swapped = match &swap.to {
            Some(record) => {
                let lives = transitions::time_to_live(record);
                let (mut call, mut placement, mut body_at, mut expires_at) = (None, Placement::Within, None, None);
                if let Some(body) = wide_body(record) {
                    // An owner that renews while the body is written is heard of.
                    let Some(seen) = self.read().await? else { return Ok(SwapResult::Changed(None)) };
                    expires_at = Some(seen.expires_at);
                    let (cut, place) = self.write_body(record.claim.token, Writer::Exchange, body, lives).await?;
                    (placement, body_at) = (Placement::Apart(cut), Some(place));
                    // That may have taken its time, and the session.
                    call = Some(self.again()?);
                }
                let bytes = self.shared.format.encode(self.name, record, placement);
                let lives = millis(lives);
                let parameters: StatementParameters<'_> =
                    &[&self.key, &bytes, &lives, &state, &owner, &at_most, &body_at, &expires_at];
                call.as_ref().unwrap_or(self).ask(|all| &all.exchange, parameters).await?
            }
            None => self.ask(|all| &all.exchange_away, &[&self.key, &state, &owner, &at_most]).await?,
        };
        if !swapped.is_empty() {
            self.tell();
            return Ok(SwapResult::Done);
        }
        Ok(SwapResult::Changed(self.find().await?.map(Box::new)))
    }

    async fn insert_or_read(&self, bytes: &[u8], lives: f64) -> Result<ClaimRow, StatementError> {
        let rows = self.ask(|all| &all.claim, &[&self.key, &bytes, &lives]).await?;
        ClaimRow::of(rows.first())
    }

    async fn read(&self) -> Result<Option<SeenRow>, StatementError> {
        let rows = self.ask(|all| &all.read, &[&self.key]).await?;
        rows.first().map(SeenRow::of).transpose()
    }

    /// Waits until everything that was committed before is where commits have to be.
    async fn confirm(&self) -> Result<(), StoreError> {
        Ok(self.count(|all| &all.confirm, &[&self.key]).await.map(drop)?)
    }

    pub(super) async fn ask(
        &self,
        pick: impl FnOnce(&Statements) -> &Statement,
        parameters: StatementParameters<'_>,
    ) -> Result<Vec<Row>, StatementError> {
        self.session.ask(pick, parameters, self.deadline).await.inspect_err(|fault| self.note(fault))
    }

    async fn count(
        &self,
        pick: impl FnOnce(&Statements) -> &Statement,
        parameters: StatementParameters<'_>,
    ) -> Result<u64, StatementError> {
        self.session.count(pick, parameters, self.deadline).await.inspect_err(|fault| self.note(fault))
    }

    /// Where this is refused, renewals of other owners are refused as well; where it is late, others may be.
    fn note(&self, fault: &StatementError) {
        if fault.refuses_renewals() {
            self.shared.usable_since.note_break();
        }
        if matches!(fault, StatementError::Late) {
            self.primary.commits.doubt();
        }
    }

    /// Notifies waiters, and waits for nothing.
    fn tell(&self) {
        let (session, key, deadline) = (self.session.clone(), self.key.clone(), self.deadline + self.shared.timeout);
        #[expect(clippy::disallowed_methods, reason = "ends by its deadline, and nothing depends on it")]
        tokio::spawn(async move {
            if let Err(error) = session.ask(|all| &all.tell, &[&key], deadline).await {
                tracing::debug!(%error, "waiters are not notified, and look for themselves");
            }
        });
    }

    fn record(&self, seen: &SeenRow) -> Result<Record, StoreError> {
        self.shared.format.read(self.name, &seen.bytes)
    }

    /// Whether nothing forgets this record, if it is an outcome: its request may have waited for a standby, and been cut off.
    /// It is refused, as a claim that meets an outcome has written nothing that is to be looked for later.
    async fn may_be_told(&self, record: &Record) -> Result<(), StoreError> {
        match record.summary().phase {
            Phase::InFlight | Phase::Unknown => Ok(()),
            Phase::Completed | Phase::Unreplayable => match self.primary.commits.first_has_ended(self.deadline).await {
                true => Ok(()),
                false => Err(StoreError::Refused(UNCONFIRMED.into())),
            },
        }
    }

    async fn held(&self, seen: &SeenRow) -> Result<StoredRecord, StoreError> {
        let record = self.record(seen)?;
        self.may_be_told(&record).await?;
        let (phase, terms) = (record.summary().phase, record.claim.terms);
        let usable = &self.shared.usable_since;
        let mut silent_for = usable.confirmed_silence(phase, &terms, seen.left);
        if silent_for < terms.lease && usable.silence(phase, terms.retention, Some(seen.left)) >= terms.lease {
            // It depends on whether owners can renew at this moment.
            self.primary.commits.checked(self.deadline).await;
            silent_for = usable.confirmed_silence(phase, &terms, seen.left);
        }
        Ok(StoredRecord { record, silent_for })
    }
}

/// The body that must not lie in the row.
fn wide_body(record: &Record) -> Option<&[Bytes]> {
    match &record.state {
        State::Completed { reply, .. } if reply.body.stored_len() > NARROW => Some(reply.body.stored()),
        State::Completed { .. } | State::InFlight | State::Unreplayable { .. } | State::Unknown { .. } => None,
    }
}

/// A time to live, for the server.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.min(FOREVER).as_secs_f64() * 1000.0
}
