use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::error::BodyError;
use crate::form_guard::Inserter;

/// The form guard's tag, on its way into a page.
pub struct Injection {
    /// `None` at the end of the page.
    inserter: Option<Inserter>,
    /// Trailers, which follow the last of the page.
    trailers: Option<Frame<Bytes>>,
}

type PolledFrame = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl Injection {
    pub(in crate::proxy) fn new(inserter: Inserter) -> Self {
        Self { inserter: Some(inserter), trailers: None }
    }

    /// The next frame of the page with the tag; `page` is the next of the page itself.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut page: impl FnMut(&mut Context<'_>) -> PolledFrame,
    ) -> PolledFrame {
        while let Some(inserter) = &mut self.inserter {
            let frame = ready!(page(cx)).transpose()?;
            let piece = match frame.map(Frame::into_data) {
                Some(Ok(piece)) => inserter.push(piece),
                end => {
                    let piece = inserter.finish();
                    self.inserter = None;
                    self.trailers = end.and_then(Result::err);
                    piece
                }
            };
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
        Poll::Ready(self.trailers.take().map(Ok))
    }

    pub(super) fn is_end(&self) -> bool {
        self.inserter.is_none() && self.trailers.is_none()
    }
}
