//! A second try, where only the count tells of a doubled effect.

use super::super::case::VerifyCase;
use super::super::effects::Baseline;
use super::super::judge::{KeyForm, KeySupport};
use super::super::played::PlayedCases;
use super::super::verdict::VerifyHarm;
use super::{FAIL, NOT_KNOWN, PASS, created, got, indistinct, named, nameless};

/// The cases with the repeat alone, by whose count it was doubled.
fn repeated() -> PlayedCases {
    let mut played = PlayedCases::new(indistinct(), KeyForm::Bare);
    played.insert(VerifyCase::Repeat, vec![got(nameless("ok"))], Some(1));
    played
}

#[test]
fn traffic_besides_is_not_taken_for_a_doubled_effect() {
    let case = VerifyCase::Repeat;
    let again = [got(nameless("ok"))];
    for (risen, verdict, said) in [
        (Some(1), FAIL, "and so again when it was played once more"),
        (Some(0), NOT_KNOWN, "others may have created something"),
        (None, FAIL, "if nobody else created something"),
    ] {
        let mut played = repeated();
        assert!(played.rests_on_count(case));
        played.tried_again(case, &again, risen);
        let (_, judgement) = played.row(case, None);
        assert_eq!(judgement.verdict, verdict, "{risen:?}: {}", judgement.because);
        assert!(judgement.because.contains(said), "{}", judgement.because);
        let harm = (verdict == FAIL).then_some(VerifyHarm::DoubledEffect);
        assert_eq!(judgement.harm, harm);
        let support = if verdict == FAIL { KeySupport::Ignored } else { KeySupport::NotKnown };
        assert_eq!(played.support(), support);
        // Also where the count turns out not to be relied on.
        played.distrust_all("the count cannot be relied on");
        let (_, judgement) = played.row(case, None);
        assert_eq!(judgement.verdict, NOT_KNOWN, "{}", judgement.because);
    }
}

#[test]
fn what_the_answers_or_the_repeat_have_proved_is_not_tried_again() {
    let mut played = PlayedCases::new(named(), KeyForm::Bare);
    played.insert(VerifyCase::Repeat, vec![got(created(3))], Some(1));
    assert!(!played.rests_on_count(VerifyCase::Repeat), "by the answers");

    let ten = || vec![got(nameless("ok")); 10];
    let mut played = repeated();
    played.tried_again(VerifyCase::Repeat, &[got(nameless("ok"))], Some(1));
    played.insert(VerifyCase::Concurrent, ten(), Some(10));
    assert!(!played.rests_on_count(VerifyCase::Concurrent), "the API is known to double");
    assert_eq!(played.row(VerifyCase::Concurrent, None).1.verdict, FAIL);

    // It heeds keys, but not at once.
    let mut played = PlayedCases::new(indistinct(), KeyForm::Bare);
    played.insert(VerifyCase::Repeat, vec![got(nameless("ok"))], Some(0));
    played.insert(VerifyCase::Concurrent, ten(), Some(2));
    assert_eq!(played.row(VerifyCase::Repeat, None).1.verdict, PASS);
    assert!(played.rests_on_count(VerifyCase::Concurrent));
    played.tried_again(VerifyCase::Concurrent, &ten(), Some(1));
    let judgement = played.row(VerifyCase::Concurrent, None).1;
    assert!(judgement.verdict == NOT_KNOWN && judgement.because.contains("rose by 2"), "{}", judgement.because);
    // What ran with another body may be a repeat the next time.
    played.insert(VerifyCase::OtherBody, vec![got(nameless("ok")), got(nameless("ok"))], Some(2));
    assert!(!played.rests_on_count(VerifyCase::OtherBody));
    let judgement = played.row(VerifyCase::OtherBody, None).1;
    assert!(judgement.verdict == FAIL && judgement.because.contains("if nobody else"), "{}", judgement.because);
}

/// Two servers that tell which of them it was.
#[test]
fn content_that_other_keys_had_too_is_no_name() {
    let at = |server: u32| nameless(&format!("{{\"ok\":true,\"server\":{server}}}"));
    let case = VerifyCase::Repeat;
    let mut played = PlayedCases::new(Baseline::new(at(1), at(2), "/orders"), KeyForm::Bare);
    played.insert(case, vec![got(at(1))], None);
    assert_eq!(played.row(case, None).1.verdict, PASS, "as far as the answers tell");
    let ten = (0..10).map(|number| got(at(number % 2 + 1))).collect();
    played.insert(VerifyCase::Concurrent, ten, None);
    assert_eq!(played.row(case, None).1.verdict, NOT_KNOWN);
    assert_eq!(played.support(), KeySupport::NotKnown);
    let callers = vec![got(at(2)), got(nameless("{}")), got(at(1))];
    played.insert(VerifyCase::OtherCaller, callers, None);
    assert_eq!(played.row(VerifyCase::OtherCaller, None).1.verdict, NOT_KNOWN);

    // A time is another one for each key.
    let mut played = PlayedCases::new(Baseline::new(at(1), at(2), "/orders"), KeyForm::Bare);
    played.insert(case, vec![got(at(1))], None);
    played.insert(VerifyCase::Concurrent, vec![got(at(3)); 10], None);
    assert_eq!(played.row(case, None).1.verdict, PASS);
}
