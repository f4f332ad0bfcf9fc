//! All bodies held in memory at once (`server.max_buffered`).

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{Counted, Metrics};

/// A number of bytes, shared by all bodies.
#[derive(Clone)]
pub struct Budget {
    left: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// Bytes that count against the budget until the last reference to them is gone.
struct Budgeted {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
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
        Self { left: Arc::new(Semaphore::new(permits)), metrics }
    }

    /// The same bytes, counted; `None` where the budget cannot take them.
    pub fn hold(&self, bytes: Bytes) -> Option<Bytes> {
        if bytes.is_empty() {
            return Some(bytes);
        }
        let permits = u32::try_from(bytes.len()).ok()?;
        let permit = Arc::clone(&self.left).try_acquire_many_owned(permits).ok()?;
        let counted = self.metrics.buffered(u64::from(permits));
        Some(Bytes::from_owner(Budgeted { bytes, _permit: permit, _counted: counted }))
    }

    /// Whether `bytes` more would fit now.
    pub fn has(&self, bytes: u64) -> bool {
        self.left.available_permits() as u64 >= bytes
    }
}
