//! Forwards a body and keeps a copy of it, up to a limit.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::oneshot;

use super::buffer::BodyBuffer;
use super::error::{BodyError, BodyReadError};
use super::idle_timeout::IdleTimeoutBody;

/// A forwarded body. The copy never delays it.
pub(in crate::proxy) struct Tee {
    pub(in crate::proxy) body: IdleTimeoutBody,
    copy: Option<TeeCopy>,
}

/// The copy so far.
struct TeeCopy {
    buffer: BodyBuffer,
    taker: oneshot::Sender<Result<Bytes, BodyReadError>>,
}

/// Receives the copy when the body is complete, or the reason why there is none. Closed without a value if the body is
/// aborted.
pub(in crate::proxy) type CopyReceiver = oneshot::Receiver<Result<Bytes, BodyReadError>>;

impl Tee {
    /// Keeps a copy, as far as `buffer` has room.
    pub(in crate::proxy) fn new(body: IdleTimeoutBody, buffer: BodyBuffer) -> (Self, CopyReceiver) {
        let (taker, copied) = oneshot::channel();
        let fits = buffer.fits(body.size_hint().lower());
        let mut this = Self { body, copy: Some(TeeCopy { buffer, taker }) };
        // An empty body is never polled.
        if this.body.is_end_stream() {
            this.end();
        } else if !fits {
            this.give_up(BodyReadError::TooLarge);
        }
        (this, copied)
    }

    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.body.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.keep(frame),
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Err(_))) => self.copy = None,
            Poll::Pending => {}
        }
        polled
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(copy) = &mut self.copy else { return };
        match frame.data_ref().map_or(Ok(()), |piece| copy.buffer.add(piece.clone())) {
            Err(error) => self.give_up(error),
            // A reader that knows the length does not poll after the last frame.
            Ok(()) if self.body.is_end_stream() => self.end(),
            Ok(()) => {}
        }
    }

    fn end(&mut self) {
        if let Some(TeeCopy { buffer, taker }) = self.copy.take() {
            // The receiver may have been dropped.
            let _ = taker.send(Ok(buffer.into_bytes()));
        }
    }

    fn give_up(&mut self, error: BodyReadError) {
        if let Some(TeeCopy { taker, .. }) = self.copy.take() {
            let _ = taker.send(Err(error));
        }
    }
}
