//! Between those who ask and the thread that writes.
//!
//! Whoever asks carries out its own operation, on top of what is written and of what waits to be, under a lock that is not
//! held while a write waits for the disk. (What is not remembered is read under it, and has nearly always been read or
//! written a moment before.) What changed gathers in a batch; the thread takes it as a whole, writes it, and
//! waits for the disk once, while the next batch gathers. An operation that changed nothing, and saw nothing unwritten, is
//! answered at once; all others wait for the end of their batch.
//!
//! Nobody hands anybody anything: what an operation came to is known where it was carried out, and only whether it is
//! written comes from the thread. That, and that each core is woken once for each batch and not once for each request, took
//! the store's part of a first request from 36 µs to what docs/performance.md says.

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

/// What is not written yet.
pub(super) struct CommitQueue {
    view: Arc<View>,
    format: Arc<RecordFormat>,
    clock: Arc<Clock>,
    condition: Arc<CurrentCondition>,
    state: Mutex<CommitState>,
    /// The number of the last batch whose end is known.
    finished: AtomicU64,
    /// That of the last one that failed.
    last_failed: AtomicU64,
    writer: OnceLock<Thread>,
    cores: Mutex<Vec<Weak<Waiters>>>,
}

/// The batches on their way to the disk.
struct CommitState {
    gathering: Batch,
    /// Batches are numbered from 1.
    number: u64,
    writing: Option<Arc<Batch>>,
    claims: ByKey<TouchedRecord>,
    /// What has gathered is to be written now.
    is_due: bool,
    /// The thread waits until something is due.
    is_idle: bool,
    is_closing: bool,
    /// Batches that failed, and how.
    failed: VecDeque<(u64, CommitFailure)>,
}

/// Why a batch is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitFailure {
    /// It may be on the disk all the same.
    Begun,
    /// It certainly is not.
    NeverWritten,
}

/// What the thread is to do next.
pub(super) enum WriterWork {
    Write(Arc<Batch>),
    /// It is time for what is done now and then.
    Nothing,
    /// Nobody is left who could ask.
    End,
}

/// Operations that wait for one batch.
const WAITING: usize = 4096;
/// Claims that are remembered: some 300 bytes each.
const CLAIMS: usize = 8192;
/// Failures that are remembered: whoever waits does so for a call's time, and a store that failed is opened anew first.
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
        // An operation that panicked has changed its record, or has not.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much is written, for [`carry_out`](Self::carry_out).
    pub(super) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Acquire)
    }

    /// Carries out an operation on a record. `absent_at`: that nothing was written of it when so much was finished. What it
    /// came to counts once the commit has ended, if there is one.
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
            return Err(condition.unavailable());
        }
        if state.gathering.changes >= WAITING {
            return Err(StoreError::Unavailable("the embedded store does not keep up".into()));
        }
        let batches = &mut *state;
        let mut transaction = Transaction {
            name,
            key,
            view: &self.view,
            format: &self.format,
            condition: &self.condition,
            // An operation must not see a time before its caller asked.
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

    /// Adds chunks of an answer to what is written next.
    pub(super) fn add_chunks(&self, chunks: Vec<LogWrite>) -> Result<CommitTicket, StoreError> {
        let mut state = self.state();
        let condition = self.condition.get();
        if !Purpose::End.is_allowed(condition) {
            return Err(condition.unavailable());
        }
        state.gathering.add_chunks(chunks);
        Ok(CommitTicket(state.number))
    }

    /// `None`: it is not known yet.
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
            Some(CommitFailure::NeverWritten) => Err(Condition::Broken.unavailable()),
        })
    }

    /// Has the thread write what has gathered.
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

    // === for those who write; they have the log, so that one batch is written after the other ===

    /// Waits until something is to be written, but not for longer than `patience`. For the thread.
    pub(super) fn wait(&self, patience: Duration) {
        // Before it is found idle.
        self.writer.get_or_init(thread::current);
        {
            let mut state = self.state();
            if state.is_due || state.is_closing {
                return;
            }
            state.is_idle = true;
        }
        // Who made something due in between has found it idle, and wakes it.
        thread::park_timeout(patience);
    }

    /// What has gathered. For the thread.
    pub(super) fn take(&self) -> WriterWork {
        let mut state = self.state();
        state.is_idle = false;
        match state.take_batch() {
            Some(batch) => WriterWork::Write(batch),
            None if state.is_closing => WriterWork::End,
            None => WriterWork::Nothing,
        }
    }

    /// The same, if what has gathered suits: a function of its bytes, about. Else `None`.
    pub(super) fn take_if(&self, suits: impl FnOnce(u64) -> bool) -> Option<WriterWork> {
        let mut state = self.state();
        if !suits(state.gathering.bytes()) {
            return None;
        }
        Some(state.take_batch().map_or(WriterWork::Nothing, WriterWork::Write))
    }

    /// The batch that was taken is written, and its readers find it.
    pub(super) fn finish(&self, batch: &Batch, segment: u64) {
        let mut state = self.state();
        let CommitState { gathering, claims, .. } = &mut *state;
        batch.written(segment, gathering, claims);
        if claims.len() > CLAIMS {
            // Whatever is not remembered is read.
            claims.clear();
        }
        state.writing = None;
        self.finished.store(state.number - 1, Ordering::Release);
        drop(state);
        self.wake_cores();
    }

    /// What is on its way cannot be written. Of a batch that was `begun`, some may be on the disk all the same.
    pub(super) fn fail(&self, begun: bool, condition: Condition) {
        let mut state = self.state();
        self.condition.set(condition);
        let number = state.number;
        if state.writing.take().is_some() {
            state
                .failed
                .push_back((number - 1, if begun { CommitFailure::Begun } else { CommitFailure::NeverWritten }));
        }
        // It rests on what was to be written before it.
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

    /// The thread ends once all is written.
    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.wake_writer();
    }

    /// A list of its own for each core.
    pub(super) fn waiters(&self) -> Arc<Waiters> {
        let waiters = Arc::new(Waiters::default());
        self.cores.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&waiters));
        waiters
    }
}
