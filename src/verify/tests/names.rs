//! What answers name.

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};

use super::super::answer::{ApiAnswer, ClientOutcome};
use super::super::case::VerifyCase;
use super::super::effects::{AnswerRelation, Baseline, Basis, NameSource};
use super::super::judge::control;
use super::super::key_position::KeyValue;
use super::super::verdict::EffectBasis;
use super::{FAIL, NOT_KNOWN, PASS, answer, created, got, indistinct, judged, named, nameless, replay};

#[test]
fn the_control_must_tell_two_effects_apart() {
    assert_eq!(control(&named(), None).verdict, PASS);
    assert_eq!(control(&indistinct(), Some(2)).verdict, PASS);
    assert_eq!(control(&indistinct(), None).verdict, NOT_KNOWN);
}

fn of(first: &ApiAnswer, other: &ApiAnswer, path: &str) -> Option<NameSource> {
    NameSource::all(first, other, path).into_iter().next()
}

#[test]
fn effects_are_named_by_what_differs_and_not_by_what_differs_each_time() {
    let source = |first: &str, other: &str, path: &str| of(&answer(201, first), &answer(201, other), path);
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
    assert_eq!(of(&created(1), &created(2), "/orders"), Some(NameSource::Location));
    let fixed = |id: &str| answer(201, id).with(&LOCATION, "/orders");
    assert_eq!(of(&fixed(r#"{"id":1}"#), &fixed(r#"{"id":2}"#), "/x"), member("id"));
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
fn what_an_answer_names_is_shown_without_control_characters() {
    let source = NameSource::Member("id\u{1b}[2J\u{202e}".to_owned());
    let EffectBasis::Names { source, .. } = EffectBasis::of_names(Some(&source), None) else { panic!("names") };
    assert_eq!(source, "the member id?[2J? of the answers");
}

const FIRST: &str = "3f1c4a52-9d0e-4b7a-8c11-d2e5f60718aa";
const SECOND: &str = "77e0b0c1-0f6f-4d5e-9a8b-c9d0e1f2a3b4";

/// As the client has it, without what is made of the key.
fn answered(answer: ApiAnswer, key: &str) -> ApiAnswer {
    let ClientOutcome::Answered(answer) = got(answer).without_key(&KeyValue::One(key.to_owned())) else {
        panic!("an answer")
    };
    answer
}

/// It is the same in both answers, whether the request ran twice or not.
#[test]
fn a_name_that_is_made_of_the_key_is_no_name() {
    let location = |key: &str| {
        let mut answer = nameless("{}");
        answer.headers.insert(LOCATION, HeaderValue::try_from(format!("/orders/{key}")).expect("visible"));
        answered(answer, key)
    };
    let member = |key: &str| answered(nameless(&format!("{{\"id\":\"ord_{}\"}}", key.replace('-', ""))), key);
    let digest = |key: &str| {
        let hex = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
        let hex: String = hex.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        answered(nameless(&format!("{{\"id\":\"{hex}\"}}")), key)
    };
    for one in [&location as &dyn Fn(&str) -> ApiAnswer, &member, &digest] {
        let baseline = Baseline::new(one(FIRST), one(SECOND), "/orders");
        assert_eq!(baseline.sources, []);
        assert_eq!(judged(VerifyCase::Repeat, &[got(one(FIRST))], None, &baseline).verdict, NOT_KNOWN);
        assert_eq!(judged(VerifyCase::Repeat, &[got(one(FIRST))], Some(2), &baseline).verdict, FAIL);
        assert_eq!(judged(VerifyCase::Repeat, &[got(one(FIRST))], Some(1), &baseline).verdict, PASS);
        let bob = [got(one(SECOND)), got(one("8d3f6a9e-1a2b-4c3d-8e4f-a5b6c7d8e9f0")), got(one(FIRST))];
        assert_eq!(judged(VerifyCase::OtherCaller, &bob, None, &baseline).verdict, NOT_KNOWN);
    }
    // The key is there, and another name, too.
    let both =
        |number: u32, key: &str| answered(nameless(&format!("{{\"id\":{number},\"reference\":\"{key}\"}}")), key);
    let baseline = Baseline::new(both(1, FIRST), both(2, SECOND), "/orders");
    assert_eq!(baseline.sources.first(), Some(&NameSource::Member("id".to_owned())));
    assert_eq!(judged(VerifyCase::Repeat, &[got(both(3, FIRST))], None, &baseline).verdict, FAIL);
}

/// A 202 may say where this attempt can be followed (RFC 9110, 15.3.3).
#[test]
fn the_location_of_what_is_only_accepted_is_that_of_an_attempt() {
    let accepted =
        |number| ApiAnswer { status: StatusCode::ACCEPTED, body: Bytes::from_static(b"{}"), ..created(number) };
    let baseline = Baseline::new(accepted(1), accepted(2), "/orders");
    assert_eq!(baseline.sources.first(), Some(&NameSource::AnyLocation));
    let case = VerifyCase::Repeat;
    assert_eq!(judged(case, &[got(accepted(3))], None, &baseline).verdict, NOT_KNOWN);
    assert_eq!(judged(case, &[got(accepted(3))], Some(1), &baseline).verdict, PASS);
    assert_eq!(judged(case, &[got(accepted(3))], Some(2), &baseline).verdict, FAIL);
    assert_eq!(judged(case, &[got(accepted(1))], None, &baseline).verdict, PASS);
    // What was created has a name besides.
    let named = |number: u32| ApiAnswer { body: created(number).body, ..accepted(number) };
    let baseline = Baseline::new(named(1), named(2), "/orders");
    assert_eq!(baseline.sources.first(), Some(&NameSource::Member("order".to_owned())));
}

/// A repeat that was named otherwise, and had no effect: names are those of answers there.
#[test]
fn names_that_the_repeat_contradicts_prove_nothing_in_other_cases() {
    let doubtful = named().after(&created(7), true);
    let bob = [got(created(8)), got(created(9)), got(created(10))];
    for (case, outcomes) in [
        (VerifyCase::OtherBody, vec![got(created(8)), got(created(9))]),
        (VerifyCase::OtherTarget, vec![got(created(8)), got(created(9))]),
        (VerifyCase::OtherCaller, bob.to_vec()),
        (VerifyCase::KeyCase, vec![got(created(8))]),
        (VerifyCase::LongKey, bob.to_vec()),
        (VerifyCase::Concurrent, bob.to_vec()),
    ] {
        let judgement = judged(case, &outcomes, None, &doubtful);
        assert_eq!((judgement.verdict, judgement.harm), (NOT_KNOWN, None), "{case:?}: {}", judgement.because);
    }
}

#[test]
fn what_a_replay_lacks_is_named_elsewhere() {
    let without_location = |number: u32| nameless(&format!("{{\"order\":{number},\"item\":\"pen\"}}"));
    let case = VerifyCase::Repeat;
    assert_eq!(judged(case, &[got(without_location(1))], None, &named()).verdict, PASS);
    assert_eq!(judged(case, &[got(without_location(3))], None, &named()).verdict, FAIL);
    // A URL, and its path.
    let mut absolute = created(1);
    absolute.headers.insert(LOCATION, HeaderValue::from_static("https://api.example/orders/1"));
    assert_eq!(judged(case, &[got(absolute.clone())], None, &named()).verdict, PASS);
    absolute.headers.insert(LOCATION, HeaderValue::from_static("https://api.example/orders/4"));
    assert_eq!(judged(case, &[got(absolute)], None, &named()).verdict, FAIL);
}
