//! Operations, carried out one after the other. Each sees what is written and what the operations before it changed.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::BuildHasherDefault;
use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::condition::{Condition, CurrentCondition};
use super::frame::{self, FrameContent, FrameKind, RecordVersion};
use super::index::{DigestHasher, IndexKey};
use super::log::{LogWrite, RecordLog, SupersededFrame};
use super::read::{held, unread};
use super::view::{LogReadError, View};
use crate::record::codec::{self, Placement};
use crate::record::transitions::{self, ClaimTransition, CompareAndSwap, RenewTransition, StoredRecord};
use crate::record::{Claim, RecordName, Token};
use crate::store::format::RecordFormat;
use crate::store::{Claimed, FOREVER, Released, Renewed, Settled, StoreError, SwapResult};

/// What an operation is for, which matters on a full disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A claim, which begins a new attempt.
    Begin,
    /// All other operations, which bring attempts to their end.
    End,
}

impl Purpose {
    /// Whether it may be carried out now.
    pub(super) fn is_allowed(self, condition: Condition) -> bool {
        match condition {
            Condition::Up => true,
            Condition::Full => self == Self::End,
            Condition::Broken | Condition::Lost => false,
        }
    }
}

/// Records by their names.
pub(super) type ByKey<T> = HashMap<IndexKey, T, BuildHasherDefault<DigestHasher>>;

/// Changes that are written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    touched: ByKey<TouchedRecord>,
    /// Chunks of answers. They are written before the records.
    chunks: Vec<LogWrite>,
    /// Whether the batch must be on the disk before its callers go on. Renewals alone need not be.
    durable: bool,
    /// The number of operations that changed something.
    pub(super) changes: usize,
}

/// A record that an operation has looked at.
#[derive(Debug, Clone)]
pub(super) struct TouchedRecord {
    name: RecordName,
    /// The newest written frame of the record. `None` if there is none, or if it says that the record is gone.
    written: Option<SupersededFrame>,
    /// The `kept_until` of the newest written frame.
    kept_until: u64,
    stored: Option<EncodedRecord>,
    changed: bool,
    /// The record is in flight: its owner will use it again.
    is_claim: bool,
}

/// An encoded record, and when it expires.
#[derive(Debug, Clone)]
pub(super) struct EncodedRecord {
    pub(super) expires_at: u64,
    pub(super) record: Bytes,
}

/// One operation on one record, on top of all operations before it.
pub(super) struct Transaction<'a> {
    pub(super) name: &'a RecordName,
    /// The key of `name`.
    pub(super) key: IndexKey,
    pub(super) view: &'a View,
    pub(super) format: &'a RecordFormat,
    pub(super) condition: &'a CurrentCondition,
    pub(super) now: u64,
    /// The batch that gathers.
    pub(super) gathering: &'a mut Batch,
    /// The batch that is being written.
    pub(super) writing: Option<&'a Batch>,
    /// Claims that are written, as they are, so that their owners need not read them.
    pub(super) claims: &'a ByKey<TouchedRecord>,
    /// Whether the caller found no record of this name, and nothing was written since.
    pub(super) is_absent: bool,
}

