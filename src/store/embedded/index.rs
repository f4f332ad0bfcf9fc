//! Where the newest frame of each record lies within one segment.
//!
//! While a segment grows, its index is a hash map. Afterwards the index is sorted by the digests of the names. A digest
//! is cut down to the bits that tell entries apart: the upper bits are the bucket, the next 16 are the tag. That takes
//! six and a half bytes for each record. About once in ten thousand look-ups a tag belongs to another record, so a
//! look-up compares the name in the frame.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use bytes::{Buf, BufMut};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use super::frame::{self, FrameOffset};
use crate::record::RecordName;

/// A digest of the whole name. `RecordName::digest` does not include the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct IndexKey(u64, u64);

impl IndexKey {
    pub(super) fn of(name: &RecordName) -> Self {
        // The digest is keyed, and as good as random: no client can choose names that share a bucket.
        let whole = xxh3_128_with_seed(&name.digest, xxh3_64(name.route.as_bytes()));
        Self((whole >> 64) as u64, whole as u64)
    }
}

/// The index of the open segment.
#[derive(Debug, Default, Clone)]
pub(super) struct Growing(HashMap<IndexKey, IndexEntry, BuildHasherDefault<DigestHasher>>);

#[derive(Debug, Clone, Copy)]
struct IndexEntry {
    place: FrameOffset,
    needed: NeededUntil,
}

/// The second from which a frame is not needed any more, rounded up. This is precise enough to leave most frames
/// unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NeededUntil(u32);

impl NeededUntil {
    pub(super) fn until(milliseconds: u64) -> Self {
        Self(u32::try_from(milliseconds.div_ceil(1000)).unwrap_or(u32::MAX))
    }

    pub(super) fn is_over(self, now: u64) -> bool {
        self != Self(u32::MAX) && u64::from(self.0) * 1000 <= now
    }
}

/// Uses the digest as the hash: it is as good as random.
#[derive(Debug, Default)]
pub(super) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, half: u64) {
        self.0 ^= half;
    }
}

impl Growing {
    pub(super) fn insert(&mut self, key: IndexKey, place: FrameOffset, kept_until: u64) -> Option<FrameOffset> {
        let needed = NeededUntil::until(kept_until);
        self.0.insert(key, IndexEntry { place, needed }).map(|spot| spot.place)
    }

    pub(super) fn get(&self, key: IndexKey) -> Option<FrameOffset> {
        self.0.get(&key).map(|spot| spot.place)
    }

    pub(super) fn sorted(&self) -> Sorted {
        Sorted::new(self.0.iter().map(|(key, spot)| (*key, spot.place)).collect())
    }

    /// All places in order, and how long the frame at each place is needed.
    pub(super) fn ends(&self) -> FrameExpiries {
        let mut ends: Vec<_> = self.0.values().map(|spot| (spot.place, spot.needed)).collect();
        ends.sort_unstable();
        FrameExpiries(ends)
    }
}

/// The index of a segment that is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sorted {
    bucket_bits: u32,
    /// Where each bucket begins. The last entry is where the last bucket ends.
    starts: Box<[u32]>,
    tags: Box<[u16]>,
    places: Box<[u32]>,
}

/// A bucket has 4 to 8 entries on average.
const BUCKET: usize = 4;

impl Sorted {
    fn new(mut entries: Vec<(IndexKey, FrameOffset)>) -> Self {
        entries.sort_unstable();
        let bucket_bits = (entries.len() / BUCKET).checked_ilog2().unwrap_or(0);
        let buckets = 1_usize << bucket_bits;
        let mut starts = Vec::with_capacity(buckets + 1);
        for (at, (key, _)) in entries.iter().enumerate() {
            while starts.len() <= bucket(*key, bucket_bits) {
                starts.push(at as u32);
            }
        }
        starts.resize(buckets + 1, entries.len() as u32);
        Self {
            bucket_bits,
            starts: starts.into(),
            tags: entries.iter().map(|(key, _)| tag(*key, bucket_bits)).collect(),
            places: entries.iter().map(|(_, place)| place.0).collect(),
        }
    }

    /// Shows the places at which the record may be: nearly always one or none. A claim looks into every segment, so
    /// this is a plain loop over the tags of a bucket.
    pub(super) fn places(&self, key: IndexKey, mut found: impl FnMut(FrameOffset)) {
        let bucket = bucket(key, self.bucket_bits);
        let (from, to) = (self.starts[bucket] as usize, self.starts[bucket + 1] as usize);
        let wanted = tag(key, self.bucket_bits);
        for (at, tag) in self.tags[from..to].iter().enumerate() {
            if *tag == wanted {
                found(FrameOffset(self.places[from + at]));
            }
        }
    }

