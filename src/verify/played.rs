//! The cases that were played, and the rows of the table that they are. Pure.

use std::collections::HashMap;

use http::StatusCode;
use http::header::RETRY_AFTER;

use super::answer::{AnswerClass, ApiAnswer, ClientOutcome, in_words};
use super::case::{CaseKind, SeenRefusal, VerifyCase};
use super::effects::{Baseline, Effects, Occurrences, Unclear};
use super::judge::{KeyForm, KeySupport, Observed, judge, key_support};
use super::likeness::{refusal, replayed};
use super::verdict::{CaseVerdict, Judgement};

/// What came of a case.
struct PlayedCase {
    outcomes: Vec<ClientOutcome>,
    /// By how much the API's own count rose. `None` where it is not counted, or not relied on.
    risen: Option<u64>,
    /// Why the count of this case is not relied on.
    doubt: Option<String>,
    second_try: SecondTry,
}

/// What came of a case that was played once more, because only the count told of a doubled effect: others may have created
/// something at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SecondTry {
    /// It was not played again.
    NotMade,
    /// The effect was doubled again.
    Alike,
    /// It was not.
    Unlike {
        /// By how much the count had risen at first.
        first: u64,
    },
    /// The count was not given any more.
    Uncounted,
}

/// All of them. A verdict is made of what came whenever it is asked for: where a count turns out not to be relied on, what the
/// answers prove stays.
pub(super) struct PlayedCases {
    baseline: Baseline,
    form: KeyForm,
    cases: HashMap<VerifyCase, PlayedCase>,
}

const IGNORED: &str = "the API does not heed the key: the same request twice ran twice";

impl PlayedCases {
    pub(super) fn new(baseline: Baseline, form: KeyForm) -> Self {
        Self { baseline, form, cases: HashMap::new() }
    }

    pub(super) fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    pub(super) fn insert(&mut self, case: VerifyCase, outcomes: Vec<ClientOutcome>, risen: Option<u64>) {
        self.cases.insert(case, PlayedCase { outcomes, risen, doubt: None, second_try: SecondTry::NotMade });
    }

    /// Whether only the count says that an effect was doubled, and nothing else has shown that the API does so.
    pub(super) fn rests_on_count(&self, case: VerifyCase) -> bool {
        let is_shown = case != VerifyCase::Repeat && self.support() == KeySupport::Ignored;
        let Some(played) = self.cases.get(&case).filter(|_| case.is_tried_twice() && !is_shown) else { return false };
        self.judge_by(case, &played.outcomes, played.risen).harm.is_some()
            && self.judge_by(case, &played.outcomes, None).harm.is_none()
    }

    /// The case was played once more. `risen` is `None` where that was not counted.
    pub(super) fn tried_again(&mut self, case: VerifyCase, outcomes: &[ClientOutcome], risen: Option<u64>) {
        let is_doubled = self.judge_by(case, outcomes, risen).harm.is_some();
        if let Some(played) = self.cases.get_mut(&case) {
            played.second_try = match (risen, played.risen) {
                (Some(_), _) if is_doubled => SecondTry::Alike,
                (Some(_), Some(first)) => SecondTry::Unlike { first },
                (None, _) | (_, None) => SecondTry::Uncounted,
            };
        }
    }

    /// How the API treats keys, as far as it is known by now.
    pub(super) fn support(&self) -> KeySupport {
        match self.cases.get(&VerifyCase::Repeat) {
            Some(PlayedCase { second_try: SecondTry::Unlike { .. }, .. }) | None => KeySupport::NotKnown,
            Some(played) => key_support(&self.effects(VerifyCase::Repeat, &played.outcomes, played.risen)),
        }
    }

    /// The count of the case that was counted last is not relied on.
    pub(super) fn distrust_last(&mut self, why: &str) {
        let is_counted = |case: &&VerifyCase| self.cases.get(*case).is_some_and(|played| played.risen.is_some());
        if let Some(last) = VerifyCase::ALL.iter().rfind(is_counted) {
            self.distrust(*last, why);
        }
    }

    /// No count is relied on.
    pub(super) fn distrust_all(&mut self, why: &str) {
        VerifyCase::ALL.into_iter().for_each(|case| self.distrust(case, why));
    }

    /// A count that did not rise has hidden effects. It has not made up any.
    pub(super) fn distrust_harmless(&mut self, why: &str) {
        let is_harmless =
            |case: &VerifyCase| self.cases.get(case).is_some_and(|played| self.judged(*case, played).harm.is_none());
        let harmless: Vec<VerifyCase> = VerifyCase::ALL.into_iter().filter(is_harmless).collect();
        harmless.into_iter().for_each(|case| self.distrust(case, why));
    }

    fn distrust(&mut self, case: VerifyCase, why: &str) {
        if let Some(played) = self.cases.get_mut(&case).filter(|played| played.risen.is_some()) {
            (played.risen, played.doubt) = (None, Some(why.to_owned()));
        }
    }

