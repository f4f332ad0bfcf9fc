//! The verdicts, by what came: no request is sent here.

mod doubled;
mod keys;
mod likeness;
mod names;
mod reused;
mod tries;

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::answer::{ApiAnswer, ClientOutcome};
use super::case::VerifyCase;
use super::effects::Baseline;
use super::judge::{KeyForm, KeySupport, Observed, judge};
use super::verdict::{CaseVerdict, Judgement};

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
