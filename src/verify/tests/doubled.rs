//! The same request again: twice, at once, after a lost answer.

use super::super::answer::ClientOutcome;
use super::super::case::VerifyCase;
use super::super::effects::Baseline;
use super::super::verdict::VerifyHarm;
use super::{FAIL, NOT_KNOWN, PASS, WARN, answer, created, got, indistinct, judged, named, nameless, replay};

#[test]
fn the_same_request_twice() {
    let case = VerifyCase::Repeat;
    for (outcome, counted, verdict) in [
        (replay(created(1)), None, PASS),
        (got(created(1)), None, PASS),
        (got(created(2)), None, FAIL),
        // The count is exact, and answers may hide it.
        (got(created(1)), Some(2), FAIL),
        (got(created(1)), Some(1), PASS),
        // A replay may lack what named the first.
        (replay(nameless("x")), None, PASS),
        (got(nameless("{\"order\":1,\"item\":\"book\"}")), None, PASS),
        (got(nameless("x")), None, NOT_KNOWN),
        (got(nameless("x")), Some(1), PASS),
        (got(answer(409, "")), None, WARN),
        (got(answer(503, "")), None, NOT_KNOWN),
        (got(answer(503, "")), Some(1), WARN),
        // A failure may have had an effect.
        (got(answer(500, "")), None, NOT_KNOWN),
        (got(answer(500, "")), Some(1), WARN),
        (got(answer(500, "")), Some(2), FAIL),
        (ClientOutcome::Failed("no answer in time".into()), None, NOT_KNOWN),
    ] {
        let judgement = judged(case, std::slice::from_ref(&outcome), counted, &named());
        assert_eq!(judgement.verdict, verdict, "{outcome:?} {counted:?}: {}", judgement.because);
        assert_eq!(judgement.harm, (verdict == FAIL).then_some(VerifyHarm::DoubledEffect));
    }
    assert_eq!(judged(case, &[got(nameless("ok"))], None, &indistinct()).verdict, NOT_KNOWN);
    assert_eq!(judged(case, &[got(nameless("ok"))], Some(1), &indistinct()).verdict, PASS);
}

#[test]
fn ten_at_once() {
    let ten = |first: ClientOutcome, other: ClientOutcome| {
        let mut outcomes = vec![other; 9];
        outcomes.push(first);
        outcomes
    };
    let case = VerifyCase::Concurrent;
    let conflict = || got(answer(409, ""));
    for (outcomes, counted, verdict) in [
        (ten(got(created(3)), conflict()), None, PASS),
        (ten(got(created(3)), replay(created(3))), None, PASS),
        (ten(got(created(3)), got(created(4))), None, FAIL),
        (ten(got(created(3)), conflict()), Some(2), FAIL),
        (ten(got(created(3)), conflict()), Some(1), PASS),
        (ten(got(created(3)), got(answer(500, ""))), None, NOT_KNOWN),
        (ten(got(created(3)), got(answer(500, ""))), Some(1), WARN),
        (ten(got(created(3)), got(answer(400, ""))), None, WARN),
        (ten(conflict(), conflict()), None, WARN),
        (ten(got(nameless("a")), got(nameless("b"))), None, NOT_KNOWN),
        // A count that does not rise for what was done is not to be relied on.
        (ten(got(created(3)), conflict()), Some(0), NOT_KNOWN),
    ] {
        let judgement = judged(case, &outcomes, counted, &named());
        assert_eq!(judgement.verdict, verdict, "{outcomes:?}: {}", judgement.because);
    }
    let fate = judged(case, &ten(got(created(3)), got(created(4))), None, &named());
    assert!(fate.because.contains("/orders/3") && fate.because.contains("/orders/4"), "{}", fate.because);
}

