//! The sessions for calls. A server works on the statements of one session one after the other, and each commit waits for
//! the disk; those of several sessions share that wait. So there are more of them where calls meet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;

use super::session::Session;

/// Some sessions of one server.
#[derive(Default)]
pub(super) struct SessionPool {
    sessions: RwLock<Vec<Arc<Session>>>,
    /// Processes of sessions that were dropped late: each may still be at work there.
    left_behind: Mutex<Vec<i32>>,
    /// There are fewer sessions than would be good.
    wanted: Notify,
}

/// The most sessions for calls. A server has 100 connections unless it is told otherwise.
pub(super) const MOST: usize = 8;
/// So many are always there: the call after a late one finds another.
pub(super) const LEAST: usize = 2;

impl SessionPool {
    /// The session with the fewest calls, if there is any.
    pub(super) fn pick(&self) -> Option<Arc<Session>> {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        let live = sessions.iter().filter(|session| !session.is_lost());
        let picked = live.min_by_key(|session| session.busy()).cloned();
        let is_enough = sessions.len() >= LEAST && picked.as_ref().is_some_and(|session| session.busy() == 0);
        if !is_enough {
            self.wanted.notify_one();
        }
        picked
    }

    /// How many there are. Those that are lost are let go.
    pub(super) fn count(&self) -> usize {
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|session| {
            if session.is_lost() && session.is_late() {
                self.left_behind().push(session.process);
            }
            !session.is_lost()
        });
        sessions.len()
    }

    pub(super) fn add(&self, session: Session) {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(session));
    }

    /// Waits until more are wanted.
    pub(super) async fn until_wanted(&self) {
        self.wanted.notified().await;
    }

    /// Asks again later.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    pub(super) fn left_behind(&self) -> MutexGuard<'_, Vec<i32>> {
        // Every step leaves the list consistent.
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
