//! The thread that writes, and does all work that may wait for the disk.
//!
//! It takes the gathered batch (`queue.rs`), writes it in one piece, waits for the disk once, and announces the end of
//! the batch. Between batches it gives room back, and checks that the folder is still there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::batch::Batch;
use super::clock::Clock;
use super::condition::{Condition, CurrentCondition};
use super::core_writer::{self, SharedLog};
use super::folder::is_full;
use super::log::RecordLog;
use super::queue::{CommitQueue, WriterWork};
use crate::store::SHORT;

/// The state of the thread.
pub(super) struct RecordLogWriter {
    pub(super) log: SharedLog,
    pub(super) clock: Arc<Clock>,
    pub(super) queue: Arc<CommitQueue>,
    pub(super) condition: Arc<CurrentCondition>,
    pub(super) losses: Arc<AtomicU64>,
    /// The store's [`used_ratio`](RecordLog::used_ratio), as the bits of an `f64`.
    pub(super) used: Arc<AtomicU64>,
    pub(super) next: NextWork,
    /// Whether the disk was almost full at the last check.
    pub(super) is_short: bool,
}

/// When each periodic task is due.
#[derive(Debug, Default)]
pub(super) struct NextWork {
    check: u64,
    reclaim: u64,
    mark: u64,
}

const CHECK_EVERY: u64 = 1000;
const RECLAIM_EVERY: u64 = 1000;
/// How often the clock is written. Without requests nothing else is written.
const MARK_EVERY: u64 = 60_000;
/// The most milliseconds for which operations wait while room is given back.
const TURN: u64 = 2;

impl RecordLogWriter {
    /// Runs until no caller is left.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.log);
        loop {
            let next = self.next.check.min(self.next.reclaim);
            self.queue.wait(Duration::from_millis(next.saturating_sub(self.clock.now())));
            // A core that finds the log locked leaves its batch to this thread. The next turn begins with that batch.
            let log = &mut *core_writer::lock(&shared);
            match self.queue.take() {
                WriterWork::Write(batch) => self.write(log, &batch),
                WriterWork::Nothing => {}
                WriterWork::End => break,
            }
            if self.clock.now() >= self.next.check {
                self.check(log);
            }
            if self.clock.now() >= self.next.reclaim {
                self.reclaim(log);
            }
        }
        let log = &mut *core_writer::lock(&shared);
        if self.is_writable()
            // Nothing is written to a folder that is being removed.
            && log.check().is_ok()
            && let Err(error) = log.close(self.clock.now())
        {
            tracing::error!(%error, "the embedded store could not be written out at the end");
        }
    }

    fn is_writable(&self) -> bool {
        match self.condition.get() {
            Condition::Up | Condition::Full => true,
            Condition::Broken | Condition::Lost => false,
        }
    }

    fn write(&mut self, log: &mut RecordLog, batch: &Batch) {
        if !self.is_writable() {
            return self.queue.fail(false, self.condition.get());
        }
        let written = batch.commit(log, self.clock.now());
        if !end(&self.queue, batch, written, log) {
            self.next.check = self.clock.now();
        }
    }

    fn heed(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            fail(&self.queue, &error);
            self.next.check = self.clock.now();
        }
    }

    /// Checks the folder, and whether a failed store can be written again.
    fn check(&mut self, log: &mut RecordLog) {
        let now = self.clock.now();
        self.next.check = now + CHECK_EVERY;
        let used = log.used_ratio();
        self.used.store(used.to_bits(), Ordering::Relaxed);
        self.warn_of_shortage(used);
        let condition = self.condition.get();
        match (condition, log.check()) {
            (Condition::Lost, Err(_)) => {}
            (_, Err(loss)) => {
                self.queue.fail(false, Condition::Lost);
                self.losses.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    folder = %log.folder.path().display(),
                    "the folder of the embedded store is not the one that was opened: {loss}. Answers that it held are \
                     replayed, and new requests are refused until the folder is put back, or onlyonce is started again \
                     on a new store"
                );
            }
            (Condition::Lost | Condition::Broken, Ok(())) => self.reopen(log, now),
            (Condition::Full, Ok(())) => self.leave_reserve(log, now),
            (Condition::Up, Ok(())) => {
                // Renewals are written without a sync. A write that fails cuts off all frames that are not synced. This
                // sync limits the loss to the renewals of one interval.
                let synced = log.sync_if_durable();
                self.heed(synced);
            }
        }
    }

    fn warn_of_shortage(&mut self, used: f64) {
        let is_short = used > SHORT;
        if is_short && !self.is_short {
            tracing::warn!(
                used,
                "the disk of the embedded store is almost full: larger answers are not kept any more (their repeats get \
                 409 already-completed), so that keys can still be claimed. Give it more room, or records less retention"
            );
        }
        self.is_short = is_short;
    }

    fn reopen(&mut self, log: &mut RecordLog, now: u64) {
        let opened = match log.reopen(now) {
            Err(error) if is_full(&error) => log.folder.give_reserve().and_then(|()| log.reopen(now)),
            opened => opened,
        };
        match opened {
            Err(error) => tracing::debug!(%error, "the embedded store still cannot be written"),
            Ok(()) => {
                self.condition.writable_again(now);
                self.condition.set(Condition::Full);
                self.leave_reserve(log, now);
                if self.condition.get() == Condition::Full {
                    tracing::warn!("the disk of the embedded store is full: outcomes are written to the last of it");
                }
            }
        }
    }

    /// Ends the condition `Full` if the reserve can be taken and more room is left.
    fn leave_reserve(&mut self, log: &mut RecordLog, now: u64) {
        match log.folder.take_reserve() {
            Ok(true) => {
                self.condition.set(Condition::Up);
                self.next.reclaim = now;
                tracing::info!("the embedded store can be written again");
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the disk of the embedded store is still full"),
        }
    }

    fn reclaim(&mut self, log: &mut RecordLog) {
        let now = self.clock.now();
        self.next.reclaim = now + RECLAIM_EVERY;
        if !self.is_writable() {
            return;
        }
        let clock = self.clock.clone();
        let more = match self.condition.get() {
            // No segment is copied: the room that is left is for outcomes.
            Condition::Full => log.remove_expired(now).map(|()| false),
            Condition::Up | Condition::Broken | Condition::Lost => log.reclaim(now, || clock.now() >= now + TURN),
        };
        let marked = match more {
            Ok(true) => {
                self.next.reclaim = now;
                Ok(())
            }
            // With this mark, the clock is at most `MARK_EVERY` behind after a restart.
            Ok(false) if now >= self.next.mark => {
                self.next.mark = now + MARK_EVERY;
                log.append(&[], now, false)
            }
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        self.heed(marked);
    }
}

/// Ends a batch. Returns whether it is written.
pub(super) fn end(queue: &CommitQueue, batch: &Batch, written: io::Result<()>, log: &RecordLog) -> bool {
    match written {
        Ok(()) => {
            queue.finish(batch, log.open_segment().0);
            true
        }
        Err(error) => {
            fail(queue, &error);
            false
        }
    }
}

/// Handles a failed write: the store is unwritable for now.
fn fail(queue: &CommitQueue, error: &io::Error) {
    queue.fail(true, Condition::Broken);
    tracing::error!(
        %error,
        "the embedded store cannot be written: answers that it holds are replayed, and new requests are refused \
         until it can be written again"
    );
}
