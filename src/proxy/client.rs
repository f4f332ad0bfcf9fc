//! Who sent a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderValue;
use tokio::sync::Notify;

/// The sender of a request.
#[derive(Clone)]
pub struct Client {
    /// Where it connects from; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The same without the port, as heads name it: put into words once for each connection.
    pub address: Option<HeaderValue>,
    /// It speaks to us over TLS.
    pub secure: bool,
    /// Whether it is still there.
    pub disconnect: Arc<DisconnectSignal>,
}

impl Client {
    /// One that has just connected, in clear text.
    pub fn new(peer: Option<SocketAddr>) -> Self {
        let address = peer.and_then(|peer| HeaderValue::try_from(peer.ip().to_canonical().to_string()).ok());
        Self { peer, address, secure: false, disconnect: Arc::default() }
    }
}

/// Whether the client of a connection is still there.
///
/// A client that closed its side may still want its answer (RFC 9112, 9.6), and one that has gone looks the same: only a
/// reset says that it has left. The connection looks for either only while somebody asks.
#[derive(Default)]
pub struct DisconnectSignal {
    asked: AtomicBool,
    /// The connection itself wants to know.
    watched: AtomicBool,
    /// It has closed its side.
    closed: AtomicBool,
    /// It has left.
    left: AtomicBool,
    leaving: Notify,
    /// A body was given up before its end: its client may still be sending it.
    unread: AtomicBool,
}

impl DisconnectSignal {
    /// Waits until the client has left.
    pub(super) async fn wait(&self) {
        let asking = WaitGuard(self);
        self.asked.store(true, Ordering::Relaxed);
        while !self.left.load(Ordering::Relaxed) {
            self.leaving.notified().await;
        }
        drop(asking);
    }

    /// Whether somebody wants to know.
    pub fn is_needed(&self) -> bool {
        self.asked.load(Ordering::Relaxed) || self.watched.load(Ordering::Relaxed)
    }

    /// Has the connection look for the client's end, or not.
    pub fn watch(&self, watched: bool) {
        self.watched.store(watched, Ordering::Relaxed);
    }

    /// Whether the client was seen to have closed its side, or to have left.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The client has closed its side: nothing more comes from it.
    pub fn set_closed(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// The client has left.
    pub fn set_disconnected(&self) {
        self.set_closed();
        self.left.store(true, Ordering::Relaxed);
        self.leaving.notify_one();
    }

    /// The body of the request at hand is given up before its end.
    pub(super) fn set_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the body of the last request was given up before its end.
    pub fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// The next request has come: the body of the one before it was read.
    pub fn begin_request(&self) {
        self.unread.store(false, Ordering::Relaxed);
    }
}

/// Nobody asks any more when this is dropped.
struct WaitGuard<'a>(&'a DisconnectSignal);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.0.asked.store(false, Ordering::Relaxed);
    }
}
