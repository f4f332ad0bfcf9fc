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

/// Where the records of a full segment are.
#[derive(Debug)]
pub(super) enum Index {
    /// Until the index is sorted, which takes a moment.
    Growing(Growing),
    Sorted(Sorted),
}

impl Index {
    /// Shows the places at which the record may be.
    pub(super) fn places(&self, key: IndexKey, mut found: impl FnMut(FrameOffset)) {
        match self {
            Self::Growing(growing) => growing.get(key).into_iter().for_each(found),
            Self::Sorted(sorted) => sorted.places(key, &mut found),
        }
    }
}

const MAGIC: &[u8; 8] = b"oo-log\0\x03";
/// The offset of the first frame.
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

/// Reads frames one after the other, in large pieces.
pub(super) struct SegmentReader<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    /// The offset in the file at which the buffer begins.
    buffered_from: u64,
}

/// What is at one place in a segment.
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

    /// The next frame. Its record is not read.
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

    /// The record of the frame at `at`, but at most `most` bytes of it.
    pub(super) fn start_of_record(&mut self, at: u64, head: &FrameHead, most: usize) -> io::Result<&[u8]> {
        self.bytes(at + head.len() as u64, most.min(head.record_len as usize))
    }

    /// The first whole frame at or after `at`. Tries every aligned place.
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

/// The result of reading a segment from its beginning to its end.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) index: Growing,
    pub(super) usage: Usage,
    pub(super) kept_until: u64,
    /// The latest time in its frames.
    pub(super) clock: u64,
    /// The end of the last frame that counts.
    pub(super) end: u64,
}

/// A frame that was certainly on the disk is gone.
#[derive(Debug, thiserror::Error)]
#[error("what was written at byte {0} is damaged")]
pub(super) struct LostFrame(pub(super) u64);

/// Reads all frames up to `length`. A write that was under way at a crash may be cut off at the end: no caller was told
/// that it had succeeded. Everything before `all_synced` was certainly on the disk, as far as is known from elsewhere.
pub(super) fn scan(file: &File, length: u64, all_synced: u64) -> io::Result<Result<Scan, LostFrame>> {
    let mut frames = SegmentReader::new(file, HEADER, length);
    let mut found = FoundFrame::default();
    let mut synced = all_synced.max(HEADER);
    // The frames from the first damaged record on. Whether they count is known only at the end.
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
        // Later frames may say that this place was on the disk.
        let mut from = at + frame::ALIGN;
        while let Some((at, head)) = frames.search(from)? {
            synced = synced.max(head.synced);
            from = at + frame::ALIGN;
        }
        if at < synced {
            return Ok(Err(LostFrame(at)));
        }
    }
    // A damaged record that was on the disk is a record that cannot be read. Any other damaged record ends the segment.
    let counts = |(at, _, is_whole): &&(u64, FrameHead, bool)| *is_whole || *at < synced;
    doubtful.iter().take_while(counts).for_each(|(at, head, _)| found.add(*at, head));
    Ok(Ok(found.scan))
}

/// The results of a scan so far.
struct FoundFrame {
    scan: Scan,
    /// The kind of the frame at a place, when it expires, and its bytes.
    sizes: HashMap<FrameOffset, (FrameKind, u64, u64)>,
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
        if let Some((kind, expires_at, bytes)) = old {
            scan.usage.subtract(kind, expires_at, bytes);
        }
        if head.kind != FrameKind::Gone {
            scan.usage.add(head.kind, head.expires_at, head.frame_len());
            self.sizes.insert(place, (head.kind, head.expires_at, head.frame_len()));
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
    /// The bytes of the frame that were read together with its head.
    first: Bytes,
}

/// One read is enough for most records.
const FIRST: usize = 1024;

impl SegmentEntry {
    /// `None`: no frame is at this place.
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

    /// The record's bytes. The codec checks whether they are intact.
    pub(super) fn record(&self) -> io::Result<Bytes> {
        let (from, length) = (self.head.len(), self.head.record_len as usize);
        if self.is_read() {
            // A slice copies nothing. It keeps a buffer of at most a KiB.
            return Ok(self.first.slice(from..from + length));
        }
        let mut record = vec![0; length];
        let first = &self.first[from..];
        record[..first.len()].copy_from_slice(first);
        self.file.read_exact_at(&mut record[first.len()..], self.place.offset() + (from + first.len()) as u64)?;
        Ok(record.into())
    }

    /// Whether the whole record is in memory.
    pub(super) fn is_read(&self) -> bool {
        self.first.len() >= self.head.len() + self.head.record_len as usize
    }
}

/// Fills the buffer, or reads to the end of the file.
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
