use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::super::upstream::UpstreamBody;
use super::error::BodyError;
use super::relay::RelayReader;
use super::sanitize_trailers;
use crate::guard::AttemptResult;

/// The body of a response that is being captured.
pub struct RelayedBody {
    reader: RelayReader,
    /// Bytes that are not sent yet, if the length was announced.
    left: Option<u64>,
    /// The last byte of an announced length: it completes the response for the caller.
    last: Option<Bytes>,
    end: RelayEnd,
}

enum RelayEnd {
    /// The outcome is not recorded yet.
    Awaited(oneshot::Receiver<AttemptResult<UpstreamBody>>),
    /// It is recorded: only these trailers are left.
    Settled(Option<HeaderMap>),
    /// It is recorded, and the part that was not captured follows.
    Rest(UpstreamBody),
    /// The response is incomplete.
    CutShort,
}

impl RelayedBody {
    /// The pieces from `reader`, of a response with this announced length; `ended` is the result of the attempt.
    pub(in crate::proxy) fn new(
        reader: RelayReader,
        length: Option<u64>,
        ended: oneshot::Receiver<AttemptResult<UpstreamBody>>,
    ) -> Self {
        Self { reader, left: length, last: None, end: RelayEnd::Awaited(ended) }
    }

    fn captured(&mut self, cx: &Context<'_>) -> Option<Bytes> {
        let mut piece = self.reader.next(cx)?;
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(piece.len() as u64);
            if *left == 0 && matches!(self.end, RelayEnd::Awaited(_)) {
                self.last = Some(piece.split_off(piece.len() - 1));
            }
        }
        Some(piece)
    }
}

impl Body for RelayedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if let Some(piece) = this.captured(cx) {
                if piece.is_empty() {
                    continue;
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match &mut this.end {
                RelayEnd::Awaited(ended) => {
                    this.end = match ready!(Pin::new(ended).poll(cx)) {
                        Ok(AttemptResult::Answered(reply)) => RelayEnd::Settled(Some(reply.trailers.clone())),
                        Ok(AttemptResult::Streamed(_, rest)) => RelayEnd::Rest(rest),
                        // A repeat gets the actual outcome.
                        Ok(
                            AttemptResult::Recorded(_)
                            | AttemptResult::AlreadyCompleted(_)
                            | AttemptResult::NotSent
                            | AttemptResult::InDoubt
                            | AttemptResult::Replaced
                            | AttemptResult::Lost(_),
                        )
                        | Err(_) => RelayEnd::CutShort,
                    };
                }
                RelayEnd::Settled(trailers) => {
                    if let Some(last) = this.last.take() {
                        return Poll::Ready(Some(Ok(Frame::data(last))));
                    }
                    let trailers = trailers.take().filter(|trailers| !trailers.is_empty());
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                // However often it is polled: half a response must not look complete.
                RelayEnd::CutShort => return Poll::Ready(Some(Err(BodyError::CutShort))),
                RelayEnd::Rest(rest) => {
                    if let Some(last) = this.last.take() {
                        return Poll::Ready(Some(Ok(Frame::data(last))));
                    }
                    return Pin::new(rest).poll_frame(cx).map_ok(sanitize_trailers);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        let last = self.last.as_ref().map_or(0, |last| last.len() as u64);
        self.left.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + last))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use http::Version;

    use super::super::super::budget::Budget;
    use super::super::relay::{Relay, relay_for};
    use super::*;
    use crate::guard::LostReason;
    use crate::metrics::Metrics;
    use crate::rule::Delivery;

    fn streamed(length: Option<u64>) -> (Relay, oneshot::Sender<AttemptResult<UpstreamBody>>, RelayedBody) {
        let (relay, reader) = relay_for(Delivery::Stream, Version::HTTP_11).expect("a relay");
        let (settle, ended) = oneshot::channel();
        (relay, settle, RelayedBody::new(reader, length, ended))
    }

    async fn next(body: &mut RelayedBody) -> Option<Result<Bytes, BodyError>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    /// With a known length, its last byte is held back.
    #[tokio::test]
    async fn an_answer_that_is_cut_short_stays_so_however_often_it_is_asked() {
        for (length, end) in [
            (None, Some(AttemptResult::Lost(LostReason::Broken))),
            (Some(4), Some(AttemptResult::Lost(LostReason::Timeout))),
            (Some(9), Some(AttemptResult::InDoubt)),
            // The attempt panicked.
            (None, None),
        ] {
            let (relay, settle, mut body) = streamed(length);
            assert!(
                relay.write(&Bytes::from_static(b"half"), &Budget::new(64, Arc::new(Metrics::new().expect("metrics"))))
            );
            let all = next(&mut body).await.expect("a frame").expect("no error");
            assert!(b"half".starts_with(&all[..]) && all.len() >= 3);
            match end {
                Some(end) => drop(settle.send(end)),
                None => drop(settle),
            }
            for _ in 0..3 {
                assert!(matches!(next(&mut body).await, Some(Err(BodyError::CutShort))), "{length:?}");
            }
        }
    }
}
