//! A large body, in the chunks that it is stored in.
//!
//! ```text
//! chunk:   payload, digest (8 bytes)
//! digest:  XXH3-64 of the payload; its seed is that of the index (u64) and 1 for the last chunk, else 0 (u8), whose seed
//!          is that of the owner's token (16), the digest (16) and the route of the record's name
//! ```
//!
//! Every chunk but the last has the payload's full size, which the record says with the body's length: a [`Cut`]. So it is
//! known where each chunk lies, whether under a name of its own, in a list, or one behind the other
//! ([`Cut::lies_at`]). A body has one chunk at least; that of an empty one is empty.
//!
//! To write a body, give its pieces to a [`Cutter`] as they come, store each [`Chunk`] that it hands out, and then the
//! record, with the cut that [`Cutter::end`] returns. To read it, give what is stored to a [`ChunkReader`], chunk after chunk,
//! and pass on what it returns: each is checked before a byte of it leaves. Where a chunk is refused, the body must be
//! broken off, never ended; only [`ChunkReader::is_at_end`] says that it was whole.
//!
//! What this is against: damage, chunks that were lost, cut short, doubled or mixed up, and those of another record or
//! attempt. It is not against somebody who writes to the store: who can do that can write a record as well, whose
//! checksum needs no key either. So the digest is one that costs next to nothing. Against such a writer, encryption is the
//! means, which is to authenticate record and chunks alike.

use std::ops::Range;

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::codec::Unreadable;
use super::{RecordName, Token};

/// Payload of every chunk but the last. Redis takes 380 µs of CPU for a MiB that it gets and as many for one that it gives in
/// pieces of this size, 490 in halves of it, 840 in quarters; in larger ones 270 to 450.
pub const SIZE: u32 = 64 * 1024;

const DIGEST: usize = 8;

/// How a body is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of the body.
    length: u64,
    /// Payload of every chunk but the last. Not 0.
    size: u32,
}

impl Cut {
    /// A body of so many bytes, in chunks of [`SIZE`].
    pub const fn of(length: u64) -> Self {
        Self { length, size: SIZE }
    }

    /// As a record says it; chunks of no size are none.
    pub(super) fn read(length: u64, size: u32) -> Option<Self> {
        (size > 0).then_some(Self { length, size })
    }

    /// Bytes of the body.
    pub fn length(self) -> u64 {
        self.length
    }

    /// Bytes of every chunk's payload but the last's.
    pub fn size(self) -> u32 {
        self.size
    }

    /// How many chunks there are.
    pub fn count(self) -> u64 {
        self.length.div_ceil(self.size.into()).max(1)
    }

    /// Bytes of the chunks, as they are stored.
    pub fn stored(self) -> u64 {
        self.length.saturating_add(self.count().saturating_mul(DIGEST as u64))
    }

    /// Where a chunk lies when they lie one behind the other. Of what is no chunk, an empty range at the end.
    pub fn lies_at(self, index: u64) -> Range<u64> {
        let starts = |index: u64| index.saturating_mul(u64::from(self.size) + DIGEST as u64).min(self.stored());
        starts(index)..starts(index.saturating_add(1))
    }
}

/// A body that lies apart from its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApartBody {
    /// Of the attempt that has written it.
    pub token: Token,
    /// How it is cut.
    pub cut: Cut,
}

impl ApartBody {
    /// Checks its chunks as they come. The name is the record's.
    pub fn reader(self, name: &RecordName) -> ChunkReader {
        ChunkReader::new(name, self.token, self.cut)
    }
}

/// The record and the attempt that a body belongs to.
#[derive(Debug, Clone, Copy)]
struct Binding(u64);

impl Binding {
    fn new(name: &RecordName, token: Token) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&token.0);
        hasher.update(&name.digest);
        hasher.update(name.route.as_bytes());
        Self(hasher.digest())
    }

    fn seed(self, index: u64, is_last: bool) -> u64 {
        let mut place = [0; 9];
        place[..8].copy_from_slice(&index.to_le_bytes());
        place[8] = is_last.into();
        xxh3_64_with_seed(&place, self.0)
    }

    fn digest(self, index: u64, is_last: bool, pieces: &[Bytes]) -> [u8; DIGEST] {
        let seed = self.seed(index, is_last);
        let digest = match pieces {
            [piece] => xxh3_64_with_seed(piece, seed),
            pieces => {
                let mut hasher = Xxh3::with_seed(seed);
                pieces.iter().for_each(|piece| hasher.update(piece));
                hasher.digest()
            }
        };
        digest.to_le_bytes()
    }
}

