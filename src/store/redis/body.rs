//! Large bodies: each chunk has its own key, in the slot of its record.
//!
//! The chunks are written before their record, over a connection for bodies. If the record is never written, nothing
//! refers to the chunks, and they expire. Chunks outlive their record, so a reader that has begun can finish.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::bodies::{Direction, ReadError};
use super::body_connections::KeyedValue;
use super::call::Call;
use super::cluster::MOST_REDIRECTS;
use super::command_error::CommandError;
use super::hot::RecordKey;
use super::{NOT_A_RECORD, Redis};
use crate::record::chunks::{ApartBody, Cut};
use crate::record::codec::Unreadable;
use crate::record::{RecordName, Token};
use crate::store::{StoreError, StoreFuture, StoredChunks};

/// The key of a body's chunks, without the index. The braces put the chunks into the record's slot. The token separates
/// attempts.
pub(super) struct BodyKey(String);

impl BodyKey {
    pub(super) fn new(record: RecordKey<'_>, token: Token) -> Self {
        Self(format!("{{{record}}}:body:{token}:"))
    }

    pub(super) fn chunk(&self, index: u64) -> String {
        let mut key = String::with_capacity(self.0.len() + 4);
        key.push_str(&self.0);
        let _ = write!(key, "{index}");
        key
    }
}

impl Call<'_> {
    /// Writes the chunks of a body. Its record will live for `time_to_live`.
    pub(super) async fn write_body(
        &self,
        token: Token,
        pieces: &[Bytes],
        time_to_live: Duration,
    ) -> Result<Cut, StoreError> {
        let (format, timeout) = (&self.shared.format, self.shared.settings.config.timeout);
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let stored = format.cut_of(length).stored();
        let transfer = self.shared.bodies.turn(Direction::Write, stored, timeout).await;
        // The body is cut only now, because an encrypted body is a copy.
        let (chunks, cut) = format.cut_aside(self.name, token, pieces).await;
        let key = BodyKey::new(self.key, token);
        let values = chunks.into_iter().map(|chunk| KeyedValue { key: key.chunk(chunk.index), pieces: chunk.pieces });
        let values: Vec<_> = values.collect();
        // The record's time to live starts later: after all chunks and the record are written.
        let survives = time_to_live + self.shared.body_survives + transfer.allowed + timeout;
        // A chunk may be redirected to another node. The record must not follow that redirect.
        self.put_chunks(values, survives, transfer.deadline).await?;
        Ok(cut)
    }

    /// Each chunk has its own name. While their slot is being moved between nodes, the chunks are new names and go to
    /// the importing node. The record may still be on the other node.
    async fn put_chunks(
        &self,
        mut chunks: Vec<KeyedValue>,
        survives: Duration,
        deadline: Instant,
    ) -> Result<(), CommandError> {
        let mut connected = self.connected.clone();
        for _ in 0..MOST_REDIRECTS {
            let mut refused = connected.put_chunks(&chunks, survives, deadline).await?.into_iter();
            let Some((first, fault)) = refused.next() else { return Ok(()) };
            let Some(other) = self.shared.elsewhere(&fault, &connected, deadline).await else { return Err(fault) };
            let left: Vec<usize> = std::iter::once(first).chain(refused.map(|(index, _)| index)).collect();
            let mut index = 0;
            chunks.retain(|_| {
                index += 1;
                left.contains(&(index - 1))
            });
            connected = other;
        }
        Err(CommandError::Late)
    }

    /// The record of this body is gone, so the life of its chunks is shortened. If this fails, the chunks expire later.
    pub(super) async fn outlived(&self, body: ApartBody) {
        let key = BodyKey::new(self.key, body.token);
        let keys: Vec<_> = (0..body.cut.count()).map(|index| key.chunk(index)).collect();
        if let Err(error) = self.connected.expire_all(&keys, self.shared.body_survives, self.deadline).await {
            tracing::debug!(record = %self.name, %error, "the chunks of a body live on for as long as their record would have");
        }
    }
}

/// The chunks of one body.
pub(super) struct RedisChunks {
    redis: Redis,
    name: RecordName,
    key: BodyKey,
    cut: Cut,
}

impl RedisChunks {
    pub(super) fn new(redis: Redis, name: &RecordName, body: &ApartBody) -> Self {
        let key = BodyKey::new(RecordKey::new(redis.prefix(), name), body.token);
        Self { name: name.clone(), key, cut: body.cut, redis }
    }

    async fn get(&self, index: u64) -> Result<Option<Bytes>, StoreError> {
        let bodies = &self.redis.shared.bodies;
        let (key, lies_at) = (self.key.chunk(index), self.cut.lies_at(index));
        let length = lies_at.end - lies_at.start;
        let read = bodies.read(&key, || async {
            let transfer = bodies.turn(Direction::Read, length, self.redis.timeout()).await;
            // The connection is taken only now. During the wait for the turn, it may have been lost and another opened.
            let mut connected = self.redis.connected(RecordKey::new(self.redis.prefix(), &self.name))?;
            let mut redirects = 0;
            loop {
                let fault = match connected.chunk(&key, length, transfer.deadline).await {
                    Ok(chunk) => return Ok(chunk),
                    Err(fault) => fault,
                };
                redirects += 1;
                match self.redis.shared.elsewhere(&fault, &connected, transfer.deadline).await {
                    Some(other) if redirects <= MOST_REDIRECTS => connected = other,
                    Some(_) | None => return Err(ReadError::Command(fault)),
                }
            }
        });
        read.await.map_err(|fault| self.without_body(&fault))
    }

    /// The record exists, so no failure may be reported as "nobody owns this".
    fn without_body(&self, fault: &ReadError) -> StoreError {
        if matches!(fault, ReadError::Command(fault) if fault.is_wrong_type()) {
            let source = Unreadable::Damaged(NOT_A_RECORD);
            return StoreError::Unreadable { name: self.name.to_string(), source };
        }
        StoreError::Uncertain(format!("the body of a stored answer did not come: {fault}").into())
    }
}

impl StoredChunks for RedisChunks {
    fn read(&mut self, index: u64) -> StoreFuture<'_, Option<Bytes>> {
        Box::pin(self.get(index))
    }
}
