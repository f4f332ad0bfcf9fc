//! The body of a replayed answer, passed on as it is read from the store.
//!
//! A chunk is read when the connection asks for more to send, and is verified before a byte of it is sent. So for a
//! client that does not read, only a few chunks are in memory, and no resource of the store is held. If a chunk cannot
//! be read any more, the response is aborted: it never looks complete.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::super::budget::{Budget, Reservation};
use super::error::BodyError;
use crate::record::chunks;
use crate::record::compression::{CompressedBody, Expander};
use crate::record::{RecordName, ReplyBody};
use crate::store::{Store, StoreError, StoredBody};

/// The rest of a stored body.
pub struct ReplayBody {
    step: ReplayStep,
    /// Bytes that were not sent yet.
    left: u64,
    trailers: Option<HeaderMap>,
    /// For the chunks in memory. It is released with the last of them.
    reservation: Option<Reservation>,
}

enum ReplayStep {
    /// This chunk comes next.
    Ready(Bytes, StoredBody),
    Reading(Reading),
    /// Only the trailers are left.
    Ended,
    /// The rest cannot be read.
    Broken,
}

type Reading = Pin<Box<dyn Future<Output = (Result<Option<Bytes>, StoreError>, StoredBody)> + Send>>;

/// Bytes in memory at once while a body is replayed.
fn memory_of(body: &ReplyBody) -> u64 {
    let window = |length: u64, size: u32| length.min(WINDOW * u64::from(size));
    match body {
        ReplyBody::Held(_) => 0,
        ReplyBody::Compressed(CompressedBody { frame, length }) => {
            frame.len() as u64 + window(*length, chunks::SIZE) + Expander::memory_of(*length)
        }
        ReplyBody::Apart(body) => {
            let expander = body.expands_to.map_or(0, |length| Expander::memory_of(length) + u64::from(body.cut.size()));
            window(body.length(), body.cut.size()) + expander
        }
    }
}

/// The number of chunks in memory: one that is being read, and two with hyper, which asks for more when a part of the
/// first one is written.
const WINDOW: u64 = 3;

/// Why a response cannot be replayed now.
#[derive(Debug)]
pub(in crate::proxy) enum NoReplay {
    /// The budget has no room for its body.
    NoRoom,
    /// Its body cannot be read from the store, or is damaged.
    Store(StoreError),
}

impl From<StoreError> for NoReplay {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl ReplayBody {
    /// Reads the first chunk; `None` where the body is at hand as it is.
    pub(in crate::proxy) async fn begin<S: Store + ?Sized>(
        store: &S,
        record: &RecordName,
        body: &ReplyBody,
        trailers: HeaderMap,
        budget: &Budget,
    ) -> Result<Option<Self>, NoReplay> {
        let mut reservation = budget.reserve();
        if !usize::try_from(memory_of(body)).is_ok_and(|bytes| reservation.grow(bytes)) {
            return Err(NoReplay::NoRoom);
        }
        let Some(mut body) = StoredBody::of(store, record, body).await? else { return Ok(None) };
        let left = body.length();
        let step = match body.next().await? {
            Some(first) => ReplayStep::Ready(first, body),
            None => ReplayStep::Ended,
        };
        let trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
        Ok(Some(Self { step, left, trailers, reservation: Some(reservation) }))
    }

    /// Hands out a chunk, and begins to read the next one.
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
            // The store is asked when this is polled, and not before: a client that does not read causes no reads.
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
            // It stays broken, however often it is polled.
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
