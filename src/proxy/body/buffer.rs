//! Reads a request body into memory.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;

use super::super::budget::{Budget, Reservation};
use super::error::BodyReadError;
use super::incoming::IncomingBody;
use crate::tick;

/// Reads a request body of at most `cap` bytes into one piece of memory.
///
/// A body whose announced length is too large is refused before `100 Continue` is sent.
pub(in crate::proxy) async fn read(
    mut body: IncomingBody,
    cap: u64,
    budget: &Budget,
    timeout: Duration,
) -> Result<Bytes, BodyReadError> {
    if body.size_hint().lower() > cap {
        return Err(BodyReadError::TooLarge);
    }
    let announced = body.size_hint().upper().unwrap_or(cap);
    let mut buffer = BodyBuffer::new(cap, budget.reserve()).of_at_most(announced);
    let reading = pin!(async {
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|_| BodyReadError::Broken)?.into_data() else { continue };
            buffer.add(piece)?;
        }
        Ok(())
    });
    tick::timeout(timeout, reading).await.map_err(|_| BodyReadError::TimedOut)??;
    Ok(buffer.into_bytes())
}

/// A body that is being read into one piece of memory of at most `cap` bytes.
pub(in crate::proxy) struct BodyBuffer {
    cap: u64,
    /// More memory than this is not needed.
    at_most: u64,
    length: u64,
    /// A single frame is used as it is: it is a part of its connection's buffer, and keeps nothing else. Several are copied
    /// into one piece.
    first: Bytes,
    whole: Vec<u8>,
    /// For the whole capacity of that. What is copied while it grows is there twice, for as long as the copying takes.
    reservation: Reservation,
}

impl BodyBuffer {
    pub(in crate::proxy) fn new(cap: u64, reservation: Reservation) -> Self {
        Self { cap, at_most: cap, length: 0, first: Bytes::new(), whole: Vec::new(), reservation }
    }

    /// The same for a body that has announced its length.
    fn of_at_most(self, announced: u64) -> Self {
        Self { at_most: announced.min(self.cap), ..self }
    }

    /// Whether a body of this length is allowed.
    pub(in crate::proxy) fn fits(&self, length: u64) -> bool {
        length <= self.cap
    }

    pub(in crate::proxy) fn add(&mut self, piece: Bytes) -> Result<(), BodyReadError> {
        let is_first = self.length == 0;
        self.length += piece.len() as u64;
        if !self.fits(self.length) {
            return Err(BodyReadError::TooLarge);
        }
        if is_first {
            // Only bytes that have arrived are reserved, not the announced length.
            if !self.reservation.grow(piece.len()) {
                return Err(BodyReadError::NoRoom);
            }
            self.first = piece;
            return Ok(());
        }
        self.make_room()?;
        self.whole.extend_from_slice(&std::mem::take(&mut self.first));
        self.whole.extend_from_slice(&piece);
        Ok(())
    }

    /// Makes room for `length` bytes, and for as many again, where the budget has them.
    fn make_room(&mut self) -> Result<(), BodyReadError> {
        let (Ok(needed), held) = (usize::try_from(self.length), self.whole.capacity()) else {
            return Err(BodyReadError::TooLarge);
        };
        if needed <= held {
            return Ok(());
        }
        let at_most = usize::try_from(self.at_most).unwrap_or(usize::MAX);
        let counted = held.max(self.first.len());
        let twice = needed.saturating_mul(2).min(at_most).max(needed);
        let capacity = [twice, needed].into_iter().find(|capacity| self.reservation.grow(capacity - counted));
        let capacity = capacity.ok_or(BodyReadError::NoRoom)?;
        self.whole.reserve_exact(capacity - self.whole.len());
        Ok(())
    }

    pub(in crate::proxy) fn into_bytes(mut self) -> Bytes {
        if self.whole.is_empty() {
            return self.reservation.hold(self.first);
        }
        // What it might have become is given back. A few bytes more are not worth moving it.
        let unused = self.whole.capacity() - self.whole.len();
        if unused > self.whole.len() / 8 {
            self.whole.shrink_to_fit();
            self.reservation.shrink(unused);
        }
        self.reservation.hold(self.whole.into())
    }
}

/// Reads and drops the rest of a short body, so that the response that refuses it is not lost when the connection is
/// closed.
pub(in crate::proxy) async fn drain(mut body: IncomingBody) {
    const AT_MOST: u64 = 64 * 1024;
    const WITHIN: Duration = Duration::from_secs(1);
    if body.size_hint().lower() > AT_MOST {
        return;
    }
    let draining = pin!(async {
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len) as u64;
            if length > AT_MOST {
                return;
            }
        }
    });
    // The connection of a slower client is closed, as it would be without this.
    let _ = tick::timeout(WITHIN, draining).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Metrics;

    const ALL: usize = 1 << 20;

    fn budget() -> Budget {
        Budget::new(ALL as u64, Arc::new(Metrics::new().expect("metrics")))
    }

    fn left(budget: &Budget) -> usize {
        let (mut least, mut most) = (0, ALL);
        while least < most {
            let middle = (least + most).div_ceil(2);
            if budget.reserve().grow(middle) { least = middle } else { most = middle - 1 }
        }
        least
    }

    #[test]
    fn a_body_counts_for_all_the_memory_that_it_takes() {
        let budget = budget();
        for (frames, length) in [(1, 300), (2, 300), (100, 1000), (90, 1460), (3, 65_536)] {
            let mut buffer = BodyBuffer::new(ALL as u64, budget.reserve());
            for _ in 0..frames {
                buffer.add(Bytes::from(vec![7; length])).expect("there is room");
                let taken = buffer.whole.capacity().max(buffer.first.len());
                assert_eq!(ALL - left(&budget), taken, "{frames} of {length}");
            }
            let body = buffer.into_bytes();
            assert!(body == vec![7; frames * length]);
            let counted = ALL - left(&budget);
            assert!((body.len()..=body.len() / 8 * 9).contains(&counted), "{counted} for {}", body.len());
            drop(body);
            assert_eq!(left(&budget), ALL);
        }
    }

    #[test]
    fn a_body_that_has_announced_its_length_takes_no_more_than_that() {
        let budget = budget();
        let mut buffer = BodyBuffer::new(ALL as u64, budget.reserve()).of_at_most(100_000);
        for _ in 0..100 {
            buffer.add(Bytes::from(vec![7; 1000])).expect("there is room");
            assert!(ALL - left(&budget) <= 100_000);
        }
        assert_eq!(buffer.into_bytes().len(), 100_000);
    }

    #[test]
    fn a_body_takes_the_last_of_the_budget_and_no_more() {
        let budget = budget();
        let mut buffer = BodyBuffer::new(2 * ALL as u64, budget.reserve());
        let frame = Bytes::from(vec![7; ALL / 8]);
        for _ in 0..8 {
            buffer.add(frame.clone()).expect("there is room for just so much");
        }
        assert_eq!(buffer.add(Bytes::from_static(b"7")), Err(BodyReadError::NoRoom));
        assert_eq!(left(&budget), 0);
        drop(buffer);
        assert_eq!(left(&budget), ALL);
        let mut small = BodyBuffer::new(3, budget.reserve());
        small.add(Bytes::from_static(b"12")).expect("there is room");
        assert_eq!(small.add(Bytes::from_static(b"34")), Err(BodyReadError::TooLarge));
    }
}
