//! The limit for all bodies in memory (`server.max_buffered`).

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{GaugeGuard, Metrics};

/// A number of bytes, shared by all bodies.
#[derive(Clone)]
pub struct Budget {
    left: Arc<Semaphore>,
    all: usize,
    metrics: Arc<Metrics>,
}

/// A part of the budget, until this is dropped.
pub(super) struct Reservation {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
    /// So much of the budget is left free by this reservation.
    leaves: usize,
    counted: GaugeGuard,
}

/// Bytes with their reservation, which ends with the last reference to them.
struct ReservedBytes {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for ReservedBytes {
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

    /// A reservation of nothing yet.
    pub(super) fn reserve(&self) -> Reservation {
        Reservation { budget: self.clone(), permit: None, leaves: 0, counted: self.metrics.buffered() }
    }

    /// The same with low priority: half of the budget is left to others.
    pub(super) fn reserve_low_priority(&self) -> Reservation {
        Reservation { leaves: self.all / 2, ..self.reserve() }
    }

    /// The same bytes with a reservation; `None` if the budget has no room.
    pub(super) fn hold(&self, bytes: Bytes) -> Option<Bytes> {
        let mut reservation = self.reserve();
        reservation.grow(bytes.len()).then(|| reservation.hold(bytes))
    }
}

impl Reservation {
    /// Reserves `bytes` more, if the budget has room.
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

    /// Gives `bytes` of it back.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if let Some(given_back) = self.permit.as_mut().and_then(|permit| permit.split(bytes)) {
            self.counted.add(-i64::try_from(given_back.num_permits()).unwrap_or(0));
        }
    }

    /// Ties the reservation to the bytes that it was taken for.
    pub(super) fn hold(self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        Bytes::from_owner(ReservedBytes { bytes, _reservation: self })
    }
}
