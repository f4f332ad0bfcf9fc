//! The data path: match route → key → body → fingerprint → claim → verdict → replay | wait | problem | run.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::ambiguous::why_ambiguous;
use super::blocking::{OwnedRequest, is_long};
use super::body::buffer;
use super::body::incoming::IncomingBody;
use super::body::request::RequestBody;
use super::body::response::{ProxyResponse, ResponseBody};
use super::client::Client;
use super::context::RequestContext;
use super::cors::{CorsOrigin, Preflight};
use super::event::{Event, Reason};
use super::fields::Fields;
use super::head::{self, Head};
use super::inject::PageRequest;
use super::outdated::Outdated;
use super::script_request::ScriptRequest;
use super::state::Proxy;
use super::{hops, refusal};
use crate::guard::{Admission, ClaimError};
use crate::key::{self, HeadOutcome, KeyOutcome, RequestedTarget};
use crate::metrics::{FormGuardResult, RequestOutcome, UNMATCHED};
use crate::problem::{Problem, ProblemFormat};
use crate::rule::{Mode, OnMissingKey, OnStoreError, RouteMatch, Rule, Selector};
use crate::store::{Store, StoreError};
use crate::uri;

impl Proxy {
    /// Answers one request.
    pub async fn handle(self: &Arc<Self>, request: Request<Incoming>, client: &Client) -> ProxyResponse {
        let begun = Instant::now();
        let fields = Fields::of(request.headers());
        let format =
            if fields.has(Fields::ACCEPT) { ProblemFormat::of(request.headers()) } else { ProblemFormat::Json };
        let version = request.version();
        let request = request.map(|body| IncomingBody::request(body, version, client));
        let authority = head::authority(request.uri(), request.headers());
        let host = normal_host(authority.as_ref());
        if let Err(problem) = head::inspect(&request, fields, host.is_some()) {
            let problem = self.in_dialect_of_route(&request, problem);
            let problem = Box::pin(refuse_before_body(problem, fields, request.into_body())).await;
            return self.count_unguarded(UNMATCHED, Err(problem), begun, format);
        }
        let (parts, body) = request.into_parts();
        let mut head = Head::new(parts, fields);
        if let Some(answer) = hops::count(&mut head) {
            return self.count_unguarded(UNMATCHED, answer, begun, format);
        }
        if let Some(form_guard) = &self.form_guard
            && let Some(answer) = form_guard.answer(&head.method, head.uri.path(), host.as_deref(), &head.headers)
        {
            self.metrics.form_guard(FormGuardResult::Script);
            return self.count_unguarded(UNMATCHED, Ok(answer.map(ResponseBody::from_bytes)), begun, format);
        }
        // Pages that have the script go on with it after the form guard was turned off.
        let mut script = if fields.has(Fields::OURS) { ScriptRequest::take(&mut head) } else { None };
        let format = script.as_ref().map_or(format, |script| script.problem_format());
        let uri = head.uri.clone();
        let asked = RequestedTarget::of(&head.method, &uri, host, overriding_methods(&head));
        let target = asked.route();

        let found = self.routes.find(&target);
        let is_enforced = found.as_ref().is_some_and(|found| found.rule.mode == Mode::Enforce);
        if let Some(outdated) = script.as_deref().filter(|_| !is_enforced).and_then(Outdated::of) {
            let rule = found.map(|found| &**found.rule);
            let answer = Box::pin(self.outdated_before_body(outdated, fields, body)).await;
            let answer = answer.map_err(|problem| refusal::for_clients_of(problem, rule));
            let observed = rule.filter(|rule| rule.mode == Mode::Observe);
            return self.count_unguarded(observed.map_or(UNMATCHED, |rule| &rule.name), answer, begun, format);
        }
        match found {
            Some(RouteMatch { rule, params, respelled, is_contested }) if rule.mode != Mode::Off => {
                let (method, path) = (asked.effective_method(), respelled.as_deref().unwrap_or(asked.path()));
                let (host, trust, log_keys) = (asked.host(), &self.trust, self.log_keys);
                let context =
                    RequestContext { method, host, path, params: &params, client, trust, is_contested, log_keys };
                let mut span = head.span(Some(&rule.path));
                if rule.mode == Mode::Observe {
                    let answer = Box::pin(self.observed(rule, context, head, body)).await;
                    let answer = answer.map_err(|problem| refusal::for_clients_of(problem, Some(rule)));
                    let answer = self.count_unguarded(&rule.name, answer, begun, format);
                    span.status(answer.status());
                    return answer;
                }
                if let Some(script) = &mut script {
                    script.prepare(rule, &mut head);
                    Outdated::mark(script, &mut head);
                }
                let mut event = Event::begin(&self.metrics, rule, &head, span, begun);
                let reader = CorsOrigin::of(rule, &head.headers);
                // Boxed, so that the future that a connection keeps for its next request stays small.
                let answer = Box::pin(self.guarded(rule, context, head, body, &mut event)).await;
                let answer = match &script {
                    Some(script) => answer.map(|answer| script.tell_of(answer, &event)),
                    None => answer,
                };
                let mut answer =
                    answer.unwrap_or_else(|problem| self.refused_on_route(problem, rule, &mut event, format));
                if let Some(reader) = reader.filter(|_| event.is_ours()) {
                    reader.apply(answer.headers_mut());
                }
                answer
            }
            found => {
                if tracing::enabled!(tracing::Level::DEBUG) {
                    let reason = self.routes.why_unguarded(&target);
                    tracing::debug!(method = %target.method, path = target.normal, %reason, "a request is not guarded");
                }
                let preflight = Preflight::of(&self.routes, &head, &asked);
                let mut span = head.span(None);
                let page = self.form_guard.as_deref().and_then(|guard| PageRequest::of(guard, &asked, &mut head));
                let pass = Box::pin(self.pass(UNMATCHED, head, self.passing(body), client, found.is_none()));
                let answer = pass.await;
                let answer = match &page {
                    Some(page) => answer.map(|answer| page.answer(answer, &self.metrics)),
                    None => answer,
                };
                let rule = found.map(|found| &**found.rule);
                let answer = answer.map_err(|problem| refusal::for_clients_of(problem, rule));
                let mut answer = self.count_unguarded(UNMATCHED, answer, begun, format);
                span.status(answer.status());
                if let Some(preflight) = preflight {
                    preflight.amend(answer.headers_mut());
                }
                answer
            }
        }
    }

