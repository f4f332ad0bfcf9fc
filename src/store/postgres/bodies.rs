//! Large bodies: their chunks lie in another table, and are committed before the record that refers to them. So whoever sees
//! the record sees them as well. Where the record is never written, nothing refers to them, and they go with their partition.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::call::{PostgresCall, millis};
use super::error::StatementError;
use super::{Postgres, record_key};
use crate::record::chunks::{ApartBody, Cut};
use crate::record::{RecordName, Token};
use crate::store::{StoreError, StoreFuture, StoredChunks};

/// The lowest rate of a link to the server that is supported, in bytes per second.
const LEAST_RATE: u64 = 256 * 1024;
/// Chunks in one statement: a quarter of a MiB.
const AT_ONCE: usize = 4;

/// Bodies that are transferred at once, in each direction. Others wait for their turn, and their time has not started.
pub(super) struct BodyTurns {
    reading: Semaphore,
    writing: Semaphore,
}

const TURNS: usize = 4;

impl Default for BodyTurns {
    fn default() -> Self {
        let [reading, writing] = [(); 2].map(|()| Semaphore::new(TURNS));
        Self { reading, writing }
    }
}

/// The time for a statement with so many bytes, of which as many as there are turns may be on their way.
fn allowed(timeout: Duration, length: u64) -> Duration {
    timeout + Duration::from_millis(length.saturating_mul(2 * TURNS as u64 * 1000) / LEAST_RATE)
}

/// Who writes a body. An operator or a probe completes a record whose owner may be writing another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    Owner,
    Exchange,
}

/// The chunks of a body are those of one attempt at one operation, and of one writer.
fn owner_of(name: &RecordName, token: Token, writer: Writer) -> Vec<u8> {
    let mark: &[u8] = match writer {
        Writer::Owner => &[],
        Writer::Exchange => &[1],
    };
    [&name.digest[..], &token.0, mark].concat()
}

impl PostgresCall<'_> {
    /// The same call once more, from now on.
    pub(super) fn again(&self) -> Result<Self, StoreError> {
        let primary = self.shared.link.primary()?;
        Ok(Self {
            shared: self.shared,
            session: primary.to_commit()?,
            primary,
            name: self.name,
            key: self.key.clone(),
            deadline: Instant::now() + self.shared.timeout,
        })
    }

    /// Writes the chunks of a body. Its record will live for `lives`. Returns where in time they lie.
    pub(super) async fn write_body(
        &self,
        token: Token,
        writer: Writer,
        pieces: &[Bytes],
        lives: Duration,
    ) -> Result<(Cut, SystemTime), StoreError> {
        // The semaphore is never closed.
        let _turn = self.shared.turns.writing.acquire().await.ok();
        // The body is cut only now, because an encrypted body is a copy.
        let (chunks, cut) = self.shared.format.cut_aside(self.name, token, pieces).await;
        let owner = owner_of(self.name, token, writer);
        // The record's time to live starts when all chunks are written.
        let lives = lives + self.shared.body_survives + allowed(self.shared.timeout, cut.stored());
        let mut place = None;
        for batch in chunks.chunks(AT_ONCE) {
            let pieces: Vec<i32> = batch.iter().map(|chunk| piece(chunk.index)).collect();
            let values: Vec<Vec<u8>> = batch.iter().map(|chunk| chunk.pieces.concat()).collect();
            place = Some(self.put_chunks(&owner, &pieces, &values, lives, place).await?);
        }
        // There is one chunk at least.
        let place = place.ok_or_else(|| StatementError::Strange("no chunk".to_owned()))?;
        Ok((cut, place))
    }

    /// Whether an exchange has written the body of the record that was read.
    pub(super) async fn is_exchanged(&self, token: Token) -> Result<bool, StoreError> {
        let owner = owner_of(self.name, token, Writer::Exchange);
        let rows = self.ask(|all| &all.first_chunk, &[&self.key, &[owner].as_slice(), &piece(0)]).await?;
        Ok(!rows.is_empty())
    }

    async fn put_chunks(
        &self,
        owner: &[u8],
        pieces: &[i32],
        values: &[Vec<u8>],
        lives: Duration,
        place: Option<SystemTime>,
    ) -> Result<SystemTime, StoreError> {
        let length = values.iter().map(|value| value.len() as u64).sum();
        let mut has_made = false;
        loop {
            let session = self.shared.link.primary()?.to_commit()?;
            let (deadline, lives) = (Instant::now() + allowed(self.shared.timeout, length), millis(lives));
            match session.ask(|all| &all.put_chunks, &[&owner, &pieces, &lives, &place, &values], deadline).await {
                Ok(rows) => {
                    let row = rows.first().ok_or_else(|| StatementError::Strange("no row".to_owned()))?;
                    return Ok(row.try_get(0).map_err(StatementError::strange)?);
                }
                Err(fault) if fault.is_no_partition() && !has_made => {
                    has_made = true;
                    session.ask(|all| &all.make_partitions, &[&lives], deadline).await?;
                }
                Err(fault) => return Err(fault.into()),
            }
        }
    }
}

/// The chunks of one body.
pub(super) struct PostgresChunks {
    store: Postgres,
    name: RecordName,
    /// Of each writer. Only the record shows whose body is its own.
    owners: Vec<Vec<u8>>,
    cut: Cut,
    /// Where in time they lie, and whose they are, once the first was read.
    place: Option<(SystemTime, Vec<u8>)>,
}

impl PostgresChunks {
    pub(super) fn new(store: Postgres, name: &RecordName, body: &ApartBody) -> Self {
        let owners = [Writer::Owner, Writer::Exchange].map(|writer| owner_of(name, body.token, writer)).to_vec();
        Self { store, name: name.clone(), owners, cut: body.cut, place: None }
    }

    async fn get(&mut self, index: u64) -> Result<Option<Bytes>, StoreError> {
        let shared = &self.store.shared;
        // The semaphore is never closed.
        let _turn = shared.turns.reading.acquire().await.ok();
        let lies_at = self.cut.lies_at(index);
        let deadline = Instant::now() + allowed(shared.timeout, lies_at.end - lies_at.start);
        let session = shared.link.primary()?.to_read()?;
        let piece = piece(index);
        let mut rows = match &self.place {
            Some((place, owner)) => session.ask(|all| &all.chunk, &[place, owner, &piece], deadline).await,
            None => {
                let key = record_key(&shared.prefix, &self.name);
                session.ask(|all| &all.first_chunk, &[&key, &self.owners, &piece], deadline).await
            }
        }?;
        if rows.is_empty() && self.place.is_none() {
            rows = session.ask(|all| &all.lost_chunk, &[&self.owners, &piece], deadline).await?;
        }
        let Some(row) = rows.first() else { return Ok(None) };
        self.place =
            Some((row.try_get(1).map_err(StatementError::strange)?, row.try_get(2).map_err(StatementError::strange)?));
        Ok(Some(Bytes::copy_from_slice(row.try_get(0).map_err(StatementError::strange)?)))
    }
}

/// A body of 2^31 chunks is longer than any that is stored.
fn piece(index: u64) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

impl StoredChunks for PostgresChunks {
    /// The record exists, so no failure may be reported as "nobody owns this".
    fn read(&mut self, index: u64) -> StoreFuture<'_, Option<Bytes>> {
        Box::pin(async move { self.get(index).await.map_err(StoreError::there_may_be_a_record) })
    }
}
