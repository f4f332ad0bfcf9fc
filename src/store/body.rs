//! Reading bodies that are compressed or stored apart from their records, piece by piece.

use bytes::Bytes;

use super::{Store, StoreError, StoreFuture};
use crate::record::chunks::{ApartBody, ChunkReader};
use crate::record::codec::Unreadable;
use crate::record::compression::{Expander, NOT_EXPANDABLE};
use crate::record::{RecordName, ReplyBody};

/// The stored chunks of one body. They can be read for longer than the record that refers to them. They are not checked
/// here: a [`StoredBody`] checks them.
pub trait StoredChunks: Send {
    /// Reads one chunk. `None`: it is gone. Each call has its own deadline, which begins when the store is asked.
    /// Waiting for a turn does not count, nor does the caller's time between calls. Between calls no resource of the
    /// store is held.
    fn read(&mut self, index: u64) -> StoreFuture<'_, Option<Bytes>>;
}

/// Reads a body from its first piece to its last. A chunk is checked before any of it is returned.
pub struct StoredBody {
    name: RecordName,
    length: u64,
    source: BodySource,
    /// Set for a compressed body.
    expander: Option<Box<Expander>>,
}

/// Where a body is.
enum BodySource {
    /// In the record. `None` once it is read.
    Held(Option<Bytes>),
    /// Apart from the record.
    Apart { chunks: Box<dyn StoredChunks>, reader: ChunkReader },
}

impl StoredBody {
    /// Begins to read a body of the record of this name. `None`: the body is held in memory as it is. An error does not
    /// mean that there is no record.
    pub async fn of<S>(store: &S, name: &RecordName, body: &ReplyBody) -> Result<Option<Self>, StoreError>
    where
        S: Store + ?Sized,
    {
        match body {
            ReplyBody::Held(_) => Ok(None),
            ReplyBody::Compressed(body) => {
                let source = BodySource::Held(Some(body.frame.clone()));
                Self::new(name, body.length, source, true).map(Some)
            }
            ReplyBody::Apart(body) => Self::open(store, name, body.clone()).await.map(Some),
        }
    }

    /// Begins to read a body that is stored apart from its record.
    pub async fn open<S>(store: &S, name: &RecordName, body: ApartBody) -> Result<Self, StoreError>
    where
        S: Store + ?Sized,
    {
        let (length, is_compressed, reader) = (body.length(), body.expands_to.is_some(), body.reader(name));
        let chunks = store.open_body(name, body).await.map_err(StoreError::there_may_be_a_record)?;
        Self::new(name, length, BodySource::Apart { chunks, reader }, is_compressed)
    }

    fn new(name: &RecordName, length: u64, source: BodySource, is_compressed: bool) -> Result<Self, StoreError> {
        let expander = is_compressed.then(|| Expander::new(length).map(Box::new)).transpose();
        let expander = expander.map_err(|source| unreadable(name, source))?;
        Ok(Self { name: name.clone(), length, source, expander })
    }

    /// The bytes of the whole body.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The name of the record.
    pub fn name(&self) -> &RecordName {
        &self.name
    }

    /// The next piece of the body, no larger than a chunk. `None` only at the end of the body.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let Some(expander) = &mut self.expander else { return self.next_stored().await };
            if let Some(piece) = expander.expand().map_err(|source| unreadable(&self.name, source))? {
                return Ok(Some(piece));
            }
            let is_whole = expander.is_at_end();
            match (self.next_stored().await?, &mut self.expander) {
                (Some(part), Some(expander)) if !is_whole => expander.feed(part),
                (None, _) if is_whole => return Ok(None),
                // The compressed data ends before the body does, or goes on after it.
                (Some(_) | None, _) => return Err(unreadable(&self.name, NOT_EXPANDABLE)),
            }
        }
    }

    /// The next part of the stored bytes.
    async fn next_stored(&mut self) -> Result<Option<Bytes>, StoreError> {
        let (chunks, reader) = match &mut self.source {
            BodySource::Held(body) => return Ok(body.take()),
            BodySource::Apart { chunks, reader } => (chunks, reader),
        };
        let Some(index) = reader.wanted() else { return Ok(None) };
        let stored = match chunks.read(index).await {
            // The caller already has the beginning, and this error would cut its body off. So the chunk is read once
            // more.
            Err(
                StoreError::Unavailable(_)
                | StoreError::Refused(_)
                | StoreError::Uncertain(_)
                | StoreError::Unacknowledged(_),
            ) if index > 0 => chunks.read(index).await,
            read => read,
        };
        let stored = stored.map_err(StoreError::there_may_be_a_record)?;
        let chunk = stored.ok_or(Unreadable::Damaged("its body is gone")).and_then(|stored| reader.read(stored));
        chunk.map(Some).map_err(|source| unreadable(&self.name, source))
    }

    /// Reads all that is left of the body.
    pub async fn rest(mut self) -> Result<Vec<Bytes>, StoreError> {
        let mut chunks = Vec::new();
        while let Some(chunk) = self.next().await? {
            chunks.push(chunk);
        }
        chunks.retain(|chunk| !chunk.is_empty());
        Ok(chunks)
    }
}

fn unreadable(name: &RecordName, source: Unreadable) -> StoreError {
    StoreError::Unreadable { name: name.to_string(), source }
}
