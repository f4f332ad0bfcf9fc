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
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::batch::{Batch, ByKey, Purpose, TouchedRecord, Transaction, Unwritten};
use super::clock::Clock;
use super::condition::{Condition, CurrentCondition};
use super::view::View;
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
    /// The thread has nothing to do, and nobody has promised to wake it.
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
        let ticket = match transaction.end(name) {
            None => None,
            Some(Unwritten::Writing) => Some(CommitTicket { batch: batches.number - 1, wakes: false }),
            Some(Unwritten::Gathering) => {
                batches.gathering.changes += 1;
                let wakes = std::mem::take(&mut batches.is_idle);
                Some(CommitTicket { batch: batches.number, wakes })
            }
        };
        Ok((result, ticket))
    }

    /// Waits for the end of a batch. To be called at once: until then, the thread may not know of it.
    pub(super) fn commit<'a>(&'a self, waiters: &'a Waiters, ticket: CommitTicket) -> Commit<'a> {
        let wake = if ticket.wakes { WriterWake::NextTurn } else { WriterWake::Done };
        Commit { queue: self, waiters, batch: ticket.batch, wake, place: None }
    }

    /// `None`: it is not known yet.
    fn result(&self, batch: u64) -> Option<Result<(), StoreError>> {
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

    /// Says that more is there.
    fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    // === for the thread that writes ===

    /// Waits for something to write, but not for longer than `patience`.
    pub(super) fn next(&self, patience: Duration) -> WriterWork {
        // Before it is found idle.
        self.writer.get_or_init(thread::current);
        if let Some(work) = self.take() {
            return work;
        }
        // Who asked in between has found it idle, and wakes it.
        thread::park_timeout(patience);
        self.take().unwrap_or(WriterWork::Nothing)
    }

    pub(super) fn take(&self) -> Option<WriterWork> {
        let mut state = self.state();
        if state.gathering.changes == 0 {
            state.is_idle = true;
            return state.is_closing.then_some(WriterWork::End);
        }
        state.is_idle = false;
        let batch = Arc::new(std::mem::take(&mut state.gathering));
        state.writing = Some(Arc::clone(&batch));
        state.number += 1;
        Some(WriterWork::Write(batch))
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

/// The batch that an operation waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitTicket {
    batch: u64,
    /// Nobody else wakes the thread.
    wakes: bool,
}

/// Those on one core who wait for the end of a batch, in the order in which they came. The thread wakes the first one,
/// and that one all others: from another thread each would be a system call.
#[derive(Default)]
pub(super) struct Waiters(Mutex<WaiterList>);

#[derive(Default)]
struct WaiterList {
    waiting: VecDeque<Waiter>,
    next: u64,
    /// None of them waits for an earlier batch than this.
    earliest: u64,
}

struct Waiter {
    number: u64,
    batch: u64,
    waker: Waker,
}

impl Waiters {
    fn list(&self) -> MutexGuard<'_, WaiterList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes one of those whose batch is finished. It wakes the others, when it is polled or dropped.
    fn wake_first(&self, finished: u64) -> bool {
        let first = self.list().take_first(finished);
        // Whoever is woken may come here at once: the lock is free again.
        first.map(|waiter| waiter.waker.wake()).is_some()
    }

    fn wake_all(&self, finished: u64) {
        while self.wake_first(finished) {}
    }
}

impl WaiterList {
    fn add(&mut self, batch: u64, waker: Waker) -> u64 {
        let number = self.next;
        self.next += 1;
        self.earliest = self.earliest.min(batch);
        self.waiting.push_back(Waiter { number, batch, waker });
        number
    }

    /// Takes out the first whose batch is finished. Who found a record that is being written waits for that batch, and may
    /// stand behind those who wait for the next one.
    fn take_first(&mut self, finished: u64) -> Option<Waiter> {
        if self.earliest > finished {
            // Everyone who leaves comes here: a look at all of them each time would be too much.
            return None;
        }
        let first = self.waiting.iter().position(|waiter| waiter.batch <= finished);
        if first.is_none() {
            self.earliest = self.waiting.iter().map(|waiter| waiter.batch).min().unwrap_or(u64::MAX);
        }
        self.waiting.remove(first?)
    }

    fn find(&mut self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |waiter| waiter.number).ok()
    }
}

/// Ends when a batch is written.
#[must_use = "it waits only while it is polled"]
pub(super) struct Commit<'a> {
    queue: &'a CommitQueue,
    waiters: &'a Waiters,
    batch: u64,
    wake: WriterWake,
    /// Its number among those who wait.
    place: Option<u64>,
}

/// Whether the thread is still to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriterWake {
    /// After all who are ready on this core had their turn: what they change goes to the disk with it.
    NextTurn,
    Now,
    Done,
}

impl Future for Commit<'_> {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.wake {
            WriterWake::NextTurn => {
                self.wake = WriterWake::Now;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            WriterWake::Now => {
                self.wake = WriterWake::Done;
                self.queue.wake_writer();
            }
            WriterWake::Done => {}
        }
        if let Some(result) = self.queue.result(self.batch) {
            return self.end(result);
        }
        let waiters = self.waiters;
        let mut list = waiters.list();
        // What ends from here on finds it in the list.
        if let Some(result) = self.queue.result(self.batch) {
            drop(list);
            return self.end(result);
        }
        match self.place.and_then(|place| list.find(place)) {
            Some(at) => list.waiting[at].waker.clone_from(cx.waker()),
            None => self.place = Some(list.add(self.batch, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Commit<'_> {
    fn end(&mut self, result: Result<(), StoreError>) -> Poll<Result<(), StoreError>> {
        self.leave();
        Poll::Ready(result)
    }

    /// It may be the one that was woken for all.
    fn leave(&mut self) {
        let Some(place) = self.place.take() else { return };
        let mut list = self.waiters.list();
        if let Some(at) = list.find(place) {
            list.waiting.remove(at);
        }
        drop(list);
        self.waiters.wake_all(self.queue.finished());
    }
}

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        if self.wake != WriterWake::Done {
            self.queue.wake_writer();
        }
        self.leave();
    }
}
