//! The bytes of one write.
//!
//! A segment is a header followed by frames. Each frame is one version of one record. All numbers are little endian.
//! Times are milliseconds on the store's own clock.
//!
//! ```text
//!   0  magic        u32
//!   4  kind         u8   1 record, 2 gone (the record was removed), 3 time (only the clock), 4 chunk (of an answer)
//!   5  reserved     u8   0
//!   6  route        u16  length
//!   8  record       u32  length
//!  12  synced       u32  how much of this segment was certainly on the disk at `now`, in units of 8 bytes
//!  16  expires at   u64
//!  24  kept until   u64  the frame is needed until this time: see `RecordVersion::kept_until`
//!  32  now          u64
//!  40  digest       16   of the record's name; of a chunk: see `bodies.rs`
//!  56  record sum   u64  XXH3 of the record
//!  64  head sum     u64  XXH3 of the 64 bytes above and the route
//!  72  route, then the record, then zeros up to a multiple of 8
//! ```

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::record::RecordName;

/// One version of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordVersion {
    /// The record does not exist from this time on.
    pub(super) expires_at: u64,
    /// The later of `expires_at` and the `kept_until` of the previous version. An older version may outlive this one.
    /// It must not come back when this frame is removed. After `kept_until` every older version has expired as well.
    pub(super) kept_until: u64,
    pub(super) content: FrameContent,
}

/// What a frame holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FrameContent {
    Record(Bytes),
    /// The record was removed.
    Gone,
    /// A chunk of an answer, in pieces.
    Chunk(Vec<Bytes>),
}

impl FrameContent {
    pub(super) fn kind(&self) -> FrameKind {
        match self {
            Self::Record(_) => FrameKind::Record,
            Self::Gone => FrameKind::Gone,
            Self::Chunk(_) => FrameKind::Chunk,
        }
    }

    fn pieces(&self) -> &[Bytes] {
        match self {
            Self::Record(record) => std::slice::from_ref(record),
            Self::Gone => &[],
            Self::Chunk(pieces) => pieces,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pieces().iter().map(Bytes::len).sum()
    }

    /// The checksum of the content. It does not depend on how the content is cut into pieces.
    pub(super) fn sum(&self) -> u64 {
        match self.pieces() {
            [] => sum(&[b""]),
            [piece] => sum(&[piece]),
            pieces => {
                let mut hasher = Xxh3::new();
                pieces.iter().for_each(|piece| hasher.update(piece));
                hasher.digest()
            }
        }
    }
}

/// The kinds of frames that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    Record,
    Gone,
    Chunk,
}

/// Everything before the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// `None`: the frame holds only the time.
    pub(super) name: Option<RecordName>,
    pub(super) kind: FrameKind,
    pub(super) expires_at: u64,
    pub(super) kept_until: u64,
    pub(super) now: u64,
    /// In bytes.
    pub(super) synced: u64,
    pub(super) record_len: u32,
    pub(super) record_sum: u64,
}

/// Where a frame begins in its segment, in units of [`ALIGN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FrameOffset(pub(super) u32);

impl FrameOffset {
    pub(super) fn of(offset: u64) -> Option<Self> {
        u32::try_from(offset / ALIGN).ok().map(Self)
    }

    pub(super) fn offset(self) -> u64 {
        u64::from(self.0) * ALIGN
    }
}

pub(super) const ALIGN: u64 = 8;
/// The bytes of a head without its route.
pub(super) const FIXED: usize = 72;
const SUMMED: usize = 64;
const MAGIC: u32 = 0x6d72_666f;

const RECORD: u8 = 1;
const GONE: u8 = 2;
const TIME: u8 = 3;
const CHUNK: u8 = 4;

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameError {
    /// So many bytes are needed to decide.
    Needs(usize),
    /// The bytes are not a frame.
    Damaged,
}

impl FrameHead {
    /// The bytes of the whole frame.
    pub(super) fn frame_len(&self) -> u64 {
        let route = self.name.as_ref().map_or(0, |name| name.route.len());
        padded(FIXED as u64 + route as u64 + u64::from(self.record_len))
    }

    /// The bytes before the record.
    pub(super) fn len(&self) -> usize {
        FIXED + self.name.as_ref().map_or(0, |name| name.route.len())
    }

