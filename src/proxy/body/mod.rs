//! Bodies: read with a cap, sent from memory, or forwarded. Each file uses only those before it in this list: error,
//! progress, incoming, buffer, idle_timeout, tee, request, relay, relayed, replayed, end_notifier, injection, response.

pub(super) mod buffer;
pub(super) mod end_notifier;
pub(super) mod error;
pub(super) mod idle_timeout;
pub(super) mod incoming;
pub(super) mod injection;
pub(super) mod progress;
pub(super) mod relay;
pub(super) mod relayed;
pub(super) mod replayed;
pub(super) mod request;
pub(super) mod response;
pub(super) mod tee;

use bytes::Bytes;
use http_body::Frame;

use super::head;

/// A frame without trailers that must not be forwarded.
fn sanitize_trailers(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        head::cross_trailers(trailers);
    }
    frame
}
