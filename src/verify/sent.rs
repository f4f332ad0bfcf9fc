//! When all of a request is sent: its last byte is handed to the system, and not only taken from its body.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Set once, when all of one request is sent.
#[derive(Default)]
pub(super) struct SentSignal {
    /// Nothing of the body is left to be written.
    is_body_taken: AtomicBool,
    at: OnceLock<Instant>,
    notify: Notify,
}

impl SentSignal {
    pub(super) async fn wait(&self) {
        self.notify.notified().await;
    }

    pub(super) fn at(&self) -> Option<Instant> {
        self.at.get().copied()
    }

    fn set(&self) {
        if self.at.set(Instant::now()).is_ok() {
            self.notify.notify_one();
        }
    }
}

/// A body that notes when all of it is taken. Its size is known, so that it is sent with a `Content-Length`.
pub(super) struct SentBody {
    body: Full<Bytes>,
    sent: Arc<SentSignal>,
}

impl SentBody {
    pub(super) fn new(body: Bytes, sent: Arc<SentSignal>) -> Self {
        let body = Full::new(body);
        // An empty one is not asked for.
        sent.is_body_taken.store(body.is_end_stream(), Ordering::Release);
        Self { body, sent }
    }
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.sent.is_body_taken.store(self.body.is_end_stream(), Ordering::Release);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection for one request. hyper flushes it when nothing is left to be written.
pub(super) struct SentStream<S> {
    stream: S,
    sent: Arc<SentSignal>,
    is_begun: bool,
}

impl<S> SentStream<S> {
    pub(super) fn new(stream: S, sent: Arc<SentSignal>) -> Self {
        Self { stream, sent, is_begun: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SentStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SentStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.is_begun = true;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_begun = true;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.is_begun && self.sent.is_body_taken.load(Ordering::Acquire) {
            self.sent.set();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_request_is_sent_when_its_last_byte_is_flushed() {
        let sent = Arc::new(SentSignal::default());
        let mut body = SentBody::new(Bytes::from_static(b"abc"), Arc::clone(&sent));
        assert_eq!(body.size_hint().exact(), Some(3));
        let mut stream = SentStream::new(Vec::new(), Arc::clone(&sent));
        stream.write_all(b"head").await.expect("it takes all");
        stream.flush().await.expect("it takes all");
        assert!(sent.at().is_none(), "the body is not taken");
        body.frame().await.expect("a frame").expect("no error");
        assert!(sent.at().is_none(), "it is taken, and not written");
        stream.write_all(b"abc").await.expect("it takes all");
        stream.flush().await.expect("it takes all");
        assert!(sent.at().is_some());
        sent.wait().await;
    }

    #[tokio::test]
    async fn a_request_without_a_body_is_not_sent_before_its_head() {
        let sent = Arc::new(SentSignal::default());
        let _body = SentBody::new(Bytes::new(), Arc::clone(&sent));
        let mut stream = SentStream::new(Vec::new(), Arc::clone(&sent));
        stream.flush().await.expect("nothing is there");
        assert!(sent.at().is_none());
        stream.write_all(b"head").await.expect("it takes all");
        stream.flush().await.expect("it takes all");
        assert!(sent.at().is_some());
    }
}