    /// The index as bytes, with the segment that it belongs to.
    pub(super) fn encode(&self, about: IndexHeader) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.starts.len() * 4 + self.places.len() * 6 + 8);
        about.write(&mut out, MAGIC);
        out.put_u32_le(self.places.len() as u32);
        out.put_u32_le(self.bucket_bits);
        self.starts.iter().for_each(|start| out.put_u32_le(*start));
        self.tags.iter().for_each(|tag| out.put_u16_le(*tag));
        self.places.iter().for_each(|place| out.put_u32_le(*place));
        out.put_u64_le(frame::sum(&[&out]));
        out
    }

    /// `None`: this is not the index of this segment, and a new one must be made.
    pub(super) fn decode(bytes: &[u8], about: IndexHeader) -> Option<Self> {
        let mut rest = about.strip(checked(bytes)?, MAGIC)?;
        let (entries, bucket_bits) = (rest.try_get_u32_le().ok()? as usize, rest.try_get_u32_le().ok()?);
        let buckets = 1_usize.checked_shl(bucket_bits)?;
        let (starts, rest) = rest.split_at_checked((buckets + 1).checked_mul(4)?)?;
        let (tags, places) = rest.split_at_checked(entries.checked_mul(2)?)?;
        let index = Self {
            bucket_bits,
            starts: numbers(starts, u32::from_le_bytes),
            tags: numbers(tags, u16::from_le_bytes),
            places: numbers(places, u32::from_le_bytes),
        };
        let in_order = index.starts.is_sorted() && index.starts.last() == Some(&(entries as u32));
        (in_order && index.places.len() == entries).then_some(index)
    }
}

/// How long the frames of a segment are needed. It is read from the disk only on demand.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FrameExpiries(Vec<(FrameOffset, NeededUntil)>);

impl FrameExpiries {
    /// The frames that are still needed, in the order of their places.
    pub(super) fn needed(&self, now: u64) -> Vec<FrameOffset> {
        self.0.iter().filter(|(_, needed)| !needed.is_over(now)).map(|(place, _)| *place).collect()
    }

    pub(super) fn encode(&self, about: IndexHeader) -> Vec<u8> {
        let mut out = Vec::with_capacity(ABOUT + self.0.len() * 8 + 8);
        about.write(&mut out, ENDS_MAGIC);
        self.0.iter().for_each(|(place, needed)| {
            out.put_u32_le(place.0);
            out.put_u32_le(needed.0);
        });
        out.put_u64_le(frame::sum(&[&out]));
        out
    }

    /// `None`: the bytes do not belong to this segment.
    pub(super) fn decode(bytes: &[u8], about: IndexHeader) -> Option<Self> {
        let mut rest = about.strip(checked(bytes)?, ENDS_MAGIC)?;
        let mut ends = Vec::with_capacity(rest.len() / 8);
        while !rest.is_empty() {
            ends.push((FrameOffset(rest.try_get_u32_le().ok()?), NeededUntil(rest.try_get_u32_le().ok()?)));
        }
        Some(Self(ends))
    }
}

/// The segment that an index belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexHeader {
    pub(super) store: [u8; 16],
    pub(super) segment: u64,
    pub(super) length: u64,
}

impl IndexHeader {
    fn write(self, out: &mut Vec<u8>, magic: &[u8; 8]) {
        out.put_slice(magic);
        out.put_slice(&self.store);
        out.put_u64_le(self.segment);
        out.put_u64_le(self.length);
    }

    fn strip<'a>(self, bytes: &'a [u8], magic: &[u8; 8]) -> Option<&'a [u8]> {
        let mut expected = Vec::with_capacity(ABOUT);
        self.write(&mut expected, magic);
        bytes.strip_prefix(expected.as_slice())
    }
}

/// All bytes but the checksum at the end. `None`: the checksum is wrong.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (bytes, end) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    (end == frame::sum(&[bytes]).to_le_bytes()).then_some(bytes)
}

const MAGIC: &[u8; 8] = b"oo-index";
const ENDS_MAGIC: &[u8; 8] = b"oo-ends\0";
/// The bytes of the magic and the [`IndexHeader`].
const ABOUT: usize = 40;
const HEADER: usize = ABOUT + 8;

