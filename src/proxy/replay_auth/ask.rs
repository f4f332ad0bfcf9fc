//! Asks, and decides by the answer.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::super::body::response::{ProxyResponse, ResponseBody};
use super::super::event::Event;
use super::super::head::{self, REPLAYED};
use super::super::refusal;
use super::super::state::Proxy;
use super::super::upstream::{AskError, OwnAnswer};
use super::question::Question;
use crate::clock;
use crate::guard::{AuthAnswer, ReplayPermission};
use crate::metrics::ReplayAuthResult;
use crate::problem::Problem;
use crate::rule::Rule;
use crate::tick;

/// The time for one question, with its answer; less where clients wait for less (`upstream.response_timeout`).
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest body of a refusal that is passed on.
const MAX_ANSWER: u64 = 64 << 10;

/// Why a caller is not shown what is recorded.
pub(in crate::proxy) enum ReplayRefusal {
    /// The caller gets this answer of the authorization server instead.
    Denied(Box<ProxyResponse>),
    /// There is no answer that means yes or no.
    Unanswered,
}

/// Why an answer of the authorization server does not count.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error(transparent)]
    Asking(#[from] AskError),
    #[error("no route asks this server any more")]
    NoServer,
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the status is {}, and only 2xx, 401 and 403 say something", .0.as_u16())]
    Status(StatusCode),
    #[error("the body of this {} has more than {MAX_ANSWER} bytes, or finds no room (server.max_buffered)", .0.as_u16())]
    TooLarge(StatusCode),
}

impl Proxy {
    /// The permission to show a caller what another request has recorded on this route. `question` is the caller's; `None` on
    /// a route that asks nobody, where this costs nothing.
    pub(in crate::proxy) async fn permission(
        &self,
        rule: &Rule,
        question: Option<Box<Question>>,
    ) -> Result<ReplayPermission, ReplayRefusal> {
        match (ReplayPermission::without_asking(rule), question) {
            (Some(permission), _) => Ok(permission),
            (None, Some(question)) => Box::pin(self.ask(rule, *question)).await,
            (None, None) => Err(ReplayRefusal::Unanswered),
        }
    }

    async fn ask(&self, rule: &Rule, question: Question) -> Result<ReplayPermission, ReplayRefusal> {
        let route = &rule.name;
        let permitted = &self.auth_servers.permitted;
        // A right that is withdrawn while the answer is on its way is honoured no longer than any other.
        let asked_at = clock::since_boot();
        let digest = (!question.cache.is_zero()).then(|| permitted.digest(route, &question));
        if let Some(permission) = digest.and_then(|digest| permitted.find(&digest, asked_at)) {
            self.metrics.replay_auth(route, ReplayAuthResult::Cached);
            return Ok(permission);
        }
        let until = asked_at + question.cache;
        match self.answer(question).await {
            Ok((AuthAnswer::Allowed(permission), _)) => {
                self.metrics.replay_auth(route, ReplayAuthResult::Allowed);
                if let Some(digest) = digest {
                    permitted.keep(digest, permission.clone(), asked_at, until);
                }
                Ok(permission)
            }
            Ok((AuthAnswer::Denied, answer)) => {
                self.metrics.replay_auth(route, ReplayAuthResult::Denied);
                Err(ReplayRefusal::Denied(Box::new(passed_on(answer))))
            }
            Ok((AuthAnswer::Neither, answer)) => Err(self.unanswered(route, &Useless::Status(answer.status))),
            Err(why) => Err(self.unanswered(route, &why)),
        }
    }

    /// The answer to a question. A denial is passed on whole, or not at all.
    async fn answer(&self, question: Question) -> Result<(AuthAnswer, OwnAnswer), Useless> {
        let server = self.auth_servers.find(&question.server, &self.upstream).ok_or(Useless::NoServer)?;
        let patience = self.upstream.settings().response_timeout.min(PATIENCE);
        let mut span = question.trace.client(&Method::GET);
        let mut request = question.request(server.target(), &span);
        let answer = {
            let asking = pin!(server.ask(&mut request, MAX_ANSWER, &self.budget));
            tick::timeout(patience, asking).await.map_err(|_| Useless::TimedOut(patience))??
        };
        span.status(answer.status);
        let verdict = AuthAnswer::of(answer.status);
        match verdict {
            AuthAnswer::Denied if !answer.is_whole => Err(Useless::TooLarge(answer.status)),
            AuthAnswer::Allowed(_) | AuthAnswer::Denied | AuthAnswer::Neither => Ok((verdict, answer)),
        }
    }

    fn unanswered(&self, route: &str, why: &Useless) -> ReplayRefusal {
        tracing::warn!(
            route,
            error = why as &dyn Error,
            "replay_auth says neither yes nor no; the recorded answer is not shown"
        );
        self.metrics.replay_auth(route, ReplayAuthResult::Failed);
        ReplayRefusal::Unanswered
    }
}

impl ReplayRefusal {
    /// What the caller gets.
    pub(in crate::proxy) fn answer(self, event: &mut Event) -> Result<ProxyResponse, Problem> {
        match self {
            Self::Denied(answer) => {
                event.denied(answer.status());
                Ok(*answer)
            }
            Self::Unanswered => Err(refusal::replay_refused()),
        }
    }
}

/// A denial as its caller gets it. Nothing in it may look like an answer of this proxy.
fn passed_on(answer: OwnAnswer) -> ProxyResponse {
    let OwnAnswer { status, mut headers, body, is_whole: _ } = answer;
    remove_ours(&mut headers);
    let mut response = ProxyResponse::new(ResponseBody::from_chunks(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn remove_ours(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers.keys().filter(|name| head::is_ours(name)).cloned().collect();
    for name in ours.iter().chain([&REPLAYED]) {
        headers.remove(name);
    }
}
