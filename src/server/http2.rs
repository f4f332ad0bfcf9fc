//! A connection in HTTP/2.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2::{self, Connection};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::TaskTracker;

use super::Server;
use super::cores::CoreLoad;
use super::pace::ConnectionTimers;
use super::streams::{Http2Stream, OpenStreams, TrackedBytes};
use super::watched::WatchedSocket;
use crate::proxy::{Client, DisconnectSignal, MAX_BUFFER};

/// Streams at once on one connection.
const MAX_STREAMS: u32 = 100;

/// How much of one body a client may send before it is read: the default of the protocol.
const STREAM_WINDOW: u32 = 64 * 1024 - 1;

/// The same for a whole connection. It is larger, so that a body that is not read does not stop the others.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The size of a head's fields, plus 32 bytes for each (RFC 9113, 6.5.2). A compressed head may be much smaller than
/// what it takes in memory, so this is less than in HTTP/1.
const MAX_HEAD: u32 = 32 * 1024;

impl Server {
    pub(super) async fn http2<A, F, B>(
        &self,
        stream: WatchedSocket,
        pace: &Arc<ConnectionTimers>,
        client: Client,
        load: &Arc<CoreLoad>,
        answer: A,
    ) where
        A: Fn(Request<Incoming>, Client) -> F,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
    {
        pace.idle();
        let streams = OpenStreams::new(pace, load);
        let service = service_fn(|mut request: Request<Incoming>| {
            let stream = streams.open();
            tell_as_http1(&mut request);
            // A client that leaves resets its stream or ends the connection, and the response is dropped.
            let disconnect = Arc::<DisconnectSignal>::default();
            let answering = Box::pin(answer(request, Client { disconnect, ..client.clone() }));
            async move { Ok::<_, Infallible>(answering.await.map(|body| Http2Body::new(body, stream))) }
        });
        let mut builder = http2::Builder::new(Tasks(self.connections.clone()));
        // The limits of resets are those of h2. Without them a client could open and reset streams for ever.
        builder.max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_HEAD).max_send_buf_size(MAX_BUFFER);
        builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        // A client in the middle of a frame or head cannot answer a ping. This limits both.
        builder.timer(TokioTimer::new());
        builder.keep_alive_interval(self.idle_timeout / 2).keep_alive_timeout(self.header_timeout);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let _end = self.drive(connection, Connection::graceful_shutdown, pace, || streams.untaken()).await;
    }
}

/// Streams are tasks, and end with the connection.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

/// Makes a head as HTTP/1.1 would have it, for everything behind this.
fn tell_as_http1(request: &mut Request<Incoming>) {
    let headers = request.headers_mut();
    join_cookies(headers);
    // h2 accepts several equal lengths (RFC 9110, 8.6).
    if let Some(length) = headers.get(header::CONTENT_LENGTH).cloned() {
        headers.insert(header::CONTENT_LENGTH, length);
    }
}

/// A client may send each cookie in a separate field line. Outside of HTTP/2 they must be one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines = headers.get_all(header::COOKIE);
    if lines.iter().nth(1).is_none() {
        return;
    }
    let mut joined = BytesMut::new();
    for line in lines {
        if !joined.is_empty() {
            joined.put_slice(b"; ");
        }
        joined.put_slice(line.as_bytes());
    }
    // It consists of valid values.
    if let Ok(mut joined) = HeaderValue::from_maybe_shared(joined.freeze()) {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}

/// A response body. Its stream is active until its last byte was sent.
struct Http2Body<B> {
    body: B,
    stream: Arc<Http2Stream>,
}

impl<B> Http2Body<B> {
    fn new(body: B, stream: Arc<Http2Stream>) -> Self {
        Self { body, stream }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Http2Body<B> {
    type Data = TrackedBytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<TrackedBytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_ok(|frame| frame.map_data(|bytes| TrackedBytes::new(bytes, &self.stream)))
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
    use super::*;

    #[test]
    fn cookies_come_in_one_line() {
        let mut headers = HeaderMap::new();
        for line in ["a=1", "b=2; c=3", "d=4"] {
            headers.append(header::COOKIE, HeaderValue::from_static(line));
        }
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3; d=4"]);
        join_cookies(&mut headers);
        assert_eq!(headers[header::COOKIE], "a=1; b=2; c=3; d=4");
    }
}
