//! The JSON of the admin API, for the admin listener and for `onlyonce records`: what is said of records.

mod change;
mod question;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use change::{
    BulkReleaseRequest, BulkReleaseResponse, CompleteRequest, NotReleased, ProbeRequest, ProbeResponse, ProbeWord,
    RecordChange, RecordVersionSeen, ReleaseRequest,
};
pub use question::{
    ExplainRequest, ExplainResponse, LookUpRequest, LookUpResponse, ProspectName, RefusalList, RefusedRequest,
    RulesPage, UnknownList,
};

use super::{Timestamp, story};
use crate::record::codec::Unreadable;
use crate::record::transitions::{OwnerState, RecordSnapshot};
use crate::record::{Phase, RecordName, UnknownPolicy};
use crate::units::HumanDuration;

pub use crate::guard::audit::AuditLine;
pub use crate::record::StateName;

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordPage {
    /// In no particular order. May be empty although there are more pages.
    pub records: Vec<RecordEntry>,
    /// The cursor of the next page; `null` after the last.
    pub next: Option<String>,
    /// Where the list is of a route that the sidecar does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_configured: Option<RouteNotConfigured>,
}

/// A name that no route has: it is mistyped, or of a route that was removed or renamed. Its records are kept until they
/// expire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteNotConfigured {
    /// The name.
    pub route: String,
    /// The route that was meant, perhaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<String>,
    /// The routes that there are; the first of them where there are many.
    pub routes: Vec<String>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordEntry {
    /// Its name.
    pub record: String,
    /// The route's name.
    pub route: String,
    /// Its state.
    pub state: StateName,
    /// Why it cannot be read, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The other properties, if it can be read.
    #[serde(flatten)]
    pub facts: Option<RecordFacts>,
}

/// The properties of a readable record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordFacts {
    /// Whether the owner is alive, in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerName>,
    /// Whether a repeat takes over from the lost owner.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_abandoned: bool,
    /// The owner's last sign of life, in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_at: Option<Timestamp>,
    /// Status of the answer, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Whether a probe has found that it was done, and settled it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found_by_probe: bool,
    /// 1 for the first owner, one more for each takeover.
    pub attempt: u32,
    /// By the owner's clock.
    pub claimed_at: Timestamp,
    /// By the clock of the process that settled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Timestamp>,
    /// When it expires, unless it changes.
    pub expires_at: Timestamp,
    /// The owner's lease.
    pub lease: String,
    /// How long the record is kept.
    pub retention: String,
    /// How long an unknown outcome blocks the key; absent where a repeat may take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_for: Option<String>,
    /// The beginning of the digest of the request's body, as in log lines.
    pub fingerprint: String,
}

/// `owner`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum OwnerName {
    Alive,
    Lost,
}

/// One record and its stored answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordDetail {
    /// As in a list.
    #[serde(flatten)]
    pub entry: RecordEntry,
    /// The stored answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<StoredAnswer>,
    /// What operators did to it, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<AuditLine>,
    /// What a repeat does or gets, to follow "a repeat".
    #[serde(default)]
    pub retry: String,
    /// What an operator may do about it.
    #[serde(default)]
    pub advice: String,
}

/// A stored answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredAnswer {
    /// Its status.
    pub status: u16,
    /// Name and value of each field. The values of `Set-Cookie` are shown with the body only.
    pub headers: Vec<(String, String)>,
    /// The same for its trailer fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<(String, String)>,
    /// Length of its body; absent where it was not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// Its body, if requested.
    #[serde(flatten)]
    pub body: BodyContent,
}

/// A body: text, or anything else as base64.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BodyContent {
    /// The body, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in base64, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// An error (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct AdminProblem {
    pub r#type: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
}

impl RecordEntry {
    /// One that is not there.
    pub(super) fn absent(name: &RecordName) -> Self {
        let (record, route) = (name.to_string(), name.route.to_string());
        Self { record, route, state: StateName::Absent, detail: None, facts: None }
    }

    /// The record at the time `now`.
    pub fn new(name: &RecordName, seen: Result<&RecordSnapshot, &Unreadable>, now: Timestamp) -> Self {
        let (state, detail, facts) = match seen {
            Ok(seen) => (seen.summary.phase.into(), None, Some(RecordFacts::new(seen, now))),
            Err(why) => (StateName::Unreadable, Some(why.to_string()), None),
        };
        Self { record: name.to_string(), route: name.route.to_string(), state, detail, facts }
    }
}

impl RecordDetail {
    /// With what there is to say of it.
    pub fn new(entry: RecordEntry, answer: Option<StoredAnswer>, audit: Vec<AuditLine>) -> Self {
        let is_found = entry.facts.as_ref().is_some_and(|facts| facts.found_by_probe);
        let advice = if is_found { story::advice_after_probe(&entry) } else { story::advice(&entry) };
        let (retry, advice) = (story::retry(&entry).to_owned(), advice.to_owned());
        Self { entry, answer, audit, retry, advice }
    }
}

impl RecordFacts {
    fn new(seen: &RecordSnapshot, now: Timestamp) -> Self {
        let claim = &seen.summary.claim;
        let in_flight = seen.summary.phase == Phase::InFlight;
        let owner = match seen.owner() {
            OwnerState::Alive => OwnerName::Alive,
            OwnerState::Lost | OwnerState::Abandoned => OwnerName::Lost,
        };
        let span = |span: Duration| HumanDuration(span).to_string();
        Self {
            owner: in_flight.then_some(owner),
            is_abandoned: in_flight && seen.owner() == OwnerState::Abandoned,
            heard_at: in_flight.then(|| now.before(seen.silent_for)),
            status: seen.summary.status.map(|status| status.as_u16()),
            found_by_probe: seen.summary.is_found_by_probe(),
            attempt: claim.attempt,
            claimed_at: Timestamp { millis: claim.claimed_at },
            settled_at: seen.summary.settled_at.map(|millis| Timestamp { millis }),
            expires_at: now.after(seen.left()),
            lease: span(claim.terms.lease),
            retention: span(claim.terms.retention),
            hold_for: match claim.terms.on_unknown {
                UnknownPolicy::Hold(hold_for) => Some(span(hold_for)),
                UnknownPolicy::Retry => None,
            },
            fingerprint: claim.fingerprint.short().to_string(),
        }
    }
}

impl BodyContent {
    /// Text unchanged, anything else in base64.
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { body: Some(text.to_owned()), body_base64: None },
            Err(_) => Self { body: None, body_base64: Some(STANDARD.encode(bytes)) },
        }
    }

    /// The bytes; none without a body.
    pub fn bytes(self) -> Result<Bytes, &'static str> {
        match (self.body, self.body_base64) {
            (None, None) => Ok(Bytes::new()),
            (Some(text), None) => Ok(text.into()),
            (None, Some(encoded)) => {
                STANDARD.decode(encoded).map(Bytes::from).map_err(|_| "body_base64 is not base64 (RFC 4648, 4)")
            }
            (Some(_), Some(_)) => Err("There are two bodies: give body or body_base64."),
        }
    }
}