#[test]
fn an_answer_that_is_lost_is_not_known_unless_something_tells() {
    let lost = || ClientOutcome::GaveUp(None);
    for (case, early) in [(VerifyCase::LostAnswer, PASS), (VerifyCase::ClientTimeout, NOT_KNOWN)] {
        for (outcomes, counted, verdict) in [
            (vec![lost(), got(created(3))], None, NOT_KNOWN),
            (vec![lost(), got(created(3))], Some(1), PASS),
            (vec![lost(), got(created(3))], Some(2), FAIL),
            (vec![lost(), replay(created(3))], None, PASS),
            (vec![lost(), got(answer(409, "")), replay(created(3))], None, PASS),
            // The client did not wait for it, but it had come.
            (vec![ClientOutcome::GaveUp(Some(created(3))), got(created(3))], None, early),
            (vec![ClientOutcome::GaveUp(Some(created(3))), got(created(4))], None, FAIL),
            (vec![lost(), got(answer(409, "")), got(answer(409, ""))], None, WARN),
            (vec![lost(), got(answer(500, ""))], None, NOT_KNOWN),
            (vec![lost(), got(answer(500, ""))], Some(1), WARN),
        ] {
            let judgement = judged(case, &outcomes, counted, &named());
            assert_eq!(judgement.verdict, verdict, "{outcomes:?} {counted:?}: {}", judgement.because);
        }
    }
}

#[test]
fn a_client_that_could_not_leave_in_time_was_not_played() {
    let early = |status| ClientOutcome::GaveUp(Some(answer(status, "")));
    let failed = || ClientOutcome::Failed("no connection in time".into());
    for counted in [None, Some(1)] {
        let case = VerifyCase::ClientTimeout;
        let outcomes = [ClientOutcome::GaveUp(Some(created(3))), replay(created(3))];
        assert_eq!(judged(case, &outcomes, counted, &named()).verdict, NOT_KNOWN);
        for case in [VerifyCase::LostAnswer, VerifyCase::ClientTimeout] {
            for first in [early(409), early(500), early(307), failed()] {
                let judgement = judged(case, &[first.clone(), replay(created(3))], counted, &named());
                assert_eq!(judgement.verdict, NOT_KNOWN, "{case:?} {first:?}: {}", judgement.because);
            }
        }
    }
    // Proved all the same.
    let doubled = [ClientOutcome::GaveUp(Some(created(3))), got(created(4))];
    assert_eq!(judged(VerifyCase::ClientTimeout, &doubled, None, &named()).verdict, FAIL);
}

#[test]
fn a_success_that_is_not_counted_is_not_known() {
    let lost = || ClientOutcome::GaveUp(None);
    assert_eq!(judged(VerifyCase::LostAnswer, &[lost(), replay(created(3))], Some(0), &named()).verdict, NOT_KNOWN);
    assert_eq!(judged(VerifyCase::LostAnswer, &[lost(), replay(nameless("x"))], Some(0), &named()).verdict, NOT_KNOWN);
    assert_eq!(judged(VerifyCase::LostAnswer, &[lost(), got(nameless("x"))], Some(0), &named()).verdict, NOT_KNOWN);
}

#[test]
fn a_request_that_may_have_been_cut_short_may_have_had_an_effect() {
    for status in [408, 499, 503, 307] {
        let again = [got(answer(status, ""))];
        assert_eq!(judged(VerifyCase::Repeat, &again, None, &named()).verdict, NOT_KNOWN, "{status}");
        assert_eq!(judged(VerifyCase::Repeat, &again, Some(1), &named()).verdict, WARN, "{status}");
        assert_eq!(judged(VerifyCase::Repeat, &again, Some(2), &named()).verdict, FAIL, "{status}");
    }
    assert_eq!(judged(VerifyCase::Repeat, &[got(answer(429, ""))], None, &named()).verdict, WARN);
}

