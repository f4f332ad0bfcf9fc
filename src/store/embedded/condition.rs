use std::sync::atomic::{AtomicU8, Ordering};

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
pub(super) struct CurrentCondition(AtomicU8);

const ALL: [Condition; 4] = [Condition::Up, Condition::Full, Condition::Broken, Condition::Lost];

impl CurrentCondition {
    pub(super) fn new(condition: Condition) -> Self {
        Self(AtomicU8::new(condition as u8))
    }

    pub(super) fn get(&self) -> Condition {
        ALL[usize::from(self.0.load(Ordering::Acquire)) % ALL.len()]
    }

    pub(super) fn set(&self, condition: Condition) {
        self.0.store(condition as u8, Ordering::Release);
    }
}
