//! Large answers: each chunk is a frame of its own.
//!
//! The chunks are written before the record that refers to them, one MiB at a time. Only one answer is written at a
//! time, so another write waits for a MiB at most. A reader reads the chunks one by one, on demand. If the record is
//! never written, nothing refers to the chunks, and they expire. Chunks outlive their record, so that a reader that has
//! begun can finish.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::frame::{FrameContent, FrameKind, RecordVersion};
use super::log::{LogWrite, SupersededFrame};
use super::read::{uncertain, unread};
use super::segment::SegmentEntry;
use super::view::{LogReadError, View};
use super::waiters::Commit;
use super::{Embedded, SharedStore};
use crate::record::chunks::{Chunk, Cut, SIZE};
use crate::record::{RecordName, Token};
use crate::store::{FOREVER, StoreError, StoreFuture, StoredChunks};
use crate::tick;

/// A longer body is stored apart from its record.
pub(super) const LARGE_BODY: u64 = SIZE as u64;
/// The number of chunks in one write.
const AT_ONCE: usize = 16;

/// The name under which a chunk is found. No record has it. The token keeps the chunks of different attempts apart.
pub(super) fn chunk_name(record: &RecordName, token: Token, index: u64) -> RecordName {
    let mut place = [0; 40];
    place[..16].copy_from_slice(&record.digest);
    place[16..32].copy_from_slice(&token.0);
    place[32..].copy_from_slice(&index.to_le_bytes());
    RecordName { route: Arc::clone(&record.route), digest: xxh3_128(&place).to_le_bytes() }
}

impl Embedded {
    /// Writes the chunks of a body. `time_to_live` is that of its record.
    pub(super) async fn write_body(
        &self,
        name: &RecordName,
        token: Token,
        pieces: &[Bytes],
        time_to_live: Duration,
    ) -> Result<Cut, StoreError> {
        // The timeout of each write begins after this wait, which has its own.
        let turn = tick::timeout(self.shared.timeout, pin!(self.shared.body_turn.lock())).await;
        let _turn = turn.map_err(|_| StoreError::Refused("the embedded store does not keep up".into()))?;
        let mut cutter = self.shared.format.cutter(name, token);
        let mut chunks = Vec::with_capacity(AT_ONCE);
        for piece in pieces {
            // A compressed body is a single piece of any length. A slice of a chunk's size completes one chunk at most.
            let mut left = piece.clone();
            while !left.is_empty() {
                let slice = left.split_to(left.len().min(SIZE as usize));
                cutter.push(slice, |chunk| chunks.push(chunk));
                if chunks.len() >= AT_ONCE {
                    self.write_chunks(name, token, &mut chunks, time_to_live).await?;
                }
            }
        }
        let (last, cut) = cutter.end();
        chunks.push(last);
        self.write_chunks(name, token, &mut chunks, time_to_live).await?;
        Ok(cut)
    }

    async fn write_chunks(
        &self,
        name: &RecordName,
        token: Token,
        chunks: &mut Vec<Chunk>,
        time_to_live: Duration,
    ) -> Result<(), StoreError> {
        let shared = &*self.shared;
        // The record's life begins when all chunks are written. `WRITING`, a minute, is more than that takes.
        let survives = time_to_live.min(FOREVER) + shared.body_survives + shared.timeout + WRITING;
        let expires_at = shared.clock.now() + survives.as_millis() as u64;
        let chunk = |Chunk { index, pieces }| {
            let version = RecordVersion { expires_at, kept_until: expires_at, content: FrameContent::Chunk(pieces) };
            LogWrite { name: chunk_name(name, token, index), version, replaces: None, record_sum: None }
        };
        let mut writes: Vec<_> = chunks.drain(..).map(chunk).collect();
        if writes.iter().any(|write| shared.view.may_hold(&write.name)) {
            // An earlier try of the same settle. On a blocking thread: the reads may wait for the disk.
            let view = Arc::clone(&shared.view);
            let reading = tokio::task::spawn_blocking(move || unwritten(&view, writes));
            let read = tick::timeout(shared.timeout, reading).await.map_err(uncertain)?.map_err(uncertain)?;
            writes = read.map_err(|error| unread(name, error))?;
        }
        if writes.is_empty() {
            return Ok(());
        }
        let ticket = shared.queue.add_chunks(writes)?;
        let commit = Commit::new(&shared.queue, &self.waiters, shared.core_writer.as_ref(), ticket);
        match tick::timeout(shared.timeout, commit).await {
            Ok(written) => written,
            Err(_) => Err(StoreError::Uncertain("the embedded store did not answer in time".into())),
        }
    }
}

const WRITING: Duration = Duration::from_secs(60);

/// The chunks that are still to be written. Those of an earlier try stay, or count as superseded.
fn unwritten(view: &View, writes: Vec<LogWrite>) -> Result<Vec<LogWrite>, LogReadError> {
    let mut left = Vec::with_capacity(writes.len());
    for mut write in writes {
        if let Some(SegmentEntry { head, segment, .. }) =
            view.find(&write.name)?.filter(|entry| entry.head.kind == FrameKind::Chunk)
        {
            let (expires_at, content) = (write.version.expires_at, &write.version.content);
            // A chunk that is encrypted anew has another checksum. Half of `WRITING` is left for the other chunks.
            if head.expires_at + (WRITING / 2).as_millis() as u64 >= expires_at
                && head.record_len as usize == content.len()
                && head.record_sum == content.sum()
            {
                continue;
            }
            let bytes = head.frame_len();
            write.replaces = Some(SupersededFrame { segment, kind: head.kind, expires_at: head.expires_at, bytes });
            write.version.kept_until = expires_at.max(head.kept_until);
        }
        left.push(write);
    }
    Ok(left)
}

/// The chunks of one body.
pub(super) struct EmbeddedChunks {
    shared: Arc<SharedStore>,
    record: RecordName,
    token: Token,
}

impl EmbeddedChunks {
    pub(super) fn new(shared: Arc<SharedStore>, record: RecordName, token: Token) -> Self {
        Self { shared, record, token }
    }
}

impl StoredChunks for EmbeddedChunks {
    fn read(&mut self, index: u64) -> StoreFuture<'_, Option<Bytes>> {
        let (name, view) = (chunk_name(&self.record, self.token, index), Arc::clone(&self.shared.view));
        Box::pin(async move {
            // On a blocking thread: the read may wait for the disk.
            let reading = tokio::task::spawn_blocking(move || -> Result<Option<Bytes>, LogReadError> {
                let entry = view.find(&name)?.filter(|entry| entry.head.kind == FrameKind::Chunk);
                Ok(entry.map(|entry| entry.record()).transpose()?)
            });
            let read = tick::timeout(self.shared.timeout, reading).await.map_err(uncertain)?.map_err(uncertain)?;
            read.map_err(|error| unread(&self.record, error))
        })
    }
}
