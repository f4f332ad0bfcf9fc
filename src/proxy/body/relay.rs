//! `response = "stream"`: the first caller gets the response as it arrives, while the attempt captures it.
//!
//! With the head of its response the attempt becomes a task of its own. It writes to a [`Relay`] and knows nothing else
//! about the caller. The queue is bounded by what may be captured, so a slow caller delays nothing, and one that leaves
//! changes nothing. The end of the response (its last byte, if its length was announced) waits until the outcome is
//! recorded: a caller that has a complete response can always get it replayed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version};
use http_body::SizeHint;

use super::super::budget::Budget;
use super::super::head;
use crate::rule::Delivery;

/// The writing end, held by the attempt.
pub(in crate::proxy) struct Relay(Arc<RelayQueue>);

/// The head of a response.
pub(in crate::proxy) struct StreamedHead {
    pub(in crate::proxy) status: StatusCode,
    pub(in crate::proxy) headers: HeaderMap,
    pub(in crate::proxy) length: Option<u64>,
}

/// The reading end. When it is dropped, nothing is queued any more.
pub(in crate::proxy) struct RelayReader(Arc<RelayQueue>);

impl Drop for RelayReader {
    fn drop(&mut self) {
        *self.0.lock() = QueueState { closed: true, ..QueueState::default() };
    }
}

/// What was written and not read yet.
#[derive(Default)]
struct RelayQueue(Mutex<QueueState>);

#[derive(Default)]
struct QueueState {
    /// The head, until it is read.
    head: Option<Box<StreamedHead>>,
    pieces: VecDeque<Bytes>,
    /// Small pieces, joined while they wait.
    small: BytesMut,
    /// The caller has left.
    closed: bool,
    reader: Option<Waker>,
}

/// Smaller pieces are joined while they wait.
const PIECE: usize = 16 * 1024;

/// Both ends of a relay, if the caller gets the response as it arrives.
///
/// An HTTP/1.0 client cannot tell half a response of unknown length from a complete one, so it waits for the complete
/// one.
pub(in crate::proxy) fn relay_for(delivery: Delivery, version: Version) -> Option<(Relay, RelayReader)> {
    if delivery == Delivery::Buffer || version < Version::HTTP_11 {
        return None;
    }
    let queue = Arc::<RelayQueue>::default();
    Some((Relay(Arc::clone(&queue)), RelayReader(queue)))
}

impl Relay {
    /// Writes the head; `body` is the length of the body, as far as it is known.
    pub(in crate::proxy) fn begin(&self, status: StatusCode, headers: &HeaderMap, body: &SizeHint) {
        let mut headers = headers.clone();
        head::remove_framing(&mut headers);
        let head = Box::new(StreamedHead { status, headers, length: body.exact() });
        let mut waiting = self.0.lock();
        // A caller that has left needs no head.
        if !waiting.closed {
            waiting.head = Some(head);
        }
    }

    /// Writes a piece; `false` if the budget has no room for it.
    pub(in crate::proxy) fn write(&self, piece: &Bytes, budget: &Budget) -> bool {
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
        // A panic cannot leave the queue in an invalid state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RelayReader {
    /// The head, once it is there.
    pub(in crate::proxy) fn head(&self) -> Option<Box<StreamedHead>> {
        self.0.lock().head.take()
    }

    /// The next piece. If there is none, the task is woken when there is one.
    pub(in crate::proxy) fn next(&self, cx: &Context<'_>) -> Option<Bytes> {
        let mut waiting = self.0.lock();
        let piece = waiting.take();
        waiting.reader = piece.is_none().then(|| cx.waker().clone());
        piece
    }
}
