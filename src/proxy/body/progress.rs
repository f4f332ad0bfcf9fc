use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::tick;

/// How much of a body was forwarded, and when the last part was.
#[derive(Clone)]
pub(in crate::proxy) struct BodyProgress(Arc<Mutex<(BodyStage, Instant)>>);

/// How much of a body has arrived from its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum BodyStage {
    /// Not all of it.
    Coming,
    /// All of it.
    Whole,
    /// It cannot be read, or its client has left.
    Broken,
    /// Nothing, for too long.
    Paused,
}

impl BodyProgress {
    /// In this stage since now.
    pub(in crate::proxy) fn at(stage: BodyStage) -> Self {
        Self(Arc::new(Mutex::new((stage, Instant::now()))))
    }

    /// A part of it was forwarded, or no more will come.
    pub(in crate::proxy) fn reached(&self, stage: BodyStage) {
        *self.last() = (stage, Instant::now());
    }

    /// How much of it has arrived.
    pub(in crate::proxy) fn stage(&self) -> BodyStage {
        self.last().0
    }

    /// When the last part was forwarded.
    pub(in crate::proxy) fn since(&self) -> Instant {
        self.last().1
    }

    fn last(&self) -> MutexGuard<'_, (BodyStage, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing was forwarded for this long.
    pub(in crate::proxy) async fn stalled(&self, timeout: Duration) {
        let mut due = self.since() + timeout;
        loop {
            tick::sleep_until(due).await;
            let next = self.since() + timeout;
            if next == due {
                return;
            }
            due = next;
        }
    }
}