    /// Reads the head at the beginning of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, FrameError> {
        let Some(mut fixed) = bytes.get(..FIXED) else { return Err(FrameError::Needs(FIXED)) };
        let input = &mut fixed;
        if input.get_u32_le() != MAGIC {
            return Err(FrameError::Damaged);
        }
        let (kind, reserved, route_len) = (input.get_u8(), input.get_u8(), usize::from(input.get_u16_le()));
        let (record_len, synced) = (input.get_u32_le(), u64::from(input.get_u32_le()) * ALIGN);
        let (expires_at, kept_until, now) = (input.get_u64_le(), input.get_u64_le(), input.get_u64_le());
        let mut digest = [0; 16];
        input.copy_to_slice(&mut digest);
        let (record_sum, head_sum) = (input.get_u64_le(), input.get_u64_le());
        let Some(route) = bytes.get(FIXED..FIXED + route_len) else { return Err(FrameError::Needs(FIXED + route_len)) };
        if reserved != 0 || sum(&[&bytes[..SUMMED], route]) != head_sum {
            return Err(FrameError::Damaged);
        }
        let name = match (kind, std::str::from_utf8(route)) {
            (TIME, _) => None,
            (RECORD | GONE | CHUNK, Ok(route)) => Some(RecordName { route: Arc::from(route), digest }),
            _ => return Err(FrameError::Damaged),
        };
        let kind = match kind {
            RECORD => FrameKind::Record,
            CHUNK => FrameKind::Chunk,
            _ => FrameKind::Gone,
        };
        Ok(Self { name, kind, expires_at, kept_until, now, synced, record_len, record_sum })
    }
}

/// The bytes of a frame with this name and so many bytes of content.
pub(super) fn frame_len(name: &RecordName, content: usize) -> u64 {
    padded((FIXED + name.route.len() + content) as u64)
}

/// The fields that are the same in all frames of one write.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameTime {
    pub(super) now: u64,
    /// In bytes.
    pub(super) synced: u64,
}

/// Frames that are about to be written to a file. Long pieces are not copied.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer {
    /// Heads and short pieces.
    short: Vec<u8>,
    /// Long pieces, each with its position in `short`.
    long: Vec<(usize, Bytes)>,
    len: u64,
}

/// Shorter pieces are copied: a separate piece costs the kernel about as much.
const LONG: usize = 4096;

impl FrameBuffer {
    pub(super) fn with_capacity(short: usize) -> Self {
        Self { short: Vec::with_capacity(short), ..Self::default() }
    }

    /// The bytes of all frames.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Appends a frame. The lengths must fit their fields.
    pub(super) fn push(&mut self, name: &RecordName, version: &RecordVersion, record_sum: u64, moment: FrameTime) {
        let kind = match version.content.kind() {
            FrameKind::Record => RECORD,
            FrameKind::Gone => GONE,
            FrameKind::Chunk => CHUNK,
        };
        self.push_frame(kind, Some(name), version, record_sum, moment);
    }

    /// Appends a frame that holds only the time.
    pub(super) fn push_time(&mut self, moment: FrameTime) {
        let version = RecordVersion { expires_at: 0, kept_until: 0, content: FrameContent::Gone };
        self.push_frame(TIME, None, &version, sum(&[b""]), moment);
    }

    fn push_frame(
        &mut self,
        kind: u8,
        name: Option<&RecordName>,
        version: &RecordVersion,
        record_sum: u64,
        moment: FrameTime,
    ) {
        let out = &mut self.short;
        let start = out.len();
        let route = name.map_or(&b""[..], |name| name.route.as_bytes());
        let record_len = version.content.len();
        out.put_u32_le(MAGIC);
        out.put_u8(kind);
        out.put_u8(0);
        out.put_u16_le(route.len() as u16);
        out.put_u32_le(record_len as u32);
        out.put_u32_le((moment.synced / ALIGN) as u32);
        out.put_u64_le(version.expires_at);
        out.put_u64_le(version.kept_until);
        out.put_u64_le(moment.now);
        out.put_slice(&name.map_or([0; 16], |name| name.digest));
        out.put_u64_le(record_sum);
        let head_sum = sum(&[&out[start..], route]);
        out.put_u64_le(head_sum);
        out.put_slice(route);
        for piece in version.content.pieces() {
            if piece.len() < LONG {
                out.put_slice(piece);
            } else {
                self.long.push((out.len(), piece.clone()));
            }
        }
        let length = (FIXED + route.len() + record_len) as u64;
        out.put_bytes(0, (padded(length) - length) as usize);
        self.len += padded(length);
    }

    /// Writes all frames, and empties the buffer.
    pub(super) fn write_at(&mut self, file: &File, offset: u64) -> io::Result<()> {
        if self.long.is_empty() {
            file.write_all_at(&self.short, offset)?;
        } else {
            self.write_pieces_at(file, offset)?;
        }
        self.short.clear();
        self.long.clear();
        self.len = 0;
        Ok(())
    }

