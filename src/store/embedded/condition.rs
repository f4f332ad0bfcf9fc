use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::store::StoreError;

/// Whether the store can be written. What is written can be read in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Up,
    /// The disk is full but for a reserve: what is in flight is brought to its end, and nothing new begins.
    Full,
    /// A write has failed. The store is opened anew as soon as it can be written.
    Broken,
    /// The folder is not the one that was opened.
    Lost,
}

impl Condition {
    pub(super) fn unavailable(self) -> StoreError {
        let why = match self {
            Self::Up => "the embedded store is not ready",
            Self::Full => "the disk of the embedded store is full",
            Self::Broken => "the embedded store cannot be written",
            Self::Lost => "the folder of the embedded store is not the one that was opened",
        };
        StoreError::Unavailable(why.into())
    }
}

/// The condition now: set by the writing thread, seen by all.
#[derive(Debug)]
pub(super) struct CurrentCondition {
    condition: AtomicU8,
    /// Since when it can be written again, on the store's clock; 0 while that has never been otherwise.
    writable_since: AtomicU64,
}

const ALL: [Condition; 4] = [Condition::Up, Condition::Full, Condition::Broken, Condition::Lost];

impl CurrentCondition {
    pub(super) fn new(condition: Condition) -> Self {
        Self { condition: AtomicU8::new(condition as u8), writable_since: AtomicU64::new(0) }
    }

    /// It can be written again from `now` on.
    pub(super) fn writable_again(&self, now: u64) {
        self.writable_since.store(now, Ordering::Release);
    }

    /// For how long an owner has been silent that seems silent for `silence` at `now`. All owners are in this process.
    /// While the store could not be written they could not show that they live, and what they last wrote may be lost.
    pub(super) fn silence(&self, silence: Duration, now: u64) -> Duration {
        let since = self.writable_since.load(Ordering::Acquire);
        silence.min(Duration::from_millis(now.saturating_sub(since)))
    }

    pub(super) fn get(&self) -> Condition {
        ALL[usize::from(self.condition.load(Ordering::Acquire)) % ALL.len()]
    }

    pub(super) fn set(&self, condition: Condition) {
        self.condition.store(condition as u8, Ordering::Release);
    }
}
