//! What became of a request that was to be sent: the one thing that the caller's "send" brings back.

use std::sync::Arc;

use crate::config::Disposition;
use crate::record::Reply;

/// What became of a request that was to be sent. `R` is the rest of a response that is too large to hold.
#[derive(Debug)]
pub enum Fate<R> {
    /// It certainly did not run.
    NotSent,
    /// The head of an answer came.
    Answered(Answer<R>),
    /// It may have run.
    Unknown(Silence),
}

/// An answer, as far as it was read.
#[derive(Debug)]
pub struct Answer<R> {
    /// Its head, and what was read of its body.
    pub reply: Arc<Reply>,
    /// What the backend itself says is to become of the record (`Onlyonce-Outcome`).
    pub told: Option<Disposition>,
    /// What of the body is not in `reply`.
    pub rest: Rest<R>,
}

/// What of a body was not read.
#[derive(Debug)]
pub enum Rest<R> {
    /// The body is whole.
    Nothing,
    /// There is more than may be held.
    Oversized(R),
    /// It broke off.
    Broken(Silence),
}

/// How an upstream falls silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// It took too long.
    Timeout,
    /// The connection broke.
    Broken,
}
