//! One log line and one count for each request on a guarded route.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use tokio::time::Instant;
use tracing::Level;

use super::fields::Fields;
use super::head::Head;
use crate::clock;
use crate::guard::{Ownership, RecordOutcome, RecordWatch};
use crate::key::{KeyText, Operation};
use crate::metrics::{Metrics, Refused, RequestOutcome};
use crate::problem::Code;
use crate::record::{Extensions, Hex, RecordName, code};
use crate::rule::{Rule, Selector};
use crate::telemetry;
use crate::trace::Span;

/// What is known about a request. Logged and counted when it is dropped.
pub(super) struct Event {
    metrics: Arc<Metrics>,
    rule: Arc<Rule>,
    begun: Instant,
    trace: Option<TraceId>,
    span: Span,
    record: Option<RecordName>,
    key: Option<KeyText>,
    fingerprint: Option<Hex<4>>,
    attempt: Option<u32>,
    /// Watches the outcome of the record.
    settling: Option<RecordWatch>,
    reason: Option<Reason>,
    upstream: Option<Duration>,
    answer: Option<(RequestOutcome, StatusCode)>,
}

impl Event {
    /// `begun`: when the request arrived.
    pub(super) fn begin(metrics: &Arc<Metrics>, rule: &Arc<Rule>, head: &Head, span: Span, begun: Instant) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            rule: Arc::clone(rule),
            begun,
            trace: TraceId::of(head),
            span,
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

    pub(super) fn operation(&mut self, operation: &mut Operation) {
        if let Some(context) = self.span.context() {
            operation.extensions = Extensions::of(code::TRACE, &context);
        }
        self.record = Some(operation.name.clone());
        self.key.clone_from(&operation.key);
        self.fingerprint = Some(operation.fingerprint.short());
    }

    /// The request gets the response that another one recorded.
    pub(super) fn replays(&mut self, extensions: &Extensions) {
        if let Some(context) = extensions.get(code::TRACE) {
            self.span.link(context);
        }
    }

    pub(super) fn attempt(&mut self, ownership: &Ownership) {
        self.attempt = Some(ownership.attempt());
        self.settling = Some(ownership.settling());
    }

    /// It is forwarded without a guard, for this reason.
    pub(super) fn unguarded(&mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    pub(super) fn upstream(&mut self, took: Duration) {
        self.upstream = Some(took);
    }

    /// Whether the response is the proxy's own or a replay.
    pub(super) fn is_ours(&self) -> bool {
        self.answer.is_some_and(|(outcome, _)| !matches!(outcome, RequestOutcome::Executed | RequestOutcome::Unguarded))
    }

    /// The caller may not see what is recorded, and gets the answer of the authorization server.
    pub(super) fn denied(&mut self, status: StatusCode) {
        self.answer(RequestOutcome::ReplayRefused, status);
        self.metrics.refused().push(|| Refused {
            at: clock::unix_millis(),
            route: self.rule.name.to_string(),
            code: Code::ReplayRefused.name(),
            status: status.as_u16(),
            detail: "The authorization server (replay_auth) says that this caller may not see the recorded answer."
                .into(),
            record: self.record.as_ref().map(ToString::to_string),
        });
    }

    /// Whether the answer is that of the authorization server.
    pub(super) fn is_denied(&self) -> bool {
        self.answer.is_some_and(|(outcome, _)| outcome == RequestOutcome::ReplayRefused)
    }

    /// Whether the answer is in the record, so that a repeat gets it.
    pub(super) fn is_kept(&self) -> bool {
        let is_replay = self.answer.is_some_and(|(outcome, _)| outcome == RequestOutcome::Replayed);
        is_replay || self.settling.as_ref().and_then(RecordWatch::became) == Some(RecordOutcome::Stored)
    }

    pub(super) fn answer(&mut self, outcome: RequestOutcome, status: StatusCode) {
        self.answer = Some((outcome, status));
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        let (outcome, status) = match (self.answer, self.attempt) {
            (Some((outcome, status)), _) => (outcome, Some(status.as_u16())),
            // The client left; the attempt continues.
            (None, Some(_)) => (RequestOutcome::Executed, None),
            (None, None) => return,
        };
        self.metrics.request(&self.rule.name, outcome, took);
        self.span.outcome(&self.rule.name, outcome.as_str(), self.record.as_ref().map(|record| record as &dyn Display));
        if let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) {
            self.span.status(status);
        }
        let became = self.settling.as_ref().and_then(RecordWatch::became);
        let level = match became {
            // An operator has to act.
            Some(RecordOutcome::Unknown | RecordOutcome::Unrecorded) => Level::WARN,
            Some(RecordOutcome::Stored | RecordOutcome::Unreplayable | RecordOutcome::Released) => Level::INFO,
            Some(RecordOutcome::Replaced | RecordOutcome::InFlight) | None => Level::INFO,
        };
        // tracing needs a constant level.
        let is_wanted =
            if level == Level::WARN { tracing::enabled!(Level::WARN) } else { tracing::enabled!(Level::INFO) };
        if is_wanted {
            telemetry::tell(level, "request", |line| self.write(outcome, became, status, took, line));
        }
    }
}

