//! One session: a connection with its settings and prepared statements, on which calls are pipelined.
//!
//! A late answer ends the session: its connection is dropped, and everything that waits on it is uncertain. No statement is
//! ever cancelled, neither by a timeout of the server nor by a request: a cancel that meets the wait for a standby ends that
//! wait, with a success and a warning. A warning therefore ends the session too, before the success behind it is read.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_postgres::error::Severity;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Connection, Row, Statement};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::dial::{OpenedConnection, PostgresDialer};
use super::error::{PostgresError, StatementError};
use super::listen::NoticeSender;
use super::sql::Statements;
use crate::config::StoreEndpoint;

/// A session of one server.
pub(super) struct Session {
    client: Client,
    statements: OnceLock<Statements>,
    /// The number of the process that serves it there.
    pub(super) process_id: i32,
    pub(super) process: ServerProcess,
    /// Calls that wait for an answer.
    busy: AtomicUsize,
    lost: CancellationToken,
    _driver: AbortOnDropHandle<()>,
}

/// A process of a server, by its number and the time of its start, where this role may see that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerProcess(pub(super) String);

pub(super) type StatementParameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// What every session sets for itself, whatever is set for its role or database.
///
/// No timeout of the server may end a statement. Reading is committed reading: that is what the statements are safe under.
/// Commits wait for the disk, and for standbys if `synchronous_standby_names` has some. Warnings must be sent. A backslash in a
/// statement is one. Peers that are gone are noticed, and their locks freed.
const SETTINGS: &str = "
    SET statement_timeout = 0;
    SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout',
        'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout', 'client_connection_check_interval');
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') <> 'remote_apply';
    SET default_transaction_isolation = 'read committed';
    SET client_min_messages = 'warning';
    SET search_path = pg_catalog;
    SET standard_conforming_strings = on;
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3;
    SET jit = off;
    SELECT pg_backend_pid(), current_setting('synchronous_commit'),
           (SELECT pid || coalesce(' ' || extract(epoch FROM backend_start), '') FROM pg_stat_activity
            WHERE pid = pg_backend_pid())";

impl Session {
    /// Opens a session without statements.
    pub(super) async fn open(
        dialer: &PostgresDialer,
        endpoint: &StoreEndpoint,
        purpose: &str,
        notices: Option<NoticeSender>,
    ) -> Result<Self, PostgresError> {
        let (client, connection) = dialer.open(endpoint, purpose).await?;
        let (lost, is_armed) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let driver = match connection {
            OpenedConnection::Tcp(connection) => start(*connection, lost.clone(), is_armed.clone(), notices),
            OpenedConnection::Tls(connection) => start(*connection, lost.clone(), is_armed.clone(), notices),
            OpenedConnection::Unix(connection) => start(*connection, lost.clone(), is_armed.clone(), notices),
        };
        let told = client.simple_query(SETTINGS).await.map_err(PostgresError::of)?;
        let row = told.iter().rev().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let column = |index| row.and_then(|row| row.get(index)).unwrap_or_default();
        let (process_id, commits) = (column(0).parse().unwrap_or_default(), column(1));
        if !matches!(commits, "on" | "remote_apply") {
            return Err(PostgresError::Asynchronous(commits.to_owned()));
        }
        is_armed.store(true, Ordering::SeqCst);
        Ok(Self {
            client,
            statements: OnceLock::new(),
            process_id,
            process: ServerProcess(column(2).to_owned()),
            busy: AtomicUsize::new(0),
            lost,
            _driver: driver,
        })
    }

    /// Prepares the statements. The tables must be there.
    pub(super) async fn prepare(&self) -> Result<(), PostgresError> {
        let statements = Statements::prepare(&self.client).await.map_err(PostgresError::of)?;
        let _ = self.statements.set(statements);
        Ok(())
    }

    /// For what is asked while it is examined.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_cancelled() || self.client.is_closed()
    }

    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    pub(super) async fn until_lost(&self) {
        self.lost.cancelled().await;
    }

    /// Drops the connection.
    pub(super) fn end(&self) {
        self.lost.cancel();
    }

    /// Runs one statement, and returns its rows once its transaction is committed: the library reads up to the message that
    /// follows the commit.
    pub(super) async fn ask(
        &self,
        pick: impl FnOnce(&Statements) -> &Statement,
        parameters: StatementParameters<'_>,
        deadline: Instant,
    ) -> Result<Vec<Row>, StatementError> {
        let statement = self.statement(pick)?;
        self.in_time(deadline, self.client.query(statement, parameters)).await
    }

    /// The same, and returns the number of rows that it has changed.
    pub(super) async fn count(
        &self,
        pick: impl FnOnce(&Statements) -> &Statement,
        parameters: StatementParameters<'_>,
        deadline: Instant,
    ) -> Result<u64, StatementError> {
        let statement = self.statement(pick)?;
        self.in_time(deadline, self.client.execute(statement, parameters)).await
    }

    fn statement(&self, pick: impl FnOnce(&Statements) -> &Statement) -> Result<&Statement, StatementError> {
        self.statements.get().map(pick).filter(|_| !self.is_lost()).ok_or(StatementError::NotSent)
    }

    async fn in_time<T>(
        &self,
        deadline: Instant,
        run: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StatementError> {
        let _busy = Busy::new(&self.busy);
        let answer = tokio::select! {
            answer = run => answer,
            () = self.lost.cancelled() => return Err(StatementError::Lost("another call on it found it lost".to_owned())),
            () = tokio::time::sleep_until(deadline) => {
                self.end();
                return Err(StatementError::Late);
            }
        };
        answer.map_err(|error| {
            let fault = StatementError::of(&error);
            if fault.is_about_session() || matches!(fault, StatementError::Lost(_)) {
                self.end();
            }
            fault
        })
    }
}

/// Counts a call that waits.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Drives a connection until it is lost, or until a warning comes.
fn start<S, T>(
    mut connection: Connection<S, T>,
    lost: CancellationToken,
    is_armed: Arc<AtomicBool>,
    notices: Option<NoticeSender>,
) -> AbortOnDropHandle<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Warnings count once the session is set up: those about the database itself come at the login.
    let driving = async move {
        let _lost = lost.clone().drop_guard();
        loop {
            let message = tokio::select! {
                message = poll_fn(|cx| connection.poll_message(cx)) => message,
                () = lost.cancelled() => return,
            };
            match message {
                Some(Ok(AsyncMessage::Notification(notification))) => {
                    if let Some(notices) = &notices {
                        notices.send(notification.payload());
                    }
                }
                // It comes before the message that says that the transaction is committed, so whoever waits for that does
                // not get it.
                Some(Ok(AsyncMessage::Notice(notice)))
                    if is_armed.load(Ordering::SeqCst) && is_warning(notice.parsed_severity()) =>
                {
                    tracing::warn!(
                        message = notice.message(),
                        code = notice.code().code(),
                        "PostgreSQL warns: what was being committed on this connection is uncertain"
                    );
                    return;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
        }
    };
    #[expect(clippy::disallowed_methods, reason = "ends with the session")]
    AbortOnDropHandle::new(tokio::spawn(driving))
}

/// Whoever does not say how severe it is may mean it.
fn is_warning(severity: Option<Severity>) -> bool {
    match severity {
        Some(Severity::Notice | Severity::Debug | Severity::Info | Severity::Log) => false,
        Some(Severity::Warning | Severity::Error | Severity::Fatal | Severity::Panic) | None => true,
    }
}
