//! Finds out whether owners can renew. A server whose standby is away answers questions as ever, and no commit ends: no owner
//! can renew, so none may be taken for lost.
//!
//! The first commit that ends after a connect shows something more. A server that was restarted shows what was committed before
//! and waited for a standby then, also while that standby is still away; a failover forgets it. The log is one sequence: once a
//! later commit has ended, everything before it is where commits have to be.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_postgres::Error;

use super::dial::PostgresDialer;
use super::error::PostgresError;
use super::examine::COMMITS;
use super::link::ConnectedPrimary;
use super::session::{ServerProcess, Session};
use crate::store::causes;
use crate::store::usable_since::UsableSince;

/// Commits repeatedly, on a session of its own, and confirms each time that owners can renew.
pub(super) struct CommitCheck<'a> {
    pub(super) dialer: &'a PostgresDialer,
    pub(super) primary: &'a ConnectedPrimary,
    pub(super) usable_since: &'a UsableSince,
    pub(super) every: Duration,
    /// A renewal that takes longer has failed.
    pub(super) late: Duration,
}

/// A commit that takes so long is told in the log.
const TOLD_AFTER: Duration = Duration::from_secs(3);

/// The commits of a server.
pub(super) struct CommitHealth {
    seen: watch::Sender<Commits>,
    doubted: Notify,
    /// Whether one has ended that began after the connect.
    has_ended: AtomicBool,
    /// What the check commits with.
    process: Mutex<Option<ServerProcess>>,
    /// The session that it begins with.
    first: Mutex<Option<Session>>,
}

/// What the check has seen last.
#[derive(Clone, Copy)]
enum Commits {
    NotYet,
    /// They end: the one did that began then.
    End(Instant),
    /// One is late that began after all others that ended.
    Hang,
    /// Whether they end is not known.
    Fail,
}

impl CommitHealth {
    /// Of a server to which the check has this session. Without one, there is no room for it yet.
    pub(super) fn new(session: Option<Session>) -> Self {
        let process = Mutex::new(session.as_ref().map(|session| session.process.clone()));
        Self {
            seen: watch::Sender::new(Commits::NotYet),
            doubted: Notify::new(),
            has_ended: AtomicBool::new(false),
            process,
            first: Mutex::new(session),
        }
    }

    /// Of a server that is only looked at: nothing is committed.
    pub(super) fn unchecked() -> Self {
        Self { has_ended: AtomicBool::new(true), ..Self::new(None) }
    }

    /// Waits for the first commit, if none has ended since the connect, and returns whether it has ended.
    pub(super) async fn first_has_ended(&self, deadline: Instant) -> bool {
        if !self.has_ended.load(Ordering::Acquire) {
            let is_known = |seen: &Commits| !matches!(seen, Commits::NotYet);
            // The sender is borrowed, so it is not closed.
            let _ = tokio::time::timeout_at(deadline, self.seen.subscribe().wait_for(is_known)).await;
        }
        self.has_ended.load(Ordering::Acquire)
    }

    pub(super) fn hang(&self) -> bool {
        matches!(*self.seen.borrow(), Commits::Hang)
    }

    /// A call was late: it is found out at once whether commits end.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Waits until a commit that begins from now on has ended, or until none does.
    pub(super) async fn checked(&self, deadline: Instant) {
        let now = Instant::now();
        self.doubt();
        let is_told = |seen: &Commits| match *seen {
            Commits::End(begun) => begun >= now,
            Commits::Hang | Commits::Fail => true,
            Commits::NotYet => false,
        };
        // The sender is borrowed, so it is not closed.
        let _ = tokio::time::timeout_at(deadline, self.seen.subscribe().wait_for(is_told)).await;
    }

    /// The process of the server that the check commits with.
    pub(super) fn process(&self) -> Option<ServerProcess> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_process(&self, process: &ServerProcess) {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process.clone());
    }

    fn first_session(&self) -> Option<Session> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, seen: Commits) {
        if let Commits::End(_) = seen {
            self.has_ended.store(true, Ordering::Release);
        }
        self.seen.send_replace(seen);
    }
}

