//! One file of frames.
//!
//! ```text
//! magic 8, store id 16, segment id u64, checksum u64
//! frames
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::frame::{self, FrameError, FrameHead, FrameKind, FrameOffset};
use super::index::{Growing, IndexKey, Sorted};
use super::usage::Usage;

/// A segment that is full.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) file: Arc<File>,
    pub(super) length: u64,
    pub(super) index: Index,
}

/// Where its records lie.
#[derive(Debug)]
pub(super) enum Index {
    /// Until it is sorted, which takes a moment.
    Growing(Growing),
    Sorted(Sorted),
}

impl Index {
    /// Shows where the record may lie.
    pub(super) fn places(&self, key: IndexKey, mut found: impl FnMut(FrameOffset)) {
        match self {
            Self::Growing(growing) => growing.get(key).into_iter().for_each(found),
            Self::Sorted(sorted) => sorted.places(key, &mut found),
        }
    }
}

const MAGIC: &[u8; 8] = b"oo-log\0\x03";
/// Where the first frame begins.
pub(super) const HEADER: u64 = 40;

pub(super) fn header(store: [u8; 16], id: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER as usize);
    out.put_slice(MAGIC);
    out.put_slice(&store);
    out.put_u64_le(id);
    out.put_u64_le(frame::sum(&[&out]));
    out
}

