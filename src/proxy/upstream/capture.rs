//! Reading an answer into memory, as far as it may be held.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;

use super::super::body::BodyError;
use super::super::budget::Budget;
use super::super::head;
use super::super::stream::Relay;
use super::response::UpstreamBody;

/// A response body in the making, up to a cap.
pub(super) struct Capture<'a> {
    cap: u64,
    budget: &'a Budget,
    length: u64,
    pieces: Vec<Bytes>,
    /// Small frames, gathered.
    gathered: BytesMut,
    trailers: HeaderMap,
}

/// Where reading came to its end.
pub(super) enum Captured {
    /// At the end of the body.
    Whole,
    /// At the cap, or where the budget had no more.
    Full,
}

/// Smaller frames are gathered; larger ones are kept as they came.
const PIECE: usize = 16 * 1024;

impl<'a> Capture<'a> {
    pub(super) fn new(cap: u64, budget: &'a Budget) -> Self {
        let (pieces, gathered, trailers) = (Vec::new(), BytesMut::new(), HeaderMap::new());
        Self { cap, budget, length: 0, pieces, gathered, trailers }
    }

    /// Reads until the end, the cap, or the limit of the budget. Whatever was read is kept, also when this is
    /// dropped half-way, and passed on to whoever is to have it early.
    pub(super) async fn read(&mut self, body: &mut UpstreamBody, relay: Option<&Relay>) -> Result<Captured, BodyError> {
        if body.size_hint().lower() > self.cap {
            return Ok(Captured::Full);
        }
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(piece) => {
                    self.length += piece.len() as u64;
                    let passed = relay.is_none_or(|relay| relay.write(&piece, self.budget));
                    let fits = self.keep(piece, body.is_end_stream()) && passed;
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
        Ok(if self.gather() { Captured::Whole } else { Captured::Full })
    }

    /// Keeps a piece, and says whether the budget could take it.
    fn keep(&mut self, piece: Bytes, last: bool) -> bool {
        if piece.len() >= PIECE || (last && self.gathered.is_empty()) {
            return self.gather() & self.hold(piece);
        }
        self.gathered.extend_from_slice(&piece);
        self.gathered.len() < PIECE || self.gather()
    }

    /// Moves what was gathered to the pieces.
    fn gather(&mut self) -> bool {
        let gathered = self.gathered.split().freeze();
        gathered.is_empty() || self.hold(gathered)
    }

    fn hold(&mut self, piece: Bytes) -> bool {
        let counted = self.budget.hold(piece.clone());
        let fits = counted.is_some();
        self.pieces.push(counted.unwrap_or(piece));
        fits
    }

    /// What was read.
    pub(super) fn finish(mut self) -> (Vec<Bytes>, HeaderMap) {
        if !self.gathered.is_empty() {
            self.pieces.push(self.gathered.freeze());
        }
        (self.pieces, self.trailers)
    }
}
