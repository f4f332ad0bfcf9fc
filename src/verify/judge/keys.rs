//! What a key is to the API: no key, one in another spelling, two, an empty one, a long one.

use super::super::answer::{AnswerClass, ApiAnswer, ClientOutcome};
use super::super::effects::{AnswerRelation, Baseline, Basis};
use super::super::verdict::{Judgement, VerifyHarm};
use super::{CONTRADICTED, KeyForm, OTHER_REASON, Observed, UNNAMED, with_answer};

pub(super) fn no_key(answer: &ApiAnswer, baseline: &Baseline) -> Judgement {
    match baseline.relate(answer) {
        AnswerRelation::Same(_) => Judgement::warn("taken for the first request, although it has no key"),
        AnswerRelation::Other | AnswerRelation::Unclear => {
            Judgement::pass("no key is required: such a request is not protected")
        }
        AnswerRelation::NoSuccess(AnswerClass::Refused) => {
            let status = answer.status.as_u16();
            Judgement::pass(match status {
                400 => "refused with 400".to_owned(),
                other => format!("refused, though with {other}, not with 400"),
            })
        }
        AnswerRelation::NoSuccess(_) => Judgement::not_known(OTHER_REASON),
    }
}

pub(super) fn quoted_key(answer: &ApiAnswer, observed: &Observed<'_>, baseline: &Baseline) -> Judgement {
    match (to_first(answer, observed, baseline), observed.form) {
        (AnswerRelation::Same(_), _) => Judgement::pass("both are one key"),
        (AnswerRelation::NoSuccess(AnswerClass::Refused), _) if baseline.is_refused_as_repeat(answer) => {
            Judgement::pass("both are one key: it is refused as the repeat was")
        }
        (AnswerRelation::NoSuccess(AnswerClass::Refused), KeyForm::Quoted) => {
            Judgement::pass("quoted keys only, as in the draft")
        }
        (AnswerRelation::NoSuccess(AnswerClass::Refused), KeyForm::Bare) => {
            Judgement::warn("a quoted key, the draft's own form, is refused")
        }
        (AnswerRelation::NoSuccess(_), _) => Judgement::not_known(OTHER_REASON),
        (AnswerRelation::Other, _) => {
            Judgement::warn("they are two keys: a retry through a client library that quotes runs again")
        }
        (AnswerRelation::Unclear, _) => Judgement::not_known(UNNAMED),
    }
}

pub(super) fn key_case(answer: &ApiAnswer, observed: &Observed<'_>, baseline: &Baseline) -> Judgement {
    const ONE: &str = "they are one key: keys that differ in case only meet";
    match to_first(answer, observed, baseline) {
        AnswerRelation::Other => Judgement::pass("two keys"),
        AnswerRelation::Same(_) => Judgement::warn(ONE),
        AnswerRelation::NoSuccess(AnswerClass::Refused) if baseline.is_refused_as_repeat(answer) => {
            Judgement::warn(ONE)
        }
        AnswerRelation::NoSuccess(AnswerClass::Refused) => {
            Judgement::pass(format!("refused with {}", answer.status.as_u16()))
        }
        AnswerRelation::NoSuccess(_) => Judgement::not_known(OTHER_REASON),
        AnswerRelation::Unclear => Judgement::not_known(UNNAMED),
    }
}

/// How the only answer of a case relates to the first: where nothing is named, by the count.
fn to_first(answer: &ApiAnswer, observed: &Observed<'_>, baseline: &Baseline) -> AnswerRelation {
    match (baseline.relate(answer), observed.effects.counted) {
        (AnswerRelation::Unclear, Some(0)) => AnswerRelation::Same(Basis::Count),
        (AnswerRelation::Unclear, Some(1)) => AnswerRelation::Other,
        (relation, _) => relation,
    }
}

pub(super) fn two_keys(answer: &ApiAnswer) -> Judgement {
    match answer.class() {
        AnswerClass::Refused => Judgement::pass(format!("refused with {}", answer.status.as_u16())),
        AnswerClass::Success => Judgement::warn("taken: another program on the way may use the other key"),
        AnswerClass::Denied
        | AnswerClass::Missing
        | AnswerClass::Busy
        | AnswerClass::Failure
        | AnswerClass::Redirected => Judgement::not_known(OTHER_REASON),
    }
}

pub(super) fn empty_key(outcomes: &[ClientOutcome], baseline: &Baseline) -> Judgement {
    let [first, again] = outcomes else { return Judgement::not_known("there is no answer") };
    with_answer(Some(first), |first| match first.class() {
        AnswerClass::Refused => Judgement::pass(format!("refused with {}", first.status.as_u16())),
        AnswerClass::Success => with_answer(Some(again), |again| match baseline.relation(first, again) {
            AnswerRelation::Same(_) => Judgement::warn("it is a key: all clients that send an empty one share it"),
            AnswerRelation::Other => Judgement::warn("taken, and it is no key: such a request is not protected"),
            AnswerRelation::NoSuccess(AnswerClass::Refused) => {
                Judgement::warn("it is a key: all clients that send an empty one share it")
            }
            AnswerRelation::NoSuccess(_) => Judgement::not_known("the second is refused for another reason"),
            AnswerRelation::Unclear => Judgement::not_known("the answers do not name what was created"),
        }),
        AnswerClass::Denied
        | AnswerClass::Missing
        | AnswerClass::Busy
        | AnswerClass::Failure
        | AnswerClass::Redirected => Judgement::not_known(OTHER_REASON),
    })
}

/// A key, the same key again, and one that differs in its last character only.
pub(super) fn long_key(observed: &Observed<'_>, baseline: &Baseline) -> Judgement {
    let [first, again, other] = observed.outcomes else { return Judgement::not_known("there is no answer") };
    if observed.effects.counted.is_some_and(|count| count > 2) {
        return Judgement::fail(
            VerifyHarm::DoubledEffect,
            "a long key is taken, and not heeded: two keys, three effects",
        );
    }
    with_answer(Some(first), |first| match first.class() {
        AnswerClass::Refused => Judgement::pass(format!("refused with {}", first.status.as_u16())),
        AnswerClass::Success => with_answer(Some(again), |again| match baseline.relation(first, again) {
            AnswerRelation::Other if observed.effects.counted.is_some() => Judgement::not_known(CONTRADICTED),
            AnswerRelation::Other => {
                Judgement::fail(VerifyHarm::DoubledEffect, "a long key is taken, and not heeded: it ran twice")
            }
            AnswerRelation::Unclear => Judgement::not_known("the answers do not name what was created"),
            AnswerRelation::NoSuccess(_) => Judgement::warn("taken once, and then refused"),
            AnswerRelation::Same(_) => with_answer(Some(other), |other| match baseline.relation(first, other) {
                AnswerRelation::Same(_) => Judgement::warn("it is cut: two keys that begin alike are one"),
                AnswerRelation::Other => Judgement::pass("a key as any other"),
                AnswerRelation::NoSuccess(_) | AnswerRelation::Unclear => {
                    Judgement::not_known("it is not known whether all of it counts")
                }
            }),
        }),
        AnswerClass::Denied
        | AnswerClass::Missing
        | AnswerClass::Busy
        | AnswerClass::Failure
        | AnswerClass::Redirected => Judgement::not_known(OTHER_REASON),
    })
}