/// Content that holds a time is another one for another key, and the same one for all that run within a second.
#[test]
fn content_of_requests_at_once_is_no_name() {
    let at = |second: u32| nameless(&format!("{{\"state\":\"created\",\"at\":{second}}}"));
    let timed = Baseline::new(at(1), at(2), "/orders");
    let ten = vec![got(at(3)); 10];
    assert_eq!(judged(VerifyCase::Concurrent, &ten, None, &timed).verdict, NOT_KNOWN);
    assert_eq!(judged(VerifyCase::Concurrent, &ten, Some(1), &timed).verdict, PASS);
    let long = [got(at(3)), got(at(3)), got(at(4))];
    assert_eq!(judged(VerifyCase::LongKey, &long, None, &timed).verdict, NOT_KNOWN);
    let empty = [got(at(3)), got(at(3))];
    assert_eq!(judged(VerifyCase::EmptyKey, &empty, None, &timed).verdict, NOT_KNOWN);
    // That of the first request is older than the second key's.
    assert_eq!(judged(VerifyCase::Repeat, &[got(at(1))], None, &timed).verdict, PASS);
}

/// Nothing was at work at once where the load is limited to one, whatever the API does with two.
#[test]
fn what_is_turned_away_for_the_load_tells_nothing_of_two_at_once() {
    let ten = |other: &[ClientOutcome]| {
        let mut outcomes = vec![got(created(3))];
        outcomes.extend(other.iter().cycle().take(9).cloned());
        outcomes
    };
    let limited = || got(answer(429, r#"{"error":"rate"}"#));
    let overloaded = || got(answer(503, "<html>503 Service Temporarily Unavailable"));
    let in_flight = || got(answer(409, ""));
    let key_in_use = |status| got(answer(status, r#"{"type":"https://d.example/idempotency-key-in-use"}"#));
    let case = VerifyCase::Concurrent;
    for (others, verdict) in [
        (vec![limited()], NOT_KNOWN),
        (vec![overloaded()], NOT_KNOWN),
        (vec![limited(), overloaded()], NOT_KNOWN),
        // The replay may have come when the first had ended.
        (vec![limited(), limited(), limited(), replay(created(3))], NOT_KNOWN),
        (vec![ClientOutcome::Failed("no connection".into())], NOT_KNOWN),
        (vec![limited(), in_flight()], PASS),
        (vec![in_flight()], PASS),
        (vec![got(answer(423, ""))], PASS),
        (vec![got(answer(425, ""))], PASS),
        // These speak of the key.
        (vec![key_in_use(503)], PASS),
        (vec![key_in_use(429)], PASS),
        (vec![replay(created(3)), overloaded(), in_flight()], PASS),
    ] {
        let judgement = judged(case, &ten(&others), Some(1), &named());
        assert_eq!(judgement.verdict, verdict, "{others:?}: {}", judgement.because);
        // A doubled effect is one all the same.
        assert_eq!(judged(case, &ten(&others), Some(2), &named()).verdict, FAIL, "{others:?}");
    }
    let judgement = judged(case, &ten(&[limited()]), None, &named());
    assert_eq!(judgement.because, "9 of 10 were refused for the load: it is not known what two at once do");
    assert_eq!(judged(case, &vec![limited(); 10], None, &named()).verdict, NOT_KNOWN);

    let lost = || ClientOutcome::GaveUp(None);
    let case = VerifyCase::ClientTimeout;
    for (retries, verdict) in [
        (vec![limited(), replay(created(3))], NOT_KNOWN),
        (vec![overloaded(), replay(created(3))], NOT_KNOWN),
        (vec![limited(), in_flight(), replay(created(3))], PASS),
        (vec![key_in_use(503), replay(created(3))], PASS),
        (vec![in_flight(), replay(created(3))], PASS),
        (vec![replay(created(3))], PASS),
    ] {
        let outcomes: Vec<ClientOutcome> = std::iter::once(lost()).chain(retries).collect();
        assert_eq!(judged(case, &outcomes, Some(1), &named()).verdict, verdict, "{outcomes:?}");
        assert_eq!(judged(case, &outcomes, Some(2), &named()).verdict, FAIL, "{outcomes:?}");
    }
    // A retry that comes when the first has ended may come a little later still.
    let late = [lost(), limited(), replay(created(3))];
    assert_eq!(judged(VerifyCase::LostAnswer, &late, Some(1), &named()).verdict, PASS);
}
