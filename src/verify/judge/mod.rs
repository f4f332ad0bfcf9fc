//! The verdicts. Pure: what came of the requests of a case, and nothing else, decides.

mod doubled;
mod keys;
mod reused;

use super::answer::{ApiAnswer, ClientOutcome};
use super::case::VerifyCase;
use super::effects::{AnswerRelation, Baseline, Basis, Effects, Occurrences};
use super::verdict::Judgement;

/// What is known of how the API treats keys, once the same request was sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeySupport {
    /// The second had no effect.
    Heeded,
    /// It ran twice.
    Ignored,
    /// It cannot be told.
    NotKnown,
}

/// How the first key was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyForm {
    Bare,
    Quoted,
}

/// What was observed in a case.
pub(super) struct Observed<'a> {
    pub(super) outcomes: &'a [ClientOutcome],
    pub(super) effects: &'a Effects,
    pub(super) support: KeySupport,
    pub(super) form: KeyForm,
}

const NO_COUNT: &str = "--count would tell";
const UNNAMED: &str = "it succeeded, and its answer does not name what was created";
const OTHER_REASON: &str = "it is refused for another reason";
const CONTRADICTED: &str = "the answers name different things, and the count, or their own word, says that it is one";

/// The verdict on a case that has requests of its own.
pub(super) fn judge(case: VerifyCase, observed: &Observed<'_>, baseline: &Baseline) -> Judgement {
    if case.is_about_keys() && observed.support == KeySupport::Ignored {
        return Judgement::not_known("the API does not heed the key: the same request twice ran twice");
    }
    let last = observed.outcomes.last();
    match case {
        VerifyCase::Repeat => doubled::repeat(observed, baseline),
        VerifyCase::Concurrent => doubled::concurrent(observed),
        VerifyCase::LostAnswer | VerifyCase::ClientTimeout => doubled::retried(case, observed),
        VerifyCase::OtherBody => reused::other_body(observed, baseline),
        VerifyCase::OtherTarget => reused::other_target(observed.outcomes, baseline),
        VerifyCase::OtherCaller => reused::other_caller(observed, baseline),
        VerifyCase::NoKey => with_answer(last, |answer| keys::no_key(answer, baseline)),
        VerifyCase::QuotedKey => with_answer(last, |answer| keys::quoted_key(answer, observed, baseline)),
        VerifyCase::KeyCase => with_answer(last, |answer| keys::key_case(answer, observed, baseline)),
        VerifyCase::TwoKeys => with_answer(last, keys::two_keys),
        VerifyCase::EmptyKey => keys::empty_key(observed.outcomes, baseline),
        VerifyCase::LongKey => keys::long_key(observed, baseline),
        VerifyCase::Control | VerifyCase::ReplayStatus | VerifyCase::ReplayBody | VerifyCase::ReplayLocation => {
            Judgement::not_known("it has no request of its own")
        }
        VerifyCase::ReplayHeaders | VerifyCase::ConflictAnswer | VerifyCase::ReuseAnswer => {
            Judgement::not_known("it has no request of its own")
        }
    }
}

/// What the second of two identical requests says of the API.
pub(super) fn key_support(effects: &Effects) -> KeySupport {
    match effects.occurrences(false) {
        Occurrences::Often(..) => KeySupport::Ignored,
        Occurrences::AtMostOnce(_) => KeySupport::Heeded,
        Occurrences::NotKnown(_) => KeySupport::NotKnown,
    }
}

fn with_answer(outcome: Option<&ClientOutcome>, judge: impl FnOnce(&ApiAnswer) -> Judgement) -> Judgement {
    match outcome {
        Some(ClientOutcome::Answered(answer)) => judge(answer),
        Some(ClientOutcome::Failed(why)) => Judgement::not_known(why),
        Some(ClientOutcome::GaveUp(_)) | None => Judgement::not_known("there is no answer"),
    }
}

/// For people and programs: not too long, and without what controls a terminal or changes the direction of text.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 48;
    let shown = |c: char| if c.is_ascii_graphic() || c.is_alphanumeric() { c } else { '?' };
    let mut short: String = text.chars().take(MOST).map(shown).collect();
    if text.chars().count() > MOST {
        short.push_str("...");
    }
    short
}

fn by(basis: Basis) -> &'static str {
    match basis {
        Basis::Count => "by the count",
        Basis::Names => "as far as the answers tell",
        Basis::Word => "as the answer says of itself",
        Basis::Content => "as its content tells",
    }
}

/// The verdict on the two requests of the control.
pub(super) fn control(baseline: &Baseline, counted: Option<u64>) -> Judgement {
    match (baseline.relate(&baseline.second), counted) {
        (_, Some(2)) => Judgement::pass("two effects, by the count"),
        (AnswerRelation::Other, None) => Judgement::pass("two effects, by the answers"),
        (AnswerRelation::Same(_), _) => Judgement::not_known("both answers tell of one effect: the key is not all"),
        (AnswerRelation::Other | AnswerRelation::Unclear | AnswerRelation::NoSuccess(_), _) => {
            Judgement::not_known(format!("the answers do not name what was created; {NO_COUNT}"))
        }
    }
}