impl Event {
    fn write(
        &self,
        outcome: RequestOutcome,
        became: Option<RecordOutcome>,
        status: Option<u16>,
        took: Duration,
        line: &mut telemetry::LogLine<'_>,
    ) {
        line.text("route", &self.rule.name);
        line.word("outcome", outcome.as_str().as_bytes());
        if let Some(record) = &self.record {
            line.texts("record", &[&record.route, ":", Hex::of(&record.digest).as_str()]);
        }
        if let Some(became) = became {
            line.word("became", became.as_str().as_bytes());
        }
        if let Some(key) = &self.key {
            match key {
                KeyText::Hashed(digits) => line.word("key", digits.as_bytes()),
                KeyText::Plain(text) => line.text("key", text),
            }
        }
        if let Some(fingerprint) = &self.fingerprint {
            line.word("fingerprint", fingerprint.as_bytes());
        }
        if let Some(attempt) = self.attempt {
            line.number("attempt", attempt.into());
        }
        if let Some(status) = status {
            line.number("status", status.into());
        }
        match &self.reason {
            Some(Reason::NoKey(selector)) => line.display("reason", &format_args!("no key: {selector} is missing")),
            Some(Reason::NoStore) => line.text("reason", "the store is out of reach (on_error = \"forward\")"),
            None => {}
        }
        if let Some(upstream) = self.upstream {
            line.millis("upstream_ms", upstream);
        }
        line.millis("total_ms", took);
        if let Some(trace) = &self.trace {
            line.text("trace_id", trace.as_str());
        }
    }
}

/// Why a request of a guarded route is not guarded.
pub(super) enum Reason {
    /// It has no key: this selector finds nothing.
    NoKey(Selector),
    /// The store is unreachable.
    NoStore,
}

/// The trace of a request, in hex digits: the one that is measured, else that of `traceparent` (W3C Trace Context,
/// 3.2.2.3).
#[derive(Clone, Copy)]
pub(super) struct TraceId([u8; 32]);

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

impl TraceId {
    pub(super) fn of(head: &Head) -> Option<Self> {
        if let Some(id) = head.trace.trace_id() {
            return Hex::of(&id).as_bytes().try_into().ok().map(Self);
        }
        if !head.fields.has(Fields::TRACEPARENT) {
            return None;
        }
        let line = head.headers.get(TRACEPARENT)?.as_bytes();
        // The rest of the line must be text, too.
        let is_text = line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        let id = line.split(|byte| *byte == b'-').nth(1)?;
        (is_text && id.iter().all(u8::is_ascii_hexdigit)).then(|| id.try_into().ok().map(Self))?
    }

    pub(super) fn as_str(&self) -> &str {
        // Digits are ASCII.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}
