//! The manifest of the store: its digest key, and its segments. It is written as a whole, and replaces the previous one
//! atomically.
//!
//! ```text
//! magic 8, layout u8, store id 16, clock u64, next segment u64
//! digest key note: length u16, bytes
//! segments: count u32, then for each
//!     id u64, state u8 (1 written to, 2 written to and closed, 3 full), length u64, kept until u64
//!     usage: count u32, then for each: span u64, bytes u64, records u64
//! checksum 8: XXH3 of all bytes before it
//! ```

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};

use super::frame;
use super::usage::{ExpirySpan, Usage};
use crate::store::digest_key::DigestKeyNote;

/// The contents of the file `manifest`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manifest {
    /// Random, made with the store. The segments hold it too.
    pub(super) store: [u8; 16],
    /// The store's time when the manifest was written.
    pub(super) clock: u64,
    pub(super) digest_key: Option<DigestKeyNote>,
    /// The number of the next segment. No segment of this number or a higher one has frames.
    pub(super) next_segment: u64,
    pub(super) segments: BTreeMap<u64, ManifestEntry>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ManifestEntry {
    pub(super) state: SegmentState,
    /// The time from which none of its frames is needed any more. Valid once the segment is full.
    pub(super) kept_until: u64,
    pub(super) usage: Usage,
}

/// What is known about the length of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentState {
    /// The segment is being written. Its end is found by reading it.
    Open,
    /// The segment had this length when the store was closed. It can be written further.
    Closed(u64),
    /// The segment has this length for good.
    Full(u64),
}

const MAGIC: &[u8; 8] = b"onlyonce";
const LAYOUT: u8 = 3;

const OPEN: u8 = 1;
const CLOSED: u8 = 2;
const FULL: u8 = 3;

/// Why bytes are no manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ManifestError {
    #[error("its layout is {0}")]
    Newer(u8),
    #[error("its layout is {0}")]
    Older(u8),
    #[error("the file `manifest` is damaged")]
    Damaged,
}

impl Manifest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_slice(MAGIC);
        out.put_u8(LAYOUT);
        out.put_slice(&self.store);
        out.put_u64_le(self.clock);
        out.put_u64_le(self.next_segment);
        let note = self.digest_key.map(DigestKeyNote::encode).unwrap_or_default();
        out.put_u16_le(note.len() as u16);
        out.put_slice(&note);
        out.put_u32_le(self.segments.len() as u32);
        for (id, entry) in &self.segments {
            let (state, length) = match entry.state {
                SegmentState::Open => (OPEN, 0),
                SegmentState::Closed(length) => (CLOSED, length),
                SegmentState::Full(length) => (FULL, length),
            };
            out.put_u64_le(*id);
            out.put_u8(state);
            out.put_u64_le(length);
            out.put_u64_le(entry.kept_until);
            out.put_u32_le(entry.usage.spans().len() as u32);
            for (span, bytes, records) in entry.usage.spans() {
                [span.0, bytes, records].iter().for_each(|number| out.put_u64_le(*number));
            }
        }
        out.put_u64_le(frame::sum(&[&out]));
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        match bytes.strip_prefix(MAGIC).and_then(<[u8]>::first) {
            Some(&LAYOUT) => {}
            Some(&layout) if layout > LAYOUT => return Err(ManifestError::Newer(layout)),
            Some(&layout) if layout > 0 => return Err(ManifestError::Older(layout)),
            _ => return Err(ManifestError::Damaged),
        }
        let length = bytes.len().checked_sub(8).ok_or(ManifestError::Damaged)?;
        let (inner, end) = bytes.split_at(length);
        if end != frame::sum(&[inner]).to_le_bytes() {
            return Err(ManifestError::Damaged);
        }
        Self::read(&inner[MAGIC.len() + 1..]).ok_or(ManifestError::Damaged)
    }

    fn read(mut input: &[u8]) -> Option<Self> {
        let input = &mut input;
        let mut store = [0; 16];
        input.try_copy_to_slice(&mut store).ok()?;
        let (clock, next_segment) = (input.try_get_u64_le().ok()?, input.try_get_u64_le().ok()?);
        let length = usize::from(input.try_get_u16_le().ok()?);
        let (note, rest) = input.split_at_checked(length)?;
        *input = rest;
        let digest_key = if note.is_empty() { None } else { Some(DigestKeyNote::decode(note)?) };
        let mut segments = BTreeMap::new();
        for _ in 0..input.try_get_u32_le().ok()? {
            let (id, state, length) =
                (input.try_get_u64_le().ok()?, input.try_get_u8().ok()?, input.try_get_u64_le().ok()?);
            let state = match state {
                OPEN => SegmentState::Open,
                CLOSED => SegmentState::Closed(length),
                FULL => SegmentState::Full(length),
                _ => return None,
            };
            let kept_until = input.try_get_u64_le().ok()?;
            let mut usage = Usage::default();
            for _ in 0..input.try_get_u32_le().ok()? {
                let mut number = || input.try_get_u64_le().ok();
                usage.restore(ExpirySpan(number()?), number()?, number()?);
            }
            segments.insert(id, ManifestEntry { state, kept_until, usage });
        }
        input.is_empty().then_some(Self { store, clock, digest_key, next_segment, segments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DigestKey;
    use crate::store::embedded::frame::FrameKind;

    fn manifest() -> Manifest {
        let mut usage = Usage::default();
        usage.add(FrameKind::Record, 5_000_000, 640);
        usage.add(FrameKind::Record, 5_000_001, 640);
        usage.add(FrameKind::Record, 900_000_000, 96);
        let entry = |state| ManifestEntry { state, kept_until: 17, usage: usage.clone() };
        let segments = [
            (2, entry(SegmentState::Full(4096))),
            (5, entry(SegmentState::Closed(80))),
            (6, entry(SegmentState::Open)),
        ];
        Manifest {
            store: [7; 16],
            clock: 1_763_700_000_000,
            digest_key: Some(DigestKeyNote::Made(DigestKey::from_bytes([9; 32]))),
            next_segment: 7,
            segments: segments.into(),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let empty = Manifest { digest_key: None, segments: BTreeMap::new(), ..manifest() };
        for manifest in [manifest(), empty] {
            assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }

    #[test]
    fn nothing_else_is_read() {
        let whole = manifest().encode();
        for length in 0..whole.len() {
            assert_eq!(Manifest::decode(&whole[..length]), Err(ManifestError::Damaged), "{length}");
        }
        for at in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(Manifest::decode(&bytes).is_err(), "bit {at}");
        }
        let mut newer = whole;
        newer[MAGIC.len()] = 4;
        assert_eq!(Manifest::decode(&newer), Err(ManifestError::Newer(4)));
    }
}
