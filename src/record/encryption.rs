//! Encryption of stored answers: AES-256-GCM, under a key for each record.
//!
//! ```text
//! secret:      32 bytes, one of store.encryption_keys
//! main key:    HKDF-SHA256 (RFC 5869), extracted from the secret; salt: "onlyonce store.encryption_keys"
//! key's id:    expanded to 8 bytes; info: "id"
//! record key:  expanded to 32 bytes; info: "record", token (16), digest (16) and route of the record's name
//! chunk key:   the same; info: "chunks", token, digest, route
//! probe key:   the same; info: "probe", token, digest, route
//!
//! record:      what follows the extensions, encrypted, and the tag (16). Associated data: the record up to there, then
//!              digest and route of its name
//! extension:   algorithm u8 (1), key's id (8), nonce (12)
//! chunk:       nonce (12), payload encrypted, tag (16). Associated data: index u64, and 1 for the last chunk, else 0
//! ```
//!
//! One key for all records could be used for 2^32 random nonces at most (NIST SP 800-38D, 8.3), which is a few days of a
//! busy store. A key for each record is used a few times, and its nonces can be random. It also binds what is encrypted
//! to the name and the token: an answer of another record, or of another attempt, does not decrypt.
//!
//! A claim and an unknown outcome have no answer, and stay as they are: stores judge them without a key. What a
//! [probe](super::probe) needs to know of their request is encrypted by itself.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use super::codec::Unreadable;
use super::{Hex, RecordName, Token, code};

/// Bytes of a secret.
pub const SECRET: usize = 32;
/// Bytes of a nonce.
pub const NONCE: usize = 12;
/// Bytes that encrypting adds, besides the nonce.
pub(super) const TAG: usize = 16;

/// The only algorithm.
const AES_256_GCM_HKDF: u8 = 1;
/// Bytes of the extension's value.
const VALUE: usize = 1 + 8 + NONCE;
/// Bytes of the extension, with its code and length.
pub(super) const EXTENSION: usize = 3 + VALUE;

/// What answers are encrypted with. Neither it nor anything made of it is ever shown, but for its [id](KeyId).
pub struct EncryptionKey {
    id: KeyId,
    main: Prk,
}

/// Tells which key a record is encrypted with. It is stored in the record, and tells nothing about the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

/// Makes nonces, which must be random.
pub type NonceSource = fn() -> [u8; NONCE];

/// How to encrypt.
#[derive(Clone, Copy)]
pub struct Encryption<'a> {
    /// With which key.
    pub key: &'a Arc<EncryptionKey>,
    /// With which nonces.
    pub nonce: NonceSource,
}

/// What a key of a record is for.
#[derive(Clone, Copy)]
enum KeyUse {
    Record,
    Chunks,
    Probe,
}

impl EncryptionKey {
    /// Of a secret that nobody can guess.
    pub fn new(secret: &[u8; SECRET]) -> Self {
        let main = Salt::new(HKDF_SHA256, b"onlyonce store.encryption_keys").extract(secret);
        let mut id = [0; 8];
        let expanded = main.expand(&[b"id"], IdLength).and_then(|id_key| id_key.fill(&mut id));
        expanded.expect("HKDF expands to 8 bytes");
        Self { id: KeyId(id), main }
    }

    /// What records are found by.
    pub fn id(&self) -> KeyId {
        self.id
    }

    fn derive(&self, to: KeyUse, name: &RecordName, token: Token) -> LessSafeKey {
        let label: &[u8] = match to {
            KeyUse::Record => b"record",
            KeyUse::Chunks => b"chunks",
            KeyUse::Probe => b"probe",
        };
        let info = [label, &token.0, &name.digest, name.route.as_bytes()];
        let key = self.main.expand(&info, &AES_256_GCM).map(UnboundKey::from);
        LessSafeKey::new(key.expect("HKDF expands to 32 bytes"))
    }
}

impl PartialEq for EncryptionKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for EncryptionKey {}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKey({})", self.id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex::of(&self.0).fmt(f)
    }
}

struct IdLength;

impl KeyType for IdLength {
    fn len(&self) -> usize {
        8
    }
}

/// What the extension of an encrypted record says.
#[derive(Debug, Clone, Copy)]
pub(super) struct EncryptionHeader {
    key: KeyId,
    nonce: [u8; NONCE],
}

impl EncryptionHeader {
    pub(super) fn new(encryption: Encryption<'_>) -> Self {
        Self { key: encryption.key.id, nonce: (encryption.nonce)() }
    }

    /// The value of an extension.
    pub(super) fn read(value: &[u8]) -> Result<Self, Unreadable> {
        match value.split_first() {
            Some((&AES_256_GCM_HKDF, rest)) if rest.len() == VALUE - 1 => {
                let mut header = Self { key: KeyId([0; 8]), nonce: [0; NONCE] };
                let (key, nonce) = rest.split_at(8);
                header.key.0.copy_from_slice(key);
                header.nonce.copy_from_slice(nonce);
                Ok(header)
            }
            Some((&AES_256_GCM_HKDF, _)) => Err(Unreadable::Damaged("it does not tell how it is encrypted")),
            Some(_) | None => Err(Unreadable::Extension(code::ENCRYPTION)),
        }
    }

    /// The whole extension.
    pub(super) fn extension(self) -> [u8; EXTENSION] {
        let mut extension = [0; EXTENSION];
        extension[0] = code::ENCRYPTION;
        extension[1] = VALUE as u8;
        extension[3..].copy_from_slice(&self.value());
        extension
    }

    fn value(self) -> [u8; VALUE] {
        let mut value = [0; VALUE];
        value[0] = AES_256_GCM_HKDF;
        value[1..9].copy_from_slice(&self.key.0);
        value[9..].copy_from_slice(&self.nonce);
        value
    }

