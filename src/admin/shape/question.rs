//! What operators ask besides records: what needs a hand, what was refused, what the rules are, what a request would get.

use serde::{Deserialize, Serialize};

use super::super::RecordPlacement;
use super::{BodyContent, RecordDetail, RecordEntry};
use crate::admin::Timestamp;
use crate::metrics::Refused;
use crate::rule::Naming;

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

impl RefusedRequest {
    /// What is kept of it.
    pub(in super::super) fn of((number, refused): (u64, Refused)) -> Self {
        let Refused { at, route, code, status, detail, record } = refused;
        let (code, detail) = (code.to_owned(), detail.into_owned());
        Self { number, at: Timestamp { millis: at }, route, status, code, detail, record }
    }
}
