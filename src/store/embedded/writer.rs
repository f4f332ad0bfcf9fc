//! The one thread that writes.
//!
//! It takes all operations that wait, carries them out one after the other on what the disk holds and on
//! what those before them changed, commits once, and then answers. An operation that changed nothing, and saw
//! nothing uncommitted, is answered at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use fjall::PersistMode;
use tokio::sync::oneshot;

use super::clock::Clock;
use super::disk::{Disk, Meta, Stored};
use super::{BROKEN, read};
use crate::config::Durability;
use crate::record::codec::{self, Placement};
use crate::record::moves::{self, ClaimMove, Exchange, Held, RenewMove};
use crate::record::{Claim, Record, RecordName, State, Token};
use crate::store::{Claimed, Exchanged, FOREVER, Released, Renewed, Settled, StoreError};

/// What the thread is asked to do.
pub(super) enum Operation {
    Claim { name: RecordName, claim: Claim, answer: Reply<Claimed> },
    Renew { name: RecordName, claim: Claim, answer: Reply<Renewed> },
    Settle { name: RecordName, token: Token, record: Vec<u8>, time_to_live: Duration, answer: Reply<Settled> },
    Release { name: RecordName, token: Token, answer: Reply<Released> },
    Exchange { name: RecordName, exchange: Box<Exchange>, answer: Reply<Exchanged> },
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The thread's own.
pub(super) struct Writer {
    pub(super) disk: Arc<Disk>,
    pub(super) clock: Arc<Clock>,
    pub(super) durability: Durability,
    pub(super) inbox: Receiver<Operation>,
    /// Set once a write has failed: what is on the disk is not certain any more until the store is opened again.
    pub(super) broken: Arc<AtomicBool>,
    /// Records that expired up to then are swept out.
    pub(super) swept: u64,
    pub(super) next_sweep: u64,
}

/// Operations between two commits.
const BATCH: usize = 1024;
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Records swept out between two batches: nobody shall wait for long.
const SWEEP: usize = 256;
/// Nothing is written while nobody asks, but for the time.
const MARK_EVERY: u64 = 60_000;

impl Writer {
    /// Works until all who could ask are gone.
    pub(super) fn run(mut self) {
        let mut marked = 0;
        loop {
            let until_sweep = Duration::from_millis(self.next_sweep.saturating_sub(self.clock.now()));
            match self.inbox.recv_timeout(until_sweep) {
                Ok(first) => self.work(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.clock.now() >= self.next_sweep {
                self.sweep(&mut marked);
            }
        }
        if !self.is_broken()
            && let Err(error) = self.disk.sync()
        {
            tracing::error!(%error, "the embedded store could not be written out at the end");
        }
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn work(&mut self, first: Operation) {
        let mut batch = Batch::new(&self.disk, self.clock.now());
        let broken = self.is_broken();
        for operation in std::iter::once(first).chain(self.inbox.try_iter()).take(BATCH) {
            // An operation must not see a time before its caller asked: it may have come while others were carried out.
            batch.now = self.clock.now();
            if broken { operation.decline() } else { batch.carry_out(operation) }
        }
        self.commit(batch);
    }

    fn commit(&self, batch: Batch<'_>) {
        let mode = match self.durability {
            Durability::Disk if batch.durable => PersistMode::SyncData,
            Durability::Disk | Durability::Process => PersistMode::Buffer,
        };
        if let Err(error) = batch.commit(mode)
            && !self.broken.swap(true, Ordering::AcqRel)
        {
            tracing::error!(
                %error,
                "the embedded store cannot be written, and is out of use until onlyonce is started again"
            );
        }
    }

    /// Takes some expired records out.
    fn sweep(&mut self, marked: &mut u64) {
        let now = self.clock.now();
        self.next_sweep = now + SWEEP_EVERY.as_millis() as u64;
        if self.is_broken() {
            return;
        }
        let mut batch = Batch::new(&self.disk, now);
        let mut swept = now;
        for (count, expired) in self.disk.expiring(self.swept, now).enumerate() {
            match expired {
                Ok((expires_at, _)) if count == SWEEP => {
                    (swept, self.next_sweep) = (expires_at, now);
                    break;
                }
                Ok((expires_at, name)) => batch.expire(expires_at, name),
                Err(error) => return tracing::error!(%error, "expired records cannot be found"),
            }
        }
        // Whatever is written from now on expires later.
        self.swept = swept;
        if now >= *marked + MARK_EVERY || !batch.is_empty() {
            *marked = now;
            batch.mark = true;
            self.commit(batch);
        }
    }
}

impl Operation {
    fn decline(self) {
        fn no<T>(answer: Reply<T>) {
            // Nobody waits any more: then nobody needs to know.
            let _ = answer.send(Err(StoreError::Unavailable(BROKEN.into())));
        }
        match self {
            Self::Claim { answer, .. } => no(answer),
            Self::Renew { answer, .. } => no(answer),
            Self::Settle { answer, .. } => no(answer),
            Self::Release { answer, .. } => no(answer),
            Self::Exchange { answer, .. } => no(answer),
        }
    }
}

/// Changes on top of the disk, and the answers that wait for them.
struct Batch<'a> {
    disk: &'a Disk,
    now: u64,
    touched: HashMap<String, Touched>,
    expired: Vec<(u64, String)>,
    waiting: Vec<Box<dyn FnOnce(bool)>>,
    /// Whether anything is lost if the changes are: renewals and sweeps are not.
    durable: bool,
    /// Whether the time is written down even if nothing else is.
    mark: bool,
}

/// A record that was looked at.
struct Touched {
    /// When the one on the disk expires.
    on_disk: Option<u64>,
    stored: Option<Stored>,
    changed: bool,
}

impl<'a> Batch<'a> {
    fn new(disk: &'a Disk, now: u64) -> Self {
        Self {
            disk,
            now,
            touched: HashMap::new(),
            expired: Vec::new(),
            waiting: Vec::new(),
            durable: false,
            mark: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.expired.is_empty() && self.touched.values().all(|touched| !touched.changed)
    }

    fn carry_out(&mut self, operation: Operation) {
        match operation {
            Operation::Claim { name, claim, answer } => {
                let result = self.claim(&name, &claim);
                self.answer(&name, answer, result);
            }
            Operation::Renew { name, claim, answer } => {
                let result = self.renew(&name, &claim);
                self.answer(&name, answer, result);
            }
            Operation::Settle { name, token, record, time_to_live, answer } => {
                let result = self.settle(&name, token, record.into(), time_to_live);
                self.answer(&name, answer, result);
            }
            Operation::Release { name, token, answer } => {
                let result = self.release(&name, token);
                self.answer(&name, answer, result);
            }
            Operation::Exchange { name, exchange, answer } => {
                let result = self.exchange(&name, &exchange);
                self.answer(&name, answer, result);
            }
        }
    }

    fn claim(&mut self, name: &RecordName, claim: &Claim) -> Result<Claimed, StoreError> {
        Ok(match moves::claim(self.held(name)?, claim) {
            ClaimMove::Write(claim) => {
                self.write_claim(name, &claim)?;
                Claimed::Granted(claim)
            }
            ClaimMove::AlreadyMine(claim) => Claimed::Granted(claim),
            ClaimMove::Refuse(held) => Claimed::Refused(held),
        })
    }

    fn renew(&mut self, name: &RecordName, claim: &Claim) -> Result<Renewed, StoreError> {
        let held = self.held(name)?;
        match moves::renew(held.as_ref().map(|held| &held.record), claim.token) {
            RenewMove::Extend => {
                let expires_at = self.expires_at(claim.terms.retention);
                let touched = self.touch(name)?;
                if let Some(stored) = &mut touched.stored {
                    stored.expires_at = expires_at;
                    touched.changed = true;
                }
                Ok(Renewed::Extended)
            }
            RenewMove::ClaimAgain => {
                self.write_claim(name, claim)?;
                Ok(Renewed::ClaimedAgain)
            }
            RenewMove::Refuse => Ok(Renewed::Lost),
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
            Some(kept) if !moves::settles(Some(&kept), token) => Ok(Settled::Kept(Box::new(kept))),
            _ => {
                self.write(name, Some((record, time_to_live)))?;
                Ok(Settled::Written)
            }
        }
    }

    fn release(&mut self, name: &RecordName, token: Token) -> Result<Released, StoreError> {
        match self.held(name)? {
            None => Ok(Released::Absent),
            Some(held) if moves::releases(&held.record, token) => {
                self.write(name, None)?;
                Ok(Released::Deleted)
            }
            Some(_) => Ok(Released::Kept),
        }
    }

    fn exchange(&mut self, name: &RecordName, exchange: &Exchange) -> Result<Exchanged, StoreError> {
        match self.held(name)? {
            Some(held) if exchange.is_due(&held) => {}
            other => return Ok(Exchanged::Changed(other.map(Box::new))),
        }
        let to = exchange.to.as_ref();
        let to = to.map(|to| (codec::encode(to, Placement::Within).into(), moves::time_to_live(to)));
        self.write(name, to)?;
        Ok(Exchanged::Done)
    }

    fn write_claim(&mut self, name: &RecordName, claim: &Claim) -> Result<(), StoreError> {
        let record = Record { claim: claim.clone(), state: State::InFlight };
        let bytes = codec::encode(&record, Placement::Within).into();
        self.write(name, Some((bytes, moves::time_to_live(&record))))
    }

    fn write(&mut self, name: &RecordName, record: Option<(Bytes, Duration)>) -> Result<(), StoreError> {
        let stored = record.map(|(record, time_to_live)| Stored { expires_at: self.expires_at(time_to_live), record });
        let touched = self.touch(name)?;
        touched.stored = stored;
        touched.changed = true;
        self.durable = true;
        Ok(())
    }

    fn expires_at(&self, time_to_live: Duration) -> u64 {
        self.now + time_to_live.min(FOREVER).as_millis() as u64
    }

    fn held(&mut self, name: &RecordName) -> Result<Option<Held>, StoreError> {
        let now = self.now;
        match &self.touch(name)?.stored {
            Some(stored) => read(name, stored, now),
            None => Ok(None),
        }
    }

    fn touch(&mut self, name: &RecordName) -> Result<&mut Touched, StoreError> {
        match self.touched.entry(name.to_string()) {
            Slot::Occupied(slot) => Ok(slot.into_mut()),
            Slot::Vacant(slot) => {
                let stored = self.disk.stored(slot.key()).map_err(super::unread)?;
                let on_disk = stored.as_ref().map(|stored| stored.expires_at);
                Ok(slot.insert(Touched { on_disk, stored, changed: false }))
            }
        }
    }

    /// Answers now, or once it is certain that what the answer rests on stays.
    fn answer<T: 'static>(&mut self, name: &RecordName, answer: Reply<T>, result: Result<T, StoreError>) {
        let uncommitted = self.touched.get(&name.to_string()).is_some_and(|touched| touched.changed);
        let send = |result| {
            // Whoever gave up has concluded that nothing is certain.
            let _ = answer.send(result);
        };
        if !uncommitted {
            return send(result);
        }
        self.waiting.push(Box::new(move |written| {
            send(if written { result } else { Err(StoreError::Uncertain(BROKEN.into())) });
        }));
    }

    /// Takes out a record that was found to expire, unless it lives for longer by now.
    fn expire(&mut self, expires_at: u64, name: String) {
        match self.disk.stored(&name) {
            Ok(Some(stored)) if stored.expires_at == expires_at => {
                self.touched.insert(name, Touched { on_disk: Some(expires_at), stored: None, changed: true });
            }
            Ok(_) => self.expired.push((expires_at, name)),
            Err(error) => tracing::error!(%error, name, "an expired record cannot be read"),
        }
    }

    fn commit(self, mode: PersistMode) -> fjall::Result<()> {
        let result = if self.is_empty() && !self.mark {
            Ok(())
        } else {
            let mut changes = self.disk.change();
            for (name, touched) in self.touched.iter().filter(|(_, touched)| touched.changed) {
                // A name is changed once in a list of changes, so one that stays is not removed first.
                let expires_at = touched.stored.as_ref().map(|stored| stored.expires_at);
                if let Some(on_disk) = touched.on_disk.filter(|on_disk| Some(*on_disk) != expires_at) {
                    changes.remove_expiry(on_disk, name);
                }
                match &touched.stored {
                    Some(stored) => changes.put(name, stored),
                    None => changes.remove(name),
                }
            }
            for (expires_at, name) in &self.expired {
                changes.remove_expiry(*expires_at, name);
            }
            // With it, the clock never falls behind anything that was written.
            changes.put_meta(Meta::Clock, &self.now.to_be_bytes());
            changes.commit(mode)
        };
        for answer in self.waiting {
            answer(result.is_ok());
        }
        result
    }
}