/// Whether the file is this segment of this store.
pub(super) fn has_header(file: &File, store: [u8; 16], id: u64) -> io::Result<bool> {
    let mut found = [0; HEADER as usize];
    match file.read_exact_at(&mut found, 0) {
        Ok(()) => Ok(found == *header(store, id)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Frame after frame, read in large pieces.
pub(super) struct SegmentReader<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    buffered_from: u64,
}

/// What stands at one place.
#[derive(Debug)]
pub(super) enum NextFrame {
    Frame(u64, FrameHead),
    /// No frame, or one that is cut off.
    Damaged(u64),
    End,
}

const READ: usize = 256 * 1024;

impl<'a> SegmentReader<'a> {
    pub(super) fn new(file: &'a File, from: u64, end: u64) -> Self {
        Self { file, at: from.max(HEADER), end, buffer: Vec::new(), buffered_from: 0 }
    }

    /// The next frame; its record is not looked at.
    pub(super) fn read_next(&mut self) -> io::Result<NextFrame> {
        let at = self.at;
        let mut needed = frame::FIXED;
        loop {
            let left = self.end.saturating_sub(at);
            if left == 0 {
                return Ok(NextFrame::End);
            }
            if left < needed as u64 {
                return Ok(NextFrame::Damaged(at));
            }
            match FrameHead::read(self.bytes(at, needed)?) {
                Ok(head) if head.frame_len() <= left => {
                    self.at = at + head.frame_len();
                    return Ok(NextFrame::Frame(at, head));
                }
                Ok(_) | Err(FrameError::Damaged) => return Ok(NextFrame::Damaged(at)),
                Err(FrameError::Needs(more)) => needed = more,
            }
        }
    }

    /// The record of the frame at `at`.
    pub(super) fn record(&mut self, at: u64, head: &FrameHead) -> io::Result<&[u8]> {
        self.bytes(at + head.len() as u64, head.record_len as usize)
    }

    /// Not more than `most` bytes of it.
    pub(super) fn start_of_record(&mut self, at: u64, head: &FrameHead, most: usize) -> io::Result<&[u8]> {
        self.bytes(at + head.len() as u64, most.min(head.record_len as usize))
    }

    /// The first frame at or after `at`, wherever it begins.
    pub(super) fn search(&mut self, at: u64) -> io::Result<Option<(u64, FrameHead)>> {
        self.at = at;
        loop {
            match self.read_next()? {
                NextFrame::Frame(at, head) => return Ok(Some((at, head))),
                NextFrame::Damaged(at) => self.at = at + frame::ALIGN,
                NextFrame::End => return Ok(None),
            }
        }
    }

    fn bytes(&mut self, from: u64, length: usize) -> io::Result<&[u8]> {
        let held = |buffer: &Vec<u8>, start: u64| from >= start && from + length as u64 <= start + buffer.len() as u64;
        if !held(&self.buffer, self.buffered_from) {
            let left = usize::try_from(self.end.saturating_sub(from)).unwrap_or(usize::MAX);
            self.buffer.resize(length.max(READ.min(left)), 0);
            self.buffered_from = from;
            self.file.read_exact_at(&mut self.buffer, from)?;
        }
        let start = (from - self.buffered_from) as usize;
        Ok(&self.buffer[start..start + length])
    }
}

/// What is found in a segment that is read from its beginning to its end.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) index: Growing,
    pub(super) usage: Usage,
    pub(super) kept_until: u64,
    /// The latest time that was written down.
    pub(super) clock: u64,
    /// Behind the last frame that counts.
    pub(super) end: u64,
}

/// A frame of which it is certain that it was on the disk is not there any more.
#[derive(Debug, thiserror::Error)]
#[error("what was written at byte {0} is damaged")]
pub(super) struct LostFrame(pub(super) u64);

/// Reads all frames up to `length`. What was being written when the process or the machine stopped may be cut off at the
/// end: nobody was told that it is there. `all_synced` is as much as was on the disk for sure, as far as is known from
/// elsewhere.
pub(super) fn scan(file: &File, length: u64, all_synced: u64) -> io::Result<Result<Scan, LostFrame>> {
    let mut frames = SegmentReader::new(file, HEADER, length);
    let mut found = FoundFrame::default();
    let mut synced = all_synced.max(HEADER);
    // From the first frame whose record is damaged: whether they count is known at the end.
    let mut doubtful = Vec::new();
    let damaged = loop {
        match frames.read_next()? {
            NextFrame::End => break None,
            NextFrame::Damaged(at) => break Some(at),
            NextFrame::Frame(at, head) => {
                synced = synced.max(head.synced);
                let is_whole = frame::sum(&[frames.record(at, &head)?]) == head.record_sum;
                if is_whole && doubtful.is_empty() {
                    found.add(at, &head);
                } else {
                    doubtful.push((at, head, is_whole));
                }
            }
        }
    };
    if let Some(at) = damaged {
        // Behind it there may be frames that tell of it.
        let mut from = at + frame::ALIGN;
        while let Some((at, head)) = frames.search(from)? {
            synced = synced.max(head.synced);
            from = at + frame::ALIGN;
        }
        if at < synced {
            return Ok(Err(LostFrame(at)));
        }
    }
    // A damaged record that was on the disk is one that cannot be read. One that was not ends the segment.
    let counts = |(at, _, is_whole): &&(u64, FrameHead, bool)| *is_whole || *at < synced;
    doubtful.iter().take_while(counts).for_each(|(at, head, _)| found.add(*at, head));
    Ok(Ok(found.scan))
}

/// What a scan has come by so far.
struct FoundFrame {
    scan: Scan,
    /// End and bytes of the record at a place.
    sizes: HashMap<FrameOffset, (u64, u64)>,
}

impl Default for FoundFrame {
    fn default() -> Self {
        let (index, usage) = (Growing::default(), Usage::default());
        Self { scan: Scan { index, usage, kept_until: 0, clock: 0, end: HEADER }, sizes: HashMap::new() }
    }
}

impl FoundFrame {
    fn add(&mut self, at: u64, head: &FrameHead) {
        let scan = &mut self.scan;
        scan.end = at + head.frame_len();
        scan.clock = scan.clock.max(head.now);
        let (Some(name), Some(place)) = (&head.name, FrameOffset::of(at)) else { return };
        scan.kept_until = scan.kept_until.max(head.kept_until);
        let old = scan.index.insert(IndexKey::of(name), place, head.kept_until).and_then(|old| self.sizes.remove(&old));
        if let Some((expires_at, bytes)) = old {
            scan.usage.subtract(expires_at, bytes);
        }
        if head.kind != FrameKind::Gone {
            scan.usage.add(head.expires_at, head.frame_len());
            self.sizes.insert(place, (head.expires_at, head.frame_len()));
        }
    }
}

/// A frame that was found by its place.
#[derive(Debug)]
pub(super) struct SegmentEntry {
    pub(super) head: FrameHead,
    pub(super) segment: u64,
    pub(super) place: FrameOffset,
    file: Arc<File>,
    /// As many bytes of the frame as were read along with its head.
    first: Bytes,
}

/// Most records fit: one read for all of it.
const FIRST: usize = 1024;

impl SegmentEntry {
    /// `None`: no frame stands there.
    pub(super) fn read(file: &Arc<File>, segment: u64, place: FrameOffset) -> io::Result<Option<Self>> {
        let mut first = Vec::new();
        let mut wanted = FIRST;
        loop {
            first.resize(wanted, 0);
            let read = read_up_to(file, &mut first, place.offset())?;
            first.truncate(read);
            match FrameHead::read(&first) {
                Ok(head) => return Ok(Some(Self { head, segment, place, file: file.clone(), first: first.into() })),
                Err(FrameError::Needs(more)) if read == wanted => wanted = more,
                Err(FrameError::Needs(_) | FrameError::Damaged) => return Ok(None),
            }
        }
    }

    /// The record's bytes; whether they are what was written, the codec tells.
    pub(super) fn record(&self) -> io::Result<Bytes> {
        let (from, length) = (self.head.len(), self.head.record_len as usize);
        if self.is_read() {
            // Nothing is copied: what was read is at most a KiB.
            return Ok(self.first.slice(from..from + length));
        }
        let mut record = vec![0; length];
        let first = &self.first[from..];
        record[..first.len()].copy_from_slice(first);
        self.file.read_exact_at(&mut record[first.len()..], self.place.offset() + (from + first.len()) as u64)?;
        Ok(record.into())
    }

    /// Whether all of it is in memory.
    pub(super) fn is_read(&self) -> bool {
        self.first.len() >= self.head.len() + self.head.record_len as usize
    }
}

/// Reads until the buffer or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
