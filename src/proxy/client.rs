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
    /// The address without the port, as a field value: formatted once for each connection.
    pub address: Option<HeaderValue>,
    /// It uses TLS.
    pub secure: bool,
    /// Whether it is still there.
    pub disconnect: Arc<DisconnectSignal>,
}

impl Client {
    /// A client that has just connected, without TLS.
    pub fn new(peer: Option<SocketAddr>) -> Self {
        let address = peer.and_then(|peer| HeaderValue::try_from(peer.ip().to_canonical().to_string()).ok());
        Self { peer, address, secure: false, disconnect: Arc::default() }
    }
}

/// Whether the client of a connection is still there.
///
/// A client that has closed its sending side may still wait for its response (RFC 9112, 9.6), and one that has left
/// looks the same: only a reset proves that it has left. The connection checks for either only while it is needed.
#[derive(Default)]
pub struct DisconnectSignal {
    asked: AtomicBool,
    /// The connection itself needs to know.
    watched: AtomicBool,
    /// It has closed its side.
    closed: AtomicBool,
    /// It has left.
    left: AtomicBool,
    leaving: Notify,
    /// A request body was not read to its end: the client may still be sending it.
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

    /// Whether the connection must check for the client's end.
    pub fn is_needed(&self) -> bool {
        self.asked.load(Ordering::Relaxed) || self.watched.load(Ordering::Relaxed)
    }

    /// Makes the connection check for the client's end, or not.
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

    /// The body of the current request is not read to its end.
    pub(super) fn set_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the body of the last request was not read to its end.
    pub fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// The next request has arrived, so the previous body was read.
    pub fn begin_request(&self) {
        self.unread.store(false, Ordering::Relaxed);
    }
}

/// Ends the waiting when it is dropped.
struct WaitGuard<'a>(&'a DisconnectSignal);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.0.asked.store(false, Ordering::Relaxed);
    }
}
