//! What became of a request that was to be sent: the one thing that the caller's "send" brings back.

use std::sync::Arc;

use crate::config::Disposition;
use crate::record::Reply;

/// What became of a request that was to be sent. `R` is the rest of a response that is too large to hold.
#[derive(Debug)]
pub enum SendOutcome<R> {
    /// It certainly did not run.
    NotSent,
    /// The head of an answer came.
    Answered(ReceivedResponse<R>),
    /// It may have run.
    Unknown(LostReason),
}

/// An answer, as far as it was read.
#[derive(Debug)]
pub struct ReceivedResponse<R> {
    /// Its head, and what was read of its body.
    pub reply: Arc<Reply>,
    /// What the backend itself says is to become of the record (`Onlyonce-Outcome`).
    pub origin_directive: Option<Disposition>,
    /// What of the body is not in `reply`.
    pub rest: BodyRemainder<R>,
}

/// What of a body was not read.
#[derive(Debug)]
pub enum BodyRemainder<R> {
    /// The body is whole.
    Nothing,
    /// There is more than may be held.
    Oversized(R),
    /// It broke off.
    Broken(LostReason),
}

/// How an upstream falls silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReason {
    /// It took too long.
    Timeout,
    /// The connection broke.
    Broken,
}
