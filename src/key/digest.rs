use std::fmt;

use blake3::Hasher;

use crate::record::Hex;

/// Keys every digest of a name or a fingerprint (keyed BLAKE3): a digest without a key is an oracle for a
/// credential or body that can be guessed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DigestKey([u8; 32]);

impl DigestKey {
    /// The key that a store made and keeps.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key that an operator chose (`store.digest_key`).
    pub fn from_secret(secret: &str) -> Self {
        Self(blake3::derive_key("onlyonce 2026-11 store.digest_key", secret.as_bytes()))
    }

    /// What a store keeps of its own key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Tells two keys apart without giving either away.
    pub fn check(&self) -> [u8; 16] {
        let mut digest = self.digest("check");
        digest.part(&[]);
        digest.finish()
    }

    /// A digest of one kind; digests of different kinds never meet.
    pub fn digest(&self, kind: &str) -> Digest {
        let mut digest = Digest(Hasher::new_keyed(&self.0));
        digest.part(kind.as_bytes());
        digest
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(…)")
    }
}

/// A digest in the making. Every part is framed by its length, so that no two lists of parts meet.
#[derive(Clone)]
pub struct Digest(Hasher);

impl Digest {
    /// Adds one part.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds one part that comes in pieces.
    pub fn pieces<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]> + Clone) {
        let length: usize = pieces.clone().map(<[u8]>::len).sum();
        self.0.update(&(length as u64).to_le_bytes());
        pieces.for_each(|piece| {
            self.0.update(piece);
        });
    }

    /// Adds a count or a tag.
    pub fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    /// 128 bits of it.
    pub fn finish(&self) -> [u8; 16] {
        let mut out = [0; 16];
        self.0.finalize_xof().fill(&mut out);
        out
    }

    /// Eight hex digits of it, for people who compare by eye.
    pub fn short(&self) -> Hex<4> {
        let [a, b, c, d, ..] = self.finish();
        Hex::of(&[a, b, c, d])
    }
}
