//! Observe mode: a request is forwarded unguarded, and what enforcing would have done is logged and counted.
//!
//! The request does not wait for this: its body is copied while it is forwarded, and a separate task asks the store. If
//! there is no room for the copy, or the store does not answer, the request is not observed.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Level;

use super::ambiguous::why_ambiguous;
use super::blocking::{OwnedRequest, is_long};
use super::body::buffer::BodyBuffer;
use super::body::end_notifier::EndNotifier;
use super::body::error::BodyReadError;
use super::body::idle_timeout::IdleTimeoutBody;
use super::body::incoming::IncomingBody;
use super::body::request::RequestBody;
use super::body::response::{ProxyResponse, ResponseBody};
use super::body::tee::{CopyReceiver, Tee};
use super::context::RequestContext;
use super::event::TraceId;
use super::head::Head;
use super::state::Proxy;
use crate::guard::{LostReason, Observation, SendOutcome, ShadowResult};
use crate::key::{self, DigestKey, HeadOutcome, Operation};
use crate::metrics::ShadowVerdict;
use crate::problem::{Code, Problem};
use crate::rule::{Disposition, Rule};
use crate::store::{Store, StoreError};
use crate::telemetry;

/// What is known before the body has arrived.
enum HeadVerdict {
    /// The verdict.
    Known(ShadowVerdict),
    /// The body is needed.
    Body(CopyReceiver),
}

/// Why a request is not observed.
enum UnobservedReason {
    TooMany,
    NoRoom,
    BrokenOff,
    Store,
}

/// The observation of one request.
struct ShadowRequest {
    proxy: Arc<Proxy>,
    rule: Arc<Rule>,
    begun: Instant,
    trace: Option<TraceId>,
    operation: Option<Operation>,
    status: Option<StatusCode>,
}

impl Proxy {
    /// Forwards a request as it is, and observes it.
    pub(super) async fn observed(
        self: &Arc<Self>,
        rule: &Arc<Rule>,
        context: RequestContext<'_>,
        head: Head,
        body: IncomingBody,
    ) -> Result<ProxyResponse, Problem> {
        let note = ShadowRequest {
            proxy: Arc::clone(self),
            rule: Arc::clone(rule),
            begun: Instant::now(),
            trace: TraceId::of(&head),
            operation: None,
            status: None,
        };
        let paced = IdleTimeoutBody::new(body, self.body_timeout);
        let Some(observation) = self.guard.observe() else {
            note.tell(Err(UnobservedReason::TooMany));
            return self.pass(&rule.name, head, RequestBody::Streaming(paced), context.client, false).await;
        };
        let owned = OwnedRequest::of(&context.request(&head));
        let (sight, body) = match would(rule, &context, &head) {
            Some(would) => (HeadVerdict::Known(would), RequestBody::Streaming(paced)),
            None => {
                let (tee, copied) =
                    Tee::new(paced, BodyBuffer::new(rule.max_request_body, self.budget.reserve_low_priority()));
                (HeadVerdict::Body(copied), RequestBody::Teed(Box::new(tee)))
            }
        };
        let (ending, sent) = oneshot::channel();
        self.guard.spawn_observation(note.take(observation, owned, sight, sent));

        match self.pass(&rule.name, head, body, context.client, false).await {
            Ok(answer) => Ok(watched(answer, ending)),
            Err(problem) => {
                let unsent = problem.code() == Code::UpstreamUnreachable;
                // The observation may have been stopped.
                let _ =
                    ending.send(if unsent { SendOutcome::NotSent } else { SendOutcome::Unknown(LostReason::Broken) });
                Err(problem)
            }
        }
    }
}

/// The verdict, if the head is enough for it.
fn would(rule: &Rule, context: &RequestContext<'_>, head: &Head) -> Option<ShadowVerdict> {
    if why_ambiguous(rule, context, head).is_some() {
        return Some(ShadowVerdict::InvalidKey);
    }
    match key::read_head(rule, context.request(head)) {
        Ok(HeadOutcome::Partial(_)) => None,
        Ok(HeadOutcome::Missing(_)) => Some(ShadowVerdict::MissingKey),
        Err(_) => Some(ShadowVerdict::InvalidKey),
    }
}

impl ShadowRequest {
    async fn take(
        mut self,
        observation: Observation,
        owned: OwnedRequest,
        sight: HeadVerdict,
        sent: oneshot::Receiver<SendOutcome<()>>,
    ) {
        let sighting = self.look(&observation, owned, sight).await;
        if let Ok(ShadowResult::Repeat(would)) = &sighting {
            self.proxy.metrics.observed(&self.rule.name, *would);
        }
        // The client left before there was a response.
        let sent = sent.await.unwrap_or(SendOutcome::Unknown(LostReason::Broken));
        if let SendOutcome::Answered(answer) = &sent {
            self.status = Some(answer.reply.status);
        }
        let would = match sighting {
            Ok(ShadowResult::First(mark)) => match observation.settle(&self.rule, mark, &sent).await {
                Ok(()) => Ok(None),
                Err(error) => Err(UnobservedReason::of_store(&error)),
            },
            Ok(ShadowResult::Repeat(would)) => Ok(Some(would)),
            Err(missed) => Err(missed),
        };
        self.tell(would);
    }

