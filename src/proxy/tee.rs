//! A body that passes, and of which a copy is kept as far as it may be.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::oneshot;

use super::body::{Gathered, Paced, PassingError, ReadError};

/// Passes on a body at its own pace, whatever becomes of the copy.
pub(super) struct Tee {
    pub(super) paced: Paced,
    copy: Option<Copy>,
}

/// What is there of the copy.
struct Copy {
    gathered: Gathered,
    taker: oneshot::Sender<Result<Bytes, ReadError>>,
}

/// The copy, once the body is whole, or why there is none. It never comes for a body that broke off.
pub(super) type Copied = oneshot::Receiver<Result<Bytes, ReadError>>;

impl Tee {
    /// Keeps a copy of no more than `gathered` may hold.
    pub(super) fn new(paced: Paced, gathered: Gathered) -> (Self, Copied) {
        let (taker, copied) = oneshot::channel();
        let fits = gathered.may_be(paced.size_hint().lower());
        let mut this = Self { paced, copy: Some(Copy { gathered, taker }) };
        // A body that is empty is never asked for.
        if this.paced.is_end_stream() {
            this.end();
        } else if !fits {
            this.give_up(ReadError::TooLarge);
        }
        (this, copied)
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PassingError>>> {
        let polled = self.paced.poll_frame(cx);
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
        match frame.data_ref().map_or(Ok(()), |piece| copy.gathered.add(piece.clone())) {
            Err(error) => self.give_up(error),
            // Whoever knows the length of a body asks for nothing after the last of it.
            Ok(()) if self.paced.is_end_stream() => self.end(),
            Ok(()) => {}
        }
    }

    fn end(&mut self) {
        if let Some(Copy { gathered, taker }) = self.copy.take() {
            // Whoever wanted it may be gone.
            let _ = taker.send(Ok(gathered.whole()));
        }
    }

    fn give_up(&mut self, error: ReadError) {
        if let Some(Copy { taker, .. }) = self.copy.take() {
            let _ = taker.send(Err(error));
        }
    }
}
