//! Reads a response into memory, up to a limit.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;

use super::super::body::error::BodyError;
use super::super::body::relay::Relay;
use super::super::budget::{Budget, Reservation};
use super::super::head;
use super::super::limits::MAX_BUFFER;
use super::response::UpstreamBody;
use crate::record::chunks;

/// A response body that is being read, up to a cap.
pub(super) struct Capture<'a> {
    cap: u64,
    budget: &'a Budget,
    length: u64,
    pieces: Vec<Bytes>,
    /// The piece that is being filled.
    gathered: Vec<u8>,
    /// The reservation for its bytes.
    reservation: Option<Reservation>,
    trailers: HeaderMap,
}

/// Where reading stopped.
pub(super) enum Captured {
    /// At the end of the body.
    Whole,
    /// At the cap, or because the budget is used up.
    Full,
}

/// The size of the pieces of a body. It is stored in chunks of the same size.
const PIECE: usize = chunks::SIZE as usize;
/// A frame keeps the whole buffer that it was read into ([`MAX_BUFFER`]) in memory, even if the frame is short; with a
/// slow backend that was three times the length of the body. So a frame is kept only if it fills most of a buffer, and
/// is copied otherwise.
const WORTH_KEEPING: usize = MAX_BUFFER / 8 * 7;
/// A response of a single frame is kept too if it is at most this long. Most responses are.
const SHORT: usize = 16 * 1024;

impl<'a> Capture<'a> {
    pub(super) fn new(cap: u64, budget: &'a Budget) -> Self {
        let (pieces, gathered, trailers) = (Vec::new(), Vec::new(), HeaderMap::new());
        Self { cap, budget, length: 0, pieces, gathered, reservation: None, trailers }
    }

    /// Reads until the end, the cap, or the limit of the budget. What was read is kept, also when this future is
    /// dropped, and is written to the relay, if there is one.
    pub(super) async fn read(&mut self, body: &mut UpstreamBody, relay: Option<&Relay>) -> Result<Captured, BodyError> {
        if body.size_hint().lower() > self.cap {
            return Ok(Captured::Full);
        }
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(piece) => {
                    self.length += piece.len() as u64;
                    let passed = relay.is_none_or(|relay| relay.write(&piece, self.budget));
                    let to_come = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
                    let fits = self.keep(piece, to_come) && passed;
                    if !fits || self.length > self.cap {
                        return Ok(Captured::Full);
                    }
                }
                Err(frame) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    head::cross_trailers(&mut trailers);
                    self.trailers.extend(trailers);
                }
            }
        }
        self.gather();
        Ok(Captured::Whole)
    }

    /// Keeps a frame. `to_come` is the number of bytes after it, if known. Returns whether the budget had room for it.
    fn keep(&mut self, mut frame: Bytes, to_come: Option<u64>) -> bool {
        let is_all = to_come == Some(0) && self.pieces.is_empty() && frame.len() <= SHORT;
        if self.gathered.is_empty() && (is_all || frame.len() >= WORTH_KEEPING) {
            return self.hold(frame);
        }
        let to_come = to_come.map_or(0, |to_come| usize::try_from(to_come).unwrap_or(PIECE));
        let mut fits = true;
        while !frame.is_empty() {
            let room = PIECE - self.gathered.len();
            if self.gathered.capacity() == 0 {
                self.gathered.reserve_exact(room.min(frame.len().saturating_add(to_come)));
            }
            let part = frame.split_to(frame.len().min(room));
            // It is in memory already, so it is kept.
            fits &= self.reservation.get_or_insert_with(|| self.budget.reserve()).grow(part.len());
            self.gathered.extend_from_slice(&part);
            if self.gathered.len() == PIECE {
                self.gather();
            }
        }
        fits
    }

    /// Moves the gathered bytes to the pieces, with their reservation.
    fn gather(&mut self) {
        let piece = piece(std::mem::take(&mut self.gathered));
        if let Some(reservation) = self.reservation.take() {
            self.pieces.push(reservation.hold(piece));
        }
    }

    fn hold(&mut self, piece: Bytes) -> bool {
        let counted = self.budget.hold(piece.clone());
        let fits = counted.is_some();
        self.pieces.push(counted.unwrap_or(piece));
        fits
    }

    /// What was read.
    pub(super) fn finish(mut self) -> (Vec<Bytes>, HeaderMap) {
        self.gather();
        (self.pieces, self.trailers)
    }
}

