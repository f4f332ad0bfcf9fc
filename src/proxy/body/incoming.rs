//! An incoming body of a connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::super::client::{Client, DisconnectSignal};
use super::error::BodyError;

/// A body that ends only where its sender ended it.
///
/// In HTTP/2, a reset with `NO_ERROR` after the response says that the rest of the request is not needed (RFC 9113,
/// 8.1). hyper takes every such reset for the end of the body, and half a body would look complete.
pub struct IncomingBody {
    body: Incoming,
    http2: bool,
    /// The client that sends it, until all of it has arrived: the connection must know when a body is not read to its
    /// end.
    sender: Option<Arc<DisconnectSignal>>,
}

impl IncomingBody {
    /// The body of a response of this version.
    pub(in crate::proxy) fn response(body: Incoming, version: Version) -> Self {
        Self { body, http2: version == Version::HTTP_2, sender: None }
    }

    /// The body of a request of this version.
    pub fn request(body: Incoming, version: Version, client: &Client) -> Self {
        let sender = (!body.is_end_stream()).then(|| Arc::clone(&client.disconnect));
        Self { body, http2: version == Version::HTTP_2, sender }
    }
}

impl Drop for IncomingBody {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take().filter(|_| !self.body.is_end_stream()) {
            sender.set_unread();
        }
    }
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() && self.http2 && !self.body.is_end_stream() {
            return Poll::Ready(Some(Err(BodyError::CutShort)));
        }
        if frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers)) {
            self.sender = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
