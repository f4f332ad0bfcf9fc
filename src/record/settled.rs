use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use http::header::LOCATION;
use http::{HeaderValue, StatusCode};

use super::{Claim, Record, Reply, State, Summary, code};

/// The outcome of an attempt: every [`State`] but in flight.
#[derive(Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The response is stored.
    Completed(Arc<Reply>),
    /// It took effect; the response is not stored.
    Unreplayable {
        /// Status of the response.
        status: StatusCode,
        /// `Location` of the response.
        location: Option<HeaderValue>,
    },
    /// It is unknown whether it took effect.
    Unknown,
}

impl Settlement {
    /// The state of the record, settled at this time (milliseconds since the Unix epoch).
    pub fn at(&self, settled_at: u64) -> State {
        match self {
            Self::Completed(reply) => State::Completed { settled_at, reply: Arc::clone(reply) },
            Self::Unreplayable { status, location } => {
                State::Unreplayable { settled_at, status: *status, location: location.clone() }
            }
            Self::Unknown => State::Unknown { settled_at },
        }
    }

    /// It took effect, and of its response only this is kept.
    pub fn unreplayable(reply: &Reply) -> Self {
        Self::Unreplayable { status: reply.status, location: reply.headers.get(LOCATION).cloned() }
    }
}

/// Responses must not appear in logs.
impl fmt::Debug for Settlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed(reply) => write!(f, "Completed({})", reply.status.as_u16()),
            Self::Unreplayable { status, .. } => write!(f, "Unreplayable({})", status.as_u16()),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

/// A record that is not in flight: the only kind that an owner or an operator writes over a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledRecord(Record);

impl SettledRecord {
    /// The claim with its outcome, settled at this time (milliseconds since the Unix epoch).
    ///
    /// Nobody asks about an outcome that is known: what was kept for that is left out. So is who had settled it before.
    pub fn new(mut claim: Claim, settlement: &Settlement, settled_at: u64) -> Self {
        claim.extensions.remove(code::SETTLED_BY);
        match settlement {
            Settlement::Completed(_) | Settlement::Unreplayable { .. } => claim.extensions.remove(code::PROBE),
            Settlement::Unknown => {}
        }
        Self(Record { claim, state: settlement.at(settled_at) })
    }

    /// The same, settled by what a probe has found.
    pub(super) fn by_probe(mut self) -> Self {
        self.0.claim.extensions.insert(code::SETTLED_BY, &[BY_PROBE]);
        self
    }

    /// `None` for a record in flight.
    pub fn of(record: Record) -> Option<Self> {
        (record.state != State::InFlight).then_some(Self(record))
    }

    /// The same, which may be any record again.
    pub fn into_record(self) -> Record {
        self.0
    }
}

/// The value of [`code::SETTLED_BY`].
const BY_PROBE: u8 = 1;

impl Summary {
    /// Whether it was settled by what a probe had found.
    pub fn is_found_by_probe(&self) -> bool {
        self.settled_at.is_some() && self.claim.extensions.get(code::SETTLED_BY) == Some(&[BY_PROBE])
    }
}

impl Deref for SettledRecord {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.0
    }
}

impl PartialEq<SettledRecord> for Record {
    fn eq(&self, other: &SettledRecord) -> bool {
        *self == other.0
    }
}
