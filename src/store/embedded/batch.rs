//! Operations that are carried out one after the other on what is written and on what those before them changed.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::condition::{Condition, CurrentCondition};
use super::frame::RecordVersion;
use super::log::{LogWrite, RecordLog, SupersededFrame};
use super::view::{LogReadError, View};
use super::{held, unread};
use crate::record::codec::{self, Placement};
use crate::record::transitions::{self, ClaimTransition, CompareAndSwap, RenewTransition, StoredRecord};
use crate::record::{Claim, RecordName, Token};
use crate::store::{Claimed, FOREVER, Released, Renewed, Settled, StoreError, SwapResult};

/// What the writing thread is asked to do.
pub(super) enum WriteRequest {
    Claim {
        name: RecordName,
        claim: Claim,
        /// The caller has found that no segment before this one has a record.
        absent_before: u64,
        answer: ReplySender<Claimed>,
    },
    Renew {
        name: RecordName,
        claim: Claim,
        answer: ReplySender<Renewed>,
    },
    Settle {
        name: RecordName,
        token: Token,
        record: Vec<u8>,
        time_to_live: Duration,
        answer: ReplySender<Settled>,
    },
    Release {
        name: RecordName,
        token: Token,
        answer: ReplySender<Released>,
    },
    CompareAndSwap {
        name: RecordName,
        swap: Box<CompareAndSwap>,
        answer: ReplySender<SwapResult>,
    },
    /// Puts bytes where a record lies.
    #[cfg(test)]
    Plant {
        name: RecordName,
        record: Bytes,
        time_to_live: Duration,
        answer: ReplySender<()>,
    },
}

pub(super) type ReplySender<T> = oneshot::Sender<Result<T, StoreError>>;

/// Changes on top of what is written, and the answers that wait for them.
pub(super) struct Batch<'a> {
    view: &'a View,
    condition: &'a CurrentCondition,
    pub(super) now: u64,
    touched: HashMap<RecordName, TouchedRecord>,
    waiting: Vec<Box<dyn FnOnce(bool)>>,
    /// Whether anything is lost if the changes are: renewals are not.
    durable: bool,
}

/// A record that was looked at.
struct TouchedRecord {
    /// What is written, unless it counts no more.
    written: Option<SupersededFrame>,
    /// Of whatever is written.
    kept_until: u64,
    stored: Option<EncodedRecord>,
    changed: bool,
}

/// A record with its end.
#[derive(Debug, Clone)]
pub(super) struct EncodedRecord {
    pub(super) expires_at: u64,
    pub(super) record: Bytes,
}

impl WriteRequest {
    /// Whether it may be carried out now. On a full disk, what is in flight is brought to its end.
    pub(super) fn is_allowed(&self, condition: Condition) -> bool {
        match condition {
            Condition::Up => true,
            Condition::Full => !matches!(self, Self::Claim { .. }),
            Condition::Broken | Condition::Lost => false,
        }
    }

