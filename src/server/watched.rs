//! The socket of a client, as its connection sees it. It notes when bytes come in, when the client accepts nothing, and
//! when the client has left.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::lengths::Largest;
use super::linger::Leftover;
use super::pace::ConnectionTimers;
use super::stream::ClientStream;
use crate::proxy::DisconnectSignal;

pub(super) struct WatchedSocket {
    /// Taken when this is dropped.
    stream: Option<ClientStream>,
    /// Bytes that were read ahead, and are still to be handed out.
    ahead: Bytes,
    pace: Arc<ConnectionTimers>,
    /// Is told when the client closes its side. Set in HTTP/1 only, where heads are timed too.
    disconnect: Option<Arc<DisconnectSignal>>,
    /// Where the socket is left at the end. Set in HTTP/1 only.
    leftover: Option<Leftover>,
    lengths: Largest,
}

/// What a client of HTTP/2 sends first (RFC 9113, 3.4). No request of HTTP/1 begins with it.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read ahead at once.
const AHEAD: usize = 4096;

impl WatchedSocket {
    pub(super) fn new(stream: ClientStream, pace: Arc<ConnectionTimers>) -> Self {
        Self {
            stream: Some(stream),
            ahead: Bytes::new(),
            pace,
            disconnect: None,
            leftover: None,
            lengths: Largest::default(),
        }
    }

    /// Whether the connection uses TLS.
    pub(super) fn is_secure(&self) -> bool {
        matches!(self.stream, Some(ClientStream::Tls(_)))
    }

    /// Reads until the protocol is clear: mostly a single byte.
    pub(super) async fn begins_with_preface(&mut self) -> io::Result<bool> {
        let mut read = BytesMut::new();
        loop {
            let more = poll_fn(|cx| read_some(self.stream(), cx)).await?;
            self.pace.read();
            read.extend_from_slice(&more);
            let compared = read.len().min(PREFACE.len());
            let is_so_far = read[..compared] == PREFACE[..compared];
            if more.is_empty() || !is_so_far || compared == PREFACE.len() {
                self.ahead = read.freeze();
                return Ok(is_so_far && compared == PREFACE.len());
            }
        }
    }

    /// What was read, and is still to be handed out.
    pub(super) fn read_ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// From now on, the client uses HTTP/1.
    pub(super) fn telling(mut self, disconnect: &Arc<DisconnectSignal>, leftover: &Leftover) -> Self {
        self.disconnect = Some(Arc::clone(disconnect));
        self.leftover = Some(leftover.clone());
        self
    }

    fn stream(&mut self) -> &mut ClientStream {
        self.stream.as_mut().expect("it is taken only when this is dropped")
    }

    /// Notes that bytes came in.
    fn read(&mut self, piece: &[u8]) {
        if !self.pace.is_in_head() {
            self.lengths = Largest::default();
            self.pace.read();
        }
        if self.pace.is_in_head() {
            self.lengths.look(piece);
        }
    }

    /// The corrected beginning of a response, if it is hyper's own and must be another.
    fn corrected(&self, answer: &[u8]) -> Option<Vec<u8>> {
        if self.pace.is_in_head() { self.lengths.correct(answer) } else { None }
    }

    /// hyper does not read while a request is being answered, so that a client that closes its side gets its response.
    /// If somebody waits for the client's end, the connection looks for it, and keeps bytes that come instead.
    fn look_for_end(&mut self, cx: &mut Context<'_>) {
        let has_ended = self.disconnect.as_ref().is_none_or(|disconnect| disconnect.is_closed());
        if has_ended || !self.ahead.is_empty() {
            return;
        }
        match read_some(self.stream(), cx) {
            Poll::Ready(Ok(more)) if !more.is_empty() => {
                self.ahead = more;
                // A reader may have found nothing just before, and wait for the bytes that were now taken.
                cx.waker().wake_by_ref();
            }
            Poll::Ready(found) => self.disconnect.iter().for_each(|disconnect| match &found {
                Ok(_) => disconnect.set_closed(),
                // Over TLS: TCP was closed without a close of TLS.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => disconnect.set_closed(),
                Err(_) => disconnect.set_disconnected(),
            }),
            Poll::Pending => {}
        }
    }
}

impl Drop for WatchedSocket {
    fn drop(&mut self) {
        if let (Some(leftover), Some(stream)) = (&self.leftover, self.stream.take()) {
            leftover.put(stream);
        }
    }
}

/// What is there now; empty at the end. It allocates nothing while it waits.
fn read_some(stream: &mut ClientStream, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut space = [MaybeUninit::uninit(); AHEAD];
    let mut buf = ReadBuf::uninit(&mut space);
    ready!(Pin::new(stream).poll_read(cx, &mut buf))?;
    Poll::Ready(Ok(Bytes::copy_from_slice(buf.filled())))
}

impl AsyncRead for WatchedSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = if self.ahead.is_empty() {
            Pin::new(self.stream()).poll_read(cx, buf)
        } else {
            let length = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..length]);
            self.ahead.advance(length);
            if self.ahead.is_empty() {
                self.ahead = Bytes::new();
            }
            Poll::Ready(Ok(()))
        };
        if self.disconnect.is_some() && buf.filled().len() > before {
            self.read(&buf.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for WatchedSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let corrected = self.corrected(buf);
        let polled = Pin::new(self.stream()).poll_write(cx, corrected.as_deref().unwrap_or(buf));
        self.pace.write(polled)
    }

    /// hyper calls this at the end of each poll, whether there is something to flush or not.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.disconnect.as_ref().is_some_and(|disconnect| disconnect.is_needed()) {
            self.look_for_end(cx);
        }
        let polled = Pin::new(self.stream()).poll_flush(cx);
        if self.stream().holds_back() { self.pace.flush(polled) } else { polled }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream()).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(corrected) = bufs.first().and_then(|first| self.corrected(first)) {
            let polled = Pin::new(self.stream()).poll_write(cx, &corrected);
            return self.pace.write(polled);
        }
        let polled = Pin::new(self.stream()).poll_write_vectored(cx, bufs);
        self.pace.write(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(ClientStream::is_write_vectored)
    }
}
