//! Wrappers around the socket to the backend, below and above TLS.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// A socket that checks whether the backend has closed it, when asked to, and that may be cut off. Below TLS.
pub(super) struct UpstreamSocket<S: AsFd> {
    stream: S,
    signals: Arc<SocketSignals>,
}

/// Continues to read after the backend has stopped reading. Above TLS, so that a closing alert is not delayed.
pub(super) struct ReadAfterRefusal<S> {
    stream: S,
    signals: Arc<SocketSignals>,
    /// Reading has ended, so no response can come any more.
    has_ended: bool,
}

/// Signals between a socket and the requests that are sent over it.
#[derive(Default)]
pub(super) struct SocketSignals {
    look: AtomicBool,
    refused: AtomicBool,
    refusing: Notify,
    /// What was not sent when the socket is closed is discarded.
    discards: AtomicBool,
    /// Nothing more is sent.
    is_cut: AtomicBool,
}

/// A guarded request that waits for its answer. If it is given up before that, its connection is cut: what was not sent of
/// it is never sent. Otherwise the operating system would go on sending it for minutes, behind a connection that is closed
/// or that HTTP/2 ends in good order, and the backend might run it when its key is free again.
pub(super) struct Unanswered<'a>(Option<&'a SocketSignals>);

impl<'a> Unanswered<'a> {
    pub(super) fn over(signals: &'a SocketSignals) -> Self {
        Self(Some(signals))
    }

    /// The answer has begun.
    pub(super) fn answered(mut self) {
        if let Some(signals) = self.0.take() {
            signals.discards.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(signals) = self.0 {
            signals.discards.store(true, Ordering::Relaxed);
            signals.is_cut.store(true, Ordering::Release);
        }
    }
}

impl SocketSignals {
    /// The connection is for one request: whatever it ends with before the answer, it discards the rest.
    pub(super) fn discard_unsent(&self) {
        self.discards.store(true, Ordering::Relaxed);
    }

    fn check_uncut(&self) -> io::Result<()> {
        if self.is_cut.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// The next read asks the operating system, even if tokio knows of no event.
    ///
    /// tokio learns of a close only when it polls for events; under load, the backend may have closed much earlier.
    /// hyper reads before it writes a request, so it finds the close and returns the request.
    pub(super) fn look(&self) {
        self.look.store(true, Ordering::Release);
    }

    fn takes_a_look(&self) -> bool {
        self.look.load(Ordering::Relaxed) && self.look.swap(false, Ordering::Acquire)
    }

    /// Waits until the backend has refused to read more.
    pub(super) async fn refused(&self) {
        self.refusing.notified().await;
    }
}

impl<S: AsFd> UpstreamSocket<S> {
    pub(super) fn new(stream: S) -> (Self, Arc<SocketSignals>) {
        let signals = Arc::<SocketSignals>::default();
        (Self { stream, signals: Arc::clone(&signals) }, signals)
    }
}

impl<S> ReadAfterRefusal<S> {
    pub(super) fn new(stream: S, signals: &Arc<SocketSignals>) -> Self {
        Self { stream, signals: Arc::clone(signals), has_ended: false }
    }

    /// A backend that responds early and closes the connection refuses the rest of the request. Its response may have
    /// arrived already and must not be lost: writing stalls, and reading finds the response or the end.
    fn written<T>(&self, polled: Poll<io::Result<T>>, cx: &Context<'_>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(error)) if is_end(&error) && !self.has_ended => {
                self.signals.refused.store(true, Ordering::Relaxed);
                self.signals.refusing.notify_one();
                self.signals.look();
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    /// After the first failed write, all writing stalls until reading has ended too.
    fn is_stalled(&self) -> bool {
        !self.has_ended && self.signals.refused.load(Ordering::Relaxed) && self.signals.check_uncut().is_ok()
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Reads directly from the operating system; `None` if there is nothing to read.
fn look(stream: &impl AsFd, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
    // One byte is enough for a look, and no buffer must be initialised for it.
    let read = match recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Ok(0),
        Ok(_) => recv(stream, buf.initialize_unfilled(), RecvFlags::DONTWAIT).map(|(_, read)| read),
        Err(error) => Err(error),
    };
    match read {
        Ok(read) => {
            buf.advance(read);
            Some(Ok(()))
        }
        Err(Errno::AGAIN | Errno::INTR) => None,
        Err(error) => Some(Err(error.into())),
    }
}

impl<S: AsyncRead + AsFd + Unpin> AsyncRead for UpstreamSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.signals.takes_a_look()
            && let Some(found) = look(&self.stream, buf)
        {
            return Poll::Ready(found);
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + AsFd + Unpin> AsyncWrite for UpstreamSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.signals.check_uncut()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.signals.check_uncut()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.signals.check_uncut()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: AsFd> Drop for UpstreamSocket<S> {
    fn drop(&mut self) {
        if self.signals.discards.load(Ordering::Relaxed) {
            // Closed with this, the socket discards what it has not sent, and resets the connection (socket(7), SO_LINGER). A
            // Unix socket has nothing to discard: what was written to it is with the backend.
            let _ = set_socket_linger(&self.stream, Some(Duration::ZERO));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAfterRefusal<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.has_ended = read.is_err() || (buf.filled().len() == before && buf.remaining() > 0);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAfterRefusal<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_stalled() {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_stalled() {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_stalled() {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_a_backend_said_before_it_closed_is_read_and_then_writing_fails() {
        for said in [&b""[..], b"no"] {
            let (ours, mut theirs) = UnixStream::pair().expect("sockets");
            let (ours, signals) = UpstreamSocket::new(ours);
            let mut ours = ReadAfterRefusal::new(ours, &signals);
            theirs.write_all(said).await.expect("an open socket");
            drop(theirs);
            timeout(Duration::from_millis(50), ours.write_all(b"more")).await.expect_err("it stalls");
            signals.refused().await;
            let mut read = Vec::new();
            ours.read_to_end(&mut read).await.expect("an end without an error");
            assert_eq!(read, said);
            // Once reading has ended, writing fails.
            let error = ours.write_all(b"more").await.expect_err("nobody reads");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
