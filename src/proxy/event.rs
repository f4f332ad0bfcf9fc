//! One log line and one count for each request on a guarded route.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::config::{LogKeys, Rule};
use crate::guard::{Became, Ownership, Settling};
use crate::key::Operation;
use crate::metrics::{Metrics, Outcome};

/// What is known of a request by now. Told when it is dropped.
pub(super) struct Event {
    metrics: Arc<Metrics>,
    rule: Arc<Rule>,
    keys: LogKeys,
    begun: Instant,
    trace: Option<String>,
    record: Option<String>,
    key: Option<String>,
    fingerprint: Option<String>,
    attempt: Option<u32>,
    /// What becomes of the record.
    settling: Option<Settling>,
    reason: Option<Reason>,
    upstream: Option<Duration>,
    answer: Option<(Outcome, StatusCode)>,
}

impl Event {
    pub(super) fn begin(metrics: &Arc<Metrics>, rule: &Arc<Rule>, keys: LogKeys, headers: &HeaderMap) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            rule: Arc::clone(rule),
            keys,
            begun: Instant::now(),
            trace: trace_id(headers),
            record: None,
            key: None,
            fingerprint: None,
            attempt: None,
            settling: None,
            reason: None,
            upstream: None,
            answer: None,
        }
    }

    /// Which route it is for.
    pub(super) fn route(&self) -> &str {
        &self.rule.name
    }

    pub(super) fn operation(&mut self, operation: &Operation) {
        self.record = Some(operation.name.to_string());
        self.key = operation.key.as_ref().map(|key| key.shown(self.keys).to_owned());
        self.fingerprint = Some(operation.fingerprint.short().to_string());
    }

    pub(super) fn attempt(&mut self, ownership: &Ownership) {
        self.attempt = Some(ownership.attempt());
        self.settling = Some(ownership.settling());
    }

    /// Nobody guards it.
    pub(super) fn unguarded(&mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    pub(super) fn upstream(&mut self, took: Duration) {
        self.upstream = Some(took);
    }

    /// Whether the answer did not come from running the request.
    pub(super) fn is_ours(&self) -> bool {
        self.answer.is_some_and(|(outcome, _)| !matches!(outcome, Outcome::Executed | Outcome::Unguarded))
    }

    pub(super) fn answer(&mut self, outcome: Outcome, status: StatusCode) {
        self.answer = Some((outcome, status));
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        let (outcome, status) = match (self.answer, self.attempt) {
            (Some((outcome, status)), _) => (outcome, Some(status.as_u16())),
            // The client left; the attempt goes on.
            (None, Some(_)) => (Outcome::Executed, None),
            (None, None) => return,
        };
        self.metrics.request(&self.rule.name, outcome, took);
        let became = self.settling.as_ref().and_then(Settling::became);
        // A level is part of the code.
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(
                    route = &*self.rule.name,
                    outcome = outcome.as_str(),
                    record = self.record,
                    became = became.map(Became::as_str),
                    key = self.key,
                    fingerprint = self.fingerprint,
                    attempt = self.attempt,
                    status,
                    reason = self.reason.as_ref().map(ToString::to_string),
                    upstream_ms = self.upstream.map(millis),
                    total_ms = millis(took),
                    trace_id = self.trace,
                    "request"
                )
            };
        }
        match became {
            // Somebody has to look.
            Some(Became::Unknown | Became::Unrecorded) => tell!(warn),
            Some(Became::Stored | Became::Unreplayable | Became::Released) => tell!(info),
            Some(Became::Replaced | Became::InFlight) | None => tell!(info),
        }
    }
}

/// Why a request of a guarded route passes without a guard.
pub(super) enum Reason {
    /// It has no key: this is missing.
    NoKey(String),
    /// The store is out of reach.
    NoStore,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey(selector) => write!(f, "no key: {selector} is missing"),
            Self::NoStore => f.write_str("the store is out of reach (on_error = \"forward\")"),
        }
    }
}

pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The trace id of `traceparent` (W3C Trace Context, 3.2.2.3).
pub(super) fn trace_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("traceparent")?.to_str().ok()?.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}
