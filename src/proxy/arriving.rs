//! A body as it comes in on a connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::PassingError;

/// A body that ends only where its sender has ended it.
///
/// In HTTP/2, whoever has its answer may be told that the rest of its request is not wanted, by a reset that says
/// `NO_ERROR` (RFC 9113, 8.1). hyper takes each such reset for the end of a body, and half of one would look whole.
pub(super) struct Arriving {
    body: Incoming,
    http2: bool,
}

impl Arriving {
    /// The body of a message of this version.
    pub(super) fn new(body: Incoming, version: Version) -> Self {
        Self { body, http2: version == Version::HTTP_2 }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = PassingError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PassingError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() && self.http2 && !self.body.is_end_stream() {
            return Poll::Ready(Some(Err(PassingError::CutShort)));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(PassingError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
