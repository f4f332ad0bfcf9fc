//! The verdicts, as a report.

use serde::Serialize;

use super::case::VerifyCase;
use super::effects::NameSource;
use super::judge::shortened;

/// What is said of one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaseVerdict {
    /// As the rule says.
    Pass,
    /// Safe, but not as clients expect it.
    Warn,
    /// An effect was doubled, or an answer was another caller's.
    Fail,
    /// It cannot be told.
    NotKnown,
}

/// Why a case fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyHarm {
    /// Requests with one key had more than one effect.
    DoubledEffect,
    /// A caller got the answer of another one.
    AnswerOfAnotherCaller,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseResult {
    /// Which one.
    pub case: VerifyCase,
    /// The verdict.
    pub verdict: CaseVerdict,
    /// Why it fails, if it does.
    pub harm: Option<VerifyHarm>,
    /// What was sent.
    pub sent: String,
    /// What came.
    pub came: String,
    /// What is said of it.
    pub because: String,
    /// What is asked for, and where that is written.
    pub rule: &'static str,
}

/// A verdict without the requests that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) verdict: CaseVerdict,
    pub(super) harm: Option<VerifyHarm>,
    pub(super) because: String,
}

impl Judgement {
    fn new(verdict: CaseVerdict, because: impl Into<String>) -> Self {
        Self { verdict, harm: None, because: because.into() }
    }

    pub(super) fn pass(because: impl Into<String>) -> Self {
        Self::new(CaseVerdict::Pass, because)
    }

    pub(super) fn warn(because: impl Into<String>) -> Self {
        Self::new(CaseVerdict::Warn, because)
    }

    pub(super) fn not_known(because: impl Into<String>) -> Self {
        Self::new(CaseVerdict::NotKnown, because)
    }

    pub(super) fn fail(harm: VerifyHarm, because: impl Into<String>) -> Self {
        Self { harm: Some(harm), ..Self::new(CaseVerdict::Fail, because) }
    }
}

/// How effects are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum EffectBasis {
    /// By the API's own count.
    Count {
        /// The request for it.
        request: String,
    },
    /// By what answers name.
    Names {
        /// Where.
        source: String,
        /// Why not by the count that was asked for.
        instead: Option<String>,
    },
    /// Not at all.
    Nothing {
        /// Why not.
        why: String,
    },
}

/// The table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The method and URL, without the values of the query.
    pub target: String,
    /// How effects are counted.
    pub effects: EffectBasis,
    /// The requests that were sent, without those that only count.
    pub requests: usize,
    /// The rows.
    pub cases: Vec<CaseResult>,
}

impl VerifyReport {
    /// Whether an effect was doubled, or an answer was another caller's.
    pub fn is_harmful(&self) -> bool {
        self.cases.iter().any(|case| case.harm.is_some())
    }

    /// How many have this verdict.
    pub fn count(&self, verdict: CaseVerdict) -> usize {
        self.cases.iter().filter(|case| case.verdict == verdict).count()
    }
}

impl EffectBasis {
    pub(super) fn of_names(source: Option<&NameSource>, instead: Option<String>) -> Self {
        let source = match source {
            Some(NameSource::Location | NameSource::AnyLocation) => "Location".to_owned(),
            Some(NameSource::Member(name) | NameSource::AnyIdentifier(name)) => {
                format!("the member {} of the answers", shortened(name))
            }
            None => {
                let nameless = "the answers name nothing that differs from one key to the other".to_owned();
                let why = instead.map_or(nameless.clone(), |instead| format!("{instead}; and {nameless}"));
                return Self::Nothing { why };
            }
        };
        Self::Names { source, instead }
    }
}
