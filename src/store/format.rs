//! How a store encodes and decodes records and large bodies.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use tokio::sync::Semaphore;

use super::StoreError;
use crate::config;
use crate::random::random;
use crate::record::chunks::{self, Chunk, Cut, Cutter};
use crate::record::codec::{self, Placement, Unreadable};
use crate::record::compression;
use crate::record::encryption::{Encryption, EncryptionKey};
use crate::record::{Record, RecordName, Reply, ReplyBody, State, Token};

/// Whether stored answers are compressed, and the keys that encrypt them. Records of any format can be read, unless
/// their key is missing.
#[derive(Debug)]
pub(super) struct RecordFormat {
    /// The first key encrypts, and all keys decrypt. Without keys nothing is encrypted.
    keys: Vec<Arc<EncryptionKey>>,
    /// Larger bodies are compressed. `None`: no body is.
    compress_above: Option<u64>,
    compressing: Arc<Semaphore>,
}

/// The most bodies that are compressed at once. Compression needs a processor, so with more at once each would take
/// longer.
const AT_ONCE: usize = 2;

/// Bytes of a body that is cut where it is needed.
const CUT_AT_ONCE: u64 = 1024 * 1024;

impl Default for RecordFormat {
    fn default() -> Self {
        Self { keys: Vec::new(), compress_above: None, compressing: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl RecordFormat {
    pub(super) fn of(config: &config::StoreConfig) -> Self {
        let keys = config.encryption_keys.iter().map(|secret| Arc::new(EncryptionKey::new(secret.expose())));
        Self { keys: keys.collect(), compress_above: config.compress_above, ..Self::default() }
    }

    /// The first key encrypts, and all decrypt.
    pub(super) fn keys(&self) -> &[Arc<EncryptionKey>] {
        &self.keys
    }

    fn encrypts(&self) -> bool {
        !self.keys.is_empty()
    }

    fn encryption(&self) -> Option<Encryption<'_>> {
        self.keys.first().map(|key| Encryption { key, nonce: random })
    }

    /// The record with its body compressed. `None`: it must be written as it is. A body that has a content encoding is
    /// not compressed, nor is one that would hardly become shorter.
    pub(super) async fn compressed(&self, record: &Record) -> Option<Record> {
        let above = self.compress_above?;
        let State::Completed { settled_at, reply } = &record.state else { return None };
        let ReplyBody::Held(pieces) = &reply.body else { return None };
        if reply.body_len() <= above || reply.headers.contains_key(CONTENT_ENCODING) {
            return None;
        }
        // The semaphore is never closed.
        let turn = Arc::clone(&self.compressing).acquire_owned().await.ok()?;
        let pieces = pieces.clone();
        // On a blocking thread: compression would delay the other tasks of a runtime thread.
        let compressing = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            compression::compress(&pieces)
        });
        let body = ReplyBody::Compressed(compressing.await.ok()??);
        let Reply { status, headers, trailers, .. } = &**reply;
        let reply = Reply { status: *status, headers: headers.clone(), body, trailers: trailers.clone() };
        let state = State::Completed { settled_at: *settled_at, reply: Arc::new(reply) };
        Some(Record { claim: record.claim.clone(), state })
    }

    /// Whether bodies may be compressed before they are written.
    pub(super) fn compresses(&self) -> bool {
        self.compress_above.is_some()
    }

    /// The bytes of a record.
    pub(super) fn encode(&self, name: &RecordName, record: &Record, placement: Placement) -> Vec<u8> {
        match self.encryption() {
            None => codec::encode(record, placement),
            Some(encryption) => codec::encode_encrypted(record, placement, name, encryption),
        }
    }

    /// Reads the record of this name.
    pub(super) fn decode(&self, name: &RecordName, bytes: &Bytes) -> Result<Record, Unreadable> {
        codec::decode_under(bytes, name, &self.keys)
    }

    /// The same, with a [`StoreError`].
    pub(super) fn read(&self, name: &RecordName, bytes: &Bytes) -> Result<Record, StoreError> {
        let unreadable = |source| StoreError::Unreadable { name: name.to_string(), source };
        self.decode(name, bytes).map_err(unreadable)
    }

    /// The record that stays where a settle has written nothing. An earlier try of the same settle may have written it,
    /// and its reply was lost. Then it is returned as its owner has it: `settled`, and not as it is `stored`.
    pub(super) fn kept(kept: Record, stored: &Record, settled: &Record) -> Record {
        // No other owner writes a body apart under this token, so that body is at hand.
        let is_own = || kept.apart_body().is_some_and(|body| body.token == settled.claim.token);
        if kept == *stored || is_own() { settled.clone() } else { kept }
    }

    /// Cuts a body into chunks.
    pub(super) fn cut(&self, name: &RecordName, token: Token, body: &[Bytes]) -> (Vec<Chunk>, Cut) {
        chunks::cut(name, token, body, self.encryption())
    }

    /// The same for any body. A long one that is encrypted is cut on a blocking thread: that takes a millisecond for each
    /// MiB, and would delay the other tasks of a runtime thread.
    pub(super) async fn cut_aside(&self, name: &RecordName, token: Token, body: &[Bytes]) -> (Vec<Chunk>, Cut) {
        let is_short = || body.iter().map(|piece| piece.len() as u64).sum::<u64>() <= CUT_AT_ONCE;
        if self.keys.is_empty() || is_short() {
            return self.cut(name, token, body);
        }
        let (name_of_task, pieces, key) = (name.clone(), body.to_vec(), self.keys.first().cloned());
        let cutting = tokio::task::spawn_blocking(move || {
            let encryption = key.as_ref().map(|key| Encryption { key, nonce: random });
            chunks::cut(&name_of_task, token, &pieces, encryption)
        });
        match cutting.await {
            Ok(cut) => cut,
            // The runtime ends.
            Err(_) => self.cut(name, token, body),
        }
    }

    /// A cutter for a body that comes in pieces.
    pub(super) fn cutter(&self, name: &RecordName, token: Token) -> Cutter {
        Cutter::new(name, token, self.encryption())
    }

    /// How a body of this length is cut.
    pub(super) fn cut_of(&self, length: u64) -> Cut {
        if self.encrypts() { Cut::of(length).encrypted() } else { Cut::of(length) }
    }
}
