//! The problems that a client gets instead of the backend's response, and how they are counted.

use std::error::Error;

use super::body::error::BodyReadError;
use super::body::replayed::NoReplay;
use crate::clock;
use crate::guard::Difference;
use crate::key::KeyError;
use crate::metrics::{Metrics, Refused, RequestOutcome};
use crate::problem::{Code, Dialect, Problem};
use crate::rule::{OnMismatch, Preset, Rule, Selector};
use crate::store::StoreError;

/// Adds the route's name, its dialect and its help link.
pub(super) fn on_route(problem: Problem, rule: &Rule) -> Problem {
    for_clients_of(problem, Some(rule)).route(&rule.name)
}

/// Adds the route's dialect and help link, also for requests that are not guarded.
pub(super) fn for_clients_of(problem: Problem, rule: Option<&Rule>) -> Problem {
    match rule {
        Some(rule) => problem.dialect(rule.preset.and_then(dialect)).help(rule.help.as_deref()),
        None => problem,
    }
}

fn dialect(preset: Preset) -> Option<Dialect> {
    match preset {
        Preset::Stripe => Some(Dialect::Stripe),
        Preset::Square => Some(Dialect::Square),
        Preset::Paypal => Some(Dialect::Paypal),
        Preset::Gocardless => Some(Dialect::Gocardless),
        Preset::Ietf | Preset::StandardWebhooks | Preset::StripeWebhook => None,
        Preset::GithubWebhook | Preset::ShopifyWebhook | Preset::Cloudevents => None,
    }
}

pub(super) fn missing_key(selector: &Selector) -> Problem {
    Problem::new(Code::MissingKey, format!("This request needs an idempotency key, and {selector} is missing."))
}

pub(super) fn of_key(error: &KeyError) -> Problem {
    let code = match error {
        KeyError::Key { .. } => Code::InvalidKey,
        KeyError::Expired { .. } => Code::KeyExpired,
        KeyError::Token { .. } => Code::InvalidToken,
        KeyError::Body { .. } => Code::InvalidBody,
    };
    Problem::new(code, error.to_string())
}

pub(super) fn unread(error: BodyReadError, cap: u64) -> Problem {
    match error {
        BodyReadError::TooLarge => {
            let detail = format!("A guarded request may have a body of {cap} bytes. It was not sent.");
            Problem::new(Code::RequestTooLarge, detail).close()
        }
        BodyReadError::TimedOut => too_slow(),
        BodyReadError::NoRoom => overloaded().close(),
        BodyReadError::Broken => broken_off(),
    }
}

pub(super) fn broken_off() -> Problem {
    Problem::new(Code::BadRequest, "The request body broke off.").close()
}

pub(super) fn too_slow() -> Problem {
    Problem::new(Code::RequestTimeout, "The request body did not come in time.").close()
}

pub(super) fn overloaded() -> Problem {
    Problem::new(Code::Overloaded, "Too many requests, or too much of them, are at work. This one was not sent.")
        .retry_after(1)
}

pub(super) fn in_flight(rule: &Rule) -> Problem {
    let detail = "The first request with this key has not ended. Repeat it a little later to get its answer.";
    said(rule, Code::InFlight, detail).retry_after(1)
}

pub(super) fn key_reused(rule: &Rule, difference: Difference) -> Problem {
    let (code, detail) = match (difference, rule.on_mismatch) {
        (Difference::Target, _) => (Code::KeyReused, ELSEWHERE),
        (Difference::Body, OnMismatch::Conflict) => (Code::KeyReusedConflict, OTHER_CONTENT),
        (Difference::Body, OnMismatch::Reject | OnMismatch::Replay) => (Code::KeyReused, OTHER_CONTENT),
    };
    said(rule, code, detail)
}

const OTHER_CONTENT: &str =
    "This key was used before, for a request with other content. Use a new key for a new request.";
const ELSEWHERE: &str = "This key was used before, for another method, path or query. Use a new key for a new request.";

pub(super) fn outcome_unknown(rule: &Rule) -> Problem {
    let detail = "An earlier attempt with this key was started, and whether it took effect cannot be told. \
                  It is not run again. Look for its effect before you use a new key.";
    said(rule, Code::OutcomeUnknown, detail)
}

/// For a repeat of the form guard's script whose route guards it no more.
pub(super) fn not_guarded_any_more() -> Problem {
    let detail = "This request is a repeat, and nothing guards it any more: it might run a second time. It was not sent. \
                  Look for the effect of the first before you send a new one.";
    Problem::new(Code::OutcomeUnknown, detail)
}

pub(super) fn already_completed(rule: &Rule) -> Problem {
    let detail = "This request was carried out before. Its answer was not kept, so it cannot be shown again.";
    said(rule, Code::AlreadyCompleted, detail)
}

