//! Connections to the upstream that wait for the next request.
//!
//! The most recently used one is used first, so that the others become old and are closed. The backend may close an
//! idle connection at the moment when a request is sent; then it is unknown whether the request ran. Guarded requests
//! therefore use only connections that were idle for a shorter time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::super::body::progress::BodyProgress;
use super::super::body::request::RequestBody;
use super::socket::SocketSignals;
use crate::tick;

/// Idle connections, in the order in which they became idle.
pub(super) struct Pool {
    idle: Mutex<VecDeque<IdleConnection>>,
    /// More idle connections than this are closed.
    max_idle: usize,
}

/// One connection.
pub(super) struct Connection {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) signals: Arc<SocketSignals>,
    /// The task that reads and writes.
    task: AbortHandle,
    /// When it last became idle; `None` if nothing was sent over it yet.
    pub(super) idle_since: Option<Instant>,
    /// It must not be used for another request.
    pub(super) is_used_up: bool,
    /// When it was opened. Names are resolved for new connections only, so each connection has a limited age.
    born: Instant,
}

struct IdleConnection {
    connection: Connection,
    since: Instant,
}

/// Older connections are closed when they become idle.
pub(super) const MAX_AGE: Duration = Duration::from_secs(300);
/// How long the backend may read nothing of a request that it has answered. The client may send the whole request
/// before it reads the response.
const SETTLING: Duration = Duration::from_secs(5);

impl Connection {
    pub(super) fn new(sender: SendRequest<RequestBody>, signals: Arc<SocketSignals>, task: AbortHandle) -> Self {
        Self { sender, signals, task, idle_since: None, is_used_up: false, born: Instant::now() }
    }
}

impl Pool {
    /// An empty pool.
    pub(super) fn new(max_idle: usize) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), max_idle })
    }

    /// The youngest connection, if it was idle for less than `max_idle`.
    pub(super) fn take(&self, max_idle: Duration) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some(youngest) = idle.pop_back() {
            if !youngest.connection.sender.is_ready() {
                continue;
            }
            if youngest.since.elapsed() < max_idle {
                return Some(Connection { idle_since: Some(youngest.since), ..youngest.connection });
            }
            idle.push_back(youngest);
            return None;
        }
        None
    }

    /// Takes a connection back after its last response was read to the end. `upload` is the progress of a request body
    /// that is still being sent: the backend may continue to read it, and the connection is closed when it stops
    /// reading.
    pub(super) fn put(self: Arc<Self>, mut connection: Connection, upload: Option<BodyProgress>) {
        if connection.sender.is_closed() {
            return;
        }
        if connection.sender.is_ready() {
            return self.push(connection);
        }
        #[expect(clippy::disallowed_methods, reason = "ends when the connection is ready, or given up")]
        tokio::spawn(async move {
            let signals = Arc::clone(&connection.signals);
            let untaken = async {
                match upload {
                    Some(upload) => upload.stalled(SETTLING).await,
                    None => tick::sleep(SETTLING).await,
                }
            };
            tokio::select! {
                ready = connection.sender.ready() => if ready.is_ok() {
                    self.push(connection);
                },
                () = signals.refused() => connection.task.abort(),
                () = untaken => connection.task.abort(),
            }
        });
    }

    /// Closes those that were idle for `max_idle`.
    pub(super) fn sweep(&self, max_idle: Duration) {
        let mut idle = self.idle();
        while idle.front().is_some_and(|oldest| oldest.since.elapsed() >= max_idle) {
            idle.pop_front();
        }
    }

    fn push(&self, connection: Connection) {
        let now = Instant::now();
        if connection.is_used_up || now - connection.born > MAX_AGE {
            return;
        }
        let mut idle = self.idle();
        idle.push_back(IdleConnection { connection, since: now });
        if idle.len() > self.max_idle {
            idle.pop_front();
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<IdleConnection>> {
        // A panic cannot leave the queue in an invalid state.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
