use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::super::head::Framing;
use super::error::BodyError;
use super::idle_timeout::IdleTimeoutBody;
use super::progress::{BodyProgress, BodyStage};
use super::tee::Tee;

/// The body of a request to the upstream.
pub(in crate::proxy) enum RequestBody {
    /// Held in memory.
    Buffered(Option<Bytes>),
    /// Passed on as it comes.
    Streaming(IdleTimeoutBody),
    /// Forwarded as it arrives, while a copy is made.
    Teed(Box<Tee>),
}

impl Default for RequestBody {
    /// None.
    fn default() -> Self {
        Self::Buffered(None)
    }
}

impl RequestBody {
    /// A body that is held in memory.
    pub(in crate::proxy) fn buffered(bytes: Bytes) -> Self {
        Self::Buffered((!bytes.is_empty()).then_some(bytes))
    }

    /// A copy, if nothing of it is still to arrive.
    pub(in crate::proxy) fn try_clone(&self) -> Option<Self> {
        match self {
            Self::Buffered(bytes) => Some(Self::Buffered(bytes.clone())),
            Self::Streaming(_) | Self::Teed(_) => {
                self.streaming_body()?.is_end_stream().then_some(Self::Buffered(None))
            }
        }
    }

    fn streaming_body(&self) -> Option<&IdleTimeoutBody> {
        match self {
            Self::Buffered(_) => None,
            Self::Streaming(paced) => Some(paced),
            Self::Teed(tee) => Some(&tee.body),
        }
    }

    /// Its progress.
    pub(in crate::proxy) fn progress(&self) -> BodyProgress {
        match self {
            Self::Buffered(_) => BodyProgress::at(BodyStage::Whole),
            Self::Streaming(paced) => paced.progress.clone(),
            Self::Teed(tee) => tee.body.progress.clone(),
        }
    }

    /// Its progress, if a part of it is still to arrive.
    pub(in crate::proxy) fn pending_upload(&self) -> Option<BodyProgress> {
        let paced = self.streaming_body()?;
        (!paced.is_end_stream()).then(|| paced.progress.clone())
    }

    /// How the backend finds its end.
    pub(in crate::proxy) fn framing(&self) -> Framing {
        match (self, self.size_hint().exact()) {
            (Self::Buffered(_), Some(length)) => Framing::Length(length),
            (Self::Streaming(_) | Self::Teed(_), Some(_)) => Framing::AsItCame,
            (_, None) => Framing::Chunks,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Buffered(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streaming(paced) => paced.poll_frame(cx),
            Self::Teed(tee) => tee.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Buffered(bytes) => bytes.is_none(),
            Self::Streaming(paced) => paced.is_end_stream(),
            Self::Teed(tee) => tee.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Buffered(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streaming(paced) => paced.size_hint(),
            Self::Teed(tee) => tee.body.size_hint(),
        }
    }
}
