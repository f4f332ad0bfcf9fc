//! A socket to the backend, as the connection on it sees it.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// A socket that looks for the backend's end when told to, and that reads on when the backend takes nothing more.
pub(super) struct Socket<S> {
    stream: S,
    signs: Arc<Signs>,
}

/// What a socket and those who send over it tell each other.
#[derive(Default)]
pub(super) struct Signs {
    look: AtomicBool,
    refused: AtomicBool,
    refusing: Notify,
}

impl Signs {
    /// Has the next read ask the operating system, whatever was known before.
    ///
    /// tokio knows of an end only when it has had a turn to ask for events; under load, a backend may have closed long
    /// before. The connection reads before it takes a request, so that one that finds the end gives the request back.
    pub(super) fn look(&self) {
        self.look.store(true, Ordering::Release);
    }

    /// Waits until the backend has refused to take more.
    pub(super) async fn refused(&self) {
        self.refusing.notified().await;
    }
}

impl<S> Socket<S> {
    pub(super) fn new(stream: S) -> (Self, Arc<Signs>) {
        let signs = Arc::<Signs>::default();
        (Self { stream, signs: Arc::clone(&signs) }, signs)
    }

    /// A backend that answers early, and closes, refuses the rest of the request. Its answer may be here already, and
    /// must not be lost for that: writing stalls, and reading finds the answer or the end.
    fn written<T>(&self, polled: Poll<io::Result<T>>, cx: &Context<'_>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(error)) if is_end(&error) => {
                self.signs.refused.store(true, Ordering::Relaxed);
                self.signs.refusing.notify_one();
                self.signs.look();
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    fn is_refused(&self) -> bool {
        self.signs.refused.load(Ordering::Relaxed)
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

impl<S: AsyncRead + AsFd + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.signs.look.load(Ordering::Relaxed)
            && self.signs.look.swap(false, Ordering::Acquire)
            && let Some(found) = look(&self.stream, buf)
        {
            return Poll::Ready(found);
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_refused() {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(polled, cx)
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
        if self.is_refused() {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
