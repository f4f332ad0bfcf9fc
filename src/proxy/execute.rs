//! The one request of an operation that is sent.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request};
use tokio::time::Instant;

use super::body::relay::relay_for;
use super::body::request::RequestBody;
use super::body::response::ProxyResponse;
use super::client::Client;
use super::context::RequestContext;
use super::event::Event;
use super::fields::Fields;
use super::head::{self, Head};
use super::refusal;
use super::refused_page::KeepsPages;
use super::replay::{self, Accepted};
use super::replay_auth::question::Question;
use super::state::Proxy;
use super::stream::{self, HeadOrResult};
use super::upstream::AttemptLimits;
use crate::fail_point::{self, Step};
use crate::guard::{AttemptResult, LostReason, Ownership, SendOutcome};
use crate::metrics::RequestOutcome;
use crate::problem::Problem;
use crate::rule::Rule;
use crate::tick;
use crate::trace;

impl Proxy {
    /// This request owns the operation: it is sent once, also when its client leaves.
    pub(super) async fn run(
        &self,
        rule: &Arc<Rule>,
        ownership: Ownership,
        head: Head,
        body: Bytes,
        context: &RequestContext<'_>,
        event: &mut Event,
    ) -> Result<ProxyResponse, Problem> {
        event.attempt(&ownership);
        let record = ownership.record().clone();
        let accepted = Accepted::by(&head);
        // In case that another owner records the answer.
        let question = Question::of(rule, context, &head);
        let (relay, reader) = relay_for(rule.response, head.version).unzip();
        let parent = head.trace.clone();
        let (mut request, mut span, limits) = self.outgoing(rule, ownership.attempt(), head, body, context.client);
        let (upstream, budget) = (self.upstream.clone(), self.budget.clone());
        let begun = Instant::now();
        let running = ownership.run(parent, move |fence| async move {
            let outcome = upstream.attempt(&mut request, fence, &limits, &budget, relay).await;
            if let SendOutcome::Answered(answer) = &outcome {
                span.status(answer.reply.status);
            }
            outcome
        });
        let first = {
            let first = pin!(stream::head_or_result(reader, running));
            // Dropped when the time is up: the attempt continues as a task.
            tick::timeout(self.upstream.settings().response_timeout, first).await
        };
        event.upstream(begun.elapsed());
        fail_point::reach(Step::BeforeAnswer).await;

        let executed = |event: &mut Event, answer: ProxyResponse| {
            event.answer(RequestOutcome::Executed, answer.status());
            Ok(answer)
        };
        let ended = match first {
            Ok(HeadOrResult::Head(answer)) => return executed(event, *answer),
            Ok(HeadOrResult::Result(Some(ended))) => ended,
            // The attempt panicked: it may have been sent, and its lease expires.
            Ok(HeadOrResult::Result(None)) => return Err(refusal::failed()),
            Err(_) => return Err(refusal::not_yet()),
        };
        match ended {
            AttemptResult::Answered(reply) => executed(event, replay::own_response(reply)),
            AttemptResult::Streamed(reply, rest) => executed(event, replay::partial_response(reply, rest)),
            AttemptResult::Recorded(reply) => {
                // Rare.
                let answer = Box::pin(async {
                    let permission = self.permission(rule, question).await;
                    self.replay(rule, &record, reply, permission, &accepted, event).await
                });
                answer.await
            }
            AttemptResult::AlreadyCompleted(original) => {
                let permission = Box::pin(self.permission(rule, question)).await;
                Err(replay::already_completed(rule, original, permission.ok()))
            }
            AttemptResult::NotSent => Err(refusal::unreachable()),
            AttemptResult::InDoubt => Err(refusal::store_unavailable()),
            AttemptResult::Replaced => Err(refusal::in_flight(rule)),
            AttemptResult::Lost(LostReason::Broken) => Err(refusal::failed()),
            AttemptResult::Lost(LostReason::Timeout) => Err(refusal::given_up()),
        }
    }

    /// The request as the backend gets it.
    fn outgoing(
        &self,
        rule: &Rule,
        attempt: u32,
        mut head: Head,
        body: Bytes,
        client: &Client,
    ) -> (Request<RequestBody>, trace::Span, AttemptLimits) {
        let keeps_pages = head.fields.has(Fields::OURS)
            && head.extensions.remove::<KeepsPages>().is_some_and(|keeps| keeps.is_for(rule, &body));
        let body = RequestBody::buffered(body);
        self.cross(&mut head, &body, client);
        if attempt > 1 {
            head.headers.insert(head::ATTEMPT, HeaderValue::from(attempt));
        }
        let span = head.trace.client(&head.method);
        span.inject(&mut head.headers);
        let (timeout, max_response_body) = (self.upstream.settings().attempt_timeout, rule.max_response_body);
        (Request::from_parts(head.into_parts(), body), span, AttemptLimits { timeout, max_response_body, keeps_pages })
    }
}