/// One chunk, to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// From 0.
    pub index: u64,
    /// What is to be stored; only the concatenation means something. None of the body's bytes was copied.
    pub pieces: Vec<Bytes>,
}

impl Chunk {
    /// Bytes that are to be stored.
    pub fn stored(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }
}

/// Cuts a body as it comes.
#[derive(Debug)]
pub struct Cutter {
    binding: Binding,
    index: u64,
    length: u64,
    /// Of the chunk that is being filled. A full one waits for a byte that shows that it is not the last.
    pieces: Vec<Bytes>,
    filled: usize,
}

impl Cutter {
    /// For the body of the answer that the attempt with this token has brought.
    pub fn new(name: &RecordName, token: Token) -> Self {
        Self { binding: Binding::new(name, token), index: 0, length: 0, pieces: Vec::new(), filled: 0 }
    }

    /// Adds a piece of the body, and hands out the chunks that are complete.
    pub fn push(&mut self, mut piece: Bytes, mut chunk: impl FnMut(Chunk)) {
        self.length += piece.len() as u64;
        while !piece.is_empty() {
            if self.filled == SIZE as usize {
                chunk(self.seal(false));
            }
            let fits = piece.split_to(piece.len().min(SIZE as usize - self.filled));
            self.filled += fits.len();
            self.pieces.push(fits);
        }
    }

    /// The last chunk, and what the record says of them all.
    pub fn end(mut self) -> (Chunk, Cut) {
        (self.seal(true), Cut::of(self.length))
    }

    fn seal(&mut self, is_last: bool) -> Chunk {
        let mut pieces = std::mem::take(&mut self.pieces);
        let digest = self.binding.digest(self.index, is_last, &pieces);
        pieces.push(Bytes::copy_from_slice(&digest));
        let chunk = Chunk { index: self.index, pieces };
        (self.index, self.filled) = (self.index + 1, 0);
        chunk
    }
}

/// All chunks of a body that is at hand.
pub fn cut(name: &RecordName, token: Token, body: &[Bytes]) -> (Vec<Chunk>, Cut) {
    let mut cutter = Cutter::new(name, token);
    let mut chunks = Vec::new();
    body.iter().for_each(|piece| cutter.push(piece.clone(), |chunk| chunks.push(chunk)));
    let (last, cut) = cutter.end();
    chunks.push(last);
    (chunks, cut)
}

/// Checks the chunks of a body, one after the other.
#[derive(Debug)]
pub struct ChunkReader {
    binding: Binding,
    cut: Cut,
    next: u64,
}

impl ChunkReader {
    /// For the body of the record of this name, as the record says that it was cut.
    pub fn new(name: &RecordName, token: Token, cut: Cut) -> Self {
        Self { binding: Binding::new(name, token), cut, next: 0 }
    }

    /// The chunk that is wanted next; `None` at the end.
    pub fn wanted(&self) -> Option<u64> {
        (!self.is_at_end()).then_some(self.next)
    }

    /// Whether the whole body was read.
    pub fn is_at_end(&self) -> bool {
        self.next == self.cut.count()
    }

    /// The payload of the next chunk, which shares the bytes that are `stored`. One that is refused may be asked for again.
    pub fn read(&mut self, mut stored: Bytes) -> Result<Bytes, Unreadable> {
        let index = self.wanted().ok_or(NOT_STORED)?;
        let Range { start, end } = self.cut.lies_at(index);
        if stored.len() as u64 != end - start {
            return Err(NOT_STORED);
        }
        let digest = stored.split_off(stored.len() - DIGEST);
        let is_last = index + 1 == self.cut.count();
        if self.binding.digest(index, is_last, std::slice::from_ref(&stored)) != digest[..] {
            return Err(NOT_STORED);
        }
        self.next = index + 1;
        Ok(stored)
    }
}

const NOT_STORED: Unreadable = Unreadable::Damaged("its body is not the one that was stored");

#[cfg(test)]
mod tests;
