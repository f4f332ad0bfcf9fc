//! The JSON of the admin API, for the admin listener and for `onlyonce records`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::audit::AuditLine;
use super::{Timestamp, story};
use crate::config::RecordPlacement;
use crate::metrics::Refused;
use crate::record::codec::Unreadable;
use crate::record::transitions::{OwnerState, RecordSnapshot};
use crate::record::{Phase, RecordName, UnknownPolicy};
use crate::rule::Naming;
use crate::units::HumanDuration;

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordPage {
    /// In no particular order. May be empty although there are more pages.
    pub records: Vec<RecordEntry>,
    /// The cursor of the next page; `null` after the last.
    pub next: Option<String>,
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
    /// The owner's last sign of life, in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_at: Option<Timestamp>,
    /// Status of the answer, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
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

/// `GET /unknown`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnknownList {
    /// Records of which nobody knows whether they took effect, as far as this process knows now.
    pub count: usize,
    /// Those that have waited for longest.
    pub records: Vec<RecordEntry>,
}

/// `GET /refusals`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusalList {
    /// The last ones of this process, the latest first.
    pub refusals: Vec<RefusedRequest>,
}

/// A request that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusedRequest {
    /// Which one since the start.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// The route's name.
    pub route: String,
    /// As its client got it.
    pub status: u16,
    /// As its client got it.
    pub code: String,
    /// Why, in plain words.
    pub detail: String,
    /// The record that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
}

/// `POST /look-up`: a request of which only key and caller are known.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookUpRequest {
    /// The route's name.
    pub route: String,
    /// A value for each part of its key.
    pub key: Vec<String>,
    /// A value for each part of its scope; an empty one: the request had none.
    pub scope: Vec<String>,
    /// Path and query, where they belong to the record's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LookUpResponse {
    /// The record's name, whether it is there or not.
    pub looked_for: Vec<String>,
    /// The record, if it is there.
    pub records: Vec<RecordDetail>,
}

/// `GET /rules`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RulesPage {
    /// The inputs of the names of each route's records.
    pub routes: Vec<Naming>,
    /// Where they are kept.
    #[serde(flatten)]
    pub keeping: RecordPlacement,
    /// Whether the digest key is the one in the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_digest_key: Option<bool>,
}

/// `POST /explain`: a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// Its method.
    pub method: String,
    /// Its URL, or only path and query.
    pub url: String,
    /// Name and value of each field.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Its body.
    #[serde(flatten)]
    pub body: BodyContent,
}

/// What would happen to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainResponse {
    /// Its route, if one matches.
    pub route: Option<String>,
    /// Its record, if it is guarded and has a valid key.
    pub record: Option<String>,
    /// What the store holds under that name.
    pub now: Option<RecordEntry>,
    /// What it would get.
    pub request: Option<ProspectName>,
}

/// What a request would get now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ProspectName {
    Runs,
    TakesOver,
    Replayed,
    InFlight,
    /// The key was used with another body.
    KeyReused,
    /// The same, where that is a conflict (`on_mismatch`).
    KeyConflict,
    /// The key was used for another method, path or query.
    KeyReusedElsewhere,
    OutcomeUnknown,
    AlreadyCompleted,
    Unreadable,
}

/// `POST /records/{record}/release`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseRequest {
    /// Even if the owner is alive.
    pub force: bool,
    /// Why, for the record's story.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
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
}

/// A record that was not released.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotReleased {
    /// Its name.
    pub record: String,
    /// As in a [`AdminProblem`].
    pub code: String,
    /// As in a [`AdminProblem`].
    pub detail: String,
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

impl RefusedRequest {
    /// What is kept of it.
    pub(super) fn of((number, refused): (u64, Refused)) -> Self {
        let Refused { at, route, code, status, detail, record } = refused;
        let (code, detail) = (code.to_owned(), detail.into_owned());
        Self { number, at: Timestamp { millis: at }, route, status, code, detail, record }
    }
}

impl RecordDetail {
    /// With what there is to say of it.
    pub fn new(entry: RecordEntry, answer: Option<StoredAnswer>, audit: Vec<AuditLine>) -> Self {
        let (retry, advice) = (story::retry(&entry).to_owned(), story::advice(&entry).to_owned());
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
            heard_at: in_flight.then(|| now.before(seen.silent_for)),
            status: seen.summary.status.map(|status| status.as_u16()),
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

impl StateName {
    const ALL: [Self; 5] = [Self::InFlight, Self::Completed, Self::Unreplayable, Self::Unknown, Self::Unreadable];

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
