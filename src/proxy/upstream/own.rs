//! Answers to requests of the proxy's own, which it reads itself.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use super::super::body::error::BodyError;
use super::super::budget::Budget;
use super::super::head;
use super::capture::{Capture, Captured};
use super::response::UpstreamBody;
use super::send_error::SendError;

/// An answer to the proxy itself.
pub(in crate::proxy) struct OwnAnswer {
    pub(in crate::proxy) status: StatusCode,
    /// Without fields of one connection, and without a length.
    pub(in crate::proxy) headers: HeaderMap,
    /// The body, with its reservation.
    pub(in crate::proxy) body: Vec<Bytes>,
    /// Whether that is all of it.
    pub(in crate::proxy) is_whole: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum AskError {
    #[error(transparent)]
    Sending(#[from] SendError),
    #[error("the answer broke off")]
    Reading(#[from] BodyError),
}

impl OwnAnswer {
    /// Reads it, up to `most` bytes of its body.
    pub(super) async fn read(response: Response<UpstreamBody>, most: u64, budget: &Budget) -> Result<Self, AskError> {
        let (mut parts, mut body) = response.into_parts();
        head::cross_response(&mut parts.headers, body.fields());
        head::remove_framing(&mut parts.headers);
        let mut capture = Capture::new(most, budget);
        let is_whole = match capture.read(&mut body, None).await? {
            Captured::Whole => true,
            Captured::Full => false,
        };
        let (body, _trailers) = capture.finish();
        Ok(Self { status: parts.status, headers: parts.headers, body, is_whole })
    }
}