enum CommitError {
    /// As many processes as there may be wait for their commits already.
    Jammed,
    Failed(PostgresError),
}

/// Needs the right and the lock that a renewal needs, and changes no row. The message goes to the log of the server, so that
/// the commit waits as that of a renewal does: sidecars do not meet in it, and nothing has to be cleaned up.
const WRITE: &str = "UPDATE onlyonce.records SET expires_at = expires_at WHERE false;
                     SELECT pg_logical_emit_message(true, 'onlyonce', ''::text)";

/// A server that does not open a session in this time is as good as away. What is known of its commits must not stay as it was.
const OPENED_WITHIN: Duration = Duration::from_secs(5);

impl CommitCheck<'_> {
    pub(super) async fn run(&self) -> Infallible {
        let (mut session, mut has_failed) = (self.primary.commits.first_session(), false);
        loop {
            let begun = Instant::now();
            match self.commit(&mut session).await {
                Ok(took) => {
                    // Owners could not renew until now.
                    if has_failed || took > self.late {
                        self.usable_since.note_break();
                    }
                    has_failed = false;
                    self.usable_since.confirm();
                    self.primary.commits.set(Commits::End(begun));
                }
                Err(CommitError::Jammed) => {
                    has_failed = true;
                    self.primary.commits.set(Commits::Hang);
                }
                Err(CommitError::Failed(why)) => {
                    if !std::mem::replace(&mut has_failed, true) {
                        tracing::warn!(
                            error = causes(&why),
                            "whether PostgreSQL commits is not known: until it is, no owner counts as lost"
                        );
                    }
                    self.primary.commits.set(Commits::Fail);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                // What has failed is not tried again as often as somebody asks.
                () = self.primary.commits.doubted.notified(), if !has_failed => {}
            }
        }
    }

    /// Commits, and returns how long that took. There is no time limit: a commit that waits costs the server one process, and
    /// a second one would cost another.
    async fn commit(&self, session: &mut Option<Session>) -> Result<Duration, CommitError> {
        let live = match session.take().filter(|session| !session.is_lost()) {
            Some(live) => live,
            None => {
                // Each process that waits costs the server a connection.
                if self.primary.committing.is_jammed() {
                    return Err(CommitError::Jammed);
                }
                let opened = Session::open(self.dialer, &self.primary.endpoint, COMMITS, None);
                let opened = match tokio::time::timeout(OPENED_WITHIN, opened).await {
                    Ok(opened) => opened.map_err(CommitError::Failed)?,
                    Err(_) => return Err(CommitError::Failed(PostgresError::Silent(OPENED_WITHIN))),
                };
                self.primary.commits.set_process(&opened.process);
                opened
            }
        };
        let live = session.insert(live);
        let begun = Instant::now();
        let mut committed = pin!(live.client().batch_execute(WRITE));
        let committed = tokio::select! {
            committed = &mut committed => committed,
            () = tokio::time::sleep(self.late) => {
                self.primary.commits.set(Commits::Hang);
                tokio::select! {
                    committed = committed => committed,
                    never = self.tell() => match never {},
                }
            }
        };
        if begun.elapsed() > TOLD_AFTER {
            tracing::info!(server = %self.primary.endpoint, "commits of PostgreSQL end again");
        }
        committed.map_err(|error: Error| CommitError::Failed(PostgresError::of(error)))?;
        Ok(begun.elapsed())
    }

    /// Says that commits do not end, once it is not just a slow one.
    async fn tell(&self) -> Infallible {
        tokio::time::sleep(TOLD_AFTER.saturating_sub(self.late)).await;
        tracing::warn!(
            server = %self.primary.endpoint,
            "commits of PostgreSQL do not end: a standby that they wait for is away, or onlyonce.records is locked. New keys are \
             refused, and repeats are answered"
        );
        std::future::pending().await
    }
}