    pub(super) fn key(self) -> KeyId {
        self.key
    }

    /// The key of this id.
    pub(super) fn key_of(self, keys: &[Arc<EncryptionKey>]) -> Result<&Arc<EncryptionKey>, Unreadable> {
        keys.iter().find(|key| key.id == self.key).ok_or(Unreadable::NoKey(self.key))
    }

    /// Encrypts what stands from `content` on in the record that begins at `start`, and appends the tag.
    pub(super) fn seal(
        self,
        key: &EncryptionKey,
        name: &RecordName,
        token: Token,
        out: &mut Vec<u8>,
        (start, content): (usize, usize),
    ) {
        let associated = associated(&out[start..content], name);
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let key = key.derive(KeyUse::Record, name, token);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&associated), &mut out[content..]);
        out.extend_from_slice(tag.expect(TOO_LONG).as_ref());
    }

    /// Decrypts the content of a record that begins with `head`.
    pub(super) fn open(
        self,
        key: &EncryptionKey,
        name: &RecordName,
        token: Token,
        head: &[u8],
        content: &[u8],
    ) -> Result<Bytes, Unreadable> {
        let mut content = content.to_vec();
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let key = key.derive(KeyUse::Record, name, token);
        let opened = key.open_in_place(nonce, Aad::from(associated(head, name)), &mut content);
        let length = opened.map_err(|_| NOT_AUTHENTIC)?.len();
        content.truncate(length);
        Ok(content.into())
    }
}

/// What a probe needs to know is a skippable extension, which has its own header.
impl EncryptionHeader {
    /// The value of an extension that holds this.
    pub(super) fn seal_probe(self, key: &EncryptionKey, name: &RecordName, token: Token, plain: &[u8]) -> Vec<u8> {
        let value = self.value();
        let mut sealed = Vec::with_capacity(VALUE + plain.len() + TAG);
        sealed.extend_from_slice(&value);
        sealed.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let aad = Aad::from(associated(&value, name));
        let tag = key.derive(KeyUse::Probe, name, token).seal_in_place_separate_tag(nonce, aad, &mut sealed[VALUE..]);
        sealed.extend_from_slice(tag.expect(TOO_LONG).as_ref());
        sealed
    }

    /// What the value of an extension holds, if one of the keys decrypts it.
    pub(super) fn open_probe(
        sealed: &[u8],
        keys: &[Arc<EncryptionKey>],
        name: &RecordName,
        token: Token,
    ) -> Option<Vec<u8>> {
        let (value, content) = sealed.split_at_checked(VALUE)?;
        let header = Self::read(value).ok()?;
        let key = header.key_of(keys).ok()?;
        let nonce = Nonce::assume_unique_for_key(header.nonce);
        let mut content = content.to_vec();
        let aad = Aad::from(associated(value, name));
        let length = key.derive(KeyUse::Probe, name, token).open_in_place(nonce, aad, &mut content).ok()?.len();
        content.truncate(length);
        Some(content)
    }
}

/// The head tells its own length, and the digest always has the same.
fn associated(head: &[u8], name: &RecordName) -> Vec<u8> {
    [head, &name.digest, name.route.as_bytes()].concat()
}

/// Encrypts the chunks of one body, and decrypts them.
pub(super) struct ChunkCipher(Box<LessSafeKey>);

impl ChunkCipher {
    /// For the body of the attempt with this token.
    pub(super) fn new(key: &EncryptionKey, name: &RecordName, token: Token) -> Self {
        Self(Box::new(key.derive(KeyUse::Chunks, name, token)))
    }

    /// The payload of a chunk as it is stored.
    pub(super) fn seal(&self, nonce: [u8; NONCE], place: ChunkPlace, payload: &[Bytes]) -> Bytes {
        let length: usize = payload.iter().map(Bytes::len).sum();
        let mut stored = Vec::with_capacity(NONCE + length + TAG);
        stored.extend_from_slice(&nonce);
        payload.iter().for_each(|piece| stored.extend_from_slice(piece));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(place.bytes()), &mut stored[NONCE..]);
        stored.extend_from_slice(tag.expect(TOO_LONG).as_ref());
        stored.into()
    }

    /// The payload of a chunk that is stored like this. Copies it where others have it, too.
    pub(super) fn open(&self, place: ChunkPlace, stored: Bytes) -> Result<Bytes, Unreadable> {
        let mut stored = stored.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        if stored.len() < NONCE {
            return Err(NOT_AUTHENTIC);
        }
        let mut payload = stored.split_off(NONCE);
        let nonce = Nonce::try_assume_unique_for_key(&stored).map_err(|_| NOT_AUTHENTIC)?;
        let opened = self.0.open_in_place(nonce, Aad::from(place.bytes()), &mut payload);
        let length = opened.map_err(|_| NOT_AUTHENTIC)?.len();
        payload.truncate(length);
        Ok(payload.freeze())
    }
}

impl fmt::Debug for ChunkCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkCipher(…)")
    }
}

/// Where a chunk stands in its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkPlace {
    /// From 0.
    pub(super) index: u64,
    pub(super) is_last: bool,
}

impl ChunkPlace {
    pub(super) fn bytes(self) -> [u8; 9] {
        let mut bytes = [0; 9];
        bytes[..8].copy_from_slice(&self.index.to_le_bytes());
        bytes[8] = self.is_last.into();
        bytes
    }
}

const NOT_AUTHENTIC: Unreadable = Unreadable::Damaged("what is encrypted of it is not what was stored");
/// No memory holds so much.
const TOO_LONG: &str = "AES-GCM encrypts up to 64 GiB";

#[cfg(test)]
mod tests;
