//! A socket to the backend, and what is spoken over it, as the connection sees them.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// A socket that looks for the backend's end when told to. Below TLS.
pub(super) struct UpstreamSocket<S> {
    stream: S,
    signals: Arc<SocketSignals>,
}

/// Reads on when the backend takes nothing more. Above TLS, whose own last words must not wait for that.
pub(super) struct ReadAfterRefusal<S> {
    stream: S,
    signals: Arc<SocketSignals>,
    /// Reading has come to an end, so that there is no answer to wait for.
    has_ended: bool,
}

/// What a socket and those who send over it tell each other.
#[derive(Default)]
pub(super) struct SocketSignals {
    look: AtomicBool,
    refused: AtomicBool,
    refusing: Notify,
}

impl SocketSignals {
    /// Has the next read ask the operating system, whatever was known before.
    ///
    /// tokio knows of an end only when it has had a turn to ask for events; under load, a backend may have closed long
    /// before. The connection reads before it takes a request, so that one that finds the end gives the request back.
    pub(super) fn look(&self) {
        self.look.store(true, Ordering::Release);
    }

    fn takes_a_look(&self) -> bool {
        self.look.load(Ordering::Relaxed) && self.look.swap(false, Ordering::Acquire)
    }

    /// Waits until the backend has refused to take more.
    pub(super) async fn refused(&self) {
        self.refusing.notified().await;
    }
}

impl<S> UpstreamSocket<S> {
    pub(super) fn new(stream: S) -> (Self, Arc<SocketSignals>) {
        let signals = Arc::<SocketSignals>::default();
        (Self { stream, signals: Arc::clone(&signals) }, signals)
    }
}

impl<S> ReadAfterRefusal<S> {
    pub(super) fn new(stream: S, signals: &Arc<SocketSignals>) -> Self {
        Self { stream, signals: Arc::clone(signals), has_ended: false }
    }

    /// A backend that answers early, and closes, refuses the rest of the request. Its answer may be here already, and
    /// must not be lost for that: writing stalls, and reading finds the answer or the end.
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

    /// Stalls all writing after the first that failed, until reading has ended as well.
    fn is_stalled(&self) -> bool {
        !self.has_ended && self.signals.refused.load(Ordering::Relaxed)
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// What the operating system says now: `None` where there is nothing to read.
fn look(stream: &impl AsFd, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
    // One byte is enough to know, and takes no space to be cleared.
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

impl<S: AsyncWrite + Unpin> AsyncWrite for UpstreamSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
    use std::time::Duration;

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
            // Nobody waits for ever.
            let error = ours.write_all(b"more").await.expect_err("nobody reads");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
