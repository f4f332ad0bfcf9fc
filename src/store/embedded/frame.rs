//! The bytes of one write.
//!
//! A segment is a header and then frames, one behind the other. Each frame is one version of one record. All numbers
//! are little endian; times are milliseconds on the store's own clock.
//!
//! ```text
//!   0  magic        u32
//!   4  kind         u8   1 record, 2 gone (the record was removed), 3 time (nothing but the clock)
//!   5  reserved     u8   0
//!   6  route        u16  length
//!   8  record       u32  length
//!  12  synced       u32  how much of this segment was on the disk for sure when this was written, in units of 8 bytes
//!  16  expires at   u64
//!  24  kept until   u64  this frame is needed until then: see `RecordVersion::kept_until`
//!  32  now          u64
//!  40  digest       16   of the record's name
//!  56  record sum   u64  XXH3 of the record
//!  64  head sum     u64  XXH3 of the 64 bytes above and the route
//!  72  route, then the record, then zeros up to a multiple of 8
//! ```

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::record::RecordName;

/// A record at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordVersion {
    /// The record is nowhere from then on.
    pub(super) expires_at: u64,
    /// The later of `expires_at` and what the version before was kept until. An older version may outlive this one, and
    /// must not come back when this one is thrown away; after this time every older version has expired as well.
    pub(super) kept_until: u64,
    /// `None`: it was removed.
    pub(super) record: Option<Bytes>,
}

/// What stands before the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// `None`: the frame tells the time only.
    pub(super) name: Option<RecordName>,
    pub(super) is_gone: bool,
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
/// Bytes of a head without its route.
pub(super) const FIXED: usize = 72;
const SUMMED: usize = 64;
const MAGIC: u32 = 0x6d72_666f;

const RECORD: u8 = 1;
const GONE: u8 = 2;
const TIME: u8 = 3;

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameError {
    /// As many bytes are needed to tell.
    Needs(usize),
    /// They are something else.
    Damaged,
}

impl FrameHead {
    /// Bytes of the whole frame.
    pub(super) fn frame_len(&self) -> u64 {
        let route = self.name.as_ref().map_or(0, |name| name.route.len());
        padded(FIXED as u64 + route as u64 + u64::from(self.record_len))
    }

    /// Bytes before the record.
    pub(super) fn len(&self) -> usize {
        FIXED + self.name.as_ref().map_or(0, |name| name.route.len())
    }

    /// Reads the head that `bytes` begin with.
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
            (RECORD | GONE, Ok(route)) => Some(RecordName { route: Arc::from(route), digest }),
            _ => return Err(FrameError::Damaged),
        };
        Ok(Self { name, is_gone: kind == GONE, expires_at, kept_until, now, synced, record_len, record_sum })
    }
}

/// Bytes that a frame of this name and record takes.
pub(super) fn frame_len(name: &RecordName, record: Option<&Bytes>) -> u64 {
    padded((FIXED + name.route.len() + record.map_or(0, Bytes::len)) as u64)
}

/// What is the same in all frames that are written at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameTime {
    pub(super) now: u64,
    /// In bytes.
    pub(super) synced: u64,
}

/// Appends a frame. The lengths must fit their fields.
pub(super) fn write(out: &mut Vec<u8>, name: &RecordName, version: &RecordVersion, record_sum: u64, moment: FrameTime) {
    let kind = if version.record.is_some() { RECORD } else { GONE };
    write_frame(out, kind, Some(name), version, record_sum, moment);
}

/// Appends a frame that tells the time only.
pub(super) fn write_time(out: &mut Vec<u8>, moment: FrameTime) {
    write_frame(out, TIME, None, &RecordVersion { expires_at: 0, kept_until: 0, record: None }, sum(&[b""]), moment);
}

fn write_frame(
    out: &mut Vec<u8>,
    kind: u8,
    name: Option<&RecordName>,
    version: &RecordVersion,
    record_sum: u64,
    moment: FrameTime,
) {
    let start = out.len();
    let route = name.map_or(&b""[..], |name| name.route.as_bytes());
    let record = version.record.as_deref().unwrap_or_default();
    out.put_u32_le(MAGIC);
    out.put_u8(kind);
    out.put_u8(0);
    out.put_u16_le(route.len() as u16);
    out.put_u32_le(record.len() as u32);
    out.put_u32_le((moment.synced / ALIGN) as u32);
    out.put_u64_le(version.expires_at);
    out.put_u64_le(version.kept_until);
    out.put_u64_le(moment.now);
    out.put_slice(&name.map_or([0; 16], |name| name.digest));
    out.put_u64_le(record_sum);
    let head_sum = sum(&[&out[start..], route]);
    out.put_u64_le(head_sum);
    out.put_slice(route);
    out.put_slice(record);
    let length = padded((out.len() - start) as u64) as usize;
    out.resize(start + length, 0);
}

/// Whether bytes are damaged: XXH3, each piece seeded with the sum of those before it. It takes a tenth of what BLAKE3 takes
/// for the few bytes of a head, and nobody needs to be kept from making bytes of a given sum here: whoever can write to the
/// folder can write whole frames.
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

    fn frame(record: Option<&'static [u8]>) -> Vec<u8> {
        let record = record.map(Bytes::from_static);
        let record_sum = sum(&[record.as_deref().unwrap_or_default()]);
        let mut out = Vec::new();
        write(&mut out, &name(), &RecordVersion { expires_at: 17, kept_until: 18, record }, record_sum, MOMENT);
        out
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        for record in [None, Some(&b""[..]), Some(b"1234"), Some(b"12345678")] {
            let bytes = frame(record);
            let head = FrameHead::read(&bytes).expect("a frame");
            assert_eq!((head.name.as_ref(), head.is_gone), (Some(&name()), record.is_none()));
            assert_eq!((head.expires_at, head.kept_until, head.now, head.synced), (17, 18, MOMENT.now, MOMENT.synced));
            assert_eq!(head.frame_len(), bytes.len() as u64);
            assert_eq!(frame_len(&name(), record.map(Bytes::from_static).as_ref()), bytes.len() as u64);
            let read = &bytes[head.len()..][..head.record_len as usize];
            assert_eq!((read, sum(&[read])), (record.unwrap_or_default(), head.record_sum));
        }
        let mut time = Vec::new();
        write_time(&mut time, MOMENT);
        let head = FrameHead::read(&time).expect("a frame");
        assert_eq!((head.name.as_ref(), head.now, head.frame_len()), (None, MOMENT.now, time.len() as u64));
        assert_eq!(head.record_sum, sum(&[b""]));
    }

    #[test]
    fn every_flipped_bit_before_the_record_is_found() {
        let whole = frame(Some(b"{}"));
        let head = FrameHead::read(&whole).expect("a frame").len();
        for at in 0..head * 8 {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            // A longer route may need more bytes than there are: that is no frame either.
            assert!(FrameHead::read(&bytes).is_err(), "bit {at}");
        }
        for length in 0..head {
            assert!(matches!(FrameHead::read(&whole[..length]), Err(FrameError::Needs(_))));
        }
    }
}
