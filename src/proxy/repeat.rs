//! A repeat: it gets the recorded response, or waits for it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::body::response::ProxyResponse;
use super::context::RequestContext;
use super::event::Event;
use super::fields::Fields;
use super::head::Head;
use super::refusal;
use super::replay::{self, Accepted};
use super::replay_auth::question::Question;
use super::state::Proxy;
use crate::guard::Verdict;
use crate::key::Operation;
use crate::list;
use crate::problem::{PREFERENCE_APPLIED, Problem, WAIT};
use crate::rule::{OnConcurrent, Rule};

impl Proxy {
    /// Answers a request whose operation another request owns.
    pub(super) async fn repeat(
        &self,
        rule: &Arc<Rule>,
        operation: &Operation,
        mut verdict: Verdict,
        head: &Head,
        context: &RequestContext<'_>,
        event: &mut Event,
    ) -> Result<ProxyResponse, Problem> {
        let mut waited = None;
        if verdict == Verdict::InFlight
            && let Some(limit) = WaitLimit::of(rule, head)
        {
            // A client that has left must not keep its waiter permit.
            let waiting = Box::pin(async {
                tokio::select! {
                    verdict = self.guard.wait(rule, operation, limit.time) => verdict,
                    () = context.client.disconnect.wait() => None,
                }
            });
            let waiting = waiting.await;
            if let Some(after) = waiting {
                (waited, verdict) = (Some(limit), after);
            }
        }
        if verdict == Verdict::OutcomeUnknown
            && let Some(probe) = &rule.probe
        {
            verdict = Box::pin(self.ask_about_unknown(rule, probe, operation, head)).await;
        }
        let mut answer = match verdict {
            Verdict::Replay(reply, extensions) => {
                let permission = self.permission(rule, Question::of(rule, context, head)).await;
                if permission.is_ok() {
                    event.replays(&extensions);
                }
                self.replay(rule, &operation.name, reply, permission, &Accepted::by(head), event).await
            }
            Verdict::InFlight => Err(refusal::in_flight(rule)),
            Verdict::KeyReused(difference) => Err(refusal::key_reused(rule, difference)),
            Verdict::OutcomeUnknown => Err(refusal::outcome_unknown(rule)),
            Verdict::AlreadyCompleted(original) => {
                let permission = self.permission(rule, Question::of(rule, context, head)).await;
                Err(replay::already_completed(rule, original, permission.ok()))
            }
        };
        if waited.is_some_and(|limit| limit.is_preferred) {
            match &mut answer {
                Ok(answer) => drop(answer.headers_mut().append(PREFERENCE_APPLIED, WAIT)),
                Err(problem) => problem.waited(),
            }
        }
        answer
    }
}

/// How long a repeat waits for the first request.
#[derive(Clone, Copy)]
struct WaitLimit {
    time: Duration,
    /// The client asked for it (`Prefer: wait=N`, RFC 7240, 4.3).
    is_preferred: bool,
}

impl WaitLimit {
    /// The route's limit, or less if the client asks for less. `None`: it does not wait.
    fn of(rule: &Rule, head: &Head) -> Option<Self> {
        let asked = if head.fields.has(Fields::PREFER) { preferred_wait(&head.headers) } else { None };
        match (asked, rule.on_concurrent) {
            (Some(asked), _) => Some(Self { time: asked.min(rule.wait_timeout), is_preferred: true }),
            (None, OnConcurrent::Wait) => Some(Self { time: rule.wait_timeout, is_preferred: false }),
            (None, OnConcurrent::Reject) => None,
        }
    }
}

fn preferred_wait(request: &HeaderMap) -> Option<Duration> {
    let mut asked = list::texts(request, &PREFER).filter_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("wait").then(|| Duration::from_secs(seconds))
    });
    // The first of several counts (RFC 7240, 2).
    asked.next()
}

const PREFER: HeaderName = HeaderName::from_static("prefer");
