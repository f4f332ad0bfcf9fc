//! A key that was used, for something else: another body, another target, another caller.

use http::StatusCode;

use super::super::answer::{AnswerClass, ApiAnswer, ClientOutcome};
use super::super::effects::{AnswerRelation, Baseline, Basis};
use super::super::verdict::{Judgement, VerifyHarm};
use super::{CONTRADICTED, OTHER_REASON, Observed, UNNAMED, by, with_answer};

const RUN_BY_COUNT: &str =
    "run, with a key that was used: one key, two effects by the count, if nobody else created something";
const OTHER_CONTENT: &str = "it names the same effect, and its content is another one";

pub(super) fn other_body(observed: &Observed<'_>, baseline: &Baseline) -> Judgement {
    let [alone, reused] = observed.outcomes else { return Judgement::not_known("there is no answer") };
    let Some(alone) = alone.answer().filter(|answer| answer.is_success()) else {
        return Judgement::not_known(
            "the other body is refused with a key of its own, too: give one with --other-data",
        );
    };
    // One effect is that of the other key.
    let counted = observed.effects.counted;
    let is_risen = counted.is_some_and(|count| count > 1);
    with_answer(Some(reused), |answer| match baseline.relate(answer) {
        AnswerRelation::NoSuccess(AnswerClass::Refused) if is_risen => {
            Judgement::not_known("it is refused, and the count has risen by more than the other key's request makes")
        }
        AnswerRelation::NoSuccess(AnswerClass::Refused) if answer.status == StatusCode::UNPROCESSABLE_ENTITY => {
            Judgement::pass("refused with 422")
        }
        AnswerRelation::NoSuccess(AnswerClass::Refused) => {
            Judgement::pass(format!("refused, though with {}, not with 422", answer.status.as_u16()))
        }
        AnswerRelation::NoSuccess(_) => Judgement::not_known(OTHER_REASON),
        // A name that is made of the key is the same whatever was done.
        AnswerRelation::Same(_) if !baseline.are_alike(&baseline.first, answer) && !answer.says_replayed() => {
            if is_risen {
                Judgement::fail(VerifyHarm::DoubledEffect, RUN_BY_COUNT)
            } else {
                Judgement::not_known(OTHER_CONTENT)
            }
        }
        AnswerRelation::Same(_) => {
            Judgement::warn("the first answer for another request: the client takes it for what it asked for")
        }
        AnswerRelation::Other | AnswerRelation::Unclear
            if baseline.relation(alone, answer) == AnswerRelation::Same(Basis::Names) =>
        {
            Judgement::warn("taken for the same body with another key")
        }
        AnswerRelation::Other if counted.is_some() && !is_risen => Judgement::not_known(CONTRADICTED),
        AnswerRelation::Other => Judgement::fail(
            VerifyHarm::DoubledEffect,
            "run, with a key that was used: one key, two effects; a corrected retry makes a second one",
        ),
        AnswerRelation::Unclear if is_risen => Judgement::fail(VerifyHarm::DoubledEffect, RUN_BY_COUNT),
        AnswerRelation::Unclear => Judgement::not_known(UNNAMED),
    })
}

/// The answers to the second and to the first key.
pub(super) fn other_target(outcomes: &[ClientOutcome], baseline: &Baseline) -> Judgement {
    with_both(outcomes, baseline, |answer, relation| of_other_target(answer, relation, baseline))
}

fn of_other_target(answer: &ApiAnswer, relation: AnswerRelation, baseline: &Baseline) -> Judgement {
    match relation {
        AnswerRelation::NoSuccess(AnswerClass::Refused) => {
            Judgement::pass(format!("refused with {}", answer.status.as_u16()))
        }
        AnswerRelation::NoSuccess(AnswerClass::Missing) => {
            Judgement::not_known("nothing is there: name a path that takes the request with --other-path")
        }
        AnswerRelation::NoSuccess(_) => Judgement::not_known(OTHER_REASON),
        AnswerRelation::Same(_) if !baseline.are_alike(&baseline.first, answer) && !answer.says_replayed() => {
            Judgement::not_known(OTHER_CONTENT)
        }
        AnswerRelation::Same(_) => Judgement::warn("the first answer for another target: the key alone decides"),
        AnswerRelation::Other => Judgement::pass("another operation"),
        AnswerRelation::Unclear => Judgement::not_known(UNNAMED),
    }
}