    /// Claims the operation in observe mode. Head and body are dropped before the response is awaited.
    async fn look(
        &mut self,
        observation: &Observation,
        owned: OwnedRequest,
        sight: HeadVerdict,
    ) -> Result<ShadowResult, UnobservedReason> {
        let body = match sight {
            HeadVerdict::Known(would) => return Ok(ShadowResult::Repeat(would)),
            HeadVerdict::Body(copied) => match copied.await {
                Ok(Ok(body)) => body,
                Ok(Err(BodyReadError::TooLarge)) => return Ok(ShadowResult::Repeat(ShadowVerdict::TooLarge)),
                Ok(Err(BodyReadError::NoRoom)) => return Err(UnobservedReason::NoRoom),
                Ok(Err(BodyReadError::TimedOut | BodyReadError::Broken)) | Err(_) => {
                    return Err(UnobservedReason::BrokenOff);
                }
            },
        };
        let digest_key = self.proxy.store.digest_key().map_err(|error| UnobservedReason::of_store(&error))?;
        let operation = match self.read(digest_key, owned, body).await {
            Ok(operation) => self.operation.insert(operation),
            Err(would) => return Ok(ShadowResult::Repeat(would)),
        };
        let longest = self.proxy.upstream.settings().attempt_timeout;
        observation.look(&self.rule, operation, longest).await.map_err(|error| UnobservedReason::of_store(&error))
    }

    async fn read(&self, digest_key: DigestKey, owned: OwnedRequest, body: Bytes) -> Result<Operation, ShadowVerdict> {
        let (rule, trust) = (&self.rule, &self.proxy.trust);
        let read = if is_long(&body) {
            self.proxy.blocking.read(rule, digest_key, owned, trust, body).await
        } else {
            owned.read(rule, &digest_key, trust, &body)
        };
        match read {
            Ok(Ok(operation)) => Ok(operation),
            Ok(Err(_)) => Err(ShadowVerdict::MissingKey),
            Err(_) => Err(ShadowVerdict::InvalidKey),
        }
    }

    /// Logs what enforcing would have done; `None`: the request would have run.
    fn tell(self, would: Result<Option<ShadowVerdict>, UnobservedReason>) {
        let (would, missed) = match would {
            Ok(would) => (Some(would.map_or("executed", ShadowVerdict::as_str)), None),
            Err(missed) => (None, Some(missed.as_str())),
        };
        if missed.is_some() {
            self.proxy.metrics.unobserved(&self.rule.name);
        }
        if tracing::enabled!(Level::INFO) {
            telemetry::tell(Level::INFO, "observed", |line| self.write(would, missed, line));
        }
    }
}

impl ShadowRequest {
    fn write(&self, would: Option<&str>, missed: Option<&str>, line: &mut telemetry::LogLine<'_>) {
        line.text("route", &self.rule.name);
        if let Some(would) = would {
            line.text("would", would);
        }
        if let Some(missed) = missed {
            line.text("missed", missed);
        }
        if let Some(operation) = &self.operation {
            // The name that `onlyonce records` knows.
            line.display("record", &operation.name.observed());
            if let Some(key) = &operation.key {
                line.text("key", key.as_str());
            }
            line.text("fingerprint", operation.fingerprint.short().as_str());
        }
        if let Some(status) = self.status {
            line.number("status", status.as_u16().into());
        }
        line.millis("total_ms", self.begun.elapsed());
        if let Some(trace) = &self.trace {
            line.text("trace_id", trace.as_str());
        }
    }
}

impl UnobservedReason {
    fn of_store(error: &StoreError) -> Self {
        tracing::debug!(error = error as &dyn Error, "a request could not be observed");
        Self::Store
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::TooMany => "too many requests are being observed",
            Self::NoRoom => "no room for a copy of its body",
            Self::BrokenOff => "its body broke off",
            Self::Store => "the store did not answer",
        }
    }
}

fn watched(answer: ProxyResponse, taker: oneshot::Sender<SendOutcome<()>>) -> ProxyResponse {
    let origin_directive = answer.extensions().get::<Disposition>().copied();
    let ending = EndNotifier::new(answer.status(), origin_directive, taker);
    answer.map(|body| ResponseBody::Observed(Box::new(body), ending))
}