    fn write_pieces_at(&self, file: &File, mut offset: u64) -> io::Result<()> {
        let mut pieces = Vec::with_capacity(self.long.len() * 2 + 1);
        let mut from = 0;
        for (at, long) in &self.long {
            pieces.push(IoSlice::new(&self.short[from..*at]));
            pieces.push(IoSlice::new(long));
            from = *at;
        }
        pieces.push(IoSlice::new(&self.short[from..]));
        let mut left = &mut pieces[..];
        // Removes empty slices at the front: a write of empty slices returns 0, as if the file took no bytes.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let most = left.len().min(AT_ONCE);
            match rustix::io::pwritev(file, &left[..most], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> Vec<u8> {
        let file = tempfile::tempfile().expect("a file");
        self.write_pieces_at(&file, 0).expect("written");
        let mut bytes = vec![0; self.len as usize];
        file.read_exact_at(&mut bytes, 0).expect("all of it");
        bytes
    }
}

/// The number of slices that every system takes in one call (`IOV_MAX`).
const AT_ONCE: usize = 1024;

/// A checksum against damage: XXH3, each piece seeded with the sum of those before it. For the few bytes of a head it
/// takes a tenth of the time of BLAKE3. It need not resist forgery: an attacker who can write to the folder can write
/// whole frames.
pub(super) fn sum(pieces: &[&[u8]]) -> u64 {
    pieces.iter().fold(0, |seed, piece| xxh3_64_with_seed(piece, seed))
}

fn padded(length: u64) -> u64 {
    length.next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: FrameTime = FrameTime { now: 1_763_700_000_000, synced: 4096 };

    fn name() -> RecordName {
        RecordName { route: "create-order".into(), digest: *b"\x00\xff an operation." }
    }

    fn frame(content: &FrameContent) -> Vec<u8> {
        let mut out = FrameBuffer::default();
        let version = RecordVersion { expires_at: 17, kept_until: 18, content: content.clone() };
        out.push(&name(), &version, content.sum(), MOMENT);
        out.bytes()
    }

    fn record(bytes: &'static [u8]) -> FrameContent {
        FrameContent::Record(Bytes::from_static(bytes))
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let (short, long) = (Bytes::from_static(b"12345"), Bytes::from_static(&[7; LONG]));
        for (content, expected) in [
            (FrameContent::Gone, Vec::new()),
            (record(b""), Vec::new()),
            (record(b"1234"), b"1234".to_vec()),
            (record(b"12345678"), b"12345678".to_vec()),
            (FrameContent::Record(long.clone()), long.to_vec()),
            (FrameContent::Chunk(vec![short.clone()]), short.to_vec()),
            (FrameContent::Chunk(vec![long.clone(), short.clone(), long.clone()]), [&long[..], &short, &long].concat()),
        ] {
            let bytes = frame(&content);
            let head = FrameHead::read(&bytes).expect("a frame");
            assert_eq!((head.name.as_ref(), head.kind), (Some(&name()), content.kind()));
            assert_eq!((head.expires_at, head.kept_until, head.now, head.synced), (17, 18, MOMENT.now, MOMENT.synced));
            assert_eq!(head.frame_len(), bytes.len() as u64);
            assert_eq!(frame_len(&name(), content.len()), bytes.len() as u64);
            let read = &bytes[head.len()..][..head.record_len as usize];
            assert!(read == expected && sum(&[read]) == head.record_sum);
        }
        let mut time = FrameBuffer::default();
        time.push_time(MOMENT);
        let time = time.bytes();
        let head = FrameHead::read(&time).expect("a frame");
        assert_eq!((head.name.as_ref(), head.now, head.frame_len()), (None, MOMENT.now, time.len() as u64));
        assert_eq!(head.record_sum, sum(&[b""]));
    }

    #[test]
    fn frames_follow_one_another_whatever_is_copied() {
        let contents = [record(b"1"), record(&[7; LONG]), FrameContent::Gone, record(&[8; LONG + 3]), record(b"2")];
        let mut out = FrameBuffer::default();
        for content in &contents {
            let version = RecordVersion { expires_at: 17, kept_until: 18, content: content.clone() };
            out.push(&name(), &version, content.sum(), MOMENT);
        }
        assert_eq!(out.bytes(), contents.iter().flat_map(frame).collect::<Vec<_>>());
    }

    #[test]
    fn every_flipped_bit_before_the_record_is_found() {
        let whole = frame(&record(b"{}"));
        let head = FrameHead::read(&whole).expect("a frame").len();
        for at in 0..head * 8 {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            // A longer route may need more bytes than there are. That is no frame either.
            assert!(FrameHead::read(&bytes).is_err(), "bit {at}");
        }
        for length in 0..head {
            assert!(matches!(FrameHead::read(&whole[..length]), Err(FrameError::Needs(_))));
        }
    }
}
