//! HTTP/2 connections that unguarded requests share.
//!
//! A guarded request has a connection of its own: when a connection ends, the outcome of all requests on it is unknown,
//! and that must be one request and not a hundred.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http2::SendRequest;
use tokio::time::Instant;

use super::super::body::request::RequestBody;
use super::pool::MAX_AGE;

/// The connections.
pub(super) struct SharedConnections {
    open: Mutex<Vec<Arc<SharedConnection>>>,
    /// Locked while a connection is made: other requests wait for that one.
    pub(super) connecting: tokio::sync::Mutex<()>,
}

struct SharedConnection {
    sender: SendRequest<RequestBody>,
    born: Instant,
    /// The number of concurrent requests.
    most: u32,
    load: Mutex<StreamLoad>,
}

struct StreamLoad {
    streams: u32,
    /// When the last request began or ended.
    since: Instant,
}

/// A place for one request on one of the connections, until it is dropped.
pub(super) struct StreamPermit(Arc<SharedConnection>);

/// The most concurrent requests on one connection. Beyond that, another connection is made.
pub(super) const MOST: u32 = 100;

impl SharedConnections {
    pub(super) fn new() -> Self {
        Self { open: Mutex::default(), connecting: tokio::sync::Mutex::new(()) }
    }

    /// A place on a connection with room that was idle for less than `max_idle`.
    pub(super) fn take(&self, max_idle: Duration) -> Option<StreamPermit> {
        let mut open = self.open();
        open.retain(|shared| !shared.sender.is_closed() && shared.born.elapsed() < MAX_AGE);
        open.iter().find_map(|shared| StreamPermit::on(shared, max_idle))
    }

    /// A place on a new connection for `most` concurrent requests.
    pub(super) fn add(&self, sender: SendRequest<RequestBody>, most: u32) -> StreamPermit {
        let now = Instant::now();
        let load = Mutex::new(StreamLoad { streams: 1, since: now });
        let shared = Arc::new(SharedConnection { sender, born: now, most: most.min(MOST), load });
        self.open().push(Arc::clone(&shared));
        StreamPermit(shared)
    }

    /// Closes those that were idle for `max_idle`.
    pub(super) fn sweep(&self, max_idle: Duration) {
        self.open().retain(|shared| {
            let load = shared.load();
            !shared.sender.is_closed() && (load.streams > 0 || load.since.elapsed() < max_idle)
        });
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<SharedConnection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedConnection {
    fn load(&self) -> MutexGuard<'_, StreamLoad> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamPermit {
    fn on(shared: &Arc<SharedConnection>, max_idle: Duration) -> Option<Self> {
        let mut load = shared.load();
        if load.streams >= shared.most || (load.streams == 0 && load.since.elapsed() >= max_idle) {
            return None;
        }
        load.streams += 1;
        load.since = Instant::now();
        Some(Self(Arc::clone(shared)))
    }

    pub(super) fn sender(&self) -> SendRequest<RequestBody> {
        self.0.sender.clone()
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut load = self.0.load();
        load.streams -= 1;
        load.since = Instant::now();
    }
}
