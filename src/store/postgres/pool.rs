//! The sessions for calls. A server works on the statements of one session one after the other, and each commit waits for
//! the disk; those of several sessions share that wait. So there are more of them where calls meet.
//!
//! There are two pools. A commit may wait for a standby that is away, and whatever comes after it on its session waits as
//! well: so statements that only read have sessions that never commit.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::Poll;

use tokio::sync::Notify;
use tokio_postgres::Client;

use super::error::PostgresError;
use super::session::{ServerProcess, Session};

/// Some sessions of one server.
pub(super) struct SessionPool {
    size: PoolSize,
    sessions: RwLock<Vec<Arc<Session>>>,
    /// Processes of sessions that are lost: each may still be at work there.
    left_behind: Mutex<Vec<ServerProcess>>,
    /// There are fewer sessions than would be good.
    wanted: Notify,
}

/// How many sessions a pool has.
#[derive(Clone, Copy)]
pub(super) struct PoolSize {
    /// So many are always there: the call after a late one finds another.
    pub(super) least: usize,
    pub(super) most: usize,
}

/// For statements that commit.
pub(super) const COMMITTING: PoolSize = PoolSize { least: 2, most: 6 };
/// For statements that only read.
pub(super) const READING: PoolSize = PoolSize { least: 2, most: 2 };

/// The most sessions for calls. A server has 100 connections unless it is told otherwise.
pub(super) const MOST: usize = COMMITTING.most + READING.most;

impl SessionPool {
    /// Without sessions. `left_behind` are processes of earlier ones.
    pub(super) fn new(size: PoolSize, left_behind: Vec<ServerProcess>) -> Self {
        let left_behind = Mutex::new(left_behind);
        Self { size, sessions: RwLock::default(), left_behind, wanted: Notify::new() }
    }

    /// The session with the fewest calls, if there is any.
    pub(super) fn pick(&self) -> Option<Arc<Session>> {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        let live = || sessions.iter().filter(|session| !session.is_lost());
        let picked = live().min_by_key(|session| session.busy()).cloned();
        let is_idle = picked.as_ref().is_some_and(|session| session.busy() == 0);
        if !is_idle || live().count() < self.size.least {
            self.wanted.notify_one();
        }
        picked
    }

    /// How many there are. Those that are lost are let go.
    pub(super) fn count(&self) -> usize {
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|session| {
            if session.is_lost() {
                self.left_behind().push(session.process.clone());
            }
            !session.is_lost()
        });
        sessions.len()
    }

    /// Whether another session is missing, and may be opened.
    ///
    /// A process of the server that waits for a standby, or for a lock, does not notice that nobody is there. As long as such
    /// processes are there, they count: otherwise every late answer would cost the server one more of its connections.
    pub(super) fn has_room(&self) -> bool {
        self.count() + self.left_behind().len() < self.size.most
    }

    pub(super) fn is_short(&self) -> bool {
        self.count() < self.size.least
    }

    pub(super) fn is_full(&self) -> bool {
        self.count() >= self.size.most
    }

    /// Whether as many processes are left behind as there may be sessions.
    pub(super) fn is_jammed(&self) -> bool {
        self.left_behind().len() >= self.size.most
    }

    pub(super) fn add(&self, session: Session) {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(session));
    }

    /// Ends all sessions: what is under way on them is uncertain.
    pub(super) fn end(&self) {
        for session in self.sessions.read().unwrap_or_else(PoisonError::into_inner).iter() {
            session.end();
        }
    }

    /// Waits until more are wanted, or until one is lost.
    pub(super) async fn until_wanted(&self) {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner).clone();
        tokio::select! {
            () = self.wanted.notified() => {}
            () = first_of(sessions.iter().map(|session| Box::pin(session.until_lost())).collect()) => {}
        }
    }

    /// Asks again later.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Whether a process of a lost session may still be at work: what was sent to it may still be committed.
    pub(super) fn leaves_any_behind(&self) -> bool {
        self.count_left_behind() > 0
    }

    /// How many processes of lost sessions may still be at work.
    pub(super) fn count_left_behind(&self) -> usize {
        self.count();
        self.left_behind().len()
    }

    /// All processes that work for this pool, or may.
    pub(super) fn processes(&self) -> Vec<ServerProcess> {
        self.count();
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().map(|session| session.process.clone()).chain(self.left_behind().iter().cloned()).collect()
    }

    /// Forgets the processes that are not at work any more. `control` is a session of the same role.
    pub(super) async fn forget_those_gone(&self, control: &Client) -> Result<(), PostgresError> {
        let asked = self.left_behind().clone();
        if asked.is_empty() {
            return Ok(());
        }
        let at_work = still_at_work(control, &asked).await?;
        // Others may have come since.
        self.left_behind().retain(|process| at_work.contains(process) || !asked.contains(process));
        Ok(())
    }

    fn left_behind(&self) -> MutexGuard<'_, Vec<ServerProcess>> {
        // Every step leaves the list consistent.
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer of the first of these that has one. Without any, it never comes.
pub(super) async fn first_of<F: Future>(mut all: Vec<Pin<Box<F>>>) -> F::Output {
    poll_fn(|cx| {
        let mut polled = all.iter_mut().map(|future| future.as_mut().poll(cx));
        polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// Those of these processes that are at work. `client` is a session of the same role.
pub(super) async fn still_at_work(
    client: &Client,
    processes: &[ServerProcess],
) -> Result<Vec<ServerProcess>, PostgresError> {
    // One that is idle was given to another session by a pooler.
    const STILL: &str =
        "SELECT process FROM (SELECT pid || coalesce(' ' || extract(epoch FROM backend_start), '') AS process
                            FROM pg_stat_activity WHERE state IS DISTINCT FROM 'idle') AS all_of_them
                         WHERE process = ANY($1)";
    let processes: Vec<&str> = processes.iter().map(|process| process.0.as_str()).collect();
    let rows = client.query(STILL, &[&processes]).await.map_err(PostgresError::of)?;
    Ok(rows.iter().map(|row| ServerProcess(row.get(0))).collect())
}