    /// A request that cannot be forwarded may have a route, whose clients must recognise the refusal.
    fn in_dialect_of_route<B>(&self, request: &Request<B>, problem: Problem) -> Problem {
        let authority = head::authority(request.uri(), request.headers());
        let host = normal_host(authority.as_ref());
        let overriding = key::overriding_methods(request.headers());
        let asked = RequestedTarget::of(request.method(), request.uri(), host, overriding);
        refusal::for_clients_of(problem, self.routes.find(&asked.route()).map(|found| &**found.rule))
    }

    /// The answer to a guarded request that is refused.
    fn refused_on_route(
        &self,
        problem: Problem,
        rule: &Rule,
        event: &mut Event,
        format: ProblemFormat,
    ) -> ProxyResponse {
        event.answer(refusal::outcome(problem.code()), problem.code().status());
        refusal::note(&self.metrics, &rule.name, &problem);
        refused(&refusal::on_route(problem, rule), format)
    }

    /// Counts an unguarded request.
    fn count_unguarded(
        &self,
        route: &str,
        answer: Result<ProxyResponse, Problem>,
        begun: Instant,
        format: ProblemFormat,
    ) -> ProxyResponse {
        let outcome =
            answer.as_ref().map_or_else(|problem| refusal::outcome(problem.code()), |_| RequestOutcome::Unguarded);
        self.metrics.request(route, outcome, begun.elapsed());
        answer.unwrap_or_else(|problem| {
            refusal::note(&self.metrics, route, &problem);
            refused(&problem, format)
        })
    }

    pub(super) async fn guarded(
        &self,
        rule: &Arc<Rule>,
        context: RequestContext<'_>,
        mut head: Head,
        body: IncomingBody,
        event: &mut Event,
    ) -> Result<ProxyResponse, Problem> {
        // Upgrade is ignored on guarded routes (RFC 9110, 7.8), with a key or without.
        head.extensions.remove::<OnUpgrade>();
        let draft = match read_head(rule, &head, &context) {
            Ok(HeadOutcome::Partial(draft)) => draft,
            Ok(HeadOutcome::Missing(selector)) if rule.on_missing_key == OnMissingKey::Forward => {
                let (selector, body) = (selector.clone(), KeylessBody::Unread(body));
                return Box::pin(self.without_key(selector, head, body, context.client, event)).await;
            }
            Ok(HeadOutcome::Missing(selector)) => {
                return Err(Box::pin(refuse_before_body(refusal::missing_key(selector), head.fields, body)).await);
            }
            Err(problem) => return Err(Box::pin(refuse_before_body(problem, head.fields, body)).await),
        };
        let body = buffer::read(body, rule.max_request_body, &self.budget, self.body_timeout)
            .await
            .map_err(|error| refusal::unread(error, rule.max_request_body))?;

        let digest_key = match self.store.digest_key() {
            Ok(digest_key) => digest_key,
            Err(error) => return Box::pin(self.without_store(rule, error, head, body, context.client, event)).await,
        };
        let read = if is_long(&body) {
            let owned = OwnedRequest::of(&context.request(&head));
            Box::pin(self.blocking.read(rule, digest_key, owned, &self.trust, body.clone())).await
        } else {
            draft.with_body(&digest_key, &body).map(|reading| match reading {
                KeyOutcome::Operation(operation) => Ok(operation),
                KeyOutcome::Missing(selector) => Err(selector.clone()),
            })
        };
        let mut operation = match read.map_err(|error| refusal::of_key(&error))? {
            Ok(operation) => operation,
            Err(selector) if rule.on_missing_key == OnMissingKey::Forward => {
                return Box::pin(self.without_key(selector, head, KeylessBody::Read(body), context.client, event))
                    .await;
            }
            Err(selector) => return Err(refusal::missing_key(&selector)),
        };
        event.operation(&mut operation);
        if rule.probe.is_some() {
            self.keep_values(&mut operation, &head);
        }

        let claiming = head.trace.step("claim");
        let claimed = self.guard.claim(rule, &operation).await;
        claiming.end();
        let answer = match claimed {
            Ok(Admission::Owner(ownership)) => {
                if let Some(probe) = &rule.probe {
                    ownership.ask_if_unknown(self.plan_of_owner(rule, probe, &mut operation, &head));
                }
                self.run(rule, ownership, head, body, &context, event).await
            }
            Ok(Admission::Repeat(verdict)) => {
                // A repeat may wait for a long time, and its body is not needed any more.
                drop(body);
                self.repeat(rule, &operation, verdict, &head, &context, event).await
            }
            Err(ClaimError::Overloaded) => Err(refusal::overloaded()),
            Err(ClaimError::Store(error)) => {
                Box::pin(self.without_store(rule, error, head, body, context.client, event)).await
            }
        };
        answer.map_err(|problem| problem.record(&operation.name))
    }

