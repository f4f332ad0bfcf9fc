//! Writing on the core that asks, where nobody waits for the disk.
//!
//! With `durability = "process"` a batch is given to the system, which takes some microseconds. To hand it to a thread and to
//! be woken by that takes longer, and each is a system call; so the first who asks on a core writes, after all others who
//! are ready there, what they changed. The thread is left with all that may wait for the disk: another segment, giving room
//! back, large answers, and whatever the system does not take at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::clock::Clock;
use super::log::RecordLog;
use super::queue::{CommitQueue, WriterWork};
use super::writer;

/// The log, for whoever writes to it.
pub(super) type SharedLog = Arc<Mutex<RecordLog>>;

/// Writes where it is asked.
pub(super) struct CoreWriter {
    log: SharedLog,
    clock: Arc<Clock>,
    /// Until then, on the store's clock, the thread writes.
    slow_until: AtomicU64,
}

/// What is larger is left to the thread.
const LARGE: u64 = 64 * 1024;
/// Milliseconds of a write in which the system has made the writer wait for the disk.
const SLOW: u64 = 10;
/// Milliseconds for which no core waits then.
const SLOW_FOR: u64 = 1000;

impl CoreWriter {
    pub(super) fn new(log: SharedLog, clock: Arc<Clock>) -> Self {
        Self { log, clock, slow_until: AtomicU64::new(0) }
    }

    /// Writes what has gathered. `false`: the thread is to do it.
    pub(super) fn write(&self, queue: &CommitQueue) -> bool {
        let now = self.clock.now();
        if now < self.slow_until.load(Ordering::Relaxed) {
            return false;
        }
        // Whoever has it may be waiting for the disk.
        let Some(mut log) = try_lock(&self.log) else { return false };
        let batch = match queue.take_if(|bytes| bytes <= LARGE && log.has_place_for(bytes)) {
            Some(WriterWork::Write(batch)) => batch,
            Some(WriterWork::Nothing | WriterWork::End) => return true,
            None => return false,
        };
        let written = batch.commit(&mut log, now);
        writer::end(queue, &batch, written, &log);
        drop(log);
        if self.clock.now() >= now + SLOW {
            self.slow_until.store(now + SLOW_FOR, Ordering::Relaxed);
        }
        true
    }
}

/// For the thread, which waits for it.
pub(super) fn lock(log: &Mutex<RecordLog>) -> MutexGuard<'_, RecordLog> {
    // Whatever was begun is as a write that failed half-way: it is written over.
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock(log: &Mutex<RecordLog>) -> Option<MutexGuard<'_, RecordLog>> {
    match log.try_lock() {
        Ok(log) => Some(log),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
