//! What is remembered about an operation, and how it may change. Pure: no clock, no I/O.
//!
//! A [`Record`] is a [`Claim`] (who owns the operation, and under which terms) and a [`State`].
//! [`transitions`] holds every step from one record to the next; each store carries them out atomically,
//! in its own way, and is tested against them. [`codec`] gives a record its bytes, and [`chunks`] a large body.

pub mod chunks;
pub mod codec;
mod extensions;
mod hex;
mod reply;
pub mod transitions;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

pub use extensions::{Extensions, code};
pub use hex::Hex;
pub use reply::Reply;

/// What one store holds about one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who claimed it, and under which terms. Never changes while the record is in flight.
    pub claim: Claim,
    /// How far it came.
    pub state: State,
}

/// One request's ownership of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Must be presented with every later write to the record.
    pub token: Token,
    /// 1 for the first owner; one more for each takeover.
    pub attempt: u32,
    /// What governs the record, whoever reads it and whatever their configuration says.
    pub terms: Terms,
    /// What the key was used for.
    pub fingerprint: Fingerprint,
    /// When it was claimed, by the owner's wall clock, in milliseconds since the Unix epoch. For people: no
    /// decision rests on it.
    pub claimed_at: u64,
    /// What versions to come have put beside it, and this one keeps.
    pub extensions: Extensions,
}

/// How far an operation came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The owner is at work, or was lost.
    InFlight,
    /// The answer is here and is replayed.
    Completed {
        /// Milliseconds since the Unix epoch.
        settled_at: u64,
        /// The answer.
        reply: Arc<Reply>,
    },
    /// It was done, and the answer is not here to be replayed.
    Unreplayable {
        /// Milliseconds since the Unix epoch.
        settled_at: u64,
        /// Status of the answer.
        status: StatusCode,
        /// `Location` of the answer.
        location: Option<HeaderValue>,
    },
    /// It was started, and whether it took effect cannot be told.
    Unknown {
        /// Milliseconds since the Unix epoch.
        settled_at: u64,
    },
}

/// [`State`] without what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// [`State::InFlight`]
    InFlight,
    /// [`State::Completed`]
    Completed,
    /// [`State::Unreplayable`]
    Unreplayable,
    /// [`State::Unknown`]
    Unknown,
}

/// A record without its answer: what a list of records tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Who claimed it, and under which terms.
    pub claim: Claim,
    /// How far it came.
    pub phase: Phase,
    /// Milliseconds since the Unix epoch; `None` in flight.
    pub settled_at: Option<u64>,
    /// Status of the answer, where there was one.
    pub status: Option<StatusCode>,
}

impl Record {
    /// All but the answer.
    pub fn summary(&self) -> Summary {
        let (phase, settled_at, status) = match &self.state {
            State::InFlight => (Phase::InFlight, None, None),
            State::Completed { settled_at, reply } => (Phase::Completed, Some(*settled_at), Some(reply.status)),
            State::Unreplayable { settled_at, status, .. } => (Phase::Unreplayable, Some(*settled_at), Some(*status)),
            State::Unknown { settled_at } => (Phase::Unknown, Some(*settled_at), None),
        };
        Summary { claim: self.claim.clone(), phase, settled_at, status }
    }
}

/// The terms of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long the owner may stay silent before it counts as lost.
    pub lease: Duration,
    /// How long the record lives, from its claim, from each renewal, and anew from its settling.
    pub retention: Duration,
    /// What an outcome that cannot be told means for the key.
    pub on_unknown: UnknownPolicy,
}

/// What an outcome that cannot be told means for the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownPolicy {
    /// It stays blocked for this long.
    Hold(Duration),
    /// A repeat may take over once the lease has run out.
    Retry,
}

/// Random, one for each claim.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex::of(&self.0).fmt(f)
    }
}

/// What a key was used for: to notice a key that comes back for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Keyed digest of method, path and query.
    pub target: [u8; 16],
    /// Which recipe made `body`: digests of different recipes cannot be compared.
    pub recipe: u64,
    /// Keyed digest of the body.
    pub body: [u8; 16],
}

/// How two fingerprints of one operation compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The same request, as far as can be told.
    Same,
    /// Same target; the bodies were digested by different recipes, so they count as the same.
    Incomparable,
    /// Same target, another body.
    OtherBody,
    /// Another method, path or query.
    OtherTarget,
}

impl Comparison {
    /// Whether the two may be of one request: nothing says that they are not.
    pub fn may_be_same(self) -> bool {
        match self {
            Self::Same | Self::Incomparable => true,
            Self::OtherBody | Self::OtherTarget => false,
        }
    }
}

impl Fingerprint {
    /// Compares a repeat's fingerprint with the recorded one.
    pub fn compare(&self, recorded: &Self) -> Comparison {
        if self.target != recorded.target {
            Comparison::OtherTarget
        } else if self.recipe != recorded.recipe {
            Comparison::Incomparable
        } else if self.body != recorded.body {
            Comparison::OtherBody
        } else {
            Comparison::Same
        }
    }

    /// Enough of the body's to tell two of one key apart.
    pub fn short(&self) -> Hex<4> {
        let [a, b, c, d, ..] = self.body;
        Hex::of(&[a, b, c, d])
    }
}

/// `route:digest`, the name of an operation's record in logs, problems and on the command line.
/// Stores put their prefix before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordName {
    /// The route's name.
    pub route: Arc<str>,
    /// Keyed digest of scope and key.
    pub digest: [u8; 16],
}

/// Ends the name of a route whose requests are observed; no route is named like this.
const OBSERVED: &str = "@observe";

impl RecordName {
    /// The record of the same operation where it is observed only: in a name space of its own.
    pub fn observed(&self) -> Self {
        Self { route: format!("{}{OBSERVED}", self.route).into(), digest: self.digest }
    }

    /// Whether it is such a record.
    pub fn is_observed(&self) -> bool {
        self.route.ends_with(OBSERVED)
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.route)?;
        f.write_str(":")?;
        f.write_str(Hex::of(&self.digest).as_str())
    }
}

/// A text that is not the name of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record is named route:digest, and the digest is 32 hex digits in lower case")]
pub struct NotAName;

impl FromStr for RecordName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let (route, hex) = text.rsplit_once(':').ok_or(NotAName)?;
        let fine = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if route.is_empty() || hex.len() != 32 || !fine {
            return Err(NotAName);
        }
        let digest = u128::from_str_radix(hex, 16).map_err(|_| NotAName)?.to_be_bytes();
        Ok(Self { route: route.into(), digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let name = RecordName { route: "create-order".into(), digest: *b"\x00\xff an operation." };
        assert_eq!(name.to_string().parse(), Ok(name));
        let digest = "0123456789abcdef0123456789abcdef";
        for text in
            ["", "orders", &format!(":{digest}"), &format!("orders:{digest}0"), &format!("orders:+{}", &digest[1..])]
        {
            assert_eq!(text.parse::<RecordName>(), Err(NotAName), "{text}");
        }
        assert_eq!(format!("orders:{}", digest.to_uppercase()).parse::<RecordName>(), Err(NotAName));
    }
}
