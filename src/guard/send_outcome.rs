//! The outcome of sending a request, as the caller reports it to the guard.

use std::sync::Arc;

use crate::record::Reply;
use crate::rule::Disposition;

/// The outcome of sending a request. `R` is the rest of a response that is too large to keep.
#[derive(Debug)]
pub enum SendOutcome<R> {
    /// The request certainly did not run.
    NotSent,
    /// The head of a response was received.
    Answered(ReceivedResponse<R>),
    /// The request may have run.
    Unknown(LostReason),
}

/// A response, as far as it was read.
#[derive(Debug)]
pub struct ReceivedResponse<R> {
    /// The head, and what was read of the body.
    pub reply: Arc<Reply>,
    /// What the backend itself wants for the record (`Onlyonce-Outcome`).
    pub origin_directive: Option<Disposition>,
    /// The part of the body that is not in `reply`.
    pub rest: BodyRemainder<R>,
}

/// The part of a body that was not read.
#[derive(Debug)]
pub enum BodyRemainder<R> {
    /// None: the body is complete.
    Nothing,
    /// There is more than may be kept.
    Oversized(R),
    /// The body broke off.
    Broken(LostReason),
}

/// Why a response was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReason {
    /// It took too long.
    Timeout,
    /// The connection broke.
    Broken,
}
