//! Reads a request body into memory.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
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
    let mut buffer = BodyBuffer::new(cap, budget.reserve());
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
    length: u64,
    /// A single frame is used as it is; several are copied into one piece.
    first: Bytes,
    whole: BytesMut,
    reservation: Reservation,
}

impl BodyBuffer {
    pub(in crate::proxy) fn new(cap: u64, reservation: Reservation) -> Self {
        Self { cap, length: 0, first: Bytes::new(), whole: BytesMut::new(), reservation }
    }

    /// Whether a body of this length is allowed.
    pub(in crate::proxy) fn fits(&self, length: u64) -> bool {
        length <= self.cap
    }

    pub(in crate::proxy) fn add(&mut self, piece: Bytes) -> Result<(), BodyReadError> {
        self.length += piece.len() as u64;
        if !self.fits(self.length) {
            return Err(BodyReadError::TooLarge);
        }
        // Only bytes that have arrived are reserved, not the announced length.
        if !self.reservation.grow(piece.len()) {
            return Err(BodyReadError::NoRoom);
        }
        if self.length == piece.len() as u64 {
            self.first = piece;
            return Ok(());
        }
        if self.whole.is_empty() {
            self.whole.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.whole.extend_from_slice(&piece);
        Ok(())
    }

    pub(in crate::proxy) fn into_bytes(self) -> Bytes {
        self.reservation.hold(if self.whole.is_empty() { self.first } else { self.whole.freeze() })
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