impl Transaction<'_> {
    /// `absent_before`: the caller found no record in the segments before this one.
    pub(super) fn claim(&mut self, claim: &Claim, absent_before: u64) -> Result<Claimed, StoreError> {
        self.touch(absent_before)?;
        Ok(match transitions::claim(self.held()?, claim) {
            ClaimTransition::Write(claim) => {
                self.write_claim(&claim)?;
                Claimed::Granted(claim)
            }
            ClaimTransition::AlreadyMine(claim) => Claimed::Granted(claim),
            ClaimTransition::Refuse(held) => Claimed::Refused(held),
        })
    }

    pub(super) fn renew(&mut self, claim: &Claim) -> Result<Renewed, StoreError> {
        let record = self.held()?.map(|held| held.record);
        match (transitions::renew(record.as_ref(), claim.token), record) {
            (RenewTransition::Refuse, _) => Ok(Renewed::Lost),
            // A claim does not change while it is in flight. A renewal only extends the life of the record.
            (RenewTransition::Extend, Some(record)) => {
                let expires_at = self.expires_at(transitions::time_to_live(&record));
                let touched = self.touch(0)?;
                if let Some(stored) = &mut touched.stored {
                    stored.expires_at = expires_at;
                    touched.changed = true;
                    touched.is_claim = true;
                }
                Ok(Renewed::Extended)
            }
            (RenewTransition::Extend | RenewTransition::ClaimAgain, _) => {
                self.write_claim(claim)?;
                Ok(Renewed::ClaimedAgain)
            }
        }
    }

    pub(super) fn settle(
        &mut self,
        token: Token,
        record: Bytes,
        time_to_live: Duration,
    ) -> Result<Settled, StoreError> {
        match self.held()?.map(|held| held.record) {
            Some(kept) if !transitions::settles(Some(&kept), token) => Ok(Settled::Kept(Box::new(kept))),
            _ => {
                self.write(Some((record, time_to_live)))?;
                Ok(Settled::Written)
            }
        }
    }

    pub(super) fn release(&mut self, token: Token) -> Result<Released, StoreError> {
        match self.held()? {
            None => Ok(Released::Absent),
            Some(held) if transitions::releases(&held.record, token) => {
                self.write(None)?;
                Ok(Released::Deleted)
            }
            Some(_) => Ok(Released::Kept),
        }
    }

    pub(super) fn compare_and_swap(&mut self, swap: &CompareAndSwap) -> Result<SwapResult, StoreError> {
        match self.held()? {
            Some(held) if swap.still_matches(&held) => {}
            other => return Ok(SwapResult::Changed(other.map(Box::new))),
        }
        let to = swap.to.as_ref();
        let to = to.map(|to| {
            let bytes = self.format.encode(self.name, to, Placement::Within).into();
            (bytes, transitions::time_to_live(to))
        });
        self.write(to)?;
        Ok(SwapResult::Done)
    }

    fn write_claim(&mut self, claim: &Claim) -> Result<(), StoreError> {
        self.write(Some((codec::encode_claim(claim).into(), claim.terms.retention)))?;
        self.touch(0)?.is_claim = true;
        Ok(())
    }

    pub(super) fn write(&mut self, record: Option<(Bytes, Duration)>) -> Result<(), StoreError> {
        let stored =
            record.map(|(record, time_to_live)| EncodedRecord { expires_at: self.expires_at(time_to_live), record });
        let touched = self.touch(0)?;
        touched.stored = stored;
        touched.changed = true;
        touched.is_claim = false;
        self.gathering.durable = true;
        Ok(())
    }

    fn expires_at(&self, time_to_live: Duration) -> u64 {
        self.now + time_to_live.min(FOREVER).as_millis() as u64
    }

    pub(super) fn held(&mut self) -> Result<Option<StoredRecord>, StoreError> {
        let (name, now, condition, format) = (self.name, self.now, self.condition, self.format);
        match &self.touch(0)?.stored {
            Some(stored) => held(name, format, stored, now, condition),
            None => Ok(None),
        }
    }

    /// What is known of the record. `since`: no segment before it holds the record.
    fn touch(&mut self, since: u64) -> Result<&mut TouchedRecord, StoreError> {
        let (name, key) = (self.name, self.key);
        match self.gathering.touched.entry(key) {
            Slot::Occupied(slot) => Ok(slot.into_mut()),
            Slot::Vacant(slot) => {
                let writing =
                    self.writing.and_then(|writing| writing.touched.get(&key)).filter(|touched| touched.changed);
                let touched =
                    match writing.map(|touched| touched.on_top(None)).or_else(|| self.claims.get(&key).cloned()) {
                        Some(touched) => touched,
                        None if self.is_absent => TouchedRecord::absent(name, 0),
                        None => TouchedRecord::read(self.view, name, since).map_err(|error| unread(name, error))?,
                    };
                Ok(slot.insert(touched))
            }
        }
    }

    /// Ends the operation on this record. If its result depends on an unwritten change, says how far that change is. A
    /// record that was only looked at is forgotten.
    pub(super) fn end(&mut self) -> Option<Unwritten> {
        let key = self.key;
        if let Slot::Occupied(slot) = self.gathering.touched.entry(key) {
            if slot.get().changed {
                return Some(Unwritten::Gathering);
            }
            slot.remove();
        }
        let writing = self.writing.and_then(|writing| writing.touched.get(&key));
        writing.filter(|touched| touched.changed).map(|_| Unwritten::Writing)
    }
}

