//! The body of a replayed answer, passed on as it is read from the store.
//!
//! A chunk is read when the connection asks for more to send, and checked before a byte of it leaves. So of a client that
//! does not read, a few chunks are here and with the connection, and nothing of the store is held. Where a chunk cannot
//! be read any more, the answer is broken off: it never looks whole.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::body::BodyError;
use super::budget::{Budget, Reservation};
use super::replay::NoReplay;
use crate::record::RecordName;
use crate::record::chunks::ApartBody;
use crate::store::{Store, StoreError, StoredBody};

/// What is left of a body.
pub struct ReplayBody {
    step: ReplayStep,
    /// Bytes that were not passed on yet.
    left: u64,
    trailers: Option<HeaderMap>,
    /// For the chunks that are here at once. It goes with the last of them.
    reservation: Option<Reservation>,
}

enum ReplayStep {
    /// This chunk comes next.
    Ready(Bytes, StoredBody),
    Reading(Reading),
    /// Nothing is left, but for the trailers.
    Ended,
    /// There is more, and it does not come.
    Broken,
}

type Reading = Pin<Box<dyn Future<Output = (Result<Option<Bytes>, StoreError>, StoredBody)> + Send>>;

/// Chunks that are here at once: one that is being read, and two that are with the connection, which asks for more when the
/// first of what it has is written in part.
const WINDOW: u64 = 3;

impl ReplayBody {
    /// Reads the first chunk.
    pub(super) async fn begin<S: Store + ?Sized>(
        store: &S,
        record: &RecordName,
        body: ApartBody,
        trailers: HeaderMap,
        budget: &Budget,
    ) -> Result<Self, NoReplay> {
        let left = body.cut.length();
        let mut reservation = budget.reserve();
        if !reservation.grow(left.min(WINDOW * u64::from(body.cut.size())) as usize) {
            return Err(NoReplay::NoRoom);
        }
        let mut body = StoredBody::open(store, record, body).await?;
        let step = match body.next().await? {
            Some(first) => ReplayStep::Ready(first, body),
            None => ReplayStep::Ended,
        };
        let trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
        Ok(Self { step, left, trailers, reservation: Some(reservation) })
    }

    /// Passes a chunk on.
    fn pass(&mut self, chunk: Bytes, body: StoredBody) -> Bytes {
        self.left = self.left.saturating_sub(chunk.len() as u64);
        if self.left > 0 {
            self.step = read(body);
            return chunk;
        }
        self.step = ReplayStep::Ended;
        match self.reservation.take() {
            Some(reservation) => reservation.hold(chunk),
            None => chunk,
        }
    }
}

fn read(mut body: StoredBody) -> ReplayStep {
    ReplayStep::Reading(Box::pin(async move { (body.next().await, body) }))
}

impl Body for ReplayBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let ReplayStep::Reading(reading) = &mut this.step {
            // Nothing is asked of the store before this: whoever does not read on does not ask.
            let (chunk, body) = ready!(reading.as_mut().poll(cx));
            this.step = match chunk {
                Ok(Some(chunk)) => ReplayStep::Ready(chunk, body),
                Ok(None) => ReplayStep::Ended,
                Err(error) => {
                    tracing::error!(record = %body.name(), error = &error as &dyn Error,
                        "a stored answer broke off while it was replayed; its client's connection is cut");
                    ReplayStep::Broken
                }
            };
        }
        match std::mem::replace(&mut this.step, ReplayStep::Ended) {
            ReplayStep::Ready(chunk, body) => Poll::Ready(Some(Ok(Frame::data(this.pass(chunk, body))))),
            // However often it is asked.
            ReplayStep::Broken | ReplayStep::Reading(_) => {
                this.step = ReplayStep::Broken;
                Poll::Ready(Some(Err(BodyError::CutShort)))
            }
            ReplayStep::Ended if this.left > 0 => Poll::Ready(Some(Err(BodyError::CutShort))),
            ReplayStep::Ended => Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.step, ReplayStep::Ended) && self.left == 0 && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.trailers {
            // An exact size means Content-Length, and that leaves no place for trailers (RFC 9112, 7.1.2).
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(self.left),
        }
    }
}
