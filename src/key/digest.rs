use std::cell::Cell;
use std::fmt;

use blake3::Hasher;

use crate::record::Hex;

/// The key of all digests of names and fingerprints (keyed BLAKE3). With unkeyed digests, credentials and bodies could be
/// found by guessing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DigestKey([u8; 32]);

/// What a digest is of. Digests of different kinds never collide. The numbers are part of the stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestKind {
    /// [`DigestKey::check`].
    Check = 0,
    /// The name of an operation that has a key.
    ByKey = 1,
    /// The name of an operation whose payload is its key.
    ByPayload = 2,
    /// Method, path and query.
    Target = 3,
    /// A request's body.
    Body = 4,
    /// A key, for log lines.
    KeyInLogs = 5,
    /// A value that a selector has found, for display.
    Reading = 6,
    /// A question to an authorization server (`replay_auth`). Not stored.
    ReplayAuth = 7,
}

impl DigestKey {
    /// The key that a store has generated.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key that an operator chose (`store.digest_key`).
    pub fn from_secret(secret: &str) -> Self {
        Self(blake3::derive_key("onlyonce 2026-11 store.digest_key", secret.as_bytes()))
    }

    /// The bytes that a store keeps of its own key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Identifies a key without revealing it.
    pub fn check(&self) -> [u8; 16] {
        self.digest(DigestKind::Check).finish()
    }

    /// A digest of one kind.
    pub fn digest(&self, kind: DigestKind) -> Digest {
        let mut buffer = BUFFER.take();
        buffer.clear();
        buffer.push(kind as u8);
        Digest { key: *self, buffer, long: None }
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(…)")
    }
}

/// Computes a digest of the added bytes. Callers make the encoding injective: counts and lengths come before what they
/// count, tags before what they mark.
///
/// The bytes are buffered and hashed at once: feeding the hash piece by piece costs three times as much.
pub struct Digest {
    key: DigestKey,
    buffer: Vec<u8>,
    /// Of bytes that no longer fit into the buffer.
    long: Option<Box<Hasher>>,
}

/// The number of bytes that are hashed at once: enough for the hash to process several blocks in parallel.
const AT_ONCE: usize = 16 * 1024;

thread_local! {
    /// The consecutive digests of a thread share one buffer.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Digest {
    /// Adds a tag of one byte.
    #[inline]
    pub fn tag(&mut self, tag: u8) {
        if self.buffer.len() >= AT_ONCE {
            self.overflow(&[]);
        }
        self.buffer.push(tag);
    }

    /// Adds a count: seven bits in each byte, the lowest first, and the highest bit in all bytes but the last.
    #[inline]
    pub fn count(&mut self, mut count: usize) {
        while count > 0x7f {
            self.tag(count as u8 | 0x80);
            count >>= 7;
        }
        self.tag(count as u8);
    }

    /// Adds the length of bytes, then the bytes.
    pub fn part(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes(bytes);
    }

    /// Adds bytes whose length is fixed, or that come last.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > AT_ONCE {
            return self.overflow(bytes);
        }
        self.buffer.extend_from_slice(bytes);
    }

    #[cold]
    fn overflow(&mut self, bytes: &[u8]) {
        let long = self.long.get_or_insert_with(|| Box::new(Hasher::new_keyed(&self.key.0)));
        long.update(&self.buffer);
        self.buffer.clear();
        if bytes.len() < AT_ONCE {
            self.buffer.extend_from_slice(bytes);
        } else {
            long.update(bytes);
        }
    }

    /// The first 128 bits.
    pub fn finish(self) -> [u8; 16] {
        let Self { key, buffer, long } = self;
        let hash = match long {
            None => blake3::keyed_hash(&key.0, &buffer),
            Some(mut long) => long.update(&buffer).finalize(),
        };
        BUFFER.set(buffer);
        let mut out = [0; 16];
        out.copy_from_slice(&hash.as_bytes()[..16]);
        out
    }

    /// The first eight hex digits, for comparison by eye.
    pub fn short(self) -> Hex<4> {
        let [a, b, c, d, ..] = self.finish();
        Hex::of(&[a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const KEY: DigestKey = DigestKey::from_bytes([7; 32]);

    #[test]
    fn kinds_and_keys_never_meet() {
        let kinds = [
            DigestKind::Check,
            DigestKind::ByKey,
            DigestKind::ByPayload,
            DigestKind::Target,
            DigestKind::Body,
            DigestKind::KeyInLogs,
            DigestKind::Reading,
            DigestKind::ReplayAuth,
        ];
        let keys = [KEY, DigestKey::from_bytes([8; 32])];
        let digests: Vec<_> = keys.iter().flat_map(|key| kinds.map(|kind| key.digest(kind).finish())).collect();
        for (at, one) in digests.iter().enumerate() {
            assert!(!digests[at + 1..].contains(one), "{at}");
        }
    }

    #[test]
    fn a_long_digest_leaves_a_small_buffer() {
        let mut digest = KEY.digest(DigestKind::Body);
        for _ in 0..10 * AT_ONCE {
            digest.tag(1);
        }
        let whole = blake3::keyed_hash(KEY.as_bytes(), &[&[DigestKind::Body as u8][..], &[1; 10 * AT_ONCE]].concat());
        assert_eq!(digest.finish()[..], whole.as_bytes()[..16]);
        assert!(BUFFER.take().capacity() <= 2 * AT_ONCE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However long it is, and in whatever pieces it comes; and beside another one of the same thread.
        #[test]
        fn a_digest_is_of_the_bytes_alone(pieces in vec(prop_oneof![0..300_usize, 8_000..40_000_usize], 0..8)) {
            let text: Vec<u8> = (0..pieces.iter().sum::<usize>()).map(|at| (at % 251) as u8).collect();
            let (mut digest, mut beside) = (KEY.digest(DigestKind::Body), KEY.digest(DigestKind::Target));
            let mut rest = &text[..];
            for length in pieces {
                let (piece, behind) = rest.split_at(length);
                digest.bytes(piece);
                beside.tag(1);
                rest = behind;
            }
            beside.finish();
            let whole = blake3::keyed_hash(KEY.as_bytes(), &[&[DigestKind::Body as u8], &text[..]].concat());
            prop_assert_eq!(&digest.finish()[..], &whole.as_bytes()[..16]);
        }
    }
}
