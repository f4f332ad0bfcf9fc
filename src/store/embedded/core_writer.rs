//! Writing on the core of a caller, where no write waits for the disk.
//!
//! With `durability = "process"` a batch is handed to the operating system, which takes some microseconds. Handing it
//! to a thread and being woken by that thread takes longer, with a system call for each. So the first caller on a core
//! writes, after all tasks that are ready on that core have added their changes. The thread does all work that may wait
//! for the disk: beginning another segment, giving room back, large answers, and writes that the system does not take
//! at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::clock::Clock;
use super::condition::Condition;
use super::log::RecordLog;
use super::queue::{CommitQueue, WriterWork};
use super::writer;

/// The log, locked by the one who writes.
pub(super) type SharedLog = Arc<Mutex<RecordLog>>;

/// Writes batches on the cores.
pub(super) struct CoreWriter {
    log: SharedLog,
    clock: Arc<Clock>,
    /// Until this time, on the store's clock, the thread writes.
    slow_until: AtomicU64,
}

/// Larger batches are left to the thread.
const LARGE: u64 = 64 * 1024;
/// A write of so many milliseconds has waited for the disk.
const SLOW: u64 = 10;
/// For at least so many milliseconds after a slow write, the thread writes instead of the cores.
const SLOW_FOR: u64 = 1000;
/// The thread writes for so many times as long as the slow write took. So a core waits for a small part of the time.
const SLOW_TIMES: u64 = 20;

impl CoreWriter {
    pub(super) fn new(log: SharedLog, clock: Arc<Clock>) -> Self {
        Self { log, clock, slow_until: AtomicU64::new(0) }
    }

    /// Writes the gathered batch. `false`: the thread must do it.
    pub(super) fn write(&self, queue: &CommitQueue) -> bool {
        let now = self.clock.now();
        if now < self.slow_until.load(Ordering::Relaxed) {
            return false;
        }
        // The holder of the lock may be waiting for the disk.
        let Some(mut log) = try_lock(&self.log) else { return false };
        let batch = match queue.take_if(|bytes| bytes <= LARGE && log.has_place_for(bytes)) {
            Some(WriterWork::Write(batch)) => batch,
            Some(WriterWork::Nothing | WriterWork::End) => return true,
            None => return false,
        };
        let unfinished = UnfinishedBatch(queue);
        let written = batch.commit(&mut log, now);
        writer::end(queue, &batch, written, &log);
        std::mem::forget(unfinished);
        drop(log);
        if let Some(until) = slow_until(now, self.clock.now()) {
            self.slow_until.store(until, Ordering::Relaxed);
        }
        true
    }
}

/// Fails the batch that is being written if the write panics. Otherwise the end of the next batch would be taken for its
/// end, and its callers would go on as if it were written. Dropped before the lock on the log is released.
struct UnfinishedBatch<'a>(&'a CommitQueue);

impl Drop for UnfinishedBatch<'_> {
    fn drop(&mut self) {
        self.0.fail(true, Condition::Broken);
    }
}

/// Until when the thread writes after a write from `begun` to `ended`. `None`: the write was not slow.
fn slow_until(begun: u64, ended: u64) -> Option<u64> {
    let took = ended.saturating_sub(begun);
    // From the end of the write: a write may take longer than `SLOW_FOR`.
    (took >= SLOW).then(|| ended.saturating_add(SLOW_FOR.max(took.saturating_mul(SLOW_TIMES))))
}

/// Locks the log, and waits for that. For the thread.
pub(super) fn lock(log: &Mutex<RecordLog>) -> MutexGuard<'_, RecordLog> {
    // A panic under the lock leaves at most a write that stopped half-way. The next write overwrites it.
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock(log: &Mutex<RecordLog>) -> Option<MutexGuard<'_, RecordLog>> {
    match log.try_lock() {
        Ok(log) => Some(log),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_writes_after_a_slow_write_however_long_that_took() {
        assert_eq!(slow_until(5000, 5009), None);
        assert_eq!(slow_until(5000, 5010), Some(6010));
        assert_eq!(slow_until(5000, 5100), Some(7100));
        assert_eq!(slow_until(5000, 6500), Some(36_500));
    }
}
