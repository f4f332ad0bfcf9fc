//! The verdicts, by what came: no request is sent here.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LINK, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::answer::{ApiAnswer, ClientOutcome};
use super::case::{ReplayPart, SeenRefusal, VerifyCase};
use super::effects::{AnswerRelation, Baseline, Basis, NameSource};
use super::judge::{KeyForm, KeySupport, Observed, control, judge};
use super::likeness::{refusal, replayed};
use super::verdict::{CaseVerdict, EffectBasis, Judgement, VerifyHarm};

const PASS: CaseVerdict = CaseVerdict::Pass;
const WARN: CaseVerdict = CaseVerdict::Warn;
const FAIL: CaseVerdict = CaseVerdict::Fail;
const NOT_KNOWN: CaseVerdict = CaseVerdict::NotKnown;

fn answer(status: u16, body: &str) -> ApiAnswer {
    let status = StatusCode::from_u16(status).expect("a status");
    ApiAnswer { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body.as_bytes()) }
}

impl ApiAnswer {
    fn with(mut self, name: &HeaderName, value: &'static str) -> Self {
        self.headers.append(name, HeaderValue::from_static(value));
        self
    }
}

/// An order of this number.
fn created(number: u32) -> ApiAnswer {
    let mut answer = answer(201, &format!("{{\"order\":{number},\"item\":\"book\"}}"));
    answer.headers.insert(LOCATION, HeaderValue::try_from(format!("/orders/{number}")).expect("visible"));
    answer
}

/// The same without a name.
fn nameless(body: &str) -> ApiAnswer {
    answer(201, body)
}

fn got(answer: ApiAnswer) -> ClientOutcome {
    ClientOutcome::Answered(answer)
}

fn replay(answer: ApiAnswer) -> ClientOutcome {
    got(answer.with(&HeaderName::from_static("idempotent-replayed"), "true"))
}

fn named() -> Baseline {
    Baseline::new(created(1), created(2), "/orders")
}

/// Answers that differ in nothing.
fn indistinct() -> Baseline {
    Baseline::new(nameless("ok"), nameless("ok"), "/orders")
}

fn judged(case: VerifyCase, outcomes: &[ClientOutcome], counted: Option<u64>, baseline: &Baseline) -> Judgement {
    let first = got(baseline.first.clone());
    let is_repeat = case == VerifyCase::Repeat;
    let all = is_repeat.then_some(&first).into_iter().chain(outcomes);
    let effects = baseline.effects(all, counted);
    let observed = Observed { outcomes, effects: &effects, support: KeySupport::Heeded, form: KeyForm::Bare };
    judge(case, &observed, baseline)
}

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
        // A count that does not rise for what was done is not to be gone by.
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
fn a_key_for_another_body() {
    let case = VerifyCase::OtherBody;
    let alone = || got(created(3));
    for (outcomes, verdict) in [
        (vec![alone(), got(answer(422, ""))], PASS),
        (vec![alone(), got(answer(400, ""))], PASS),
        (vec![alone(), got(answer(409, ""))], PASS),
        (vec![alone(), got(created(1))], WARN),
        (vec![alone(), got(created(4))], WARN),
        (vec![alone(), got(nameless("x"))], NOT_KNOWN),
        (vec![alone(), got(answer(500, ""))], NOT_KNOWN),
        (vec![alone(), got(answer(429, ""))], NOT_KNOWN),
        // It is the body that is refused.
        (vec![got(answer(422, "")), got(answer(422, ""))], NOT_KNOWN),
    ] {
        let judgement = judged(case, &outcomes, None, &named());
        assert_eq!(judgement.verdict, verdict, "{outcomes:?}: {}", judgement.because);
    }
}

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

