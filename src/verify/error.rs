//! Why an API could not be judged at all.

use http::StatusCode;

use super::key_position::KeyPositionError;

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The key cannot be put where it should go.
    #[error(transparent)]
    Key(#[from] KeyPositionError),
    /// The server cannot be named, or not be trusted.
    #[error("{0}")]
    Server(String),
    /// No answer at all.
    #[error("the request gets no answer: {0}")]
    NoAnswer(String),
    /// The first request is refused.
    #[error("the request is refused with {0}, without a case being tried")]
    Refused(StatusCode),
    /// The second one, with another key, is refused.
    #[error("the same request with another key is refused with {0}: no case can be told from another")]
    SecondRefused(StatusCode),
    /// The count cannot be read.
    #[error("the effects cannot be counted at {path}: {why}")]
    Count {
        /// Without the query, which may hold a credential.
        path: String,
        /// Why not.
        why: String,
    },
}
