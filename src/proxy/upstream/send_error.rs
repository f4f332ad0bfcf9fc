//! What is known about a request that got no response.
//!
//! A request counts as not sent only if that is proved: hyper returns the request because no byte of it was written, or
//! the backend says that it did not process it. Any other request may have run. A GOAWAY alone proves nothing: the
//! stream may be older than the last one that the backend processed. The number of that last stream proves it.

use std::error::Error;
use std::io;

use http::Request;
use hyper::client::conn::TrySendError;
use tokio_rustls::rustls::{self, AlertDescription};

use super::super::body::request::RequestBody;
use super::super::framing::Unframed;

/// How a request to the upstream failed, by what is known about it.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum SendError {
    /// It certainly did not run.
    #[error("nothing was sent")]
    Unsent(#[source] Unsent),
    /// It may have arrived.
    #[error("the connection broke after the request was sent")]
    Broken(#[source] hyper::Error),
    /// The response does not say where it ends.
    #[error("the answer cannot be read")]
    Unframed(#[source] Unframed),
}

/// Why a request certainly did not run.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum Unsent {
    /// The name cannot be resolved, or the connection is refused.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The certificate of the backend or of this proxy was rejected.
    #[error("no TLS connection")]
    Tls(#[source] io::Error),
    /// The backend does not speak HTTP/2, and `upstream.http2` says so.
    #[error("the backend does not speak HTTP/2, as upstream.http2 = true has it")]
    NoHttp2,
    /// Connecting took too long.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// The connection was gone before it took the request.
    #[error("the connection was closed before the request")]
    Closed(#[source] hyper::Error),
    /// The backend says that it did not process the request (`REFUSED_STREAM`, or a GOAWAY that names an earlier one as
    /// the last; RFC 9113, 8.7).
    #[error("the backend refused the request before it looked at it")]
    Refused(#[source] hyper::Error),
    /// The owner's hold on its record could not be confirmed.
    #[error("the lease could not be confirmed")]
    LeaseInDoubt,
}

/// A request that ended with an error instead of a response.
pub(super) enum SendFailure {
    /// hyper returned it: no byte of it was written.
    Unwritten(Box<Request<RequestBody>>, hyper::Error),
    /// It was written, at least in part.
    Written(SendError),
}

impl SendFailure {
    /// `first`: nothing was sent on the connection before.
    pub(super) fn of(mut error: TrySendError<Request<RequestBody>>, first: bool) -> Self {
        match error.take_message() {
            Some(request) => Self::Unwritten(Box::new(request), error.into_error()),
            None => Self::Written(SendError::of(error.into_error(), first)),
        }
    }
}

impl SendError {
    fn of(error: hyper::Error, first: bool) -> Self {
        if found::<h2::Error>(&error).is_some_and(is_refusal) {
            return Self::Unsent(Unsent::Refused(error));
        }
        match found::<io::Error>(&error) {
            Some(cause) if first && is_turned_down(cause) => Self::Unsent(Unsent::Tls(io::Error::other(error))),
            _ => Self::Broken(error),
        }
    }

    /// The same failure when the backend has said that it did not process the request.
    pub(super) fn unprocessed(self) -> Self {
        match self {
            Self::Broken(error) => Self::Unsent(Unsent::Refused(error)),
            other @ (Self::Unsent(_) | Self::Unframed(_)) => other,
        }
    }

    /// Whether the connection came to its end before an answer began, so that a request that may be repeated at all can
    /// be tried on another one (RFC 9110, 9.2.2).
    pub(super) fn is_end_of_connection(&self) -> bool {
        match self {
            Self::Unsent(Unsent::Refused(_)) => true,
            Self::Unsent(_) | Self::Unframed(_) => false,
            Self::Broken(error) => {
                error.is_incomplete_message()
                    || error.is_closed()
                    || match found::<h2::Error>(error) {
                        Some(cause) => cause.is_go_away() || cause.is_io(),
                        None => found::<io::Error>(error).is_some(),
                    }
            }
        }
    }
}

/// The backend itself refused the stream.
fn is_refusal(error: &h2::Error) -> bool {
    error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

/// A server may reject a client's certificate after the client has finished the handshake (TLS 1.3). It reads no
/// request before that (RFC 8446, 4.4.4): such an alert on a new connection proves that nothing was run.
fn is_turned_down(error: &io::Error) -> bool {
    let alert = match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => return false,
    };
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateRequired
            | AlertDescription::AccessDenied
            // Happens in a handshake only: a wrong signature.
            | AlertDescription::DecryptError
    )
}

/// The first cause of this kind.
fn found<T: Error + 'static>(error: &hyper::Error) -> Option<&T> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
