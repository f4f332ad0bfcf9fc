//! `onlyonce verify`: what an API makes of what clients do, as a table of verdicts.
//!
//! [`VerifyCase`] names the cases and plans their requests; `judge` says what the answers mean; both are pure. Around
//! them, `play.rs` goes from case to case: `player.rs` sends the requests, as a client that waits, gives up, or sends many
//! at once, and `counted.rs` counts what they did. What is not known is never a verdict: where effects can be neither counted
//! nor told by the answers, the table says so.
//!
//! The rules are those of draft-ietf-httpapi-idempotency-key-header-07, of the RFCs, and of Stripe's documentation, which
//! most clients were written for.

mod answer;
mod case;
mod changing;
mod client;
mod counted;
mod counter;
mod effects;
mod error;
mod judge;
mod key_position;
mod key_trace;
mod likeness;
mod plan;
mod play;
mod played;
mod player;
mod request;
mod sent;
mod verdict;

#[cfg(test)]
mod tests;

pub use case::VerifyCase;
pub use error::VerifyError;
pub use key_position::{KeyPosition, KeyPositionError};
pub use plan::RequestDifference;
pub use play::{VerifyProgress, verify};
pub use request::{CountRequest, VerifyRequest};
pub use verdict::{CaseResult, CaseVerdict, EffectBasis, VerifyHarm, VerifyReport};

/// The draft that the rules cite.
pub const DRAFT: &str = "draft-ietf-httpapi-idempotency-key-header-07";
