//! How room on the disk comes back.
//!
//! A segment is removed as a whole, without reading it, when none of its frames is needed any more: when the latest
//! `kept_until` in it is over. That takes too long if a segment holds records of short and long retentions, or claims
//! that answers have replaced. Then the newest frames of the segment with the smallest live share are copied, and it is
//! removed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::Arc;

use super::frame::{FrameContent, FrameKind, FrameOffset, RecordVersion};
use super::index::{FrameExpiries, IndexHeader};
use super::log::{LogWrite, RecordLog, SupersededFrame};
use super::manifest::SegmentState;
use super::segment::{Index, Segment, SegmentEntry, scan};
use super::usage::Usage;
use super::view::LogReadError;
use crate::record::RecordName;

/// The copying of segments.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    copying: Option<Copying>,
    /// Segments that cannot be read as a whole. They stay until none of their frames is needed any more.
    unreadable: BTreeSet<u64>,
}

#[derive(Debug)]
struct Copying {
    segment: Arc<Segment>,
    /// The frames that were needed when the copying began, in reverse order. Copied frames are taken off the end.
    places: Vec<FrameOffset>,
}

/// The segment with the smallest live share.
enum Victim {
    Open,
    Full(Arc<Segment>),
}

/// The bytes that are copied in one step.
const PIECE: u64 = 64 * 1024;

impl RecordLog {
    /// Gives room back until `is_over`. Returns whether there is more to do.
    pub(super) fn reclaim(&mut self, now: u64, is_over: impl Fn() -> bool) -> io::Result<bool> {
        self.remove_expired(now)?;
        self.usage.values_mut().for_each(|usage| usage.expire(now));
        self.longest = 0;
        loop {
            let copying = match self.reclaim.copying.take() {
                Some(copying) => copying,
                None => match self.victim() {
                    None => return Ok(false),
                    Some(Victim::Open) => {
                        self.rotate(now)?;
                        self.remove_expired(now)?;
                        continue;
                    }
                    Some(Victim::Full(segment)) => match self.needed(&segment, now) {
                        Ok(places) => Copying { segment, places },
                        Err(error) => {
                            self.give_up(segment.id, &error);
                            continue;
                        }
                    },
                },
            };
            self.copy(copying, now, &is_over)?;
            if is_over() {
                return Ok(true);
            }
        }
    }

    /// Removes the segments of which no frame is needed any more. They are not read.
    pub(super) fn remove_expired(&mut self, now: u64) -> io::Result<()> {
        let full = self.manifest.segments.iter().filter(|(_, entry)| matches!(entry.state, SegmentState::Full(_)));
        let expired: Vec<u64> = full.filter(|(_, entry)| entry.kept_until <= now).map(|(id, _)| *id).collect();
        self.remove(&expired, now)
    }

    fn victim(&self) -> Option<Victim> {
        if self.size() <= self.used() / 4 * 7 + self.limits.slack {
            return None;
        }
        let used = |id: u64| self.usage.get(&id).map_or(0, Usage::bytes);
        let (open, length) = self.open_segment();
        let segments = self.view.read();
        let full = segments.full.iter().filter(|segment| !self.reclaim.unreadable.contains(&segment.id));
        let full = full.map(|segment| (used(segment.id), segment.length, Victim::Full(segment.clone())));
        let open = (length > self.limits.slack / 2).then(|| (used(open), length, Victim::Open));
        // In thousandths. A segment with a live share of 900 or more gives too little room back.
        let share = |used: u64, length: u64| used.saturating_mul(1000) / length.max(1);
        let least = full.chain(open).min_by_key(|(used, length, _)| share(*used, *length))?;
        (share(least.0, least.1) < 900).then_some(least.2)
    }

    /// The places of the frames that are still needed, from the last to the first.
    fn needed(&self, segment: &Segment, now: u64) -> Result<Vec<FrameOffset>, LogReadError> {
        let ends = match &segment.index {
            Index::Growing(growing) => growing.ends(),
            Index::Sorted(_) => {
                let about = IndexHeader { store: self.manifest.store, segment: segment.id, length: segment.length };
                let known = fs::read(self.folder.ends_path(segment.id)).ok();
                match known.and_then(|bytes| FrameExpiries::decode(&bytes, about)) {
                    Some(ends) => ends,
                    None => {
                        let scan = scan(&segment.file, segment.length, segment.length)?;
                        scan.map_err(|_| LogReadError::Damaged)?.index.ends()
                    }
                }
            }
        };
        let mut places = ends.needed(now);
        places.reverse();
        Ok(places)
    }

