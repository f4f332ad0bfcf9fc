//! A used key for something else.

use bytes::Bytes;

use super::super::answer::ApiAnswer;
use super::super::case::VerifyCase;
use super::super::effects::Baseline;
use super::super::verdict::VerifyHarm;
use super::{FAIL, NOT_KNOWN, PASS, WARN, answer, created, got, judged, named, nameless, replay};

#[test]
fn a_key_for_another_body() {
    let case = VerifyCase::OtherBody;
    let alone = || got(created(3));
    for (outcomes, counted, verdict) in [
        (vec![alone(), got(answer(422, ""))], None, PASS),
        (vec![alone(), got(answer(400, ""))], None, PASS),
        (vec![alone(), got(answer(409, ""))], None, PASS),
        (vec![alone(), got(answer(422, ""))], Some(1), PASS),
        // The other body may be two effects, too.
        (vec![alone(), got(answer(422, ""))], Some(2), NOT_KNOWN),
        (vec![alone(), got(created(1))], None, WARN),
        (vec![alone(), got(created(3))], None, WARN),
        // It ran, with a key that was used: two effects.
        (vec![alone(), got(created(4))], None, FAIL),
        (vec![alone(), got(created(4))], Some(2), FAIL),
        (vec![alone(), got(created(4))], Some(1), NOT_KNOWN),
        (vec![alone(), got(nameless("x"))], None, NOT_KNOWN),
        (vec![alone(), got(nameless("x"))], Some(1), NOT_KNOWN),
        (vec![alone(), got(nameless("x"))], Some(2), FAIL),
        (vec![alone(), got(answer(500, ""))], None, NOT_KNOWN),
        (vec![alone(), got(answer(429, ""))], None, NOT_KNOWN),
        // It is the body that is refused.
        (vec![got(answer(422, "")), got(answer(422, ""))], None, NOT_KNOWN),
    ] {
        let judgement = judged(case, &outcomes, counted, &named());
        assert_eq!(judgement.verdict, verdict, "{outcomes:?} {counted:?}: {}", judgement.because);
        assert_eq!(judgement.harm, (verdict == FAIL).then_some(VerifyHarm::DoubledEffect), "{outcomes:?}");
    }
}

#[test]
fn another_target_gets_no_answer_of_the_first() {
    let refused = || got(answer(422, ""));
    for (outcomes, verdict) in [
        ([got(created(2)), got(created(1))], WARN),
        ([got(created(3)), got(created(4))], PASS),
        ([refused(), refused()], PASS),
        ([got(answer(404, "")), got(answer(404, ""))], NOT_KNOWN),
    ] {
        let judgement = judged(VerifyCase::OtherTarget, &outcomes, None, &named());
        assert_eq!(judgement.verdict, verdict, "{outcomes:?}: {}", judgement.because);
    }
}

#[test]
fn another_caller_gets_no_answer_of_the_first() {
    let refused = || got(answer(422, ""));
    let other_content =
        |number: u32| ApiAnswer { body: Bytes::from_static(b"{\"caller\":\"bob\"}"), ..created(number) };
    let own = || got(created(9));
    for (outcomes, verdict) in [
        ([got(created(2)), own(), got(created(1))], FAIL),
        ([replay(created(2)), own(), replay(other_content(1))], FAIL),
        ([replay(nameless("x")), own(), replay(nameless("y"))], FAIL),
        ([got(created(3)), own(), got(created(4))], PASS),
        ([refused(), own(), refused()], WARN),
        ([got(answer(403, "")), got(answer(403, "")), got(answer(403, ""))], NOT_KNOWN),
        ([got(nameless("x")), own(), got(nameless("x"))], NOT_KNOWN),
        // The request is refused to this caller.
        ([refused(), refused(), refused()], NOT_KNOWN),
        ([got(created(2)), got(answer(500, "")), got(created(1))], NOT_KNOWN),
        // An answer of its own, which names the same.
        ([got(other_content(2)), own(), got(other_content(1))], NOT_KNOWN),
        ([got(created(2)), got(created(1)), got(created(1))], NOT_KNOWN),
        // Numbers of one's own for each caller: the first of both is 1.
        ([got(created(7)), got(created(8)), got(created(1))], NOT_KNOWN),
        ([got(created(2)), got(created(3)), got(created(4))], NOT_KNOWN),
        ([got(created(1)), got(created(2)), got(created(3))], PASS),
    ] {
        let judgement = judged(VerifyCase::OtherCaller, &outcomes, None, &named());
        assert_eq!(judgement.verdict, verdict, "{outcomes:?}: {}", judgement.because);
        let harm = (verdict == FAIL).then_some(VerifyHarm::AnswerOfAnotherCaller);
        assert_eq!(judgement.harm, harm, "{outcomes:?}");
    }
}

/// An order of this number, whose answer has what is new in each answer.
fn stamped(number: u32, moment: u32) -> ApiAnswer {
    let body = format!(
        "{{\"order\":{number},\"item\":\"book\",\"served_at\":{moment},\"meta\":{{\"request\":\"r{moment}\"}}}}"
    );
    nameless(&body)
}

