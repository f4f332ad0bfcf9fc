//! The connection to one server that there is now, and what is known of that server.
//!
//! Callers take the connection that is there and never wait for another: with none, they know at once that
//! nothing was done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use super::connect_error::ConnectError;
use super::connected::{Connected, LastChange};
use super::own_names::OwnNames;
use super::probe::ServerFinding;
use super::timing::millis;
use crate::clock::since_boot;
use crate::store::StoreError;

/// What callers and the task that keeps the connection share.
pub(super) struct Link {
    current: watch::Sender<Result<Arc<Connected>, Arc<ConnectError>>>,
    /// When the connection was last found to be gone, or the first could not be opened: milliseconds of [`since_boot`].
    failed: AtomicU64,
    pub(super) changed: Arc<LastChange>,
    /// Which names it has.
    pub(super) names: Arc<OwnNames>,
    /// Thousandths of its memory that the server uses; [`UNLIMITED`] where it has no limit.
    used: AtomicU64,
    /// Whether records may be evicted.
    evicting: AtomicBool,
    /// What was found out about the server that was connected to last.
    findings: RwLock<Vec<ServerFinding>>,
}

const UNLIMITED: u64 = u64::MAX;

impl Link {
    pub(super) fn new() -> Arc<Self> {
        let (current, _) = watch::channel(Err(Arc::new(ConnectError::NotYet)));
        Arc::new(Self {
            current,
            failed: AtomicU64::new(0),
            changed: Arc::default(),
            names: Arc::default(),
            used: AtomicU64::new(UNLIMITED),
            evicting: AtomicBool::new(false),
            findings: RwLock::default(),
        })
    }

    /// The connection, if there is one now. Out of reach is the server only if the last try to open one has failed: one
    /// that was just lost, or dropped for lateness, says little.
    pub(super) fn connected(&self) -> Result<Arc<Connected>, StoreError> {
        self.state().map_err(unusable)
    }

    /// The same, and why there is none.
    pub(super) fn state(&self) -> Result<Arc<Connected>, Arc<ConnectError>> {
        match &*self.current.borrow() {
            Ok(connected) if connected.is_lost() => Err(Arc::new(ConnectError::Lost)),
            Ok(connected) => Ok(connected.clone()),
            Err(why) => Err(why.clone()),
        }
    }

    /// Whether the connection was lost after `moment`, which is a time of [`since_boot`].
    pub(super) fn has_failed_since(&self, moment: Duration) -> bool {
        self.failed.load(Ordering::Relaxed) > millis(moment)
    }

    /// Waits for a connection that is not lost.
    pub(super) async fn next(&self) -> Arc<Connected> {
        let works = |current: &Result<Arc<Connected>, _>| current.as_ref().is_ok_and(|connected| !connected.is_lost());
        let mut current = self.current.subscribe();
        let next = current.wait_for(works).await.ok().and_then(|current| current.as_ref().ok().cloned());
        match next {
            Some(connected) => connected,
            // The sender is this very link.
            None => std::future::pending().await,
        }
    }

    pub(super) fn set(&self, current: Result<Arc<Connected>, Arc<ConnectError>>) {
        let is_err = current.is_err();
        let before = self.current.send_replace(current);
        let was_there = before.is_ok() || !is_tried(&before);
        if is_err && was_there {
            self.failed.store(millis(since_boot()), Ordering::Relaxed);
        }
    }

    /// Waits for a connection, or for an error that no waiting cures; after `patience`, for nothing more.
    pub(super) async fn ready(&self, patience: Duration) -> Result<(), Arc<ConnectError>> {
        until(&self.current, patience, |current| current.as_ref().map_or_else(|why| why.is_final(), |_| true)).await
    }

    /// Waits until the first try to connect has ended: it has a deadline.
    pub(super) async fn tried(&self) -> Result<(), Arc<ConnectError>> {
        until(&self.current, Duration::MAX, is_tried).await
    }

    /// What is known of the server's memory.
    pub(super) fn set_memory(&self, used: Option<f64>, evicting: bool) {
        let thousandths = used.map_or(UNLIMITED, |used| (used * 1000.0).clamp(0.0, 1e6) as u64);
        self.used.store(thousandths, Ordering::Relaxed);
        self.evicting.store(evicting, Ordering::Relaxed);
    }

    pub(super) fn used_ratio(&self) -> Option<f64> {
        let used = self.used.load(Ordering::Relaxed);
        (used != UNLIMITED).then(|| used as f64 / 1000.0)
    }

    pub(super) fn may_evict(&self) -> bool {
        self.evicting.load(Ordering::Relaxed)
    }

    pub(super) fn findings(&self) -> Vec<ServerFinding> {
        self.findings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_findings(&self, findings: Vec<ServerFinding>) {
        *self.findings.write().unwrap_or_else(PoisonError::into_inner) = findings;
    }
}

/// What there being no connection means for a call.
pub(super) fn unusable(why: Arc<ConnectError>) -> StoreError {
    let is_out_of_reach = why.is_out_of_reach();
    let why = Box::new(why);
    if is_out_of_reach { StoreError::Unavailable(why) } else { StoreError::Refused(why) }
}

pub(super) fn is_tried<T>(current: &Result<T, Arc<ConnectError>>) -> bool {
    !matches!(current, Err(why) if matches!(**why, ConnectError::NotYet))
}

/// Waits until it is so, for as long as `patience` lasts, and tells what is so then.
pub(super) async fn until<T: 'static>(
    current: &watch::Sender<Result<T, Arc<ConnectError>>>,
    patience: Duration,
    is_so: impl FnMut(&Result<T, Arc<ConnectError>>) -> bool,
) -> Result<(), Arc<ConnectError>> {
    let mut watched = current.subscribe();
    // The sender is there: it is borrowed.
    let _ = tokio::time::timeout(patience, watched.wait_for(is_so)).await;
    current.borrow().as_ref().map(drop).map_err(Arc::clone)
}
