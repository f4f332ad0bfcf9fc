//! Replays and refusals, part by part.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LINK, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};

use super::super::answer::ApiAnswer;
use super::super::case::{ReplayPart, SeenRefusal};
use super::super::judge::KeySupport;
use super::super::likeness::{refusal, replayed};
use super::{NOT_KNOWN, PASS, WARN, answer, created, got};

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