/// The other caller's answers to the second key, to a key of its own, and to the first.
pub(super) fn other_caller(observed: &Observed<'_>, baseline: &Baseline) -> Judgement {
    let [second, own, first] = observed.outcomes else { return Judgement::not_known("there is no answer") };
    // One for each of its requests: none of them was answered with an effect of the first caller's.
    let is_each_counted = observed.effects.counted == Some(3);
    with_answer(Some(own), |own| match own.class() {
        AnswerClass::Success => with_both(&[second.clone(), first.clone()], baseline, |answer, relation| {
            of_other_caller(answer, relation, own, baseline, is_each_counted)
        }),
        AnswerClass::Denied => Judgement::not_known("the other caller may not send this request at all"),
        AnswerClass::Refused
        | AnswerClass::Redirected
        | AnswerClass::Missing
        | AnswerClass::Busy
        | AnswerClass::Failure => Judgement::not_known(format!(
            "the other caller's request with a key of its own is refused, too, with {}",
            own.status.as_u16()
        )),
    })
}

fn of_other_caller(
    answer: &ApiAnswer,
    relation: AnswerRelation,
    own: &ApiAnswer,
    baseline: &Baseline,
    is_each_counted: bool,
) -> Judgement {
    match relation {
        // Names may begin anew for each caller, and answers may be alike for all requests.
        AnswerRelation::Same(_) if !baseline.are_apart(own, answer) => {
            Judgement::not_known("the other caller's answer to a key of its own is the same one")
        }
        // What is new in each of the first caller's own answers says nothing.
        AnswerRelation::Same(_) if !baseline.are_alike(&baseline.first, answer) && !answer.says_replayed() => {
            Judgement::not_known(OTHER_CONTENT)
        }
        // Names that are made of the key are the same for all callers.
        AnswerRelation::Same(_) if is_each_counted && !answer.says_replayed() => {
            Judgement::not_known("it names the same effect, and the count says that there is one for each request")
        }
        AnswerRelation::Same(basis) => {
            let text = format!("the first caller's answer, {}", by(basis));
            Judgement::fail(VerifyHarm::AnswerOfAnotherCaller, text)
        }
        AnswerRelation::Other => Judgement::pass("another operation"),
        AnswerRelation::Unclear if is_each_counted => Judgement::pass("another operation, by the count"),
        AnswerRelation::NoSuccess(AnswerClass::Refused) => Judgement::warn(format!(
            "refused with {}: callers share their keys; one can see that another has used a key, and block it",
            answer.status.as_u16()
        )),
        AnswerRelation::NoSuccess(AnswerClass::Denied) => {
            Judgement::not_known("the other caller may not send this request at all")
        }
        AnswerRelation::NoSuccess(_) => Judgement::not_known(OTHER_REASON),
        AnswerRelation::Unclear => Judgement::not_known(UNNAMED),
    }
}

/// The answers to the second key and to the first. Only both together tell of the control's effects.
fn with_both(
    outcomes: &[ClientOutcome],
    baseline: &Baseline,
    judge: impl FnOnce(&ApiAnswer, AnswerRelation) -> Judgement,
) -> Judgement {
    let [second, first] = outcomes else { return Judgement::not_known("there is no answer") };
    with_answer(Some(second), |second| {
        with_answer(Some(first), |first| {
            let is_same = |relation| matches!(relation, AnswerRelation::Same(_));
            let (of_second, of_first) = (baseline.relate_to_second(second), baseline.relate(first));
            if is_same(of_second) != is_same(of_first) {
                return Judgement::not_known(
                    "effects may have the same names there: one answer is the first one's, and one is not",
                );
            }
            judge(first, of_first)
        })
    })
}
