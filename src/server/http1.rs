//! A connection in HTTP/1.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1::{self, UpgradeableConnection};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::linger::{Leftover, linger};
use super::pace::{BusyGuard, ConnectionTimers};
use super::watched::WatchedSocket;
use super::{ConnectionEnd, Server};
use crate::config::HeaderCase;
use crate::proxy::{Client, MAX_BUFFER, MAX_HEAD, Tunnel};

impl Server {
    pub(super) async fn http1<A, F, B>(
        &self,
        stream: WatchedSocket,
        pace: &Arc<ConnectionTimers>,
        client: Client,
        answer: A,
    ) where
        A: Fn(Request<Incoming>, Client) -> F,
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + Unpin> + Unpin + 'static,
    {
        let (disconnect, leftover) = (Arc::clone(&client.disconnect), Leftover::default());
        let stream = stream.telling(&disconnect, &leftover);
        // Set when a response upgrades the connection to another protocol.
        let tunnel = OnceLock::new();
        let service = service_fn(|request| {
            let busy = pace.busy();
            disconnect.begin_request();
            // Boxed: hyper moves the future, and has room for it twice.
            let answering = Box::pin(answer(request, client.clone()));
            let (tunnel, disconnect) = (&tunnel, &disconnect);
            small(async move {
                let mut answer = answering.await;
                pace.answered();
                if disconnect.has_unread() {
                    // Nobody reads the rest of the request's body.
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                if let Some(opened) = answer.extensions_mut().remove::<Tunnel>() {
                    // A response that opens a tunnel is the last one of its connection.
                    let _ = tunnel.set(opened);
                }
                empty_unknown_reason(&mut answer);
                Ok::<_, Infallible>(answer.map(|body| Http1Body::new(body, busy)))
            })
        });
        let mut builder = http1::Builder::new();
        // A client that has closed its sending side still gets its response.
        builder.half_close(true).title_case_headers(self.header_case == HeaderCase::Title);
        builder.max_buf_size(MAX_BUFFER).max_header_size(MAX_HEAD);
        // hyper's own timer is set for each request, which costs a system call. `pace` keeps the time instead.
        builder.header_read_timeout(None);
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let end = self.drive(connection, UpgradeableConnection::graceful_shutdown, pace, || None).await;
        // The tunnel keeps the connection's permit, and the drain waits for it.
        if let Some(tunnel) = tunnel.get() {
            return tunnel.clone().run().await;
        }
        // A head that could not be parsed was answered too, and more of it may come.
        if end == ConnectionEnd::Own
            && (disconnect.has_unread() || pace.is_in_head())
            && let Some(stream) = leftover.take()
        {
            linger(stream).await;
        }
    }
}

/// The future that hyper stores in each connection and moves for each request. A larger one does not compile.
fn small<F>(future: F) -> F {
    const { assert!(size_of::<F>() < 1024) }
    future
}

/// hyper writes `<none>` after a status that it does not know. An empty reason is allowed (RFC 9112, 4).
fn empty_unknown_reason<B>(answer: &mut Response<B>) {
    if answer.status().canonical_reason().is_none() && answer.extensions().get::<ReasonPhrase>().is_none() {
        answer.extensions_mut().insert(ReasonPhrase::from_static(b""));
    }
}

/// A response body. Its connection becomes idle when it ends.
struct Http1Body<B: Body> {
    body: B,
    /// The error that ends it.
    broken: Option<B::Error>,
    _busy: BusyGuard,
}

impl<B: Body + Unpin> Http1Body<B> {
    fn new(body: B, busy: BusyGuard) -> Self {
        Self { body, broken: None, _busy: busy }
    }
}

impl<B: Body<Error: Unpin> + Unpin> Body for Http1Body<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            // On an error, hyper drops what it has not written yet, possibly the head. It writes when a body is
            // pending.
            Poll::Ready(Some(Err(error))) => {
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// A body that fails at once.
    struct BrokenBody;

    impl Body for BrokenBody {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            Poll::Ready(Some(Err(io::ErrorKind::InvalidData.into())))
        }
    }

    #[tokio::test]
    async fn the_head_of_an_answer_whose_body_is_broken_is_written() {
        let timeout = Duration::from_secs(60);
        let pace = Arc::new(ConnectionTimers::new(timeout, timeout, Arc::default()));
        let service =
            service_fn(|_| async { Ok::<_, Infallible>(Response::new(Http1Body::new(BrokenBody, pace.busy()))) });
        let (mut client, ours) = duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("a duplex");
        let connection = http1::Builder::new().serve_connection(TokioIo::new(ours), service);
        assert!(connection.await.is_err());
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.expect("a duplex");
        assert!(read.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&read));
        assert!(!read.ends_with(b"0\r\n\r\n"), "it looks whole");
    }
}
