use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::record::Phase;
use crate::store::StoreError;

/// Whether the store can be written. What is written can be read in any condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Up,
    /// The disk is full but for the reserve. Attempts in flight can end, and no new one can begin.
    Full,
    /// A write has failed. The store is opened anew as soon as it can be written.
    Broken,
    /// The folder is not the one that was opened.
    Lost,
}

impl Condition {
    /// Why nothing can be written now. A store without room is not out of reach.
    pub(super) fn error(self) -> StoreError {
        let why = match self {
            Self::Up => "the embedded store is not ready",
            Self::Full => "the disk of the embedded store is full",
            Self::Broken => "the embedded store cannot be written",
            Self::Lost => "the folder of the embedded store is not the one that was opened",
        };
        match self {
            Self::Up | Self::Full | Self::Broken => StoreError::Refused(why.into()),
            Self::Lost => StoreError::Unavailable(why.into()),
        }
    }
}

/// The condition now. The writer sets it, and all threads read it.
#[derive(Debug)]
pub(super) struct CurrentCondition {
    condition: AtomicU8,
    /// When the store became writable again, on the store's clock. 0 if it has never been unwritable.
    writable_since: AtomicU64,
}

const ALL: [Condition; 4] = [Condition::Up, Condition::Full, Condition::Broken, Condition::Lost];

impl CurrentCondition {
    pub(super) fn new(condition: Condition) -> Self {
        Self { condition: AtomicU8::new(condition as u8), writable_since: AtomicU64::new(0) }
    }

    /// Notes that the store is writable again from `now` on.
    pub(super) fn writable_again(&self, now: u64) {
        self.writable_since.store(now, Ordering::Release);
    }

    /// How long an owner has really been silent, if its record shows `silence` at `now`. All owners are in this
    /// process. While the store was not writable they could not renew, and their last renewals may be lost. So no
    /// silence is longer than the store has been writable. What is settled is not renewed: it is as old as it looks.
    pub(super) fn silence(&self, phase: Phase, silence: Duration, now: u64) -> Duration {
        match phase {
            Phase::InFlight => {
                let since = self.writable_since.load(Ordering::Acquire);
                silence.min(Duration::from_millis(now.saturating_sub(since)))
            }
            Phase::Completed | Phase::Unreplayable | Phase::Unknown => silence,
        }
    }

    pub(super) fn get(&self) -> Condition {
        ALL[usize::from(self.condition.load(Ordering::Acquire)) % ALL.len()]
    }

    pub(super) fn set(&self, condition: Condition) {
        self.condition.store(condition as u8, Ordering::Release);
    }
}
