//! What the state of a record is called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Phase;

/// `state`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum StateName {
    InFlight,
    Completed,
    Unreplayable,
    Unknown,
    /// It is damaged, or of a newer version.
    Unreadable,
    /// It is not there. No list has such a one.
    Absent,
}

impl StateName {
    /// Those that a record may have.
    pub const ALL: [Self; 5] = [Self::InFlight, Self::Completed, Self::Unreplayable, Self::Unknown, Self::Unreadable];

    /// As written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Completed => "completed",
            Self::Unreplayable => "unreplayable",
            Self::Unknown => "unknown",
            Self::Unreadable => "unreadable",
            Self::Absent => "absent",
        }
    }
}

impl From<Phase> for StateName {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::InFlight => Self::InFlight,
            Phase::Completed => Self::Completed,
            Phase::Unreplayable => Self::Unreplayable,
            Phase::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StateName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            format!("'{text}' is no state: choose one of {all}")
        })
    }
}