    /// Copies the next frames of a segment, and removes it when all are copied.
    fn copy(&mut self, mut copying: Copying, now: u64, is_over: impl Fn() -> bool) -> io::Result<()> {
        let id = copying.segment.id;
        let changes = match self.read_piece(&mut copying, now, is_over) {
            Ok(changes) => changes,
            Err(error) => {
                self.give_up(id, &error);
                return Ok(());
            }
        };
        if !changes.is_empty() {
            self.append(&changes, now, false)?;
        }
        if copying.places.is_empty() {
            self.sync()?;
            return self.remove(&[id], now);
        }
        self.reclaim.copying = Some(copying);
        Ok(())
    }

    fn give_up(&mut self, id: u64, error: &LogReadError) {
        tracing::error!(%error, segment = id, "a segment of the embedded store cannot be read, and stays until its time");
        self.reclaim.unreadable.insert(id);
    }

    /// Reads the next frames that are still needed.
    fn read_piece(
        &self,
        copying: &mut Copying,
        now: u64,
        is_over: impl Fn() -> bool,
    ) -> Result<Vec<LogWrite>, LogReadError> {
        let segment = &copying.segment;
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while let Some(place) = copying.places.pop() {
            let entry = SegmentEntry::read(&segment.file, segment.id, place)?.ok_or(LogReadError::Damaged)?;
            let name = entry.head.name.as_ref().ok_or(LogReadError::Damaged)?;
            if now < entry.head.kept_until && self.view.is_newest(name, (segment.id, place))? {
                bytes += entry.head.frame_len();
                changes.push(copied(&entry, name, now)?);
            }
            if bytes >= PIECE || is_over() {
                break;
            }
        }
        Ok(changes)
    }

    /// Removes segments of which no frame is needed any more, or all needed ones are copied.
    fn remove(&mut self, ids: &[u64], now: u64) -> io::Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let entries: Vec<_> = ids.iter().filter_map(|id| self.manifest.segments.remove_entry(id)).collect();
        let written = self.write_manifest(now);
        if written.is_err() && entries.iter().any(|(_, entry)| now < entry.kept_until) {
            self.manifest.segments.extend(entries);
            return written;
        }
        // The sorting thread may be about to write the index of one of them.
        self.join_sorting();
        for id in ids {
            if let Err(error) = self.folder.remove_segment(*id) {
                tracing::warn!(%error, "a segment of the embedded store stays until the next start");
            }
            self.usage.remove(id);
        }
        self.view.write().full.retain(|segment| !ids.contains(&segment.id));
        // On a full disk the manifest may be writable only now. Until then it names files that are not needed any more,
        // which does no harm.
        if written.is_err() { self.write_manifest(now) } else { written }
    }
}

fn copied(entry: &SegmentEntry, name: &RecordName, now: u64) -> io::Result<LogWrite> {
    let SegmentEntry { head, segment, .. } = entry;
    let replaced =
        SupersededFrame { segment: *segment, kind: head.kind, expires_at: head.expires_at, bytes: head.frame_len() };
    let content = match head.kind {
        FrameKind::Record if now < head.expires_at => FrameContent::Record(entry.record()?),
        FrameKind::Chunk if now < head.expires_at => FrameContent::Chunk(vec![entry.record()?]),
        FrameKind::Record | FrameKind::Chunk | FrameKind::Gone => FrameContent::Gone,
    };
    let record_sum = (content != FrameContent::Gone).then_some(head.record_sum);
    let version = RecordVersion { expires_at: head.expires_at, kept_until: head.kept_until, content };
    let replaces = (head.kind != FrameKind::Gone).then_some(replaced);
    Ok(LogWrite { name: name.clone(), version, replaces, record_sum })
}
