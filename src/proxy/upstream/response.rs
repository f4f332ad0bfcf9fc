//! The body of a response, and its connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};

use super::super::body::error::BodyError;
use super::super::body::incoming::IncomingBody;
use super::super::body::progress::BodyProgress;
use super::super::body::request::RequestBody;
use super::super::fields::Fields;
use super::super::framing::ConnectionReuse;
use super::goaway::LastStream;
use super::pool::{Connection, Pool};
use super::socket::{SocketSignals, Unanswered};
use super::streams::StreamPermit;

/// The connection of one request.
pub(super) enum UpstreamConnection {
    /// A connection that returns to this pool when the response has been read.
    Pooled(Connection, Arc<Pool>),
    /// A connection for this request only, the last stream that its backend processed, and its socket.
    Dedicated(http2::SendRequest<RequestBody>, LastStream, Arc<SocketSignals>),
    /// A stream on a shared connection.
    SharedStream(StreamPermit),
}

impl UpstreamConnection {
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Self::Pooled(connection, _) => connection.sender.try_send_request(request).await,
            Self::Dedicated(sender, _, signals) => {
                let mut sending = Box::pin(sender.try_send_request(request));
                // Dropped before the request is, so that the connection is cut when that wakes it.
                let unanswered = Unanswered::over(signals);
                let sent = (&mut sending).await;
                if sent.is_ok() {
                    unanswered.answered();
                }
                sent
            }
            Self::SharedStream(stream) => Box::pin(stream.sender().try_send_request(request)).await,
        }
    }

    /// Whether the backend has said that it processed no request of this connection.
    pub(super) fn is_untouched(&self) -> bool {
        match self {
            Self::Dedicated(_, last, _) => last.is_none(),
            Self::Pooled(..) | Self::SharedStream(_) => false,
        }
    }

    /// The response was read to its end.
    fn end(self, upload: Option<BodyProgress>, after: ConnectionReuse) {
        match self {
            Self::Pooled(mut connection, pool) => {
                connection.is_used_up = after == ConnectionReuse::Forbidden;
                pool.put(connection, upload);
            }
            Self::Dedicated(..) | Self::SharedStream(_) => {}
        }
    }
}

/// A response body, which gives its connection back when it was read to the end.
pub struct UpstreamBody {
    body: IncomingBody,
    /// The fields that the head of this response had.
    fields: Fields,
    connection: Option<UpstreamConnection>,
    /// The progress of the request body.
    upload: Option<BodyProgress>,
    after: ConnectionReuse,
    /// A frame that was read ahead.
    peeked: Option<PeekedFrame>,
}

/// The first frame of a body.
enum PeekedFrame {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
    Broken(BodyError),
    End,
}

impl PeekedFrame {
    fn of(frame: Option<Result<Frame<Bytes>, BodyError>>) -> Self {
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => Self::Data(data),
            Some(Ok(Err(frame))) => Self::Trailers(Box::new(frame.into_trailers().unwrap_or_default())),
            Some(Err(error)) => Self::Broken(error),
            None => Self::End,
        }
    }

    fn frame(self) -> Option<Result<Frame<Bytes>, BodyError>> {
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
    pub(super) fn new(
        body: IncomingBody,
        fields: Fields,
        connection: UpstreamConnection,
        upload: Option<BodyProgress>,
        after: ConnectionReuse,
    ) -> Self {
        let mut this = Self { body, fields, connection: Some(connection), upload, after, peeked: None };
        if this.body.is_end_stream() {
            this.end();
        }
        this
    }

    /// The set of fields that the head had.
    pub(in crate::proxy) fn fields(&self) -> Fields {
        self.fields
    }

    /// Whether the body has failed before its first frame, as far as is known now. Does not wait.
    pub(in crate::proxy) async fn is_broken(&mut self) -> bool {
        if self.peeked.is_none() && !self.body.is_end_stream() {
            let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut *self).poll_frame(cx))).await;
            if let Poll::Ready(frame) = polled {
                self.peeked = Some(PeekedFrame::of(frame));
            }
        }
        matches!(self.peeked, Some(PeekedFrame::Broken(_)))
    }

    fn end(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.end(self.upload.take(), self.after);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(peeked) = self.peeked.take() {
            return Poll::Ready(peeked.frame());
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Err(_))) => self.connection = None,
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.end(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.peeked.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(PeekedFrame::Data(data)) = &self.peeked {
            let length = data.len() as u64;
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper + length);
            }
            hint.set_lower(hint.lower() + length);
        }
        hint
    }
}
