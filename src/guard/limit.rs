//! A limit on how many attempts run at once.
//!
//! Nobody waits for a permit, so a counter is enough. A semaphore would take a lock whenever a permit is given back, on
//! all cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of free permits.
pub(super) struct ConcurrencyLimit(AtomicUsize);

/// A permit. It is free again when this is dropped.
pub(super) struct Permit(Arc<ConcurrencyLimit>);

impl ConcurrencyLimit {
    /// A limit of `count` permits.
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(count)))
    }

    /// A permit, if one is free.
    pub(super) fn take(self: &Arc<Self>) -> Option<Permit> {
        let one_less = |free: usize| free.checked_sub(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok()?;
        Some(Permit(Arc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_taken_than_there_are_and_what_is_given_back_is_taken_again() {
        let limit = ConcurrencyLimit::new(2);
        for _ in 0..3 {
            let (first, second) = (limit.take(), limit.take());
            assert!(first.is_some() && second.is_some() && limit.take().is_none());
            drop(first);
            assert!(limit.take().is_some());
        }
        assert!(ConcurrencyLimit::new(0).take().is_none());
    }
}