    /// What came in a case, and the verdict on it. `why_not` says why it could not be sent.
    pub(super) fn row(&self, case: VerifyCase, why_not: Option<&str>) -> (String, Judgement) {
        let unsent = |why: &str| ("nothing was sent".to_owned(), Judgement::not_known(why));
        match (case.kind(), self.cases.get(&case)) {
            (CaseKind::Replay(part), _) => {
                let second = self.outcomes(VerifyCase::Repeat).and_then(<[_]>::last);
                replayed(part, &self.baseline.first, second, self.support())
            }
            (CaseKind::Refusal(SeenRefusal::InFlight), _) => refusal(SeenRefusal::InFlight, self.conflict()),
            (CaseKind::Refusal(SeenRefusal::Reused), _) => refusal(SeenRefusal::Reused, self.reuse()),
            (CaseKind::Control | CaseKind::Played, Some(played)) => {
                let before = (case == VerifyCase::Repeat).then(|| ClientOutcome::Answered(self.baseline.first.clone()));
                let all: Vec<_> = before.into_iter().chain(played.outcomes.iter().cloned()).collect();
                let judgement = self.judged(case, played);
                (
                    in_words(&all),
                    match &played.doubt {
                        // What the answers prove is not in doubt.
                        Some(why) if judgement.verdict == CaseVerdict::NotKnown => {
                            Judgement::not_known(format!("{why}, and {}", judgement.because))
                        }
                        Some(_) | None => judgement,
                    },
                )
            }
            (CaseKind::Control | CaseKind::Played, None) => match why_not {
                Some(why) => unsent(why),
                // What a key means is asked of those only who know keys.
                None if self.support() == KeySupport::Ignored => unsent(IGNORED),
                None => unsent("the same request twice seemed to run twice, by a count that proved unreliable"),
            },
        }
    }

    fn judged(&self, case: VerifyCase, played: &PlayedCase) -> Judgement {
        let judgement = self.judge_by(case, &played.outcomes, played.risen);
        if self.judge_by(case, &played.outcomes, None).harm.is_some() {
            return judgement;
        }
        let only_if = |what: &str| format!("{}{what}", judgement.because);
        match played.second_try {
            SecondTry::Unlike { first } => Judgement::not_known(format!(
                "the count rose by {first}, and not so when it was played once more: others may have created something \
                 meanwhile, or two requests met by chance; run it again while nobody else does"
            )),
            _ if judgement.harm.is_none() => judgement,
            SecondTry::NotMade => judgement,
            SecondTry::Alike => {
                Judgement { because: only_if("; and so again when it was played once more"), ..judgement }
            }
            SecondTry::Uncounted => {
                let text = only_if(", if nobody else created something: it could not be counted once more");
                Judgement { because: text, ..judgement }
            }
        }
    }

    fn judge_by(&self, case: VerifyCase, outcomes: &[ClientOutcome], risen: Option<u64>) -> Judgement {
        let effects = self.effects(case, outcomes, risen);
        let support = if case == VerifyCase::Repeat { KeySupport::NotKnown } else { self.support() };
        let observed = Observed { outcomes, effects: &effects, support, form: self.form };
        judge(case, &observed, &self.baseline_for(case))
    }

    /// What the outcomes tell of the effects. The first request's, too, where the key is that of the control.
    fn effects(&self, case: VerifyCase, outcomes: &[ClientOutcome], risen: Option<u64>) -> Effects {
        let baseline = self.baseline_for(case);
        if case != VerifyCase::Repeat {
            return baseline.effects(outcomes, risen);
        }
        let first = ClientOutcome::Answered(self.baseline.first.clone());
        baseline.effects(std::iter::once(&first).chain(outcomes), risen.map(|risen| risen + 1))
    }

    /// What answers are compared with: with what the repeat has told, for all but the repeat.
    fn baseline_for(&self, case: VerifyCase) -> Baseline {
        let fresh = [VerifyCase::Concurrent, VerifyCase::LostAnswer, VerifyCase::ClientTimeout];
        let others: Vec<&ApiAnswer> = fresh
            .into_iter()
            .filter_map(|case| self.outcomes(case))
            .flatten()
            .filter_map(|outcome| outcome.evidence().filter(|answer| answer.is_success()))
            .collect();
        let repeated = self.cases.get(&VerifyCase::Repeat).filter(|_| case != VerifyCase::Repeat);
        let answered = repeated.and_then(|played| Some((played, played.outcomes.last()?.answer()?)));
        let baseline = match answered {
            None => self.baseline.clone(),
            Some((played, answer)) => {
                let effects = self.effects(VerifyCase::Repeat, &played.outcomes, played.risen);
                let is_contradicted = effects.occurrences(false) == Occurrences::NotKnown(Unclear::Contradicted);
                self.baseline.after(answer, is_contradicted)
            }
        };
        baseline.but_for_content(&others)
    }

    fn outcomes(&self, case: VerifyCase) -> Option<&[ClientOutcome]> {
        self.cases.get(&case).map(|played| played.outcomes.as_slice())
    }

    /// A 409 to a request whose first was at work; one that says when to come again, if there is one.
    fn conflict(&self) -> Option<&ApiAnswer> {
        let cases = [VerifyCase::Concurrent, VerifyCase::ClientTimeout, VerifyCase::LostAnswer];
        let answers = || {
            let outcomes = cases.into_iter().filter_map(|case| self.outcomes(case)).flatten();
            outcomes.filter_map(ClientOutcome::answer).filter(|answer| answer.status == StatusCode::CONFLICT)
        };
        answers().find(|answer| answer.headers.contains_key(RETRY_AFTER)).or_else(|| answers().next())
    }

    fn reuse(&self) -> Option<&ApiAnswer> {
        let [alone, reused] = self.outcomes(VerifyCase::OtherBody)? else { return None };
        alone.answer().filter(|answer| answer.is_success())?;
        reused.answer().filter(|answer| answer.class() == AnswerClass::Refused)
    }
}
