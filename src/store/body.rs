//! Reading bodies that are stored apart from their records, or compressed, piece after piece.

use bytes::Bytes;

use super::{Store, StoreError, StoreFuture};
use crate::record::chunks::{ApartBody, ChunkReader};
use crate::record::codec::Unreadable;
use crate::record::compression::{Expander, NOT_EXPANDABLE};
use crate::record::{RecordName, ReplyBody};

/// The chunks of one body, as they are stored. They can be read for longer than the record that tells of them, and what is
/// read is not checked yet: a [`StoredBody`] does that.
pub trait StoredChunks: Send {
    /// One chunk; `None` where it is gone. Each call has a deadline of its own, which begins when the store is asked: neither
    /// waiting for a turn nor what the caller does in between counts. Between two calls nothing of the store is held.
    fn read(&mut self, index: u64) -> StoreFuture<'_, Option<Bytes>>;
}

/// Reads a body from its first piece to its last. Each chunk is checked before anything of it is handed out.
pub struct StoredBody {
    name: RecordName,
    length: u64,
    source: BodySource,
    /// Of a body that is compressed.
    expander: Option<Box<Expander>>,
}

/// Where a body is.
enum BodySource {
    /// In the record, until it was read.
    Held(Option<Bytes>),
    /// Apart from it.
    Apart { chunks: Box<dyn StoredChunks>, reader: ChunkReader },
}

impl StoredBody {
    /// Begins to read a body of the record of this name; `None` where it is at hand as it is. That there is a record is certain,
    /// whatever becomes of this.
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

    /// Begins to read a body that lies apart.
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

    /// Bytes of the whole body.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The record's name.
    pub fn name(&self) -> &RecordName {
        &self.name
    }

    /// The next piece of the body, of the size of a chunk at most; `None` at its end, and only there.
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
                // It ends before its end, or goes on after it.
                (Some(_) | None, _) => return Err(unreadable(&self.name, NOT_EXPANDABLE)),
            }
        }
    }

    /// The next part of what is stored.
    async fn next_stored(&mut self) -> Result<Option<Bytes>, StoreError> {
        let (chunks, reader) = match &mut self.source {
            BodySource::Held(body) => return Ok(body.take()),
            BodySource::Apart { chunks, reader } => (chunks, reader),
        };
        let Some(index) = reader.wanted() else { return Ok(None) };
        let stored = match chunks.read(index).await {
            // Whoever asks has the beginning already, and no other way to be told: it is asked for once more.
            Err(StoreError::Unavailable(_) | StoreError::Refused(_) | StoreError::Uncertain(_)) if index > 0 => {
                chunks.read(index).await
            }
            read => read,
        };
        let stored = stored.map_err(StoreError::there_may_be_a_record)?;
        let chunk = stored.ok_or(Unreadable::Damaged("its body is gone")).and_then(|stored| reader.read(stored));
        chunk.map(Some).map_err(|source| unreadable(&self.name, source))
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

fn unreadable(name: &RecordName, source: Unreadable) -> StoreError {
    StoreError::Unreadable { name: name.to_string(), source }
}
