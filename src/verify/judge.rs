//! The verdicts. Pure: what came of the requests of a case, and nothing else, decides.

use super::answer::{AnswerClass, ApiAnswer, ClientOutcome};
use super::case::VerifyCase;
use super::effects::{AnswerRelation, Baseline, Basis, Effects, Occurrences, Unclear};
use super::verdict::{Judgement, VerifyHarm};

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

/// The verdict on a case that has requests of its own.
pub(super) fn judge(case: VerifyCase, observed: &Observed<'_>, baseline: &Baseline) -> Judgement {
    if case.is_about_keys() && observed.support == KeySupport::Ignored {
        return Judgement::not_known("the API does not heed the key: the same request twice ran twice");
    }
    let last = observed.outcomes.last();
    match case {
        VerifyCase::Repeat => repeat(observed, baseline),
        VerifyCase::Concurrent => concurrent(observed),
        VerifyCase::LostAnswer | VerifyCase::ClientTimeout => retried(case, observed),
        VerifyCase::OtherBody => other_body(observed, baseline),
        VerifyCase::OtherTarget => with_both(observed.outcomes, baseline, other_target),
        VerifyCase::OtherCaller => of_other_caller(observed.outcomes, baseline),
        VerifyCase::NoKey => with_answer(last, |answer| no_key(answer, baseline)),
        VerifyCase::QuotedKey => with_answer(last, |answer| quoted_key(answer, observed.form, baseline)),
        VerifyCase::KeyCase => with_answer(last, |answer| key_case(answer, baseline)),
        VerifyCase::TwoKeys => with_answer(last, two_keys),
        VerifyCase::EmptyKey => empty_key(observed.outcomes, baseline),
        VerifyCase::LongKey => long_key(observed, baseline),
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

/// That the effect was doubled, or that this cannot be told; else `once` judges, by what is known of it.
fn unless_doubled(effects: &Effects, is_replay: bool, once: impl FnOnce(Basis) -> Judgement) -> Judgement {
    match effects.occurrences(is_replay) {
        Occurrences::Often(times, Basis::Count) => {
            Judgement::fail(VerifyHarm::DoubledEffect, format!("one key, {times} effects by the count"))
        }
        Occurrences::Often(times, Basis::Names | Basis::Word | Basis::Content) => {
            let names: Vec<String> = effects.named.iter().take(2).map(|name| shortened(name)).collect();
            let more = if effects.named.len() > names.len() { " ..." } else { "" };
            let text = format!("one key, {times} effects by the answers: {}{more}", names.join(", "));
            Judgement::fail(VerifyHarm::DoubledEffect, text)
        }
        Occurrences::NotKnown(Unclear::Nameless) => {
            Judgement::not_known(format!("the answers do not name what was created; {NO_COUNT}"))
        }
        Occurrences::NotKnown(Unclear::Unseen) => {
            Judgement::not_known(format!("no answer tells whether the first request had an effect; {NO_COUNT}"))
        }
        Occurrences::NotKnown(Unclear::Count) => {
            Judgement::not_known("an answer says that it was done, and the count has not risen")
        }
        Occurrences::NotKnown(Unclear::Contradicted) => Judgement::not_known(
            "the answers name different things, and the count, or their own word, says that it is one",
        ),
        Occurrences::NotKnown(Unclear::Guessed) => {
            Judgement::not_known(format!("what the answers name may be new in each of them; {NO_COUNT}"))
        }
        Occurrences::AtMostOnce(Basis::Count) => once(Basis::Count),
        Occurrences::AtMostOnce(basis @ (Basis::Names | Basis::Word | Basis::Content)) => once(basis),
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

fn repeat(observed: &Observed<'_>, baseline: &Baseline) -> Judgement {
    unless_doubled(observed.effects, false, |basis| {
        with_answer(observed.outcomes.last(), |answer| match baseline.relate(answer) {
            AnswerRelation::NoSuccess(
                AnswerClass::Busy | AnswerClass::Failure | AnswerClass::Denied | AnswerClass::Redirected,
            ) => Judgement::warn("no second effect, but the retry failed"),
            AnswerRelation::NoSuccess(AnswerClass::Success | AnswerClass::Refused | AnswerClass::Missing) => {
                Judgement::warn("no second effect, but the retry is refused: the client does not get the result")
            }
            AnswerRelation::Same(_) | AnswerRelation::Other | AnswerRelation::Unclear => {
                Judgement::pass(format!("one effect, {}", by(basis)))
            }
        })
    })
}

fn concurrent(observed: &Observed<'_>) -> Judgement {
    let answers = || observed.outcomes.iter().filter_map(ClientOutcome::answer);
    unless_doubled(observed.effects, false, |basis| {
        let odd = answers().find(|answer| !answer.is_success() && !answer.asks_to_come_again());
        let silent = observed.outcomes.iter().any(|outcome| outcome.answer().is_none());
        match odd {
            _ if !answers().any(ApiAnswer::is_success) => {
                Judgement::warn("no second effect, but none of them succeeded")
            }
            _ if silent => Judgement::warn(format!("one effect, {}; but some got no answer", by(basis))),
            Some(odd) => {
                let status = odd.status.as_u16();
                Judgement::warn(format!("one effect, {}; but {status} does not tell a client to come again", by(basis)))
            }
            None => Judgement::pass(format!("one effect, {}", by(basis))),
        }
    })
}

/// A request whose answer nobody has, and then its retries.
fn retried(case: VerifyCase, observed: &Observed<'_>) -> Judgement {
    let not_played = match (observed.outcomes.first(), case) {
        (Some(ClientOutcome::GaveUp(None)), _) => None,
        (Some(ClientOutcome::GaveUp(Some(answer))), _) if !answer.is_success() => {
            Some(format!("the first request was answered with {}", answer.status.as_u16()))
        }
        // A server notices nothing where the answer is lost later.
        (Some(ClientOutcome::GaveUp(Some(_))), VerifyCase::LostAnswer) => None,
        (Some(ClientOutcome::GaveUp(Some(_))), _) => Some("it answers before a client can leave".to_owned()),
        (Some(ClientOutcome::Failed(why)), _) => Some(format!("the first request was not sent: {why}")),
        (Some(ClientOutcome::Answered(_)) | None, _) => Some("there is no request that a client left".to_owned()),
    };
    let last = observed.outcomes.last().and_then(ClientOutcome::answer);
    let is_replay = last.is_some_and(ApiAnswer::says_replayed);
    let judgement = unless_doubled(observed.effects, is_replay, |basis| {
        with_answer(observed.outcomes.last(), |answer| match answer.class() {
            AnswerClass::Success => Judgement::pass(format!("one effect, {}", by(basis))),
            AnswerClass::Refused => Judgement::warn(format!(
                "not a second effect, {}; but retries are refused, and the client does not get the result",
                by(basis)
            )),
            AnswerClass::Denied
            | AnswerClass::Missing
            | AnswerClass::Busy
            | AnswerClass::Failure
            | AnswerClass::Redirected => {
                Judgement::warn(format!("not a second effect, {}; but the retry failed", by(basis)))
            }
        })
    });
    match not_played {
        Some(why) if judgement.harm.is_none() => Judgement::not_known(why),
        Some(_) | None => judgement,
    }
}

fn other_body(observed: &Observed<'_>, baseline: &Baseline) -> Judgement {
    let [alone, reused] = observed.outcomes else { return Judgement::not_known("there is no answer") };
    let Some(alone) = alone.answer().filter(|answer| answer.is_success()) else {
        return Judgement::not_known(
            "the other body is refused with a key of its own, too: give one with --other-data",
        );
    };
    with_answer(Some(reused), |answer| match baseline.relate(answer) {
        AnswerRelation::NoSuccess(AnswerClass::Refused) if answer.status == http::StatusCode::UNPROCESSABLE_ENTITY => {
            Judgement::pass("refused with 422")
        }
        AnswerRelation::NoSuccess(AnswerClass::Refused) => {
            Judgement::pass(format!("refused, though with {}, not with 422", answer.status.as_u16()))
        }
        AnswerRelation::NoSuccess(_) => Judgement::not_known("it is refused for another reason"),
        AnswerRelation::Same(_) => {
            Judgement::warn("the first answer for another request: the client takes it for what it asked for")
        }
        AnswerRelation::Other if baseline.relation(alone, answer) == AnswerRelation::Same(Basis::Names) => {
            Judgement::warn("taken for the same body with another key")
        }
        AnswerRelation::Other => Judgement::warn("run, with a key that was used"),
        AnswerRelation::Unclear => Judgement::not_known("it succeeded, and its answer does not name what was created"),
    })
}

fn other_target(answer: &ApiAnswer, relation: AnswerRelation) -> Judgement {
    match relation {
        AnswerRelation::NoSuccess(AnswerClass::Refused) => {
            Judgement::pass(format!("refused with {}", answer.status.as_u16()))
        }
        AnswerRelation::NoSuccess(AnswerClass::Missing) => {
            Judgement::not_known("nothing is there: name a path that takes the request with --other-path")
        }
        AnswerRelation::NoSuccess(_) => Judgement::not_known("it is refused for another reason"),
        AnswerRelation::Same(_) => Judgement::warn("the first answer for another target: the key alone decides"),
        AnswerRelation::Other => Judgement::pass("another operation"),
        AnswerRelation::Unclear => Judgement::not_known("it succeeded, and its answer does not name what was created"),
    }
}

/// The other caller's answers to the second key, to a key of its own, and to the first.
fn of_other_caller(outcomes: &[ClientOutcome], baseline: &Baseline) -> Judgement {
    let [second, own, first] = outcomes else { return Judgement::not_known("there is no answer") };
    with_answer(Some(own), |own| match own.class() {
        AnswerClass::Success => with_both(&[second.clone(), first.clone()], baseline, |answer, relation| {
            other_caller(answer, relation, own, baseline)
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

fn other_caller(answer: &ApiAnswer, relation: AnswerRelation, own: &ApiAnswer, baseline: &Baseline) -> Judgement {
    match relation {
        // Names may begin anew for each caller, and answers may be alike for all requests.
        AnswerRelation::Same(_) if !baseline.are_apart(own, answer) => {
            Judgement::not_known("the other caller's answer to a key of its own is the same one")
        }
        AnswerRelation::Same(_) if answer.body != baseline.first.body && !answer.says_replayed() => {
            Judgement::not_known("it names the same effect, and its content is another one")
        }
        AnswerRelation::Same(basis) => {
            let text = format!("the first caller's answer, {}", by(basis));
            Judgement::fail(VerifyHarm::AnswerOfAnotherCaller, text)
        }
        AnswerRelation::Other => Judgement::pass("another operation"),
        AnswerRelation::NoSuccess(AnswerClass::Refused) => Judgement::warn(format!(
            "refused with {}: callers share their keys; one can see that another has used a key, and block it",
            answer.status.as_u16()
        )),
        AnswerRelation::NoSuccess(AnswerClass::Denied) => {
            Judgement::not_known("the other caller may not send this request at all")
        }
        AnswerRelation::NoSuccess(_) => Judgement::not_known("it is refused for another reason"),
        AnswerRelation::Unclear => Judgement::not_known("it succeeded, and its answer does not name what was created"),
    }
}

fn no_key(answer: &ApiAnswer, baseline: &Baseline) -> Judgement {
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
        AnswerRelation::NoSuccess(_) => Judgement::not_known("it is refused for another reason"),
    }
}

fn quoted_key(answer: &ApiAnswer, form: KeyForm, baseline: &Baseline) -> Judgement {
    match (baseline.relate(answer), form) {
        (AnswerRelation::Same(_), _) => Judgement::pass("both are one key"),
        (AnswerRelation::NoSuccess(AnswerClass::Refused), KeyForm::Quoted) => {
            Judgement::pass("quoted keys only, as in the draft")
        }
        (AnswerRelation::NoSuccess(AnswerClass::Refused), KeyForm::Bare) => {
            Judgement::warn("a quoted key, the draft's own form, is refused")
        }
        (AnswerRelation::NoSuccess(_), _) => Judgement::not_known("it is refused for another reason"),
        (AnswerRelation::Other, _) => {
            Judgement::warn("they are two keys: a retry through a client library that quotes runs again")
        }
        (AnswerRelation::Unclear, _) => {
            Judgement::not_known("it succeeded, and its answer does not name what was created")
        }
    }
}

fn key_case(answer: &ApiAnswer, baseline: &Baseline) -> Judgement {
    match baseline.relate(answer) {
        AnswerRelation::Other => Judgement::pass("two keys"),
        AnswerRelation::Same(_) => Judgement::warn("they are one key: keys that differ in case only meet"),
        AnswerRelation::NoSuccess(AnswerClass::Refused) => {
            Judgement::pass(format!("refused with {}", answer.status.as_u16()))
        }
        AnswerRelation::NoSuccess(_) => Judgement::not_known("it is refused for another reason"),
        AnswerRelation::Unclear => Judgement::not_known("it succeeded, and its answer does not name what was created"),
    }
}

fn two_keys(answer: &ApiAnswer) -> Judgement {
    match answer.class() {
        AnswerClass::Refused => Judgement::pass(format!("refused with {}", answer.status.as_u16())),
        AnswerClass::Success => Judgement::warn("taken: another program on the way may go by the other key"),
        AnswerClass::Denied
        | AnswerClass::Missing
        | AnswerClass::Busy
        | AnswerClass::Failure
        | AnswerClass::Redirected => Judgement::not_known("it is refused for another reason"),
    }
}

fn empty_key(outcomes: &[ClientOutcome], baseline: &Baseline) -> Judgement {
    let [first, again] = outcomes else { return Judgement::not_known("there is no answer") };
    with_answer(Some(first), |first| match first.class() {
        AnswerClass::Refused => Judgement::pass(format!("refused with {}", first.status.as_u16())),
        AnswerClass::Success => with_answer(Some(again), |again| match baseline.relation(first, again) {
            AnswerRelation::Same(_) => Judgement::warn("it is a key: all clients that send an empty one share it"),
            AnswerRelation::Other => Judgement::pass("it is no key: such a request is not protected"),
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
        | AnswerClass::Redirected => Judgement::not_known("it is refused for another reason"),
    })
}

/// A key, the same key again, and one that differs in its last character only.
fn long_key(observed: &Observed<'_>, baseline: &Baseline) -> Judgement {
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
        | AnswerClass::Redirected => Judgement::not_known("it is refused for another reason"),
    })
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