#[test]
fn empty_and_long_keys() {
    let refused = || got(answer(400, ""));
    for (case, outcomes, verdict) in [
        (VerifyCase::EmptyKey, vec![refused(), refused()], PASS),
        (VerifyCase::EmptyKey, vec![got(created(3)), got(created(4))], PASS),
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
fn the_control_must_tell_two_effects_apart() {
    assert_eq!(control(&named(), None).verdict, PASS);
    assert_eq!(control(&indistinct(), Some(2)).verdict, PASS);
    assert_eq!(control(&indistinct(), None).verdict, NOT_KNOWN);
}

#[test]
fn effects_are_named_by_what_differs_and_not_by_what_differs_each_time() {
    let source = |first: &str, other: &str, path: &str| NameSource::of(&answer(201, first), &answer(201, other), path);
    let member = |name: &str| Some(NameSource::Member(name.to_owned()));
    assert_eq!(source(r#"{"id":"a"}"#, r#"{"id":"b"}"#, "/x"), member("id"));
    assert_eq!(source(r#"{"data":{"id":1}}"#, r#"{"data":{"id":2}}"#, "/x"), member("id"));
    assert_eq!(source(r#"{"order":1}"#, r#"{"order":2}"#, "/v1/orders"), member("order"));
    assert_eq!(source(r#"{"orderNumber":1}"#, r#"{"orderNumber":2}"#, "/orders/"), member("orderNumber"));
    assert_eq!(source(r#"{"number":"A-1"}"#, r#"{"number":"A-2"}"#, "/invoices"), member("number"));
    assert_eq!(source(r#"{"customer_id":1}"#, r#"{"customer_id":2}"#, "/customers"), member("customer_id"));
    let any = Some(NameSource::AnyIdentifier("payment_id".to_owned()));
    assert_eq!(source(r#"{"payment_id":1}"#, r#"{"payment_id":2}"#, "/charge"), any);
    // New in each answer, in replays too; or the same for every effect.
    for (first, other) in [
        (r#"{"request_id":"a"}"#, r#"{"request_id":"b"}"#),
        (r#"{"customer_id":1}"#, r#"{"customer_id":2}"#),
        (r#"{"traceId":"a"}"#, r#"{"traceId":"b"}"#),
        (r#"{"id":"same"}"#, r#"{"id":"same"}"#),
        (r#"{"created_at":1}"#, r#"{"created_at":2}"#),
        (r#"{"paid":1}"#, r#"{"paid":2}"#),
        ("a", "b"),
        ("", ""),
    ] {
        assert_eq!(source(first, other, "/orders"), None, "{first}");
    }
    // Location comes first, where it tells them apart.
    assert_eq!(NameSource::of(&created(1), &created(2), "/orders"), Some(NameSource::Location));
    let fixed = |id: &str| answer(201, id).with(&LOCATION, "/orders");
    assert_eq!(NameSource::of(&fixed(r#"{"id":1}"#), &fixed(r#"{"id":2}"#), "/x"), member("id"));
}

#[test]
fn a_relation_is_proved_or_not_known() {
    let baseline = named();
    assert_eq!(baseline.relate(&created(1)), AnswerRelation::Same(Basis::Names));
    assert_eq!(baseline.relate(&created(7)), AnswerRelation::Other);
    assert_eq!(baseline.relate(&nameless("x")), AnswerRelation::Unclear);
    // Content that does not differ between effects proves nothing.
    assert_eq!(indistinct().relate(&nameless("ok")), AnswerRelation::Unclear);
}

#[test]
fn replays_are_compared_part_by_part() {
    let first = created(1).with(&CONTENT_TYPE, "application/json").with(&HeaderName::from_static("x-total"), "1");
    let verdict = |part, second: ApiAnswer| {
        let (_, judgement) = replayed(part, &first, Some(&got(second)), KeySupport::Heeded);
        judgement.verdict
    };
    let same = || first.clone();
    let parts = [ReplayPart::Status, ReplayPart::Body, ReplayPart::Location, ReplayPart::Fields];
    for part in parts {
        assert_eq!(verdict(part, same()), PASS, "{part:?}");
        assert_eq!(verdict(part, answer(409, "")), NOT_KNOWN, "{part:?}");
        assert_eq!(replayed(part, &first, None, KeySupport::Heeded).1.verdict, NOT_KNOWN);
        assert_eq!(replayed(part, &first, Some(&got(same())), KeySupport::Ignored).1.verdict, NOT_KNOWN);
    }
    assert_eq!(verdict(ReplayPart::Status, ApiAnswer { status: StatusCode::OK, ..same() }), WARN);
    let body = |text: &'static str| ApiAnswer { body: Bytes::from_static(text.as_bytes()), ..same() };
    assert_eq!(verdict(ReplayPart::Body, body(r#"{ "item": "book", "order": 1 }"#)), PASS);
    assert_eq!(verdict(ReplayPart::Body, body("{}")), WARN);
    let without = |name: &HeaderName| {
        let mut answer = same();
        answer.headers.remove(name);
        answer
    };
    assert_eq!(verdict(ReplayPart::Location, without(&LOCATION)), WARN);
    assert_eq!(verdict(ReplayPart::Fields, without(&CONTENT_TYPE)), WARN);
    assert_eq!(verdict(ReplayPart::Fields, without(&HeaderName::from_static("x-total"))), WARN);
    let mut other = same();
    other.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    assert_eq!(verdict(ReplayPart::Fields, other), WARN);
    // What belongs to the exchange may change.
    let mut dated = same();
    dated.headers.insert(http::header::DATE, HeaderValue::from_static("Sun, 29 Nov 2026 09:00:00 GMT"));
    assert_eq!(verdict(ReplayPart::Fields, dated), PASS);
}

#[test]
fn a_refusal_tells_clients_what_to_do() {
    let problem = |body: &str| answer(409, body).with(&CONTENT_TYPE, "application/problem+json");
    let verdict = |answer: ApiAnswer| {
        let (_, judgement) = refusal(SeenRefusal::InFlight, Some(&answer));
        (judgement.verdict, judgement.because)
    };
    let linked = r#"{"type":"https://docs.example.com/idempotency","title":"in flight"}"#;
    assert_eq!(verdict(problem(linked).with(&RETRY_AFTER, "1")).0, PASS);
    let by_field = problem(r#"{"type":"urn:x"}"#).with(&LINK, "<https://d.example>; rel=\"help\"");
    assert_eq!(verdict(by_field.with(&RETRY_AFTER, "1")).0, PASS);
    // A date is as good as seconds (RFC 9110, 10.2.3).
    let dated = problem(linked).with(&RETRY_AFTER, "Sun, 29 Nov 2026 09:00:00 GMT");
    assert_eq!(verdict(dated).0, PASS);
    assert_eq!(verdict(problem(linked)), (WARN, "no Retry-After".to_owned()));
    assert_eq!(verdict(problem("{}").with(&RETRY_AFTER, "1")), (WARN, "no link to documentation".to_owned()));
    let (verdict, because) = verdict(answer(409, "busy"));
    assert!(verdict == WARN && because.contains("no problem document"), "{because}");
    // A retry of a request that is wrong does not succeed later.
    let reused = answer(422, linked).with(&CONTENT_TYPE, "application/problem+json; charset=utf-8");
    assert_eq!(refusal(SeenRefusal::Reused, Some(&reused)).1.verdict, PASS);
    assert_eq!(refusal(SeenRefusal::InFlight, None).1.verdict, NOT_KNOWN);
}

/// Orders whose Location holds a signature, which is new in each answer.
fn signed(number: u32, signature: u32) -> ApiAnswer {
    let mut answer = nameless("{}");
    let location = format!("/orders/{number}?signature={signature}");
    answer.headers.insert(LOCATION, HeaderValue::try_from(location).expect("visible"));
    answer
}

#[test]
fn a_name_that_is_new_in_each_answer_proves_no_second_effect() {
    let case = VerifyCase::Repeat;
    // The API's own count, or the answer's own word, says otherwise.
    assert_eq!(judged(case, &[got(created(7))], Some(1), &named()).verdict, NOT_KNOWN);
    assert_eq!(judged(case, &[got(created(7))], Some(0), &named()).verdict, NOT_KNOWN);
    assert_eq!(judged(case, &[replay(created(7))], None, &named()).verdict, NOT_KNOWN);
    assert_eq!(judged(case, &[replay(created(7))], Some(2), &named()).verdict, FAIL);
    let two = [got(created(3)), got(created(4)), replay(created(4))];
    assert_eq!(judged(VerifyCase::Concurrent, &two, None, &named()).verdict, FAIL);

    let signed_orders = Baseline::new(signed(1, 10), signed(2, 20), "/orders");
    assert_eq!(judged(case, &[got(signed(1, 30))], None, &signed_orders).verdict, PASS);
    assert_eq!(judged(case, &[got(signed(3, 30))], None, &signed_orders).verdict, FAIL);

    // A member that may be that of the answer.
    for member in ["attempt_id", "eventId", "payment_id"] {
        let attempt = |id: u32| nameless(&format!("{{\"{member}\":{id}}}"));
        let attempts = Baseline::new(attempt(1), attempt(2), "/orders");
        assert_eq!(judged(case, &[got(attempt(3))], None, &attempts).verdict, NOT_KNOWN);
        assert_eq!(judged(case, &[got(attempt(1))], None, &attempts).verdict, PASS);
        assert_eq!(judged(case, &[got(attempt(3))], Some(2), &attempts).verdict, FAIL);
        assert_eq!(judged(case, &[got(attempt(3))], Some(1), &attempts).verdict, PASS);
        let long = [got(attempt(3)), got(attempt(4)), got(attempt(5))];
        assert_eq!(judged(VerifyCase::LongKey, &long, None, &attempts).verdict, NOT_KNOWN);
        assert_eq!(judged(VerifyCase::KeyCase, &[got(attempt(3))], None, &attempts).verdict, NOT_KNOWN);
        assert_eq!(control(&attempts, None).verdict, NOT_KNOWN);
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

#[test]
fn what_an_answer_names_is_shown_without_control_characters() {
    let source = NameSource::Member("id\u{1b}[2J\u{202e}".to_owned());
    let EffectBasis::Names { source, .. } = EffectBasis::of_names(Some(&source), None) else { panic!("names") };
    assert_eq!(source, "the member id?[2J? of the answers");
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = httpdate::parse_http_date("Sun, 29 Nov 2026 09:00:00 GMT").expect("a date");
    for (value, seconds) in [
        ("2", Some(2)),
        ("Sun, 29 Nov 2026 09:00:03 GMT", Some(3)),
        ("Sun, 29 Nov 2026 08:00:00 GMT", Some(0)),
        ("soon", None),
    ] {
        let answer = answer(409, "").with(&RETRY_AFTER, value);
        assert_eq!(answer.retry_after(now).map(|wait| wait.as_secs()), seconds, "{value}");
    }
}
