//! The body of an answer, and the connection that it comes on.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};

use super::super::arriving::Arriving;
use super::super::body::{PassingError, Progress, RequestBody};
use super::super::framing::After;
use super::goaway::LastStream;
use super::pool::{Connection, Pool};
use super::streams::Stream;

/// What one request and its answer go over.
pub(super) enum Line {
    /// A connection that others may use when the answer has been read, and where it waits for them.
    Pooled(Connection, Arc<Pool>),
    /// A connection for this request only, and how far its backend says that it went.
    Alone(http2::SendRequest<RequestBody>, LastStream),
    /// A stream on a connection that others use too.
    Shared(Stream),
}

impl Line {
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Self::Pooled(connection, _) => connection.sender.try_send_request(request).await,
            Self::Alone(sender, _) => Box::pin(sender.try_send_request(request)).await,
            Self::Shared(stream) => Box::pin(stream.sender().try_send_request(request)).await,
        }
    }

    /// Whether the backend has said that it worked on nothing that came over this connection.
    pub(super) fn is_untouched(&self) -> bool {
        match self {
            Self::Alone(_, last) => last.is_none(),
            Self::Pooled(..) | Self::Shared(_) => false,
        }
    }

    /// The answer was read to its end.
    fn end(self, upload: Option<Progress>, after: After) {
        match self {
            Self::Pooled(mut connection, pool) => {
                connection.is_used_up = after == After::Closed;
                pool.put(connection, upload);
            }
            Self::Alone(..) | Self::Shared(_) => {}
        }
    }
}

/// A response body, which gives its connection back when it was read to the end.
pub struct UpstreamBody {
    body: Arriving,
    line: Option<Line>,
    /// How far the request has come that this answers.
    upload: Option<Progress>,
    after: After,
    /// What was read to look at it.
    ahead: Option<Ahead>,
}

/// The first of a body.
enum Ahead {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
    Broken(PassingError),
    End,
}

impl Ahead {
    fn of(frame: Option<Result<Frame<Bytes>, PassingError>>) -> Self {
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => Self::Data(data),
            Some(Ok(Err(frame))) => Self::Trailers(Box::new(frame.into_trailers().unwrap_or_default())),
            Some(Err(error)) => Self::Broken(error),
            None => Self::End,
        }
    }

    fn frame(self) -> Option<Result<Frame<Bytes>, PassingError>> {
        match self {
            Self::Data(data) => Some(Ok(Frame::data(data))),
            Self::Trailers(trailers) => Some(Ok(Frame::trailers(*trailers))),
            Self::Broken(error) => Some(Err(error)),
            Self::End => None,
        }
    }
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamBody").finish_non_exhaustive()
    }
}

impl UpstreamBody {
    pub(super) fn new(body: Arriving, line: Line, upload: Option<Progress>, after: After) -> Self {
        let mut this = Self { body, line: Some(line), upload, after, ahead: None };
        if this.body.is_end_stream() {
            this.end();
        }
        this
    }

    /// Whether what is here of it by now is none of it. Nothing is waited for.
    pub(in crate::proxy) async fn is_broken(&mut self) -> bool {
        if self.ahead.is_none() && !self.body.is_end_stream() {
            let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut *self).poll_frame(cx))).await;
            if let Poll::Ready(frame) = polled {
                self.ahead = Some(Ahead::of(frame));
            }
        }
        matches!(self.ahead, Some(Ahead::Broken(_)))
    }

    fn end(&mut self) {
        if let Some(line) = self.line.take() {
            line.end(self.upload.take(), self.after);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = PassingError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PassingError>>> {
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(ahead.frame());
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Err(_))) => self.line = None,
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.end(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(Ahead::Data(data)) = &self.ahead {
            let length = data.len() as u64;
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper + length);
            }
            hint.set_lower(hint.lower() + length);
        }
        hint
    }
}
