//! What is written, as readers see it.

use std::fs::File;
use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::frame::{self, FrameHead, FrameKind, FrameOffset};
use super::index::{Growing, IndexKey, Sorted};
use super::segment::{Index, NextFrame, Segment, SegmentEntry, SegmentReader};
use crate::record::RecordName;

/// The segments, and where their records are. Only frames that are written, and as durable as requested, are visible
/// here.
#[derive(Debug)]
pub(super) struct View(RwLock<Segments>);

/// All segments, from the oldest to the newest. Of two frames of one record, the later one counts.
#[derive(Debug)]
pub(super) struct Segments {
    pub(super) full: Vec<Arc<Segment>>,
    pub(super) open: OpenSegment,
}

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) id: u64,
    pub(super) file: Arc<File>,
    /// The end of the last frame.
    pub(super) length: u64,
    pub(super) index: Growing,
}

/// Where a frame may be: the segment, its file, and the offset in it.
type FramePlace = (u64, Arc<File>, FrameOffset);

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes at this place are no valid frame.
    #[error("a frame of the embedded store is damaged")]
    Damaged,
}

impl View {
    pub(super) fn new(segments: Segments) -> Self {
        Self(RwLock::new(segments))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Segments> {
        // A change under the lock is never left half done, so a panic elsewhere does not make the view unusable.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Segments> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest frame of the record.
    pub(super) fn find(&self, name: &RecordName) -> Result<Option<SegmentEntry>, LogReadError> {
        self.find_since(name, 0)
    }

    /// Whether there may be a frame of the record. Reads no file.
    pub(super) fn may_hold(&self, name: &RecordName) -> bool {
        !self.read().places(IndexKey::of(name), 0).is_empty()
    }

    /// The newest frame of the record, and the number of the open segment. Later frames are in that segment or a newer
    /// one.
    pub(super) fn look(&self, name: &RecordName) -> Result<(u64, Option<SegmentEntry>), LogReadError> {
        self.read_newest(name, 0)
    }

    /// The newest frame of a record. `since`: no segment before it holds the record.
    pub(super) fn find_since(&self, name: &RecordName, since: u64) -> Result<Option<SegmentEntry>, LogReadError> {
        Ok(self.read_newest(name, since)?.1)
    }

    /// A frame that is not there is damage only if the view still has it: [`cut_open`](Self::cut_open) may have taken it
    /// away after the view was read.
    fn read_newest(&self, name: &RecordName, since: u64) -> Result<(u64, Option<SegmentEntry>), LogReadError> {
        let places = || {
            let segments = self.read();
            (segments.open.id, segments.places(IndexKey::of(name), since))
        };
        let (mut open, mut found) = places();
        loop {
            match newest(name, &found) {
                Err(LogReadError::Damaged) => {
                    let before = std::mem::take(&mut found);
                    (open, found) = places();
                    let place = |(segment, _, place): &FramePlace| (*segment, *place);
                    if found.iter().map(place).eq(before.iter().map(place)) {
                        return Err(LogReadError::Damaged);
                    }
                }
                read => return Ok((open, read?)),
            }
        }
    }

    /// Whether the frame at this place is the newest of the record.
    pub(super) fn is_newest(&self, name: &RecordName, at: (u64, FrameOffset)) -> Result<bool, LogReadError> {
        // Older segments hold only older frames.
        let places = self.read().places(IndexKey::of(name), at.0);
        for (segment, file, place) in places {
            if (segment, place) == at {
                return Ok(true);
            }
            let Some(entry) = SegmentEntry::read(&file, segment, place)? else {
                let newest = self.find_since(name, at.0)?;
                return Ok(newest.is_some_and(|entry| (entry.segment, entry.place) == at));
            };
            if entry.head.name.as_ref() == Some(name) {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Shows the open segment without the frames that are about to be cut off.
    pub(super) fn cut_open(&self, open: OpenSegment) {
        self.write().open = open;
    }

    /// Shows `wanted` the newest frames of all records, in the order in which they were written, with at most `most`
    /// bytes of each record. Ends when `wanted` stops it or `is_over`, and returns where to go on. A record that is
    /// written again meanwhile is shown again, further on.
    pub(super) fn walk(
        &self,
        from: (u64, u64),
        most: usize,
        mut wanted: impl FnMut(&FrameHead, &[u8]) -> Walk,
        mut is_over: impl FnMut() -> bool,
    ) -> Result<Option<(u64, u64)>, LogReadError> {
        let (mut id, mut at) = from;
        loop {
            // The lock is released before the segment is read, since `is_newest` takes it again. With a writer waiting
            // between the two, the thread would wait for the writer, and the writer for the thread.
            let Some((segment, file, length)) = self.read().first_from(id) else { return Ok(None) };
            let from = if segment == id { at } else { 0 };
            if from >= length {
                (id, at) = (segment + 1, 0);
                continue;
            }
            let mut frames = SegmentReader::new(&file, from, length);
            loop {
                let (place, head) = match frames.read_next()? {
                    NextFrame::Frame(place, head) => (place, head),
                    NextFrame::Damaged(place) => match frames.search(place + frame::ALIGN)? {
                        Some(found) => found,
                        None => break,
                    },
                    NextFrame::End => break,
                };
                let end = place + head.frame_len();
                if let (Some(name), Some(here), FrameKind::Record) = (&head.name, FrameOffset::of(place), head.kind)
                    && self.is_newest(name, (segment, here))?
                    && let Walk::Stop = wanted(&head, frames.start_of_record(place, &head, most)?)
                {
                    return Ok(Some((segment, end)));
                }
                if is_over() {
                    return Ok(Some((segment, end)));
                }
            }
            // More frames may be in it by now.
            (id, at) = (segment, length);
        }
    }
}

/// The first of these frames that belongs to the record. An index may also find frames of other records.
fn newest(name: &RecordName, places: &[FramePlace]) -> Result<Option<SegmentEntry>, LogReadError> {
    for (segment, file, place) in places {
        let entry = SegmentEntry::read(file, *segment, *place)?.ok_or(LogReadError::Damaged)?;
        if entry.head.name.as_ref() == Some(name) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Whether a walk continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    Continue,
    Stop,
}

impl Segments {
    /// Where frames of the record may be, from segment `since` on, the newest first.
    fn places(&self, key: IndexKey, since: u64) -> Vec<FramePlace> {
        // An empty vector allocates nothing: a look-up of a new record finds no places.
        let mut found = Vec::new();
        if let Some(place) = self.open.index.get(key) {
            found.push((self.open.id, self.open.file.clone(), place));
        }
        for segment in self.full.iter().rev().take_while(|segment| segment.id >= since) {
            segment.index.places(key, |place| found.push((segment.id, segment.file.clone(), place)));
        }
        found
    }

    /// The segment of this number, or else the next newer one.
    fn first_from(&self, id: u64) -> Option<(u64, Arc<File>, u64)> {
        let full = self.full.iter().find(|segment| segment.id >= id);
        let full = full.map(|segment| (segment.id, segment.file.clone(), segment.length));
        let open = || (self.open.id >= id).then(|| (self.open.id, self.open.file.clone(), self.open.length));
        full.or_else(open)
    }

    pub(super) fn sort(&mut self, id: u64, index: Sorted) {
        if let Some(segment) = self.full.iter_mut().find(|segment| segment.id == id) {
            let (file, length) = (segment.file.clone(), segment.length);
            *segment = Arc::new(Segment { id, file, length, index: Index::Sorted(index) });
        }
    }
}
