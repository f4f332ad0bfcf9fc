//! Keys in other spellings, none, two, an empty one, a long one.

use super::super::case::VerifyCase;
use super::super::judge::{KeyForm, KeySupport, Observed, judge};
use super::{FAIL, NOT_KNOWN, PASS, WARN, answer, created, got, indistinct, judged, named, nameless};

#[test]
fn one_answer_decides() {
    let denied = || got(answer(403, ""));
    for (case, outcome, verdict) in [
        (VerifyCase::NoKey, got(created(3)), PASS),
        (VerifyCase::NoKey, got(created(1)), WARN),
        (VerifyCase::NoKey, got(answer(400, "")), PASS),
        (VerifyCase::NoKey, denied(), NOT_KNOWN),
        (VerifyCase::QuotedKey, got(created(1)), PASS),
        (VerifyCase::QuotedKey, got(created(3)), WARN),
        (VerifyCase::QuotedKey, got(answer(400, "")), WARN),
        (VerifyCase::KeyCase, got(created(3)), PASS),
        (VerifyCase::KeyCase, got(created(1)), WARN),
        (VerifyCase::KeyCase, got(answer(400, "")), PASS),
        (VerifyCase::TwoKeys, got(answer(400, "")), PASS),
        (VerifyCase::TwoKeys, got(created(3)), WARN),
        (VerifyCase::TwoKeys, got(answer(500, "")), NOT_KNOWN),
    ] {
        let judgement = judged(case, std::slice::from_ref(&outcome), None, &named());
        assert_eq!(judgement.verdict, verdict, "{case:?} {outcome:?}: {}", judgement.because);
    }
}

#[test]
fn empty_and_long_keys() {
    let refused = || got(answer(400, ""));
    for (case, outcomes, verdict) in [
        (VerifyCase::EmptyKey, vec![refused(), refused()], PASS),
        // It was not validated, and protects nobody.
        (VerifyCase::EmptyKey, vec![got(created(3)), got(created(4))], WARN),
        (VerifyCase::EmptyKey, vec![got(created(3)), got(created(3))], WARN),
        (VerifyCase::EmptyKey, vec![got(created(3)), got(nameless("x"))], NOT_KNOWN),
        (VerifyCase::LongKey, vec![refused(), refused(), refused()], PASS),
        (VerifyCase::LongKey, vec![got(created(3)), got(created(3)), got(created(4))], PASS),
        (VerifyCase::LongKey, vec![got(created(3)), got(created(3)), got(created(3))], WARN),
        (VerifyCase::LongKey, vec![got(created(3)), got(created(4)), got(created(5))], FAIL),
        (VerifyCase::LongKey, vec![got(created(3)), got(nameless("x")), got(created(5))], NOT_KNOWN),
    ] {
        let judgement = judged(case, &outcomes, None, &named());
        assert_eq!(judgement.verdict, verdict, "{case:?} {outcomes:?}: {}", judgement.because);
    }
    let outcomes = [got(nameless("x")), got(nameless("x")), got(nameless("x"))];
    assert_eq!(judged(VerifyCase::LongKey, &outcomes, Some(3), &indistinct()).verdict, FAIL);
    // The count says that the second had no effect.
    let renamed = [got(created(3)), got(created(4)), got(created(5))];
    assert_eq!(judged(VerifyCase::LongKey, &renamed, Some(2), &named()).verdict, NOT_KNOWN);
    assert_eq!(judged(VerifyCase::LongKey, &renamed, Some(3), &named()).verdict, FAIL);
}

#[test]
fn a_key_that_is_not_heeded_says_nothing_of_its_spelling() {
    let effects = named().effects(&[], None);
    let outcomes = [got(created(3))];
    for case in VerifyCase::ALL.into_iter().filter(|case| case.is_about_keys()) {
        let observed =
            Observed { outcomes: &outcomes, effects: &effects, support: KeySupport::Ignored, form: KeyForm::Bare };
        assert_eq!(judge(case, &observed, &named()).verdict, NOT_KNOWN, "{case:?}");
    }
}

#[test]
fn a_request_that_is_sent_elsewhere_is_not_refused() {
    for status in [304, 307, 308] {
        let elsewhere = || got(answer(status, ""));
        for case in [VerifyCase::NoKey, VerifyCase::KeyCase, VerifyCase::TwoKeys, VerifyCase::QuotedKey] {
            assert_eq!(judged(case, &[elsewhere()], None, &named()).verdict, NOT_KNOWN, "{case:?} {status}");
        }
        let two = [elsewhere(), elsewhere()];
        assert_eq!(judged(VerifyCase::OtherTarget, &two, None, &named()).verdict, NOT_KNOWN, "{status}");
        assert_eq!(judged(VerifyCase::EmptyKey, &two, None, &named()).verdict, NOT_KNOWN, "{status}");
        let reused = [got(created(3)), elsewhere()];
        assert_eq!(judged(VerifyCase::OtherBody, &reused, None, &named()).verdict, NOT_KNOWN, "{status}");
        let three = [elsewhere(), elsewhere(), elsewhere()];
        assert_eq!(judged(VerifyCase::LongKey, &three, None, &named()).verdict, NOT_KNOWN, "{status}");
        assert_eq!(judged(VerifyCase::OtherCaller, &three, None, &named()).verdict, NOT_KNOWN, "{status}");
    }
}

#[test]
fn a_spelling_of_a_key_is_told_by_the_count_too_and_by_how_the_repeat_was_refused() {
    let nothing = [got(nameless("x"))];
    for (case, counted, verdict) in [
        (VerifyCase::QuotedKey, Some(0), PASS),
        (VerifyCase::QuotedKey, Some(1), WARN),
        (VerifyCase::KeyCase, Some(0), WARN),
        (VerifyCase::KeyCase, Some(1), PASS),
        (VerifyCase::KeyCase, Some(2), NOT_KNOWN),
    ] {
        assert_eq!(judged(case, &nothing, counted, &named()).verdict, verdict, "{case:?} {counted:?}");
    }
    // Where each repeat is refused, so is the same key in another spelling.
    let refuses = named().after(&answer(409, ""), false);
    for (case, status, verdict) in [
        (VerifyCase::QuotedKey, 409, PASS),
        (VerifyCase::QuotedKey, 400, WARN),
        (VerifyCase::KeyCase, 409, WARN),
        (VerifyCase::KeyCase, 400, PASS),
    ] {
        let refused = [got(answer(status, ""))];
        assert_eq!(judged(case, &refused, None, &refuses).verdict, verdict, "{case:?} {status}");
    }
}
