//! Every step a record can take. The stores carry these out atomically; nothing else decides.
//!
//! ```text
//!            claim                 settle
//!   absent ─────────▶ in flight ───────────▶ completed, unreplayable   (final)
//!     ▲                │  │  ▲ └────────────▶ unknown ─▶ (late answer) completed, unreplayable
//!     │     release    │  │  │ takeover: lost owner; another token, attempt + 1
//!     └────────────────┘  └──┘
//! ```

use std::time::Duration;

use super::{Claim, Comparison, Record, State, Token, Unknown};

/// A record as a store holds it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The record.
    pub record: Record,
    /// How long the owner has been silent: the retention less the remaining time to live, on the
    /// store's clock. Means something only while the record is in flight.
    pub silent_for: Duration,
}

/// What has become of the owner of a record in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It was heard of within its lease.
    Alive,
    /// It was not, and the key is not yet free for another attempt.
    Lost,
    /// It was not, and a repeat may take over.
    Abandoned,
}

impl Held {
    /// What has become of the owner, if the record is in flight.
    pub fn owner(&self) -> Owner {
        let terms = &self.record.claim.terms;
        if self.silent_for < terms.lease {
            return Owner::Alive;
        }
        match terms.on_unknown {
            Unknown::Hold(hold_for) if self.silent_for < hold_for => Owner::Lost,
            Unknown::Hold(_) | Unknown::Retry => Owner::Abandoned,
        }
    }
}

/// What a claim does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimMove {
    /// Write this claim, with the full retention to live. It was absent, or its owner was lost.
    Write(Claim),
    /// The record is this very claim: an earlier try of it arrived.
    AlreadyMine(Claim),
    /// Leave the record alone.
    Refuse(Box<Held>),
}

/// A request asks to own the operation.
pub fn claim(held: Option<Held>, wanted: &Claim) -> ClaimMove {
    let Some(held) = held else {
        return ClaimMove::Write(wanted.clone());
    };
    if held.record.state == State::InFlight && held.record.claim.token == wanted.token {
        return ClaimMove::AlreadyMine(held.record.claim);
    }
    match takeover(&held, wanted) {
        Some(claim) => ClaimMove::Write(claim),
        None => ClaimMove::Refuse(Box::new(held)),
    }
}

/// The claim that replaces a lost owner's, where that is allowed. A key that was used for something else is
/// refused whatever became of its owner.
pub fn takeover(held: &Held, wanted: &Claim) -> Option<Claim> {
    let same = match wanted.fingerprint.compare(&held.record.claim.fingerprint) {
        Comparison::Same | Comparison::Incomparable => true,
        Comparison::OtherBody | Comparison::OtherTarget => false,
    };
    let abandoned = held.record.state == State::InFlight && held.owner() == Owner::Abandoned;
    (same && abandoned).then(|| Claim { attempt: held.record.claim.attempt.saturating_add(1), ..wanted.clone() })
}

/// What a renewal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewMove {
    /// Set the time to live back to the retention.
    Extend,
    /// The record is gone: write the claim again.
    ClaimAgain,
    /// Somebody else's, or settled: leave it alone.
    Refuse,
}

/// An owner says that it is alive.
pub fn renew(held: Option<&Record>, token: Token) -> RenewMove {
    match held {
        None => RenewMove::ClaimAgain,
        Some(record) if record.claim.token == token && record.state == State::InFlight => RenewMove::Extend,
        Some(_) => RenewMove::Refuse,
    }
}

/// Whether an owner's settling is written; otherwise the record that is there stays.
///
/// A settling that finds nothing is written: the execution did happen, so later repeats must learn of it.
pub fn settles(held: Option<&Record>, token: Token) -> bool {
    held.is_none_or(|record| {
        record.claim.token == token
            && match record.state {
                State::InFlight | State::Unknown { .. } => true,
                State::Completed { .. } | State::Unreplayable { .. } => false,
            }
    })
}

/// Whether an owner's release deletes the record.
pub fn releases(held: &Record, token: Token) -> bool {
    held.claim.token == token && held.state == State::InFlight
}

/// How long a record lives once it is written.
pub fn time_to_live(record: &Record) -> Duration {
    match (&record.state, record.claim.terms.on_unknown) {
        (State::Unknown { .. }, Unknown::Hold(hold_for)) => hold_for,
        _ => record.claim.terms.retention,
    }
}
