//! Reading bodies that lie apart from their records, chunk after chunk.

use bytes::Bytes;

use super::{Store, StoreError, StoreFuture};
use crate::record::RecordName;
use crate::record::chunks::{ApartBody, ChunkReader, Cut};
use crate::record::codec::Unreadable;

/// The chunks of one body, as they are stored. They can be read for longer than the record that tells of them, and what is
/// read is not checked yet: a [`StoredBody`] does that.
pub trait StoredChunks: Send {
    /// One chunk; `None` where it is gone. Each call has a deadline of its own, which begins when the store is asked: neither
    /// waiting for a turn nor what the caller does in between counts. Between two calls nothing of the store is held.
    fn read(&mut self, index: u64) -> StoreFuture<'_, Option<Bytes>>;
}

/// Reads a body from its first chunk to its last. Each chunk is checked before it is handed out.
pub struct StoredBody {
    name: RecordName,
    cut: Cut,
    chunks: Box<dyn StoredChunks>,
    reader: ChunkReader,
}

impl StoredBody {
    /// Begins to read the body of the record of this name. That there is a record is certain, whatever becomes of this.
    pub async fn open<S>(store: &S, name: &RecordName, body: ApartBody) -> Result<Self, StoreError>
    where
        S: Store + ?Sized,
    {
        let (cut, reader) = (body.cut, body.reader(name));
        let chunks = store.open_body(name, body).await.map_err(StoreError::there_may_be_a_record)?;
        Ok(Self { name: name.clone(), cut, chunks, reader })
    }

    /// Bytes of the whole body.
    pub fn length(&self) -> u64 {
        self.cut.length()
    }

    /// The record's name.
    pub fn name(&self) -> &RecordName {
        &self.name
    }

    /// The next chunk of the body; `None` at its end, and only there.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some(index) = self.reader.wanted() else { return Ok(None) };
        let stored = match self.chunks.read(index).await {
            // Whoever asks has the beginning already, and no other way to be told: it is asked for once more.
            Err(StoreError::Unavailable(_) | StoreError::Refused(_) | StoreError::Uncertain(_)) if index > 0 => {
                self.chunks.read(index).await
            }
            read => read,
        };
        let stored = stored.map_err(StoreError::there_may_be_a_record)?;
        let chunk = stored.ok_or(Unreadable::Damaged("its body is gone")).and_then(|stored| self.reader.read(stored));
        chunk.map(Some).map_err(|source| StoreError::Unreadable { name: self.name.to_string(), source })
    }

    /// All that is left of the body.
    pub async fn rest(mut self) -> Result<Vec<Bytes>, StoreError> {
        let mut chunks = Vec::new();
        while let Some(chunk) = self.next().await? {
            chunks.push(chunk);
        }
        chunks.retain(|chunk| !chunk.is_empty());
        Ok(chunks)
    }
}
