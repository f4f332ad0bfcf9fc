//! What is stored about an operation, and how it may change. Pure: no clock, no I/O.
//!
//! A [`Record`] is a [`Claim`] (who owns the operation, and under which terms) and a [`State`]. [`transitions`] holds
//! every step from one record to the next; each store carries these out atomically and is tested against them. [`probe`]
//! has those that an answer of the backend allows.
//! [`codec`] is the byte layout of a record, and [`chunks`] that of a large body; [`compression`] and
//! [`encryption`] are what may be done to both.

pub mod chunks;
pub mod codec;
pub mod compression;
pub mod encryption;
mod extensions;
mod hex;
pub mod probe;
mod reply;
mod settled;
mod state_name;
pub mod transitions;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use chunks::ApartBody;

pub use extensions::{Extensions, code};
pub use hex::Hex;
pub use reply::{Reply, ReplyBody};
pub use settled::{SettledRecord, Settlement};
pub use state_name::StateName;

/// What a store holds about one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who owns it, and under which terms. Does not change while the record is in flight.
    pub claim: Claim,
    /// How far the operation is.
    pub state: State,
}

/// One request's ownership of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Needed for every later write to the record.
    pub token: Token,
    /// 1 for the first owner, and one more for each takeover.
    pub attempt: u32,
    /// The terms of the record. They apply to every reader, whatever its configuration.
    pub terms: Terms,
    /// The request that the key was used for.
    pub fingerprint: Fingerprint,
    /// When it was claimed, by the owner's wall clock, in milliseconds since the Unix epoch. For people only: nothing
    /// is decided by it.
    pub claimed_at: u64,
    /// What later versions have added, which this one keeps.
    pub extensions: Extensions,
}

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The owner is running, or was lost.
    InFlight,
    /// It took effect, and the response is stored.
    Completed {
        /// Milliseconds since the Unix epoch.
        settled_at: u64,
        /// The response.
        reply: Arc<Reply>,
    },
    /// It took effect, and the response is not stored.
    Unreplayable {
        /// Milliseconds since the Unix epoch.
        settled_at: u64,
        /// Status of the response.
        status: StatusCode,
        /// `Location` of the response.
        location: Option<HeaderValue>,
    },
    /// It was sent, and it is unknown whether it took effect.
    Unknown {
        /// Milliseconds since the Unix epoch.
        settled_at: u64,
    },
}

impl State {
    /// The same without its contents.
    pub fn phase(&self) -> Phase {
        match self {
            Self::InFlight => Phase::InFlight,
            Self::Completed { .. } => Phase::Completed,
            Self::Unreplayable { .. } => Phase::Unreplayable,
            Self::Unknown { .. } => Phase::Unknown,
        }
    }
}

/// A [`State`] without its contents.
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

/// A record without its response, as it is shown in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Who claimed it, and under which terms.
    pub claim: Claim,
    /// How far it is.
    pub phase: Phase,
    /// Milliseconds since the Unix epoch; `None` in flight.
    pub settled_at: Option<u64>,
    /// Status of the response, if there is one.
    pub status: Option<StatusCode>,
}

impl Record {
    /// The body of the response, if it is stored apart.
    pub fn apart_body(&self) -> Option<&ApartBody> {
        match &self.state {
            State::Completed { reply, .. } => match &reply.body {
                ReplyBody::Apart(body) => Some(body),
                ReplyBody::Held(_) | ReplyBody::Compressed(_) => None,
            },
            State::InFlight | State::Unreplayable { .. } | State::Unknown { .. } => None,
        }
    }

    /// All but the response.
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
    /// How long the owner may be silent before it counts as lost.
    pub lease: Duration,
    /// How long the record lives: from its claim, again from each renewal, and again from its settling.
    pub retention: Duration,
    /// What an unknown outcome means for the key.
    pub on_unknown: UnknownPolicy,
}

/// What an unknown outcome means for the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownPolicy {
    /// It stays blocked for this time.
    Hold(Duration),
    /// A repeat may take over after the lease.
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

/// The request that a key was used for, to detect a key that is used for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Keyed digest of method, path and query.
    pub target: [u8; 16],
    /// Which recipe made `body`. Digests of different recipes cannot be compared.
    pub recipe: u64,
    /// Keyed digest of the body.
    pub body: [u8; 16],
}

/// How the fingerprints of two requests with one key compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The same request.
    Same,
    /// Same target; the bodies have digests of different recipes. This counts as the same request.
    Incomparable,
    /// Same target, different body.
    OtherBody,
    /// Different method, path or query.
    OtherTarget,
}

impl Comparison {
    /// Whether the two may be the same request.
    pub fn may_be_same(self) -> bool {
        match self {
            Self::Same | Self::Incomparable => true,
            Self::OtherBody | Self::OtherTarget => false,
        }
    }
}

impl Fingerprint {
    /// Compares the fingerprint of a repeat with the recorded one.
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

    /// The first bytes of the body's digest: enough to tell two requests of one key apart in a log.
    pub fn short(&self) -> Hex<4> {
        let [a, b, c, d, ..] = self.body;
        Hex::of(&[a, b, c, d])
    }
}

/// `route:digest`, the name of a record in logs, problems and on the command line. Stores put their prefix before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordName {
    /// The route's name.
    pub route: Arc<str>,
    /// Keyed digest of scope and key.
    pub digest: [u8; 16],
}

/// Appended to the name of a route in observe mode. No route can have such a name.
const OBSERVED: &str = "@observe";

/// The name of the route itself, where `name` is that of its records in observe mode.
pub fn without_observed(name: &str) -> &str {
    name.strip_suffix(OBSERVED).unwrap_or(name)
}

/// Appended to the name of a route: what operators did to its records. No route can have such a name.
const AUDIT: &str = "@audit";

/// Appended to the name of a route: who asks the backend about one of its records. No route can have such a name.
const PROBE_LOCK: &str = "@probe";

impl RecordName {
    /// The record of the same operation in observe mode, under a name of its own.
    pub fn observed(&self) -> Self {
        Self { route: format!("{}{OBSERVED}", self.route).into(), digest: self.digest }
    }

    /// What operators did to this record, under a name of its own.
    pub fn audit(&self) -> Self {
        Self { route: format!("{}{AUDIT}", self.route).into(), digest: self.digest }
    }

    /// The lock of whoever asks the backend about this record, under a name of its own.
    pub fn probe_lock(&self) -> Self {
        Self { route: format!("{}{PROBE_LOCK}", self.route).into(), digest: self.digest }
    }

    /// Whether this is the record of a request, and not one that is kept beside it: [`audit`](Self::audit),
    /// [`probe_lock`](Self::probe_lock).
    pub fn is_of_request(&self) -> bool {
        !self.route.ends_with(AUDIT) && !self.route.ends_with(PROBE_LOCK)
    }

    /// Whether this is the record of an observed request.
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
#[error(
    "a record is named route:digest, and the digest is 32 hex digits in lower case: copy it whole, from the log or a list"
)]
pub struct NotAName;

impl FromStr for RecordName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let (route, digits) = text.rsplit_once(':').ok_or(NotAName)?;
        let digest = hex::parse(digits).filter(|_| !route.is_empty()).ok_or(NotAName)?;
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
