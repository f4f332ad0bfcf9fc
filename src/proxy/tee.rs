//! A body that passes, and of which a copy is kept as far as it may be.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::oneshot;

use super::body::{BodyBuffer, BodyError, BodyReadError, IdleTimeoutBody};

/// Passes on a body at its own pace, whatever becomes of the copy.
pub(super) struct Tee {
    pub(super) body: IdleTimeoutBody,
    copy: Option<TeeCopy>,
}

/// What is there of the copy.
struct TeeCopy {
    buffer: BodyBuffer,
    taker: oneshot::Sender<Result<Bytes, BodyReadError>>,
}

/// The copy, once the body is whole, or why there is none. It never comes for a body that broke off.
pub(super) type CopyReceiver = oneshot::Receiver<Result<Bytes, BodyReadError>>;

impl Tee {
    /// Keeps a copy of no more than `buffer` may hold.
    pub(super) fn new(body: IdleTimeoutBody, buffer: BodyBuffer) -> (Self, CopyReceiver) {
        let (taker, copied) = oneshot::channel();
        let fits = buffer.fits(body.size_hint().lower());
        let mut this = Self { body, copy: Some(TeeCopy { buffer, taker }) };
        // A body that is empty is never asked for.
        if this.body.is_end_stream() {
            this.end();
        } else if !fits {
            this.give_up(BodyReadError::TooLarge);
        }
        (this, copied)
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
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
            // Whoever knows the length of a body asks for nothing after the last of it.
            Ok(()) if self.body.is_end_stream() => self.end(),
            Ok(()) => {}
        }
    }

    fn end(&mut self) {
        if let Some(TeeCopy { buffer, taker }) = self.copy.take() {
            // Whoever wanted it may be gone.
            let _ = taker.send(Ok(buffer.into_bytes()));
        }
    }

    fn give_up(&mut self, error: BodyReadError) {
        if let Some(TeeCopy { taker, .. }) = self.copy.take() {
            let _ = taker.send(Err(error));
        }
    }
}
