//! The batches between the callers and the writer.
//!
//! A caller carries out its own operation, on top of what is written and of the changes that are not written yet. It
//! holds a lock for that, which is not held while a write waits for the disk. (A record that is not remembered is read
//! under the lock. It has nearly always been read or written a moment before.) The changes gather in a batch. The
//! writer takes the batch as a whole, writes it, and waits for the disk once. Meanwhile the next batch gathers. An
//! operation without changes, whose result depends on no unwritten change, ends at once. All others wait for the end of
//! their batch.
//!
//! No operation and no result passes between threads: the caller has the result, and learns from the writer only
//! whether the batch is written. Each core is woken once for each batch, not once for each request. Together, these two
//! took the store's part of a first request from 36 µs to the figure in docs/performance.md.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use super::batch::{Batch, ByKey, Purpose, TouchedRecord, Transaction, Unwritten};
use super::clock::Clock;
use super::condition::{Condition, CurrentCondition};
use super::index::IndexKey;
use super::log::LogWrite;
use super::view::View;
use super::waiters::{CommitTicket, Waiters};
use crate::record::RecordName;
use crate::store::StoreError;
use crate::store::format::RecordFormat;

/// The changes that are not written yet.
pub(super) struct CommitQueue {
    view: Arc<View>,
    format: Arc<RecordFormat>,
    clock: Arc<Clock>,
    condition: Arc<CurrentCondition>,
    state: Mutex<CommitState>,
    /// The number of the last batch that is written or has failed.
    finished: AtomicU64,
    /// The number of the last batch that failed.
    last_failed: AtomicU64,
    writer: OnceLock<Thread>,
    cores: Mutex<Vec<Weak<Waiters>>>,
}

/// The batch that gathers, and the batch that is written.
struct CommitState {
    gathering: Batch,
    /// Batches are numbered from 1.
    number: u64,
    writing: Option<Arc<Batch>>,
    claims: ByKey<TouchedRecord>,
    /// The gathered changes are to be written now.
    is_due: bool,
    /// The thread waits until a batch is due.
    is_idle: bool,
    is_closing: bool,
    /// The batches that failed, and how.
    failed: VecDeque<(u64, CommitFailure)>,
}

/// Why a batch is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitFailure {
    /// The write had begun: some of it may be on the disk.
    Begun,
    /// Nothing of it is on the disk.
    NeverWritten,
}

/// What the thread does next.
pub(super) enum WriterWork {
    Write(Arc<Batch>),
    /// No batch. The thread does its periodic work.
    Nothing,
    /// No callers are left.
    End,
}

/// The most operations that wait for one batch.
const WAITING: usize = 4096;
/// The most claims that are remembered, at about 300 bytes each.
const CLAIMS: usize = 8192;
/// The most failures that are remembered. A waiter waits for the timeout of one call at most, and after a failure the
/// store is opened anew before another batch can fail.
const FAILURES: usize = 1024;

impl CommitState {
    fn take_batch(&mut self) -> Option<Arc<Batch>> {
        self.is_due = false;
        if self.gathering.changes == 0 {
            return None;
        }
        let batch = Arc::new(std::mem::take(&mut self.gathering));
        self.writing = Some(Arc::clone(&batch));
        self.number += 1;
        Some(batch)
    }
}

