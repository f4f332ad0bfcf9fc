//! What came of asking the backend about a record.

use std::time::Duration;

use http::StatusCode;

use super::reading::Inconclusive;
use crate::key::NoProbe;
use crate::metrics::ProbeResult;

/// What came of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The attempt took effect: the record is completed. The status of the answer.
    Completed(StatusCode),
    /// The attempt left no trace, seen twice: the key is free.
    Released,
    /// It left no trace so far. The backend is asked again after this time.
    Absent(Duration),
    /// The answer tells neither.
    Inconclusive(Inconclusive),
    /// The backend was not asked.
    NotAsked(NotAsked),
    /// The record is not unknown any more, or has changed meanwhile.
    Changed,
}

/// What somebody gets who waits for the next answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextAnswer {
    /// It came, or there is nothing to ask.
    Came(ProbeOutcome),
    /// The backend was asked a moment ago, and is not asked again before that.
    NotDue {
        /// What came of the last question.
        last: ProbeOutcome,
        /// The time until the next one.
        due_in: Duration,
    },
    /// It did not come in time. It is acted on when it comes.
    Outstanding,
    /// Whoever asked has stopped without a word.
    Never,
}

/// Why the backend was not asked, or its answer not acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    /// Values of the first request are needed, and the record does not have them.
    #[error("what to ask for is not kept with the record (store.encryption_keys; 4 KiB at most)")]
    NotKept,
    /// The backend may go by the host, and the record does not have that of the first request.
    #[error(
        "the Host of the first request is not kept with the record (store.encryption_keys), and its route has no host"
    )]
    HostNotKept,
    /// The owner was lost, and the record does not tell how long its attempt may take.
    #[error("how long the attempt of a lost owner may take is not kept with the record (store.encryption_keys)")]
    TimeoutNotKept,
    /// A value of the first request cannot stand in a path.
    #[error("{0}")]
    Unusable(NoProbe),
    /// The route has no probe.
    #[error("its route has no [route.probe]")]
    NoProbe,
    /// Only the owner may ask, with the credentials of its client.
    #[error("the route's probe has no credential of its own (probe.authorization)")]
    NoCredential,
    /// One sidecar at a time asks about a record.
    #[error("another sidecar is asking about this record")]
    AnotherAsks,
    /// The store did not answer.
    #[error("the store did not answer")]
    Store,
    /// The record is damaged, or of a newer version.
    #[error("the record cannot be read")]
    Unreadable,
    /// Too many records are asked about.
    #[error("too many unknown outcomes are asked about at once")]
    Busy,
}

impl ProbeOutcome {
    /// The label of the metric. `None`: there was nothing to ask about, or it is another sidecar's to ask.
    pub(super) fn result(&self) -> Option<ProbeResult> {
        match self {
            Self::Completed(_) => Some(ProbeResult::Found),
            Self::Released | Self::Absent(_) => Some(ProbeResult::Absent),
            Self::Inconclusive(_) => Some(ProbeResult::Inconclusive),
            Self::Changed | Self::NotAsked(NotAsked::AnotherAsks) => None,
            Self::NotAsked(_) => Some(ProbeResult::NotAsked),
        }
    }
}
