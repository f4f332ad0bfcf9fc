//! `onlyonce verify`: what an API makes of what clients do, as a table of verdicts.
//!
//! [`VerifyCase`] names the cases and plans their requests; `judge` says what the answers mean; both are pure. Around
//! them, `play.rs` sends the requests of one case after the other, as a client that waits, gives up, or sends many at
//! once. What is not known is never a verdict: where effects can be neither counted nor told by the answers, the table says so.
//!
//! The rules are those of draft-ietf-httpapi-idempotency-key-header-07, of the RFCs, and of Stripe's documentation, which
//! most clients were written for.

mod answer;
mod case;
mod client;
mod counter;
mod effects;
mod judge;
mod key_position;
mod likeness;
mod play;
mod played;
mod request;
mod sent;
mod verdict;

#[cfg(test)]
mod tests;

pub use case::VerifyCase;
pub use key_position::{KeyPosition, KeyPositionError};
pub use play::{VerifyError, verify};
pub use request::{CountRequest, VerifyRequest};
pub use verdict::{CaseResult, CaseVerdict, EffectBasis, VerifyHarm, VerifyReport};

/// The draft that the rules cite.
pub const DRAFT: &str = "draft-ietf-httpapi-idempotency-key-header-07";

/// The most requests that counting takes.
pub fn most_counts() -> usize {
    let counted = VerifyCase::ALL.into_iter().filter(|case| case.is_counted()).count();
    counter::EffectCounter::most_requests(counted)
}
