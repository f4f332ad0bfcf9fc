//! All bodies held in memory at once (`server.max_buffered`).

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{Counted, Metrics};

/// A number of bytes, shared by all bodies.
#[derive(Clone)]
pub struct Budget {
    left: Arc<Semaphore>,
    all: usize,
    metrics: Arc<Metrics>,
}

/// Some of the budget, taken for as long as this lives.
pub(super) struct Share {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
    /// It does not grow into the last of the budget.
    leaves: usize,
    counted: Counted,
}

/// Bytes, with the share that they take until the last reference to them is gone.
struct Budgeted {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Budgeted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64, metrics: Arc<Metrics>) -> Self {
        let permits = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { left: Arc::new(Semaphore::new(permits)), all: permits, metrics }
    }

    /// A share of nothing yet.
    pub(super) fn share(&self) -> Share {
        Share { budget: self.clone(), permit: None, leaves: 0, counted: self.metrics.buffered() }
    }

    /// The same, for what is not as important: half of the budget is left to others.
    pub(super) fn modest_share(&self) -> Share {
        Share { leaves: self.all / 2, ..self.share() }
    }

    /// The same bytes, with their share; `None` where the budget cannot take them.
    pub(super) fn hold(&self, bytes: Bytes) -> Option<Bytes> {
        let mut share = self.share();
        share.grow(bytes.len()).then(|| share.hold(bytes))
    }
}

impl Share {
    /// Takes `bytes` more, if they are there.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let Ok(permits) = u32::try_from(bytes) else { return false };
        if self.leaves > 0 && self.budget.left.available_permits() < self.leaves.saturating_add(bytes) {
            return false;
        }
        let Ok(more) = Arc::clone(&self.budget.left).try_acquire_many_owned(permits) else { return false };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        self.counted.add(permits.into());
        true
    }

    /// Ties the share to the bytes that it was taken for.
    pub(super) fn hold(self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        Bytes::from_owner(Budgeted { bytes, _share: self })
    }
}