impl CommitQueue {
    pub(super) fn new(
        view: Arc<View>,
        format: Arc<RecordFormat>,
        clock: Arc<Clock>,
        condition: Arc<CurrentCondition>,
    ) -> Self {
        let state = CommitState {
            gathering: Batch::default(),
            number: 1,
            writing: None,
            claims: ByKey::default(),
            is_due: false,
            is_idle: false,
            is_closing: false,
            failed: VecDeque::new(),
        };
        Self {
            view,
            format,
            clock,
            condition,
            state: Mutex::new(state),
            finished: AtomicU64::new(0),
            last_failed: AtomicU64::new(0),
            writer: OnceLock::new(),
            cores: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, CommitState> {
        // An operation that panicked has changed its record as a whole, or not at all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the last finished batch, as [`carry_out`](Self::carry_out) takes it.
    pub(super) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Acquire)
    }

    /// Carries out an operation on a record. `absent_at` is the value of [`finished`](Self::finished) at which the
    /// caller found no record of this name. With a ticket, the result is valid only once its commit has ended.
    pub(super) fn carry_out<T>(
        &self,
        name: &RecordName,
        purpose: Purpose,
        absent_at: Option<u64>,
        operation: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<(Result<T, StoreError>, Option<CommitTicket>), StoreError> {
        let key = IndexKey::of(name);
        let mut state = self.state();
        let condition = self.condition.get();
        if !purpose.is_allowed(condition) {
            return Err(condition.error());
        }
        if state.gathering.changes >= WAITING {
            return Err(StoreError::Refused("the embedded store does not keep up".into()));
        }
        let batches = &mut *state;
        let mut transaction = Transaction {
            name,
            key,
            view: &self.view,
            format: &self.format,
            condition: &self.condition,
            // Read now: an operation must not see a time before its caller asked.
            now: self.clock.now(),
            gathering: &mut batches.gathering,
            writing: batches.writing.as_deref(),
            claims: &batches.claims,
            is_absent: absent_at == Some(self.finished()),
        };
        let result = operation(&mut transaction);
        let ticket = match transaction.end() {
            None => None,
            Some(Unwritten::Writing) => Some(CommitTicket(batches.number - 1)),
            Some(Unwritten::Gathering) => {
                batches.gathering.changes += 1;
                Some(CommitTicket(batches.number))
            }
        };
        Ok((result, ticket))
    }

    /// Adds chunks of an answer to the gathering batch. The caller has waited for the chunks before these.
    pub(super) fn add_chunks(&self, chunks: Vec<LogWrite>) -> Result<CommitTicket, StoreError> {
        let mut state = self.state();
        let condition = self.condition.get();
        if !Purpose::End.is_allowed(condition) {
            return Err(condition.error());
        }
        // A caller that waited in vain has left these. If the disk hangs, each try would add a MiB.
        if state.gathering.has_chunks() {
            return Err(StoreError::Refused("the embedded store does not keep up".into()));
        }
        state.gathering.add_chunks(chunks);
        Ok(CommitTicket(state.number))
    }

    /// How the batch ended. `None`: it has not ended yet.
    pub(super) fn result(&self, CommitTicket(batch): CommitTicket) -> Option<Result<(), StoreError>> {
        if self.finished() < batch {
            return None;
        }
        if self.last_failed.load(Ordering::Acquire) < batch {
            return Some(Ok(()));
        }
        let failure = self.state().failed.iter().find(|(failed, _)| *failed == batch).map(|(_, failure)| *failure);
        Some(match failure {
            None => Ok(()),
            Some(CommitFailure::Begun) => Err(StoreError::Uncertain("the write to the disk failed".into())),
            Some(CommitFailure::NeverWritten) => Err(Condition::Broken.error()),
        })
    }

    /// Makes the thread write the gathered changes.
    pub(super) fn make_due(&self) {
        let mut state = self.state();
        state.is_due = true;
        let is_idle = std::mem::take(&mut state.is_idle);
        drop(state);
        if is_idle {
            self.wake_writer();
        }
    }

    fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    // === For writers. A writer holds the lock on the log, so batches are written one after the other. ===

    /// Waits until a batch is due, for `patience` at most. Only the thread calls this.
    pub(super) fn wait(&self, patience: Duration) {
        // Set before another thread can see this one idle.
        self.writer.get_or_init(thread::current);
        {
            let mut state = self.state();
            if state.is_due || state.is_closing {
                return;
            }
            state.is_idle = true;
        }
        // If a batch became due in between, its caller saw this thread idle and unparks it: the park ends at once.
        thread::park_timeout(patience);
    }

    /// Takes the gathered batch. Only the thread calls this.
    pub(super) fn take(&self) -> WriterWork {
        let mut state = self.state();
        state.is_idle = false;
        match state.take_batch() {
            Some(batch) => WriterWork::Write(batch),
            None if state.is_closing => WriterWork::End,
            None => WriterWork::Nothing,
        }
    }

    /// Takes the gathered batch if its approximate size in bytes suits. `None`: it does not.
    pub(super) fn take_if(&self, suits: impl FnOnce(u64) -> bool) -> Option<WriterWork> {
        let mut state = self.state();
        if !suits(state.gathering.bytes()) {
            return None;
        }
        Some(state.take_batch().map_or(WriterWork::Nothing, WriterWork::Write))
    }

    /// Ends the batch that was taken: it is written, and readers find it.
    pub(super) fn finish(&self, batch: &Batch, segment: u64) {
        let mut state = self.state();
        let CommitState { gathering, claims, .. } = &mut *state;
        batch.written(segment, gathering, claims);
        if claims.len() > CLAIMS {
            // A record that is not remembered is read.
            claims.clear();
        }
        state.writing = None;
        self.finished.store(state.number - 1, Ordering::Release);
        drop(state);
        self.wake_cores();
    }

    /// Fails the batch that is being written and the one that gathers. `begun`: some of the former may be on the disk.
    pub(super) fn fail(&self, begun: bool, condition: Condition) {
        let mut state = self.state();
        self.condition.set(condition);
        let number = state.number;
        if state.writing.take().is_some() {
            state
                .failed
                .push_back((number - 1, if begun { CommitFailure::Begun } else { CommitFailure::NeverWritten }));
        }
        // The gathering batch builds on the one before it, so it fails too.
        state.failed.push_back((number, CommitFailure::NeverWritten));
        let too_many = state.failed.len().saturating_sub(FAILURES);
        state.failed.drain(..too_many);
        state.gathering = Batch::default();
        state.claims.clear();
        state.number += 1;
        self.last_failed.store(number, Ordering::Release);
        self.finished.store(number, Ordering::Release);
        drop(state);
        self.wake_cores();
    }

    fn wake_cores(&self) {
        let finished = self.finished();
        let mut cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        cores.retain(|core| match core.upgrade() {
            Some(waiters) => {
                waiters.wake_first(finished);
                true
            }
            None => false,
        });
    }

    /// Makes the thread end once all is written.
    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.wake_writer();
    }

    /// A new list of waiters, for one core.
    pub(super) fn waiters(&self) -> Arc<Waiters> {
        let waiters = Arc::new(Waiters::default());
        self.cores.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&waiters));
        waiters
    }
}
