//! How a store writes records and large bodies, and reads them.

use std::sync::Arc;

use bytes::Bytes;

use super::StoreError;
use crate::config;
use crate::random::random;
use crate::record::chunks::{self, Chunk, Cut, Cutter};
use crate::record::codec::{self, Placement, Unreadable};
use crate::record::encryption::{Encryption, EncryptionKey};
use crate::record::{Record, RecordName, Token};

/// Which keys stored answers are encrypted with. Records that are not encrypted can be read with any of them, and with
/// none.
#[derive(Debug, Default)]
pub(super) struct RecordFormat {
    /// The first one encrypts, all of them decrypt. None: nothing is encrypted.
    keys: Vec<Arc<EncryptionKey>>,
}

impl RecordFormat {
    pub(super) fn of(config: &config::StoreConfig) -> Self {
        let keys = config.encryption_keys.iter().map(|secret| Arc::new(EncryptionKey::new(secret.expose())));
        Self { keys: keys.collect() }
    }

    fn encrypts(&self) -> bool {
        !self.keys.is_empty()
    }

    fn encryption(&self) -> Option<Encryption<'_>> {
        self.keys.first().map(|key| Encryption { key, nonce: random })
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

    /// The same, for whoever needs nothing else.
    pub(super) fn read(&self, name: &RecordName, bytes: &Bytes) -> Result<Record, StoreError> {
        let unreadable = |source| StoreError::Unreadable { name: name.to_string(), source };
        self.decode(name, bytes).map_err(unreadable)
    }

    /// The chunks of a body of so many bytes.
    pub(super) fn cut(&self, name: &RecordName, token: Token, body: &[Bytes]) -> (Vec<Chunk>, Cut) {
        chunks::cut(name, token, body, self.encryption())
    }

    /// The same, as the body comes.
    pub(super) fn cutter(&self, name: &RecordName, token: Token) -> Cutter {
        Cutter::new(name, token, self.encryption())
    }

    /// How a body of this length will be cut.
    pub(super) fn cut_of(&self, length: u64) -> Cut {
        if self.encrypts() { Cut::of(length).encrypted() } else { Cut::of(length) }
    }
}