/// Uses the route's own message, if it has one.
fn said(rule: &Rule, code: Code, detail: &'static str) -> Problem {
    Problem::new(code, detail).message(rule.message.as_deref())
}

pub(super) fn store_unavailable() -> Problem {
    let detail = "The record of requests is out of reach, so this one was not sent. Repeat it with the same key.";
    Problem::new(Code::StoreUnavailable, detail).retry_after(1)
}

pub(super) fn record_unreadable() -> Problem {
    let detail = "A record with this key is there and cannot be read. The request was not sent.";
    Problem::new(Code::RecordUnreadable, detail)
}

/// A response is recorded, and cannot be replayed now.
pub(super) fn not_replayed(why: NoReplay) -> Problem {
    match why {
        NoReplay::NoRoom => overloaded(),
        NoReplay::Store(error) => unread_record(&error),
    }
}

/// The authorization service does not say whether the caller may see the recorded answer.
pub(super) fn replay_refused() -> Problem {
    let detail = "This request was carried out before. Whether its answer may be shown to this caller could not be \
                  verified, so it is not shown. Repeat it with the same key.";
    Problem::new(Code::ReplayRefused, detail).retry_after(1)
}

/// The record or its body cannot be read.
pub(super) fn unread_record(error: &StoreError) -> Problem {
    match error {
        StoreError::Unreadable { .. } => {
            tracing::error!(error = error as &dyn Error, "a record cannot be read; its key is blocked");
            record_unreadable()
        }
        StoreError::Unavailable(_)
        | StoreError::Refused(_)
        | StoreError::Uncertain(_)
        | StoreError::Unacknowledged(_) => store_unavailable(),
    }
}

pub(super) fn unreachable() -> Problem {
    Problem::new(Code::UpstreamUnreachable, "The backend cannot be reached. The request was not sent.")
}

pub(super) fn failed() -> Problem {
    Problem::new(Code::UpstreamFailed, "The backend broke off before its answer was whole. The request may have run.")
}

/// The attempt was aborted.
pub(super) fn given_up() -> Problem {
    Problem::new(Code::UpstreamTimeout, "The backend did not finish its answer in time. The request may have run.")
}

/// The attempt continues.
pub(super) fn not_yet() -> Problem {
    let detail =
        "The backend has not answered yet. The request goes on; repeat it with the same key to get the answer.";
    Problem::new(Code::UpstreamTimeout, detail)
}

/// For an unguarded request.
pub(super) fn too_late() -> Problem {
    Problem::new(Code::UpstreamTimeout, "The backend did not answer in time.").unguarded()
}

/// Keeps a refusal for the status page, but for early repeats and failures of the backend.
pub(super) fn note(metrics: &Metrics, route: &str, problem: &Problem) {
    match problem.code() {
        Code::InFlight | Code::UpstreamUnreachable | Code::UpstreamFailed | Code::UpstreamTimeout => {}
        code => metrics.refused().push(|| Refused {
            at: clock::unix_millis(),
            route: route.to_owned(),
            code: code.name(),
            status: code.status().as_u16(),
            detail: problem.detail().clone(),
            record: problem.about().map(str::to_owned),
        }),
    }
}

/// How a problem is counted.
pub(super) fn outcome(code: Code) -> RequestOutcome {
    match code {
        Code::InFlight => RequestOutcome::InFlight,
        Code::KeyReused | Code::KeyReusedConflict => RequestOutcome::KeyReused,
        Code::OutcomeUnknown => RequestOutcome::Unknown,
        Code::AlreadyCompleted => RequestOutcome::Unreplayable,
        Code::MissingKey => RequestOutcome::MissingKey,
        Code::InvalidKey => RequestOutcome::InvalidKey,
        Code::KeyExpired => RequestOutcome::KeyExpired,
        Code::InvalidToken => RequestOutcome::InvalidToken,
        Code::InvalidBody => RequestOutcome::InvalidBody,
        Code::BadRequest | Code::TargetTooLong | Code::MethodNotAllowed => RequestOutcome::BadRequest,
        Code::NotImplemented | Code::ExpectationFailed => RequestOutcome::BadRequest,
        Code::RequestTooLarge => RequestOutcome::TooLarge,
        Code::RequestTimeout => RequestOutcome::RequestTimeout,
        Code::StoreUnavailable => RequestOutcome::StoreUnavailable,
        Code::RecordUnreadable => RequestOutcome::RecordUnreadable,
        Code::Overloaded => RequestOutcome::Overloaded,
        Code::ReplayRefused => RequestOutcome::ReplayRefused,
        Code::UpstreamUnreachable | Code::UpstreamFailed | Code::UpstreamTimeout => RequestOutcome::UpstreamError,
    }
}
