//! `[route.probe]`: how the backend is asked what became of a request whose outcome is unknown.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::words::words;
use super::{JsonPointer, Selector, StatusSet};

/// What a probe is called in the audit of a record, where tokens stand by their names.
pub const BY_PROBE: &str = "probe";

/// How the backend is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRule {
    /// Path and query of the question.
    pub path: ProbePath,
    /// The `Authorization` of the question. `None`: only the owner asks, with the credentials of its client. `Debug` does
    /// not show it.
    pub authorization: Option<HeaderValue>,
    /// Which answers mean that the request took effect.
    pub found: ProbeSign,
    /// Which answers mean that it did not.
    pub absent: ProbeSign,
    /// How long after the end of the attempt an absence counts, and how long after that it is looked for once more.
    pub after: Duration,
    /// The time for one question, and the most that a client waits for it.
    pub timeout: Duration,
    /// What repeats get when it was found.
    pub answer: ProbeAnswer,
}

/// Answers that mean something: one of these statuses, with all of these witnesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSign {
    /// The statuses.
    pub status: Vec<StatusSet>,
    /// What only the application writes. Empty: the status alone counts.
    pub witnesses: Vec<ProbeWitness>,
}

/// A part of an answer that only the application writes, and no gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeWitness {
    /// `json`: the member is there, and holds something.
    Json(JsonPointer),
    /// `json_empty`: the member is there, and is `[]` or `{}`.
    JsonEmpty(JsonPointer),
    /// `header`: the field is there, and not empty.
    Header(HeaderName),
}

words! {
    /// `answer`
    pub enum ProbeAnswer {
        /// 409 `already-completed`, with the `Location` of the backend's answer.
        AlreadyCompleted = "already-completed",
        /// The backend's answer to the question.
        Probe = "probe",
    }
}

/// The path of a question, in which values of the first request stand in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePath(Vec<ProbePiece>);

/// A piece of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbePiece {
    /// As it is written.
    Literal(String),
    /// `{key}`: the key of the request, which has one part.
    Key,
    /// `{json:/pointer}`, `{path:NAME}` or `{header:NAME}` of the request.
    Value(Selector),
}

impl ProbeSign {
    /// Whether one of its statuses is this one.
    pub fn has(&self, status: StatusCode) -> bool {
        let status = status.as_u16();
        self.status.iter().any(|set| match set {
            StatusSet::Class(class) => status / 100 == *class,
            StatusSet::Status(one) => status == *one,
        })
    }

    /// Whether an answer must be JSON to be this one.
    pub fn reads_json(&self) -> bool {
        self.witnesses.iter().any(|witness| match witness {
            ProbeWitness::Json(_) | ProbeWitness::JsonEmpty(_) => true,
            ProbeWitness::Header(_) => false,
        })
    }
}

impl ProbePiece {
    /// The name of the value: `key`, `json:/pointer`. `None`: it is no value.
    pub fn value_name(&self) -> Option<String> {
        match self {
            Self::Literal(_) => None,
            Self::Key => Some("key".to_owned()),
            Self::Value(selector) => Some(selector.to_string()),
        }
    }
}

impl ProbePath {
    /// Splits the text at its braces, and reads what they hold with `read`. `Err(None)`: the braces do not fit.
    pub fn parse<E>(text: &str, read: impl Fn(&str) -> Result<ProbePiece, E>) -> Result<Self, Option<E>> {
        let mut pieces = Vec::new();
        let mut rest = text;
        loop {
            let (literal, behind) = match rest.split_once('{') {
                Some((literal, behind)) => (literal, Some(behind)),
                None => (rest, None),
            };
            if literal.contains('}') {
                return Err(None);
            }
            if !literal.is_empty() {
                pieces.push(ProbePiece::Literal(literal.to_owned()));
            }
            let Some(behind) = behind else { return Ok(Self(pieces)) };
            let (inner, others) = behind.split_once('}').ok_or(None)?;
            pieces.push(read(inner).map_err(Some)?);
            rest = others;
        }
    }

    /// The pieces, in their order.
    pub fn pieces(&self) -> &[ProbePiece] {
        &self.0
    }
}

impl fmt::Display for ProbePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| piece.fmt(f))
    }
}

impl fmt::Display for ProbePiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Key => f.write_str("{key}"),
            Self::Value(selector) => write!(f, "{{{selector}}}"),
        }
    }
}