fn numbers<const N: usize, T>(bytes: &[u8], read: fn([u8; N]) -> T) -> Box<[T]> {
    bytes.as_chunks().0.iter().map(|chunk| read(*chunk)).collect()
}

fn bucket(key: IndexKey, bits: u32) -> usize {
    // With no bucket bits the shift is by all 64 bits, which overflows. Then there is one bucket.
    key.0.checked_shr(64 - bits).unwrap_or(0) as usize
}

fn tag(key: IndexKey, bucket_bits: u32) -> u16 {
    (key.0 << bucket_bits >> 48) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ABOUT: IndexHeader = IndexHeader { store: [7; 16], segment: 3, length: 4096 };

    fn numbered(number: u64) -> IndexKey {
        IndexKey::of(&RecordName { route: "orders".into(), digest: u128::from(number).to_le_bytes() })
    }

    fn places(sorted: &Sorted, number: u64) -> Vec<FrameOffset> {
        let mut places = Vec::new();
        sorted.places(numbered(number), |place| places.push(place));
        places
    }

    #[test]
    fn the_route_is_part_of_the_key() {
        let name = |route: &str| RecordName { route: route.into(), digest: [1; 16] };
        assert_ne!(IndexKey::of(&name("orders")), IndexKey::of(&name("payments")));
    }

    #[test]
    fn every_record_is_found_and_hardly_another() {
        for records in [0, 1, 3, 4, 7, 8, 9, 1000, 50_000_u64] {
            let mut growing = Growing::default();
            for number in 0..records {
                assert_eq!(growing.insert(numbered(number), FrameOffset(number as u32), number), None);
            }
            let sorted = growing.sorted();
            for number in 0..records {
                assert_eq!(growing.get(numbered(number)), Some(FrameOffset(number as u32)));
                assert!(places(&sorted, number).contains(&FrameOffset(number as u32)));
            }
            let others = (records..records + 20_000).filter(|other| !places(&sorted, *other).is_empty());
            assert!(others.count() < 20, "{records}");
            assert_eq!(Sorted::decode(&sorted.encode(ABOUT), ABOUT), Some(sorted));
        }
    }

    #[test]
    fn it_takes_less_than_seven_bytes_for_a_record() {
        let mut growing = Growing::default();
        for number in 0..300_000 {
            growing.insert(numbered(number), FrameOffset(number as u32), number);
        }
        assert!(growing.sorted().encode(ABOUT).len() < 7 * 300_000);
    }

    #[test]
    fn what_is_needed_is_known_to_the_second() {
        let mut growing = Growing::default();
        for (number, kept_until) in [(4, 2001), (2, 1000), (9, u64::MAX), (1, 0)] {
            growing.insert(numbered(number), FrameOffset(number as u32), kept_until);
        }
        let ends = growing.ends();
        for (now, needed) in [(0, &[2, 4, 9][..]), (999, &[2, 4, 9]), (1000, &[4, 9]), (2999, &[4, 9]), (3000, &[9])] {
            let places: Vec<_> = needed.iter().map(|place| FrameOffset(*place)).collect();
            assert_eq!(ends.needed(now), places, "{now}");
        }
        let bytes = ends.encode(ABOUT);
        assert_eq!(FrameExpiries::decode(&bytes, IndexHeader { segment: 4, ..ABOUT }), None);
        assert_eq!(FrameExpiries::decode(&bytes[..bytes.len() - 1], ABOUT), None);
        assert_eq!(FrameExpiries::decode(&bytes, ABOUT), Some(ends));
    }

    #[test]
    fn an_index_of_another_segment_is_none() {
        let bytes = Growing::default().sorted().encode(ABOUT);
        for other in [
            IndexHeader { segment: 4, ..ABOUT },
            IndexHeader { length: 4097, ..ABOUT },
            IndexHeader { store: [8; 16], ..ABOUT },
        ] {
            assert_eq!(Sorted::decode(&bytes, other), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_but_an_index_is_read(records in 0_u64..100, at in 0_usize..1000, bit in 0_u8..8) {
            let mut growing = Growing::default();
            for number in 0..records {
                growing.insert(numbered(number), FrameOffset(number as u32), number);
            }
            let mut bytes = growing.sorted().encode(ABOUT);
            let at = at % bytes.len();
            prop_assert_eq!(Sorted::decode(&bytes[..at], ABOUT), None);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Sorted::decode(&bytes, ABOUT), None);
        }
    }
}
