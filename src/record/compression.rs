//! Compression of stored bodies: Zstandard (RFC 8878).
//!
//! ```text
//! extension:   algorithm u8 (1), length u64 of the body
//! ```
//!
//! The body is one frame, in the record or in [chunks](super::chunks). It is encrypted after it was compressed, if it is.
//! Only the body is compressed, so that the fields can be read without it, and it is only expanded to be sent.

use std::fmt;

use bytes::{Bytes, BytesMut};
use zstd::stream::raw::{Decoder, Encoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::{CParameter, DParameter};

use super::codec::Unreadable;
use super::{ReplyBody, code};

const ZSTD: u8 = 1;
const VALUE: usize = 1 + 8;
/// Bytes of the extension, with its code and length.
pub(super) const EXTENSION: usize = 3 + VALUE;

/// The default of zstd. docs/redis.md has what it saves and costs.
const LEVEL: i32 = 3;
/// Log2 of the bytes that a decoder must remember. Larger windows save little of bodies of this size.
const WINDOW_LOG: u32 = 19;
/// Bytes of one piece of an expanded body.
const PIECE: usize = 64 * 1024;

/// A body, compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompressedBody {
    /// One frame.
    pub frame: Bytes,
    /// Bytes of the body.
    pub length: u64,
}

/// Compresses a body. `None` where it would not become shorter by an eighth at least.
pub fn compress(body: &[Bytes]) -> Option<CompressedBody> {
    let length: usize = body.iter().map(Bytes::len).sum();
    let most = length - length / 8;
    let mut encoder = Encoder::new(LEVEL).ok()?;
    encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG)).ok()?;
    encoder.set_pledged_src_size(Some(length as u64)).ok()?;
    // With no more room than that, what grows too long ends early.
    let mut frame = vec![0; most];
    let mut out = OutBuffer::around(&mut frame[..]);
    for piece in body {
        let mut input = InBuffer::around(piece);
        while input.pos() < piece.len() {
            encoder.run(&mut input, &mut out).ok()?;
            if out.pos() == most {
                return None;
            }
        }
    }
    while encoder.finish(&mut out, true).ok()? > 0 {
        if out.pos() == most {
            return None;
        }
    }
    let written = out.pos();
    frame.truncate(written);
    frame.shrink_to_fit();
    Some(CompressedBody { frame: frame.into(), length: length as u64 })
}

/// The whole extension of a record whose body is compressed.
pub(super) fn extension(body: &ReplyBody) -> Option<[u8; EXTENSION]> {
    let length = match body {
        ReplyBody::Held(_) => return None,
        ReplyBody::Compressed(body) => body.length,
        ReplyBody::Apart(body) => body.expands_to?,
    };
    let mut extension = [0; EXTENSION];
    extension[0] = code::COMPRESSION;
    extension[1] = VALUE as u8;
    extension[3] = ZSTD;
    extension[4..].copy_from_slice(&length.to_le_bytes());
    Some(extension)
}

/// The length of the body, which the value of an extension tells.
pub(super) fn read(value: &[u8]) -> Result<u64, Unreadable> {
    match value.split_first() {
        Some((&ZSTD, length)) => match length.try_into().map(u64::from_le_bytes) {
            Ok(length) if length > 0 => Ok(length),
            Ok(_) | Err(_) => Err(Unreadable::Damaged("it does not tell how it is compressed")),
        },
        Some(_) | None => Err(Unreadable::Extension(code::COMPRESSION)),
    }
}

/// Expands a body piece by piece: no more than its length, and no more memory than [`memory_of`](Self::memory_of) it.
pub struct Expander {
    decoder: Decoder<'static>,
    input: Bytes,
    /// Bytes of the body that are to come.
    left: u64,
    is_at_end: bool,
}

impl Expander {
    /// For a body of this length.
    pub fn new(length: u64) -> Result<Self, Unreadable> {
        let mut decoder = Decoder::new().map_err(|_| NOT_EXPANDABLE)?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(|_| NOT_EXPANDABLE)?;
        Ok(Self { decoder, input: Bytes::new(), left: length, is_at_end: false })
    }

    /// What expanding a body of this length takes, besides the piece that is handed out.
    pub fn memory_of(length: u64) -> u64 {
        /// The decoder's own, and its buffers for one block of input and of output (RFC 8878, 3.1.1.2.4).
        const OWN: u64 = 512 * 1024;
        OWN + length.min(1 << WINDOW_LOG)
    }

    /// Takes the next part of the frame, once [`expand`](Self::expand) has said that it wants more.
    pub fn feed(&mut self, part: Bytes) {
        debug_assert!(self.input.is_empty());
        self.input = part;
    }

    /// The next piece of the body; `None` when more of the frame is needed for it.
    pub fn expand(&mut self) -> Result<Option<Bytes>, Unreadable> {
        while !self.is_at_end {
            let room = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
            // One byte more shows a frame that is longer than it should be.
            let mut piece = BytesMut::zeroed(room.max(1));
            let mut input = InBuffer::around(&self.input);
            let mut out = OutBuffer::around(&mut piece[..]);
            let hint = self.decoder.run(&mut input, &mut out).map_err(|_| NOT_EXPANDABLE)?;
            let (read, written) = (input.pos(), out.pos());
            let _ = self.input.split_to(read);
            self.is_at_end = hint == 0;
            self.left = self.left.checked_sub(written as u64).ok_or(NOT_EXPANDABLE)?;
            if self.is_at_end && (self.left > 0 || !self.input.is_empty()) {
                return Err(NOT_EXPANDABLE);
            }
            if written > 0 {
                piece.truncate(written);
                return Ok(Some(piece.freeze()));
            }
            if self.input.is_empty() && !self.is_at_end {
                return Ok(None);
            }
            if read == 0 {
                return Err(NOT_EXPANDABLE);
            }
        }
        Ok(None)
    }

    /// Whether the whole body was handed out.
    pub fn is_at_end(&self) -> bool {
        self.is_at_end
    }
}

impl fmt::Debug for Expander {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expander").field("left", &self.left).finish_non_exhaustive()
    }
}

/// Why a body ends before its end.
pub const NOT_EXPANDABLE: Unreadable = Unreadable::Damaged("its body does not expand to what was stored");

#[cfg(test)]
mod tests;
