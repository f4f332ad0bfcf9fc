//! How long a connection may be silent, how long a head may take, and how long an answer may go untaken.
//!
//! No timer is set or reset for a request: what a connection does is noted with its time, and the watcher wakes now
//! and then to look at it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::proxy::Presence;

/// What a connection is doing, and since when.
pub(super) struct Pace {
    begun: Instant,
    header_timeout: Duration,
    idle_timeout: Duration,
    presence: Arc<Presence>,
    /// Milliseconds since `begun`, and the phase in the two lowest bits.
    now: AtomicU64,
    /// Since when the client takes nothing of what is written: milliseconds since `begun`, and one more; 0 while it does.
    blocked: AtomicU64,
    /// When the client last took something, in milliseconds since `begun`.
    taken: AtomicU64,
}

/// Between two requests.
const IDLE: u64 = 0;
/// Some of a head is here.
const HEAD: u64 = 1;
/// A request is being answered.
const BUSY: u64 = 2;

/// Why a connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// No request for too long.
    Idle,
    /// A head that takes too long.
    Head,
    /// An answer of which the client takes nothing, or which it does not wait for any more.
    Stuck,
}

impl Pace {
    pub(super) fn new(header_timeout: Duration, idle_timeout: Duration, presence: Arc<Presence>) -> Self {
        Self {
            begun: Instant::now(),
            header_timeout,
            idle_timeout,
            presence,
            now: AtomicU64::new(IDLE),
            blocked: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }

    fn set(&self, phase: u64) {
        self.now.store((self.elapsed() << 2) | phase, Ordering::Relaxed);
    }

    fn elapsed(&self) -> u64 {
        millis(self.begun.elapsed())
    }

    /// Bytes came in.
    fn read(&self) {
        if self.now.load(Ordering::Relaxed) & 3 == IDLE {
            self.set(HEAD);
        }
    }

    /// Something was to be written.
    fn write<T>(&self, polled: Poll<T>) -> Poll<T> {
        match polled {
            Poll::Ready(_) => {
                self.taken.store(self.elapsed(), Ordering::Relaxed);
                self.blocked.store(0, Ordering::Relaxed);
            }
            Poll::Pending if self.blocked.load(Ordering::Relaxed) == 0 => {
                self.blocked.store(self.elapsed() + 1, Ordering::Relaxed);
            }
            Poll::Pending => {}
        }
        polled
    }

    /// A head is whole; the connection is busy until the guard is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.presence.watch(false);
        self.set(BUSY);
        Busy(Arc::clone(self))
    }

    /// Waits until the connection is overdue. It is noticed up to half a `header_timeout` late.
    pub(super) async fn overdue(&self) -> Overdue {
        loop {
            let now = self.now.load(Ordering::Relaxed);
            let blocked = self.blocked.load(Ordering::Relaxed);
            let (since, timeout, overdue) = match (blocked, now & 3) {
                (1.., _) => (blocked - 1, self.idle_timeout, Overdue::Stuck),
                (0, IDLE) => (now >> 2, self.idle_timeout, Overdue::Idle),
                (0, HEAD) => (now >> 2, self.header_timeout, Overdue::Head),
                // A client that has closed its side gets its answer, but not the silence of a stream that never ends.
                (0, _) if self.presence.has_ended() => {
                    let taken = self.taken.load(Ordering::Relaxed);
                    (taken.max(now >> 2), self.idle_timeout, Overdue::Stuck)
                }
                (0, _) => {
                    self.presence.watch(self.elapsed() - (now >> 2) >= millis(self.idle_timeout));
                    (self.elapsed(), Duration::MAX, Overdue::Stuck)
                }
            };
            let left = timeout.checked_sub(Duration::from_millis(self.elapsed().saturating_sub(since)));
            match left {
                None | Some(Duration::ZERO) => return overdue,
                Some(left) => tokio::time::sleep(left.min(self.header_timeout / 2).max(LEAST)).await,
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX >> 2)
}

const LEAST: Duration = Duration::from_millis(5);

/// A request is being answered for as long as this lives.
pub(super) struct Busy(Arc<Pace>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(IDLE);
    }
}

/// A response body, with whose end its connection becomes idle.
pub(super) struct Tail<B> {
    body: Pin<Box<B>>,
    _busy: Busy,
}

impl<B> Tail<B> {
    pub(super) fn new(body: B, busy: Busy) -> Self {
        Self { body: Box::pin(body), _busy: busy }
    }
}

impl<B: Body> Body for Tail<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client's socket, which tells when something comes in, and when its client has gone.
pub(super) struct Watched {
    stream: TcpStream,
    pace: Arc<Pace>,
    presence: Arc<Presence>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, pace: Arc<Pace>, presence: Arc<Presence>) -> Self {
        Self { stream, pace, presence }
    }

    /// hyper reads nothing while a request is being answered, so that a client that closes its side gets its answer.
    /// Where somebody asks whether it is still there, the connection looks for the end without taking anything.
    fn look_for_end(&mut self, cx: &mut Context<'_>) {
        let mut byte = [0];
        if let Poll::Ready(Ok(0)) = self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            self.presence.leave();
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pace.read();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.pace.write(polled)
    }

    /// hyper calls this at the end of each turn, whether there is something to flush or not.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.presence.is_asked() {
            self.look_for_end(cx);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.pace.write(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
