//! The current connection to one server, and what is known of that server.
//!
//! Callers take the current connection and never wait for another. Without a connection, they know at once that nothing
//! was executed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use super::connect_error::ConnectError;
use super::connected::Connected;
use super::finding::ServerFinding;
use super::own_names::OwnNames;
use crate::clock::{millis, since_boot};
use crate::store::StoreError;
use crate::store::usable_since::UsableSince;

/// State that is shared by the callers and the task that keeps the connection.
pub(super) struct Link {
    current: watch::Sender<Result<Arc<Connected>, Arc<ConnectError>>>,
    /// The time when the connection was last found lost, or when the first attempt to open one failed: milliseconds of
    /// [`since_boot`].
    failed: AtomicU64,
    pub(super) usable_since: Arc<UsableSince>,
    /// The names that this server holds.
    pub(super) names: Arc<OwnNames>,
    /// The share of its memory that the server uses, in thousandths. [`UNLIMITED`] if it has no limit.
    used: AtomicU64,
    /// Whether the server may evict records.
    evicting: AtomicBool,
    /// Findings about the server from the last connect.
    findings: RwLock<Vec<ServerFinding>>,
}

const UNLIMITED: u64 = u64::MAX;

impl Link {
    pub(super) fn new() -> Arc<Self> {
        let (current, _) = watch::channel(Err(Arc::new(ConnectError::NotYet)));
        Arc::new(Self {
            current,
            failed: AtomicU64::new(0),
            usable_since: Arc::default(),
            names: Arc::default(),
            used: AtomicU64::new(UNLIMITED),
            evicting: AtomicBool::new(false),
            findings: RwLock::default(),
        })
    }

    /// The current connection, if there is one. A server is out of reach only if the last attempt to open a connection
    /// failed. A connection that was just lost, or dropped because of late replies, does not prove that.
    pub(super) fn connected(&self) -> Result<Arc<Connected>, StoreError> {
        self.state().map_err(unusable)
    }

    /// The same, with the reason if there is none.
    pub(super) fn state(&self) -> Result<Arc<Connected>, Arc<ConnectError>> {
        match &*self.current.borrow() {
            Ok(connected) if connected.is_lost() => Err(Arc::new(ConnectError::Lost)),
            Ok(connected) => Ok(connected.clone()),
            Err(why) => Err(why.clone()),
        }
    }

    /// Whether the connection was lost after `moment`, a time of [`since_boot`].
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
            // This link is the sender, so it is not closed.
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

    /// Waits for a connection, for a final error, or for `patience`.
    pub(super) async fn ready(&self, patience: Duration) -> Result<(), Arc<ConnectError>> {
        until(&self.current, patience, |current| current.as_ref().map_or_else(|why| why.is_final(), |_| true)).await
    }

    /// Waits until the first attempt to connect has ended. That attempt has a deadline.
    pub(super) async fn tried(&self) -> Result<(), Arc<ConnectError>> {
        until(&self.current, Duration::MAX, is_tried).await
    }

    /// Sets what is known of the server's memory.
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

/// The error of a call that has no connection.
pub(super) fn unusable(why: Arc<ConnectError>) -> StoreError {
    let is_out_of_reach = why.is_out_of_reach();
    let why = Box::new(why);
    if is_out_of_reach { StoreError::Unavailable(why) } else { StoreError::Refused(why) }
}

pub(super) fn is_tried<T>(current: &Result<T, Arc<ConnectError>>) -> bool {
    !matches!(current, Err(why) if matches!(**why, ConnectError::NotYet))
}

/// Waits until `is_so` holds, for at most `patience`. Returns the state at that time.
pub(super) async fn until<T: 'static>(
    current: &watch::Sender<Result<T, Arc<ConnectError>>>,
    patience: Duration,
    is_so: impl FnMut(&Result<T, Arc<ConnectError>>) -> bool,
) -> Result<(), Arc<ConnectError>> {
    let mut watched = current.subscribe();
    // The sender is borrowed, so it is not closed.
    let _ = tokio::time::timeout(patience, watched.wait_for(is_so)).await;
    current.borrow().as_ref().map(drop).map_err(Arc::clone)
}