    pub(super) fn decline(self, condition: Condition) {
        fn no<T>(answer: ReplySender<T>, condition: Condition) {
            // Nobody waits any more: then nobody needs to know.
            let _ = answer.send(Err(condition.unavailable()));
        }
        match self {
            Self::Claim { answer, .. } => no(answer, condition),
            Self::Renew { answer, .. } => no(answer, condition),
            Self::Settle { answer, .. } => no(answer, condition),
            Self::Release { answer, .. } => no(answer, condition),
            Self::CompareAndSwap { answer, .. } => no(answer, condition),
            #[cfg(test)]
            Self::Plant { answer, .. } => no(answer, condition),
        }
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(view: &'a View, condition: &'a CurrentCondition, now: u64) -> Self {
        Self { view, condition, now, touched: HashMap::new(), waiting: Vec::new(), durable: false }
    }

    pub(super) fn carry_out(&mut self, operation: WriteRequest) {
        match operation {
            WriteRequest::Claim { name, claim, absent_before, answer } => {
                let result = self.touch(&name, absent_before).map(drop).and_then(|()| self.claim(&name, &claim));
                self.answer(&name, answer, result);
            }
            WriteRequest::Renew { name, claim, answer } => {
                let result = self.renew(&name, &claim);
                self.answer(&name, answer, result);
            }
            WriteRequest::Settle { name, token, record, time_to_live, answer } => {
                let result = self.settle(&name, token, record.into(), time_to_live);
                self.answer(&name, answer, result);
            }
            WriteRequest::Release { name, token, answer } => {
                let result = self.release(&name, token);
                self.answer(&name, answer, result);
            }
            WriteRequest::CompareAndSwap { name, swap, answer } => {
                let result = self.compare_and_swap(&name, &swap);
                self.answer(&name, answer, result);
            }
            #[cfg(test)]
            WriteRequest::Plant { name, record, time_to_live, answer } => {
                let result = self.write(&name, Some((record, time_to_live)));
                self.answer(&name, answer, result);
            }
        }
    }

    fn claim(&mut self, name: &RecordName, claim: &Claim) -> Result<Claimed, StoreError> {
        Ok(match transitions::claim(self.held(name)?, claim) {
            ClaimTransition::Write(claim) => {
                self.write_claim(name, &claim)?;
                Claimed::Granted(claim)
            }
            ClaimTransition::AlreadyMine(claim) => Claimed::Granted(claim),
            ClaimTransition::Refuse(held) => Claimed::Refused(held),
        })
    }

    fn renew(&mut self, name: &RecordName, claim: &Claim) -> Result<Renewed, StoreError> {
        let record = self.held(name)?.map(|held| held.record);
        match (transitions::renew(record.as_ref(), claim.token), record) {
            (RenewTransition::Refuse, _) => Ok(Renewed::Lost),
            // A claim never changes while it is in flight: a renewal gives the record time, and nothing else.
            (RenewTransition::Extend, Some(record)) => {
                let expires_at = self.expires_at(transitions::time_to_live(&record));
                let touched = self.touch(name, 0)?;
                if let Some(stored) = &mut touched.stored {
                    stored.expires_at = expires_at;
                    touched.changed = true;
                }
                Ok(Renewed::Extended)
            }
            (RenewTransition::Extend | RenewTransition::ClaimAgain, _) => {
                self.write_claim(name, claim)?;
                Ok(Renewed::ClaimedAgain)
            }
        }
    }

    fn settle(
        &mut self,
        name: &RecordName,
        token: Token,
        record: Bytes,
        time_to_live: Duration,
    ) -> Result<Settled, StoreError> {
        match self.held(name)?.map(|held| held.record) {
            Some(kept) if !transitions::settles(Some(&kept), token) => Ok(Settled::Kept(Box::new(kept))),
            _ => {
                self.write(name, Some((record, time_to_live)))?;
                Ok(Settled::Written)
            }
        }
    }

    fn release(&mut self, name: &RecordName, token: Token) -> Result<Released, StoreError> {
        match self.held(name)? {
            None => Ok(Released::Absent),
            Some(held) if transitions::releases(&held.record, token) => {
                self.write(name, None)?;
                Ok(Released::Deleted)
            }
            Some(_) => Ok(Released::Kept),
        }
    }

    fn compare_and_swap(&mut self, name: &RecordName, swap: &CompareAndSwap) -> Result<SwapResult, StoreError> {
        match self.held(name)? {
            Some(held) if swap.still_matches(&held) => {}
            other => return Ok(SwapResult::Changed(other.map(Box::new))),
        }
        let to = swap.to.as_ref();
        let to = to.map(|to| (codec::encode(to, Placement::Within).into(), transitions::time_to_live(to)));
        self.write(name, to)?;
        Ok(SwapResult::Done)
    }

    fn write_claim(&mut self, name: &RecordName, claim: &Claim) -> Result<(), StoreError> {
        self.write(name, Some((codec::encode_claim(claim).into(), claim.terms.retention)))
    }

    fn write(&mut self, name: &RecordName, record: Option<(Bytes, Duration)>) -> Result<(), StoreError> {
        let stored =
            record.map(|(record, time_to_live)| EncodedRecord { expires_at: self.expires_at(time_to_live), record });
        let touched = self.touch(name, 0)?;
        touched.stored = stored;
        touched.changed = true;
        self.durable = true;
        Ok(())
    }

    fn expires_at(&self, time_to_live: Duration) -> u64 {
        self.now + time_to_live.min(FOREVER).as_millis() as u64
    }

    fn held(&mut self, name: &RecordName) -> Result<Option<StoredRecord>, StoreError> {
        let (now, condition) = (self.now, self.condition);
        match &self.touch(name, 0)?.stored {
            Some(stored) => held(name, stored, now, condition),
            None => Ok(None),
        }
    }

    /// What is known of a record that is in no segment before `since`.
    fn touch(&mut self, name: &RecordName, since: u64) -> Result<&mut TouchedRecord, StoreError> {
        match self.touched.entry(name.clone()) {
            Slot::Occupied(slot) => Ok(slot.into_mut()),
            Slot::Vacant(slot) => {
                let touched = TouchedRecord::read(self.view, name, since).map_err(|error| unread(name, error))?;
                Ok(slot.insert(touched))
            }
        }
    }

    /// Answers now, or once it is certain that what the answer rests on stays.
    fn answer<T: 'static>(&mut self, name: &RecordName, answer: ReplySender<T>, result: Result<T, StoreError>) {
        let uncommitted = self.touched.get(name).is_some_and(|touched| touched.changed);
        let send = |result| {
            // Whoever gave up has concluded that nothing is certain.
            let _ = answer.send(result);
        };
        if !uncommitted {
            return send(result);
        }
        self.waiting.push(Box::new(move |written| {
            send(if written { result } else { Err(StoreError::Uncertain("the write to the disk failed".into())) });
        }));
    }

