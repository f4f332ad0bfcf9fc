//! `response = "stream"`: the first caller gets an answer as it comes, while the attempt captures it.
//!
//! With the head of its answer the attempt becomes a task of its own, which knows of the caller only as a [`Relay`] that
//! it may write to: what is not taken waits here, bounded by what may be captured, so that a slow caller holds nothing up and one that leaves
//! changes nothing. The end of the answer (its last byte, where its length was announced) waits for the guard: a
//! caller that has seen a whole answer can always have it replayed.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::body::{BodyError, ResponseBody, sanitize_trailers};
use super::budget::Budget;
use super::head;
use super::upstream::UpstreamBody;
use crate::config::Delivery;
use crate::guard::{AttemptResult, RunningAttempt};

/// What the attempt writes the answer to.
pub(super) struct Relay(Arc<RelayQueue>);

/// The head of an answer.
struct StreamedHead {
    status: StatusCode,
    headers: HeaderMap,
    length: Option<u64>,
}

/// What came first of an attempt.
pub(super) enum HeadOrResult {
    /// The head of its answer, passed on while the rest is on its way.
    Head(Box<Response<ResponseBody>>),
    /// Its end. `None`: it panicked.
    Result(Option<AttemptResult<UpstreamBody>>),
}

/// Who takes from the queue. When it is gone, nothing is put there any more.
pub(super) struct RelayReader(Arc<RelayQueue>);

impl Drop for RelayReader {
    fn drop(&mut self) {
        *self.0.lock() = QueueState { closed: true, ..QueueState::default() };
    }
}

/// What has come and was not taken yet.
#[derive(Default)]
struct RelayQueue(Mutex<QueueState>);

#[derive(Default)]
struct QueueState {
    /// The head, where it is passed on before the end.
    head: Option<Box<StreamedHead>>,
    pieces: VecDeque<Bytes>,
    /// Small pieces, put together while nobody takes them.
    small: BytesMut,
    /// The caller has left.
    closed: bool,
    reader: Option<Waker>,
}

/// Smaller pieces are put together while they wait.
const PIECE: usize = 16 * 1024;

/// A relay where the caller is to have the answer as it comes, and what comes out of it first.
///
/// A caller of HTTP/1.0 cannot tell half an answer of unknown length from a whole one, and waits for the whole.
pub(super) fn relay_for(delivery: Delivery, version: Version) -> Option<(Relay, RelayReader)> {
    if delivery == Delivery::Buffer || version < Version::HTTP_11 {
        return None;
    }
    let queue = Arc::<RelayQueue>::default();
    Some((Relay(Arc::clone(&queue)), RelayReader(queue)))
}

impl Relay {
    /// Passes the head on, unless it is a whole answer by itself: then it waits for the guard like any end.
    pub(super) fn begin(&self, status: StatusCode, headers: &HeaderMap, body: &UpstreamBody) {
        if body.is_end_stream() {
            return;
        }
        let mut headers = headers.clone();
        head::remove_framing(&mut headers);
        let head = Box::new(StreamedHead { status, headers, length: body.size_hint().exact() });
        let mut waiting = self.0.lock();
        // Whoever has left needs no head.
        if !waiting.closed {
            waiting.head = Some(head);
        }
    }

    /// Passes a piece on; `false` where the budget cannot take it.
    pub(super) fn write(&self, piece: &Bytes, budget: &Budget) -> bool {
        let mut waiting = self.0.lock();
        if waiting.closed {
            return true;
        }
        let fits = if piece.len() < PIECE {
            waiting.small.extend_from_slice(piece);
            waiting.small.len() < PIECE || waiting.gather(budget)
        } else {
            waiting.gather(budget) & waiting.push(piece.clone(), budget)
        };
        let reader = waiting.reader.take();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
        fits
    }
}

impl QueueState {
    fn gather(&mut self, budget: &Budget) -> bool {
        let small = self.small.split().freeze();
        small.is_empty() || self.push(small, budget)
    }

    fn push(&mut self, piece: Bytes, budget: &Budget) -> bool {
        let counted = budget.hold(piece.clone());
        let fits = counted.is_some();
        self.pieces.push_back(counted.unwrap_or(piece));
        fits
    }