    /// The request has no key, and its route forwards it all the same.
    async fn without_key(
        &self,
        selector: Selector,
        head: Head,
        body: KeylessBody,
        client: &Client,
        event: &mut Event,
    ) -> Result<ProxyResponse, Problem> {
        if let Some(outdated) = Outdated::marked(&head) {
            let answer = match body {
                KeylessBody::Unread(body) => self.outdated_before_body(outdated, head.fields, body).await?,
                KeylessBody::Read(_) => self.outdated(outdated)?,
            };
            event.answer(RequestOutcome::Unguarded, answer.status());
            return Ok(answer);
        }
        event.unguarded(Reason::NoKey(selector));
        let body = match body {
            KeylessBody::Unread(body) => self.passing(body),
            KeylessBody::Read(body) => RequestBody::buffered(body),
        };
        self.unguarded(head, body, client, event).await
    }

    /// The store did not answer.
    async fn without_store(
        &self,
        rule: &Rule,
        error: StoreError,
        head: Head,
        body: Bytes,
        client: &Client,
        event: &mut Event,
    ) -> Result<ProxyResponse, Problem> {
        // A first try runs as the route says. A repeat of the form guard's script may be that of a request that ran.
        let is_repeat = Outdated::marked(&head) == Some(Outdated::Repeat);
        match (error, rule.on_error) {
            (StoreError::Unavailable(_), OnStoreError::Forward) if !is_repeat => {
                event.unguarded(Reason::NoStore);
                self.unguarded(head, RequestBody::buffered(body), client, event).await
            }
            (StoreError::Unavailable(_), OnStoreError::Reject | OnStoreError::Forward)
            | (StoreError::Refused(_) | StoreError::Uncertain(_) | StoreError::Unacknowledged(_), _) => {
                Err(refusal::store_unavailable())
            }
            (error @ StoreError::Unreadable { .. }, _) => Err(refusal::unread_record(&error)),
        }
    }

    /// Forwards a request without guarding it, on a guarded route.
    async fn unguarded(
        &self,
        head: Head,
        body: RequestBody,
        client: &Client,
        event: &mut Event,
    ) -> Result<ProxyResponse, Problem> {
        // Never sent again: its route says that repeats matter.
        let answer = self.pass(event.route(), head, body, client, false).await?;
        event.answer(RequestOutcome::Unguarded, answer.status());
        Ok(answer)
    }
}

/// The body of a request without a key, which may have been read to look for the key.
enum KeylessBody {
    Unread(IncomingBody),
    Read(Bytes),
}

/// The host that a request is for.
fn normal_host(authority: Option<&HeaderValue>) -> Option<Cow<'_, str>> {
    authority.and_then(|host| host.to_str().ok()).and_then(uri::normalise_host)
}

/// The methods that override the request's own. Few requests have one.
fn overriding_methods(head: &Head) -> Vec<Method> {
    let may_name = head.fields.has(Fields::OVERRIDE | Fields::RESPELLED);
    if may_name { key::overriding_methods(&head.headers) } else { Vec::new() }
}

/// Reads the key from the head, as far as it is there.
fn read_head<'a>(rule: &'a Rule, head: &'a Head, context: &'a RequestContext<'a>) -> Result<HeadOutcome<'a>, Problem> {
    if let Some(why) = why_ambiguous(rule, context, head) {
        return Err(head::bad(why));
    }
    key::read_head(rule, context.request(head)).map_err(|error| refusal::of_key(&error))
}

/// A refusal that does not depend on the body. A client that waits for `100 Continue` is not asked for the body.
async fn refuse_before_body(problem: Problem, fields: Fields, body: IncomingBody) -> Problem {
    if !fields.has(Fields::EXPECT) {
        buffer::drain(body).await;
    }
    problem
}

fn refused(problem: &Problem, format: ProblemFormat) -> ProxyResponse {
    problem.response(format).map(ResponseBody::from_bytes)
}
