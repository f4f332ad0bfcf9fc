//! The primary that is connected now, and why there is none.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::commit_check::CommitHealth;
use super::error::PostgresError;
use super::pool::SessionPool;
use super::session::{ServerProcess, Session};
use crate::config::StoreEndpoint;
use crate::store::StoreError;

/// A server that is used, with its sessions.
pub(super) struct ConnectedPrimary {
    pub(super) endpoint: StoreEndpoint,
    /// For what must not wait for a commit: it shows whether the server is there.
    pub(super) control: Session,
    pub(super) committing: SessionPool,
    pub(super) reading: SessionPool,
    pub(super) commits: CommitHealth,
    /// How often it has taken over from another server.
    pub(super) timeline: u32,
    /// Its clock, at the login.
    pub(super) clock: SystemTime,
}

impl ConnectedPrimary {
    /// A session for a call that commits.
    pub(super) fn to_commit(&self) -> Result<Arc<Session>, StoreError> {
        self.committing.pick().ok_or_else(|| StoreError::Refused(DROPPED.into()))
    }

    /// A session for a call that only reads.
    pub(super) fn to_read(&self) -> Result<Arc<Session>, StoreError> {
        self.reading.pick().ok_or_else(|| StoreError::Refused(DROPPED.into()))
    }

    /// A session for a claim, unless its commit would not end.
    pub(super) fn to_claim(&self) -> Option<Arc<Session>> {
        if self.commits.hang() { None } else { self.committing.pick() }
    }

    /// The processes that work for calls that commit, and for those that read, or may.
    pub(super) fn processes(&self) -> [Vec<ServerProcess>; 2] {
        let mut committing = self.committing.processes();
        committing.extend(self.commits.process());
        [committing, self.reading.processes()]
    }

    /// How many processes of lost sessions may still be at work.
    pub(super) fn count_left_behind(&self) -> usize {
        self.committing.count_left_behind() + self.reading.count_left_behind()
    }

    /// Drops all connections.
    pub(super) fn end(&self) {
        self.control.end();
        self.committing.end();
        self.reading.end();
    }
}

const DROPPED: &str = "its connections to PostgreSQL were dropped, and are being opened again";

/// Shared by the callers and the task that keeps the connections.
pub(super) struct PostgresLink {
    current: watch::Sender<Result<Arc<ConnectedPrimary>, Arc<PostgresError>>>,
}

impl PostgresLink {
    pub(super) fn new() -> Arc<Self> {
        let (current, _) = watch::channel(Err(Arc::new(PostgresError::NotYet)));
        Arc::new(Self { current })
    }

    /// The primary, or why there is none, in the words of a call that was not made.
    pub(super) fn primary(&self) -> Result<Arc<ConnectedPrimary>, StoreError> {
        self.state().map_err(|why| {
            let is_out_of_reach = why.is_out_of_reach();
            let why = Box::new(why);
            if is_out_of_reach { StoreError::Unavailable(why) } else { StoreError::Refused(why) }
        })
    }

    pub(super) fn state(&self) -> Result<Arc<ConnectedPrimary>, Arc<PostgresError>> {
        match &*self.current.borrow() {
            Ok(primary) if primary.control.is_lost() => Err(Arc::new(PostgresError::Lost)),
            Ok(primary) => Ok(primary.clone()),
            Err(why) => Err(why.clone()),
        }
    }

    pub(super) fn set(&self, current: Result<Arc<ConnectedPrimary>, Arc<PostgresError>>) {
        drop(self.current.send_replace(current));
    }

    /// Waits for a primary.
    pub(super) async fn next(&self) -> Arc<ConnectedPrimary> {
        let mut current = self.current.subscribe();
        let works =
            |current: &Result<Arc<ConnectedPrimary>, _>| current.as_ref().is_ok_and(|now| !now.control.is_lost());
        let next = current.wait_for(works).await.ok().and_then(|current| current.as_ref().ok().cloned());
        match next {
            Some(primary) => primary,
            // This link is the sender, so it is not closed.
            None => std::future::pending().await,
        }
    }

    /// Waits for a primary, for a final error, or for `patience`.
    pub(super) async fn ready(&self, patience: Duration) -> Result<(), Arc<PostgresError>> {
        self.until(patience, |current| current.as_ref().map_or_else(|why| why.is_final(), |_| true)).await
    }

    /// Waits until the first attempt to connect has ended. That attempt has a deadline.
    pub(super) async fn tried(&self) -> Result<(), Arc<PostgresError>> {
        self.until(Duration::MAX, |current| !matches!(current, Err(why) if matches!(**why, PostgresError::NotYet)))
            .await
    }

    async fn until(
        &self,
        patience: Duration,
        is_so: impl FnMut(&Result<Arc<ConnectedPrimary>, Arc<PostgresError>>) -> bool,
    ) -> Result<(), Arc<PostgresError>> {
        let mut watched = self.current.subscribe();
        // The sender is borrowed, so it is not closed.
        let _ = tokio::time::timeout(patience, watched.wait_for(is_so)).await;
        self.current.borrow().as_ref().map(drop).map_err(Arc::clone)
    }
}