    fn take(&mut self) -> Option<Bytes> {
        let piece = self.pieces.pop_front();
        piece.or_else(|| Some(self.small.split().freeze()).filter(|small| !small.is_empty()))
    }
}

impl RelayQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // Every step leaves the queue whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the head where the caller is to have it early, else for the end of the attempt.
pub(super) async fn head_or_result(
    reader: Option<RelayReader>,
    mut running: RunningAttempt<UpstreamBody>,
) -> HeadOrResult {
    let Some(reader) = reader else { return HeadOrResult::Result(running.await) };
    // What passes the head on is the attempt, and it is polled here.
    let begun = poll_fn(|cx| match Pin::new(&mut running).poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Err(ended)),
        Poll::Pending => match reader.0.lock().head.take() {
            Some(head) => Poll::Ready(Ok(head)),
            None => Poll::Pending,
        },
    });
    match begun.await {
        // It goes on by itself: a caller that reads slowly must not hold it up.
        Ok(head) => HeadOrResult::Head(Box::new(head.answer(reader, running.detach()))),
        Err(ended) => HeadOrResult::Result(ended),
    }
}

impl StreamedHead {
    fn answer(
        self,
        reader: RelayReader,
        ended: oneshot::Receiver<AttemptResult<UpstreamBody>>,
    ) -> Response<ResponseBody> {
        let Self { status, headers, length } = self;
        let body = RelayedBody { reader, left: length, last: None, end: RelayEnd::Awaited(ended) };
        let mut response = Response::new(ResponseBody::Relayed(Box::new(body)));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// The body of an answer that is being captured.
pub struct RelayedBody {
    reader: RelayReader,
    /// Bytes to come, where the answer announced its length.
    left: Option<u64>,
    /// The last byte of an announced length: with it the caller has the whole.
    last: Option<Bytes>,
    end: RelayEnd,
}

enum RelayEnd {
    /// The guard has not settled it yet.
    Awaited(oneshot::Receiver<AttemptResult<UpstreamBody>>),
    /// It has: nothing is left but these trailers.
    Settled(Option<HeaderMap>),
    /// It has, and what could not be captured follows.
    Rest(UpstreamBody),
    /// There is no more, and it is not whole.
    CutShort,
}

impl RelayedBody {
    fn captured(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        let piece = {
            let mut waiting = self.reader.0.lock();
            let piece = waiting.take();
            waiting.reader = piece.is_none().then(|| cx.waker().clone());
            piece
        };
        let mut piece = piece?;
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
                        // A retry is told what became of it.
                        Ok(
                            AttemptResult::Recorded(_)
                            | AttemptResult::NotSent
                            | AttemptResult::InDoubt
                            | AttemptResult::Replaced
                            | AttemptResult::Silent(_),
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
                // However often it is asked: half an answer must not look whole.
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
    use super::*;
    use crate::guard::LostReason;

    fn streamed(length: Option<u64>) -> (Relay, oneshot::Sender<AttemptResult<UpstreamBody>>, RelayedBody) {
        let (relay, reader) = relay_for(Delivery::Stream, Version::HTTP_11).expect("a relay");
        let (settle, ended) = oneshot::channel();
        (relay, settle, RelayedBody { reader, left: length, last: None, end: RelayEnd::Awaited(ended) })
    }

    async fn next(body: &mut RelayedBody) -> Option<Result<Bytes, BodyError>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    /// The last byte of a known length is kept back with it.
    #[tokio::test]
    async fn an_answer_that_is_cut_short_stays_so_however_often_it_is_asked() {
        for (length, end) in [
            (None, Some(AttemptResult::Silent(LostReason::Broken))),
            (Some(4), Some(AttemptResult::Silent(LostReason::Timeout))),
            (Some(9), Some(AttemptResult::InDoubt)),
            // The attempt panicked.
            (None, None),
        ] {
            let (relay, settle, mut body) = streamed(length);
            relay.0.lock().pieces.push_back(Bytes::from_static(b"half"));
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
