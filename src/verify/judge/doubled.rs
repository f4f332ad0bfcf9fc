//! Whether one effect was doubled: the same request again, at once, after a lost answer, and while the first runs.

use super::super::answer::{AnswerClass, ApiAnswer, ClientOutcome};
use super::super::case::VerifyCase;
use super::super::effects::{AnswerRelation, Baseline, Basis, Effects, Occurrences, Unclear};
use super::super::verdict::{Judgement, VerifyHarm};
use super::{CONTRADICTED, NO_COUNT, Observed, by, shortened, with_answer};

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
        Occurrences::NotKnown(Unclear::Contradicted) => Judgement::not_known(CONTRADICTED),
        Occurrences::NotKnown(Unclear::Guessed) => {
            Judgement::not_known(format!("what the answers name may be new in each of them; {NO_COUNT}"))
        }
        Occurrences::AtMostOnce(Basis::Count) => once(Basis::Count),
        Occurrences::AtMostOnce(basis @ (Basis::Names | Basis::Word | Basis::Content)) => once(basis),
    }
}

pub(super) fn repeat(observed: &Observed<'_>, baseline: &Baseline) -> Judgement {
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

pub(super) fn concurrent(observed: &Observed<'_>) -> Judgement {
    let answers = || observed.outcomes.iter().filter_map(ClientOutcome::answer);
    let all = observed.outcomes.len();
    let turned_away = answers().filter(|answer| answer.is_for_load()).count();
    let silent = observed.outcomes.iter().filter(|outcome| outcome.answer().is_none()).count();
    unless_doubled(observed.effects, false, |basis| {
        let odd = answers().find(|answer| !answer.is_success() && !answer.asks_to_come_again());
        match odd {
            // Nothing was at work at once, as far as is known, unless one is told that another is.
            _ if turned_away > 0 && !answers().any(ApiAnswer::says_in_flight) => Judgement::not_known(format!(
                "{turned_away} of {all} were refused for the load: it is not known what two at once do"
            )),
            _ if silent + 1 >= all => {
                Judgement::not_known(format!("{silent} of {all} got no answer: it is not known what two at once do"))
            }
            _ if !answers().any(ApiAnswer::is_success) => {
                Judgement::warn("no second effect, but none of them succeeded")
            }
            _ if silent > 0 => Judgement::warn(format!("one effect, {}; but some got no answer", by(basis))),
            Some(odd) => {
                let status = odd.status.as_u16();
                Judgement::warn(format!("one effect, {}; but {status} does not tell a client to come again", by(basis)))
            }
            None => Judgement::pass(format!("one effect, {}", by(basis))),
        }
    })
}

/// A request whose answer nobody has, and then its retries.
pub(super) fn retried(case: VerifyCase, observed: &Observed<'_>) -> Judgement {
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
    let retries = || observed.outcomes.iter().skip(1).filter_map(ClientOutcome::answer);
    let is_turned_away = retries().any(ApiAnswer::is_for_load) && !retries().any(ApiAnswer::says_in_flight);
    let judgement = unless_doubled(observed.effects, is_replay, |basis| {
        with_answer(observed.outcomes.last(), |answer| match answer.class() {
            // It was sent again when the first had ended, and not while it ran.
            AnswerClass::Success if case == VerifyCase::ClientTimeout && is_turned_away => {
                Judgement::not_known("the retry was refused for the load: it is not known what two at once do")
            }
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