/// How far a change is on its way to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwritten {
    Gathering,
    Writing,
}

impl Batch {
    /// Approximately the bytes that the batch writes.
    pub(super) fn bytes(&self) -> u64 {
        let changed = self.touched.values().filter(|touched| touched.changed);
        let records: u64 = changed.map(TouchedRecord::frame_len).sum();
        records + self.chunks.iter().map(LogWrite::frame_len).sum::<u64>()
    }

    /// Appends the changes to the log.
    pub(super) fn commit(&self, log: &mut RecordLog, now: u64) -> io::Result<()> {
        let changes = self.touched.values().filter_map(|touched| touched.change(now));
        let changes: Vec<_> = self.chunks.iter().cloned().chain(changes).collect();
        if changes.is_empty() { Ok(()) } else { log.append(&changes, now, self.durable) }
    }

    pub(super) fn has_chunks(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Adds chunks of an answer. They are synced like a record: a later write that fails must not remove them.
    pub(super) fn add_chunks(&mut self, chunks: Vec<LogWrite>) {
        self.chunks.extend(chunks);
        self.durable = true;
        self.changes += 1;
    }

    /// Updates what is known when the batch is written to `segment`: the remembered `claims`, and the records that
    /// `next` has changed again.
    pub(super) fn written(&self, segment: u64, next: &mut Self, claims: &mut ByKey<TouchedRecord>) {
        for (key, touched) in self.touched.iter().filter(|(_, touched)| touched.changed) {
            let written = touched.on_top(Some(segment));
            if let Some(above) = next.touched.get_mut(key) {
                (above.written, above.kept_until) = (written.written, above.kept_until.max(written.kept_until));
                claims.remove(key);
            } else if written.is_claim && written.stored.is_some() {
                claims.insert(*key, written);
            } else {
                claims.remove(key);
            }
        }
    }
}

impl TouchedRecord {
    fn absent(name: &RecordName, kept_until: u64) -> Self {
        Self { name: name.clone(), written: None, kept_until, stored: None, changed: false, is_claim: false }
    }

    fn read(view: &View, name: &RecordName, since: u64) -> Result<Self, LogReadError> {
        let Some(entry) = view.find_since(name, since)? else { return Ok(Self::absent(name, 0)) };
        let (expires_at, kept_until) = (entry.head.expires_at, entry.head.kept_until);
        if entry.head.kind != FrameKind::Record {
            return Ok(Self::absent(name, kept_until));
        }
        let written = Some(SupersededFrame {
            segment: entry.segment,
            kind: FrameKind::Record,
            expires_at,
            bytes: entry.head.frame_len(),
        });
        let stored = Some(EncodedRecord { expires_at, record: entry.record()? });
        Ok(Self { written, stored, ..Self::absent(name, kept_until) })
    }

    /// This record as an operation after its write finds it. `segment` is where it is written, `None` if that is not
    /// known yet.
    fn on_top(&self, segment: Option<u64>) -> Self {
        let replaced = |stored: &EncodedRecord| SupersededFrame {
            segment: segment.unwrap_or(0),
            kind: FrameKind::Record,
            expires_at: stored.expires_at,
            bytes: frame::frame_len(&self.name, stored.record.len()),
        };
        let expires_at = self.stored.as_ref().map_or(0, |stored| stored.expires_at);
        Self {
            name: self.name.clone(),
            written: self.stored.as_ref().map(replaced),
            kept_until: self.kept_until.max(expires_at),
            stored: self.stored.clone(),
            changed: false,
            is_claim: self.is_claim,
        }
    }

    fn frame_len(&self) -> u64 {
        frame::frame_len(&self.name, self.stored.as_ref().map_or(0, |stored| stored.record.len()))
    }

    /// The write that the change needs, if any.
    fn change(&self, now: u64) -> Option<LogWrite> {
        let (expires_at, content) = match &self.stored {
            _ if !self.changed => return None,
            Some(stored) => (stored.expires_at, FrameContent::Record(stored.record.clone())),
            None if self.kept_until <= now => return None,
            None => (0, FrameContent::Gone),
        };
        let version = RecordVersion { expires_at, kept_until: expires_at.max(self.kept_until), content };
        Some(LogWrite { name: self.name.clone(), version, replaces: self.written, record_sum: None })
    }
}
