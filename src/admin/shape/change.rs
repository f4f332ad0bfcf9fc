//! What operators do to records.

use serde::{Deserialize, Serialize};

use super::{RecordEntry, RouteNotConfigured, StateName};
use crate::admin::Timestamp;

/// `POST /records/{record}/release`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseRequest {
    /// Even if the owner is alive.
    pub force: bool,
    /// Why, for the record's story.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What the operator saw of it. If it has changed since, nothing is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<RecordVersionSeen>,
}

/// What tells one version of a record from another, as a [`RecordEntry`] has it. Renewals do not change it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RecordVersionSeen {
    pub state: StateName,
    pub attempt: u32,
    pub claimed_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Timestamp>,
}

impl RecordVersionSeen {
    /// `None`: there is no record, or it cannot be read.
    pub fn of(entry: &RecordEntry) -> Option<Self> {
        let facts = entry.facts.as_ref()?;
        let (attempt, claimed_at, settled_at) = (facts.attempt, facts.claimed_at, facts.settled_at);
        Some(Self { state: entry.state, attempt, claimed_at, settled_at })
    }
}

/// `POST /records/{record}/complete`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompleteRequest {
    /// Status of the answer that retries get.
    pub status: u16,
    /// Its header fields.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Its body, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Its body, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// Even if the owner is alive.
    #[serde(default)]
    pub force: bool,
    /// Why, for the record's story.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// As in a [`ReleaseRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<RecordVersionSeen>,
}

/// `POST /records/{record}/probe`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeRequest {
    /// Why, for the record's story.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What came of asking the backend about a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeResponse {
    /// The record's name.
    pub record: String,
    /// What it was.
    pub was: RecordEntry,
    /// What the answer comes to.
    pub probe: ProbeWord,
    /// In words.
    pub detail: String,
    /// When the backend is asked again, in milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_in_ms: Option<u64>,
    /// What the record is now; `null` if the key is free, or if the record could not be read: then `detail` says so.
    pub now: Option<RecordEntry>,
}

/// What the backend's answer comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeWord {
    /// It took effect: the record is completed.
    Found,
    /// It left no trace: the key is free.
    Released,
    /// It left no trace so far.
    Absent,
    /// The answer tells neither.
    Inconclusive,
    /// The backend was not asked, or was a moment ago.
    NotAsked,
    /// There is no answer yet.
    Pending,
    /// The record changed meanwhile.
    Changed,
}

/// The result of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordChange {
    /// The record's name.
    pub record: String,
    /// What it was.
    pub was: RecordEntry,
    /// What it is now; `null` if the key is free.
    pub now: Option<RecordEntry>,
}

/// `POST /records/release`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkReleaseRequest {
    /// Records of this route,
    pub route: String,
    /// in this state,
    pub state: StateName,
    /// settled (in flight: claimed) since then: RFC 3339, or a duration ago.
    pub since: String,
    /// List the records without a change.
    #[serde(default = "yes")]
    pub dry_run: bool,
    /// Why, for the story of each.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The `next` of the previous answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

fn yes() -> bool {
    true
}

/// The result of a bulk release, as far as one call came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BulkReleaseResponse {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The records that were, or would be, released.
    pub released: Vec<RecordEntry>,
    /// The records that were, or would be, left unchanged.
    pub left: Vec<NotReleased>,
    /// The `cursor` of the next call; `null` at the end.
    pub next: Option<String>,
    /// Where the call is about a route that the sidecar does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_configured: Option<RouteNotConfigured>,
}

/// A record that was not released.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotReleased {
    /// Its name.
    pub record: String,
    /// As in a [`AdminProblem`](super::AdminProblem).
    pub code: String,
    /// As in a [`AdminProblem`](super::AdminProblem).
    pub detail: String,
}