/// The buffer of the last piece may be twice as large as the piece, if the length of the body was not known.
fn piece(mut gathered: Vec<u8>) -> Bytes {
    if gathered.capacity() > gathered.len() + gathered.len() / 8 {
        gathered.shrink_to_fit();
    }
    gathered.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use std::sync::Arc;

    /// The buffer of a connection. A frame keeps all of it in memory.
    fn buffer(memory: &Arc<()>) -> Bytes {
        struct Buffer {
            bytes: Vec<u8>,
            _memory: Arc<()>,
        }
        impl AsRef<[u8]> for Buffer {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        Bytes::from_owner(Buffer { bytes: vec![7; MAX_BUFFER], _memory: Arc::clone(memory) })
    }

    #[test]
    fn a_frame_keeps_the_memory_that_it_was_read_into_only_if_it_fills_it() {
        const LENGTH: usize = 1_000_000;
        let budget = Budget::new(4 << 20, Arc::new(Metrics::new().expect("metrics")));
        for (frame, kept) in
            [(1, false), (1460, false), (20_000, false), (57_000, false), (57_344, true), (65_536, true)]
        {
            for is_known in [true, false] {
                let memory = Arc::new(());
                let mut capture = Capture::new(LENGTH as u64, &budget);
                let mut left = LENGTH;
                while left > 0 {
                    let length = left.min(frame);
                    left -= length;
                    assert!(capture.keep(buffer(&memory).slice(..length), is_known.then_some(left as u64)));
                }
                let buffers = Arc::strong_count(&memory) - 1;
                assert_eq!(buffers, if kept { LENGTH / frame } else { 0 }, "{frame}");
                let (pieces, _) = capture.finish();
                assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), LENGTH);
                assert!(pieces.iter().all(|piece| piece.len() <= PIECE), "{frame}");
                assert!(
                    pieces.len() <= LENGTH.div_ceil(PIECE.min(frame.max(WORTH_KEEPING))) + 1,
                    "{frame}: {}",
                    pieces.len()
                );
            }
        }
    }

    #[test]
    fn what_is_copied_counts_from_then_on_until_it_is_gone() {
        const ALL: usize = 100_000;
        let budget = Budget::new(ALL as u64, Arc::new(Metrics::new().expect("metrics")));
        let left = |bytes| budget.reserve().grow(bytes) && !budget.reserve().grow(bytes + 1);
        let frame = Bytes::from_static(&[7; 30_000]);
        let mut capture = Capture::new(1 << 20, &budget);
        for number in 1..=3 {
            assert!(capture.keep(frame.clone(), None));
            assert!(left(ALL - number * frame.len()), "{number}");
        }
        assert!(!capture.keep(frame.clone(), None), "there is no room for it");
        let (pieces, _) = capture.finish();
        assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), 4 * frame.len(), "it is kept all the same");
        assert!(left(ALL - 3 * frame.len()), "the last piece is counted, too");
        drop(pieces);
        assert!(left(ALL));
    }

    #[test]
    fn a_short_answer_in_one_frame_is_copied_nowhere() {
        let budget = Budget::new(1 << 20, Arc::new(Metrics::new().expect("metrics")));
        for (length, copied) in [(1, false), (SHORT, false), (SHORT + 1, true)] {
            let memory = Arc::new(());
            let mut capture = Capture::new(1 << 20, &budget);
            assert!(capture.keep(buffer(&memory).slice(..length), Some(0)));
            assert_eq!(Arc::strong_count(&memory) == 1, copied, "{length}");
        }
    }
}