#[test]
fn what_is_new_in_each_answer_of_the_first_caller_too_is_no_content_of_another() {
    let case = VerifyCase::OtherCaller;
    let before = Baseline::new(stamped(1, 10), stamped(2, 20), "/orders");
    let after = before.after(&stamped(1, 30), false);
    let leaked = [got(stamped(2, 40)), got(stamped(9, 50)), got(stamped(1, 60))];
    let judgement = judged(case, &leaked, None, &after);
    assert_eq!(judgement.harm, Some(VerifyHarm::AnswerOfAnotherCaller), "{}", judgement.because);
    // Without a repeat, it is not known what is new in each answer.
    assert_eq!(judged(case, &leaked, None, &before).verdict, NOT_KNOWN);
    // Content that is not new in each answer, and not the first caller's.
    let others = |number: u32| nameless(&format!("{{\"order\":{number},\"item\":\"pen\",\"served_at\":7}}"));
    let own = [got(others(2)), got(others(9)), got(others(1))];
    assert_eq!(judged(case, &own, None, &after).verdict, NOT_KNOWN);
    // Numbers of the other caller's.
    let numbered = [got(stamped(1, 40)), got(stamped(2, 50)), got(stamped(3, 60))];
    assert_eq!(judged(case, &numbered, None, &after).verdict, PASS);

    // Content that was kept is a name, where nothing else is.
    let kept = |created: u32, served: u32| nameless(&format!("{{\"created\":{created},\"served\":{served}}}"));
    let after = Baseline::new(kept(1, 10), kept(2, 20), "/orders").after(&kept(1, 30), false);
    // The repeat is not known to be one.
    let leaked = [got(kept(2, 40)), got(kept(9, 50)), got(kept(1, 60))];
    assert_eq!(judged(case, &leaked, None, &after).verdict, NOT_KNOWN);

    // Pages have no members.
    let page = |number: u32, moment: u32| {
        let mut answer = created(number);
        answer.body = Bytes::from(format!("<p>{moment}"));
        answer
    };
    let after = Baseline::new(page(1, 10), page(2, 20), "/orders").after(&page(1, 30), false);
    let leaked = [got(page(2, 40)), got(page(9, 50)), got(page(1, 60))];
    assert_eq!(judged(case, &leaked, None, &after).verdict, NOT_KNOWN);
}

/// An identifier that is made of the key is the same for all callers, and what was created is not.
#[test]
fn an_id_that_is_made_of_the_key_is_not_known_to_be_another_callers() {
    let case = VerifyCase::OtherCaller;
    // Of the key in a way that nobody can see.
    let made = |key: &str, created: u32, served: u32| {
        nameless(&format!("{{\"id\":\"{key}\",\"created\":{created},\"served\":{served}}}"))
    };
    let after = Baseline::new(made("k1", 1, 10), made("k2", 2, 20), "/orders").after(&made("k1", 1, 30), false);
    let own = [got(made("k2", 3, 40)), got(made("k3", 4, 50)), got(made("k1", 5, 60))];
    assert_eq!(judged(case, &own, None, &after).verdict, NOT_KNOWN);
    let leaked = [got(made("k2", 2, 40)), got(made("k3", 4, 50)), got(made("k1", 1, 60))];
    assert_eq!(judged(case, &leaked, None, &after).verdict, FAIL);

    // Another target and another body are judged alike.
    let target = [got(made("k2", 3, 40)), got(made("k1", 5, 60))];
    assert_eq!(judged(VerifyCase::OtherTarget, &target, None, &after).verdict, NOT_KNOWN);
    let target = [got(made("k2", 2, 40)), got(made("k1", 1, 60))];
    assert_eq!(judged(VerifyCase::OtherTarget, &target, None, &after).verdict, WARN);
    for (counted, verdict) in [(None, NOT_KNOWN), (Some(1), NOT_KNOWN), (Some(2), FAIL)] {
        let body = [got(made("k3", 3, 40)), got(made("k1", 5, 60))];
        assert_eq!(judged(VerifyCase::OtherBody, &body, counted, &after).verdict, verdict, "{counted:?}");
    }

    // Nothing else tells them apart, but the count does.
    let bare = |key: &str, served: u32| nameless(&format!("{{\"id\":\"{key}\",\"served\":{served}}}"));
    let after = Baseline::new(bare("k1", 10), bare("k2", 20), "/orders").after(&bare("k1", 30), false);
    let alike = [got(bare("k2", 40)), got(bare("k3", 50)), got(bare("k1", 60))];
    assert_eq!(judged(case, &alike, Some(3), &after).verdict, NOT_KNOWN);
    for counted in [Some(0), Some(1), None] {
        assert_eq!(judged(case, &alike, counted, &after).verdict, FAIL, "{counted:?}");
    }
    // Without names, three effects for three requests are its own.
    let unnamed = [got(nameless("x")), got(nameless("y")), got(nameless("z"))];
    assert_eq!(judged(case, &unnamed, Some(3), &named()).verdict, PASS);
    assert_eq!(judged(case, &unnamed, Some(1), &named()).verdict, NOT_KNOWN);
}