    /// Writes what has changed, and answers all who wait.
    pub(super) fn commit(self, log: &mut RecordLog) -> io::Result<()> {
        let now = self.now;
        let changed = self.touched.into_iter().filter(|(_, touched)| touched.changed);
        let changes: Vec<_> = changed.filter_map(|(name, touched)| touched.change(name, now)).collect();
        let result = if changes.is_empty() { Ok(()) } else { log.append(&changes, now, self.durable) };
        for answer in self.waiting {
            answer(result.is_ok());
        }
        result
    }
}

impl TouchedRecord {
    fn read(view: &View, name: &RecordName, since: u64) -> Result<Self, LogReadError> {
        let Some(entry) = view.find_since(name, since)? else {
            return Ok(Self { written: None, kept_until: 0, stored: None, changed: false });
        };
        let (expires_at, kept_until) = (entry.head.expires_at, entry.head.kept_until);
        if entry.head.is_gone {
            return Ok(Self { written: None, kept_until, stored: None, changed: false });
        }
        let written = SupersededFrame { segment: entry.segment, expires_at, bytes: entry.head.frame_len() };
        let stored = EncodedRecord { expires_at, record: entry.record()? };
        Ok(Self { written: Some(written), kept_until, stored: Some(stored), changed: false })
    }

    /// What is to be written, if anything.
    fn change(self, name: RecordName, now: u64) -> Option<LogWrite> {
        let (expires_at, record) = match self.stored {
            Some(stored) => (stored.expires_at, Some(stored.record)),
            None if self.kept_until <= now => return None,
            None => (0, None),
        };
        let version = RecordVersion { expires_at, kept_until: expires_at.max(self.kept_until), record };
        Some(LogWrite { name, version, replaces: self.written, record_sum: None })
    }
}
