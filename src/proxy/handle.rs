//! The data path: match route → key → body → fingerprint → claim → verdict → replay | wait | problem | run.

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::ambiguous::why_ambiguous;
use super::blocking::{OwnedRequest, is_long};
use super::body::{self, BodyProgress, BodyStage, IdleTimeoutBody, RequestBody, ResponseBody};
use super::cors::{CorsOrigin, Preflight};
use super::event::{Event, Reason};
use super::fields::Fields;
use super::head::{self, Head};
use super::hops;
use super::incoming::IncomingBody;
use super::refusal;
use super::replay::{self, Accepted, NoReplay};
use super::stream::{self, HeadOrResult};
use super::tunnel::UpgradeRequest;
use super::upstream::{AttemptLimits, SendError};
use super::{Client, Proxy};
use crate::clock;
use crate::config::{LogKeys, Mode, OnConcurrent, OnMissingKey, OnStoreError, PathParams, RouteMatch, Rule, Trust};
use crate::fail_point::{self, Step};
use crate::guard::{Admission, AttemptResult, ClaimError, LostReason, Ownership, Verdict};
use crate::key::{self, HeadOutcome, KeyOutcome, Operation, RequestedTarget};
use crate::list;
use crate::metrics::{RequestOutcome, UNMATCHED};
use crate::problem::{PREFERENCE_APPLIED, Problem, ProblemFormat, WAIT};
use crate::store::{Store, StoreError};
use crate::tick;
use crate::uri;

pub(super) type ProxyResponse = Response<ResponseBody>;

impl Proxy {
    /// Answers one request.
    pub async fn handle(self: &Arc<Self>, request: Request<Incoming>, client: &Client) -> ProxyResponse {
        let begun = Instant::now();
        let fields = Fields::of(request.headers());
        let form = if fields.has(Fields::ACCEPT) { ProblemFormat::of(request.headers()) } else { ProblemFormat::Json };
        let version = request.version();
        let request = request.map(|body| IncomingBody::request(body, version, client));
        let authority = head::authority(request.uri(), request.headers());
        let host = authority.as_ref().and_then(|host| host.to_str().ok()).and_then(uri::normalise_host);
        if let Err(problem) = head::inspect(&request, fields, host.is_some()) {
            let problem = self.in_dialect_of_route(&request, problem);
            let problem = Box::pin(refuse_before_body(problem, fields, request.into_body())).await;
            return self.count_unguarded(UNMATCHED, Err(problem), begun, form);
        }
        let (parts, body) = request.into_parts();
        let mut head = Head::new(parts, fields);
        if let Some(answer) = hops::count(&mut head) {
            return self.count_unguarded(UNMATCHED, answer, begun, form);
        }
        let uri = head.uri.clone();
        let asked = RequestedTarget::of(&head.method, &uri, host, overriding_methods(&head));
        let target = asked.route();

        match self.routes.find(&target) {
            Some(RouteMatch { rule, params, respelled, is_contested }) if rule.mode != Mode::Off => {
                let (method, path) = (asked.effective_method(), respelled.as_deref().unwrap_or(asked.path()));
                let (host, trust, log_keys) = (asked.host(), &self.trust, self.log_keys);
                let context =
                    RequestContext { method, host, path, params: &params, client, trust, is_contested, log_keys };
                if rule.mode == Mode::Observe {
                    let answer = Box::pin(self.observed(rule, context, head, body)).await;
                    let answer = answer.map_err(|problem| refusal::for_clients_of(problem, rule));
                    return self.count_unguarded(&rule.name, answer, begun, form);
                }
                let mut event = Event::begin(&self.metrics, rule, &head, begun);
                let reader = CorsOrigin::of(rule, &head.headers);
                // Apart, so that the place that a connection keeps for its next request stays small.
                let answer = Box::pin(self.guarded(rule, context, head, body, &mut event)).await;
                let mut answer = answer.unwrap_or_else(|problem| {
                    event.answer(refusal::outcome(problem.code()), problem.code().status());
                    refusal::note(&self.metrics, &rule.name, &problem);
                    refused(&refusal::on_route(problem, rule), form)
                });
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
                let preflight = Preflight::of(&self.routes, &head, asked.host(), asked.path());
                let pass = Box::pin(self.pass(UNMATCHED, head, self.passing(body), client, found.is_none()));
                let answer = pass.await;
                let answer = answer.map_err(|problem| match &found {
                    Some(found) => refusal::for_clients_of(problem, found.rule),
                    None => problem,
                });
                let mut answer = self.count_unguarded(UNMATCHED, answer, begun, form);
                if let Some(preflight) = preflight {
                    preflight.amend(answer.headers_mut());
                }
                answer
            }
        }
    }

    /// A request that cannot be forwarded has a route all the same, whose clients must recognise the refusal.
    fn in_dialect_of_route<B>(&self, request: &Request<B>, problem: Problem) -> Problem {
        let authority = head::authority(request.uri(), request.headers());
        let host = authority.as_ref().and_then(|host| host.to_str().ok()).and_then(uri::normalise_host);
        let overriding = key::overriding_methods(request.headers());
        let asked = RequestedTarget::of(request.method(), request.uri(), host, overriding);
        match self.routes.find(&asked.route()) {
            Some(found) => refusal::for_clients_of(problem, found.rule),
            None => problem,
        }
    }

    /// Counts what nobody guarded.
    fn count_unguarded(
        &self,
        route: &str,
        answer: Result<ProxyResponse, Problem>,
        begun: Instant,
        form: ProblemFormat,
    ) -> ProxyResponse {
        let outcome =
            answer.as_ref().map_or_else(|problem| refusal::outcome(problem.code()), |_| RequestOutcome::Unguarded);
        self.metrics.request(route, outcome, begun.elapsed());
        answer.unwrap_or_else(|problem| {
            refusal::note(&self.metrics, route, &problem);
            refused(&problem, form)
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
        // No offer of another protocol is taken up on a route that guards (RFC 9110, 7.8), with a key or without.
        head.extensions.remove::<OnUpgrade>();
        let draft = match read_head(rule, &head, &context) {
            Ok(HeadOutcome::Partial(draft)) => draft,
            Ok(HeadOutcome::Missing(selector)) if rule.on_missing_key == OnMissingKey::Forward => {
                event.unguarded(Reason::NoKey(selector.clone()));
                return Box::pin(self.unguarded(head, self.passing(body), context.client, event)).await;
            }
            Ok(HeadOutcome::Missing(selector)) => {
                return Err(Box::pin(refuse_before_body(refusal::missing_key(selector), head.fields, body)).await);
            }
            Err(problem) => return Err(Box::pin(refuse_before_body(problem, head.fields, body)).await),
        };
        let body = body::read(body, rule.max_request_body, &self.budget, self.body_timeout)
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
        let operation = match read.map_err(|error| refusal::of_key(&error))? {
            Ok(operation) => operation,
            Err(selector) if rule.on_missing_key == OnMissingKey::Forward => {
                event.unguarded(Reason::NoKey(selector));
                return Box::pin(self.unguarded(head, RequestBody::buffered(body), context.client, event)).await;
            }
            Err(selector) => return Err(refusal::missing_key(&selector)),
        };
        event.operation(&operation);

        let answer = match self.guard.claim(rule, &operation).await {
            Ok(Admission::Owner(ownership)) => self.run(rule, ownership, head, body, context.client, event).await,
            Ok(Admission::Repeat(verdict)) => {
                // A repeat may wait for long; its body has said what it had to say.
                drop(body);
                self.repeat(rule, &operation, verdict, &head, context.client, event).await
            }
            Err(ClaimError::Overloaded) => Err(refusal::overloaded()),
            Err(ClaimError::Store(error)) => {
                Box::pin(self.without_store(rule, error, head, body, context.client, event)).await
            }
        };
        answer.map_err(|problem| problem.record(&operation.name))
    }

    /// This request owns the operation: it is sent once, and its client cannot stop that.
    pub(super) async fn run(
        &self,
        rule: &Arc<Rule>,
        ownership: Ownership,
        mut head: Head,
        body: Bytes,
        client: &Client,
        event: &mut Event,
    ) -> Result<ProxyResponse, Problem> {
        event.attempt(&ownership);
        let record = ownership.record().clone();
        let accepted = Accepted::by(&head);
        let (relay, reader) = stream::relay_for(rule.response, head.version).unzip();
        let body = RequestBody::buffered(body);
        self.cross(&mut head, &body, client);
        if ownership.attempt() > 1 {
            head.headers.insert(head::ATTEMPT, HeaderValue::from(ownership.attempt()));
        }
        let mut request = Request::from_parts(head.into_parts(), body);
        let settings = self.upstream.settings();
        let limits = AttemptLimits { timeout: settings.attempt_timeout, max_response_body: rule.max_response_body };
        let (upstream, budget) = (self.upstream.clone(), self.budget.clone());
        let begun = Instant::now();
        let running = ownership
            .run(move |gate| async move { upstream.attempt(&mut request, gate, &limits, &budget, relay).await });
        let first = {
            let first = pin!(stream::head_or_result(reader, running));
            // Dropped where the time is up: the attempt goes on by itself.
            tick::timeout(settings.response_timeout, first).await
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
            // A panic in the attempt: it may have been sent, and its lease runs out.
            Ok(HeadOrResult::Result(None)) => return Err(refusal::failed()),
            Err(_) => return Err(refusal::not_yet()),
        };
        match ended {
            AttemptResult::Answered(reply) => executed(event, replay::own_response(reply)),
            AttemptResult::Streamed(reply, rest) => executed(event, replay::partial_response(reply, rest)),
            AttemptResult::Recorded(reply) => {
                // Rare.
                let answer = Box::pin(self.replay(rule, &record, reply, &accepted)).await.map_err(not_replayed)?;
                event.answer(RequestOutcome::Replayed, answer.status());
                Ok(answer)
            }
            AttemptResult::NotSent => Err(refusal::unreachable()),
            AttemptResult::InDoubt => Err(refusal::store_unavailable()),
            AttemptResult::Replaced => Err(refusal::in_flight(rule)),
            AttemptResult::Silent(LostReason::Broken) => Err(refusal::failed()),
            AttemptResult::Silent(LostReason::Timeout) => Err(refusal::given_up()),
        }
    }

    /// Another request came first.
    pub(super) async fn repeat(
        &self,
        rule: &Rule,
        operation: &Operation,
        mut verdict: Verdict,
        head: &Head,
        client: &Client,
        event: &mut Event,
    ) -> Result<ProxyResponse, Problem> {
        let mut waited = None;
        if verdict == Verdict::InFlight
            && let Some(limit) = WaitLimit::of(rule, head)
        {
            // Whoever left needs no place among those who wait.
            let waiting = Box::pin(async {
                tokio::select! {
                    verdict = self.guard.wait(rule, operation, limit.time) => verdict,
                    () = client.disconnect.wait() => None,
                }
            });
            let waiting = waiting.await;
            if let Some(after) = waiting {
                (waited, verdict) = (Some(limit), after);
            }
        }
        let mut answer = match verdict {
            Verdict::Replay(reply) => {
                let answer = self.replay(rule, &operation.name, reply, &Accepted::by(head)).await;
                let answer = answer.map_err(not_replayed)?;
                event.answer(RequestOutcome::Replayed, answer.status());
                Ok(answer)
            }
            Verdict::InFlight => Err(refusal::in_flight(rule)),
            Verdict::KeyReused(difference) => Err(refusal::key_reused(rule, difference)),
            Verdict::OutcomeUnknown => Err(refusal::outcome_unknown(rule)),
            Verdict::AlreadyCompleted { status, location } => {
                Err(refusal::already_completed(rule).original(status, location))
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
        match (error, rule.on_error) {
            (StoreError::Unavailable(_), OnStoreError::Forward) => {
                event.unguarded(Reason::NoStore);
                self.unguarded(head, RequestBody::buffered(body), client, event).await
            }
            (StoreError::Unavailable(_), OnStoreError::Reject)
            | (StoreError::Refused(_) | StoreError::Uncertain(_), _) => Err(refusal::store_unavailable()),
            (error @ StoreError::Unreadable { .. }, _) => Err(unread_record(&error)),
        }
    }

    /// Passed on without a guard, on a route that has one.
    async fn unguarded(
        &self,
        head: Head,
        body: RequestBody,
        client: &Client,
        event: &mut Event,
    ) -> Result<ProxyResponse, Problem> {
        // That there is a route for it says that it matters how often it runs.
        let answer = self.pass(event.route(), head, body, client, false).await?;
        event.answer(RequestOutcome::Unguarded, answer.status());
        Ok(answer)
    }

    /// Passed on as it is; once, unless sending it `again` does no harm.
    pub(super) async fn pass(
        &self,
        route: &str,
        mut head: Head,
        body: RequestBody,
        client: &Client,
        again: bool,
    ) -> Result<ProxyResponse, Problem> {
        let wish = self.wish(&mut head, &body);
        self.cross(&mut head, &body, client);
        if let Some(wish) = &wish {
            wish.pass_on(&mut head.headers);
        }
        let again = again && wish.is_none();
        let progress = body.progress();
        let leaving = AbortedUpload { proxy: self, route, progress: &progress, begun: progress.since() };
        let mut request = Request::from_parts(head.into_parts(), body);
        // The backend's time runs from the last of the request that went to it: a long upload is the client's time.
        let sent = tokio::select! {
            biased;
            sent = self.upstream.forward(&mut request, again) => Ok(sent),
            () = progress.stalled(self.upstream.settings().response_timeout) => Err(refusal::too_late()),
        };
        leaving.disarm();
        match sent {
            Ok(Ok(mut response)) => {
                if response.body_mut().is_broken().await {
                    tracing::warn!("the backend broke off where the body of its answer begins");
                    return Err(refusal::failed());
                }
                let answer = UpgradeRequest::response(wish, response).ok_or_else(refusal::failed)?;
                Ok(answer.map(ResponseBody::streaming))
            }
            Ok(Err(error)) => Err(unanswered(&error, progress.stage())),
            Err(too_late) => Err(too_late),
        }
    }

    /// Another protocol than HTTP, where it can be spoken. In HTTP/2 there is none that a request of HTTP/1.1 asks for.
    fn wish(&self, head: &mut Head, body: &RequestBody) -> Option<UpgradeRequest> {
        UpgradeRequest::of(head).filter(|_| body.is_end_stream() && !self.upstream.settings().http2)
    }

    fn passing(&self, body: IncomingBody) -> RequestBody {
        RequestBody::Streaming(IdleTimeoutBody::new(body, self.body_timeout))
    }

    fn cross(&self, head: &mut Head, body: &RequestBody, client: &Client) {
        head::cross_request(head, client, self.upstream.target(), body.framing());
    }
}

/// Why a request that passed has no answer: the fault of its client, where its body did not come.
fn unanswered(error: &SendError, stage: BodyStage) -> Problem {
    match (error, stage) {
        (SendError::Unsent(error), _) => {
            tracing::warn!(error = error as &dyn Error, "the backend cannot be reached");
            refusal::unreachable()
        }
        (SendError::Broken(_), BodyStage::Broken) => refusal::broken_off(),
        (SendError::Broken(_), BodyStage::Paused) => refusal::too_slow(),
        (SendError::Broken(error), BodyStage::Coming | BodyStage::Whole) => {
            tracing::warn!(error = error as &dyn Error, "the backend broke off");
            refusal::failed()
        }
        (SendError::Unframed(error), _) => {
            tracing::warn!(error = error as &dyn Error, "the answer of the backend cannot be read");
            refusal::failed()
        }
    }
}

/// Counts a request whose client leaves before it has sent all of it. Over HTTP/2 that ends the request at once: there
/// is nobody to be told.
struct AbortedUpload<'a> {
    proxy: &'a Proxy,
    route: &'a str,
    progress: &'a BodyProgress,
    begun: Instant,
}

impl AbortedUpload<'_> {
    /// It waited for what came of it.
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for AbortedUpload<'_> {
    fn drop(&mut self) {
        if self.progress.stage() != BodyStage::Whole {
            self.proxy.metrics.request(self.route, RequestOutcome::BadRequest, self.begun.elapsed());
        }
    }
}

/// Where a request goes, and where it came from.
pub(super) struct RequestContext<'a> {
    /// As the backend may take it.
    pub(super) method: &'a Method,
    pub(super) host: Option<&'a str>,
    /// In the route's spelling.
    pub(super) path: &'a str,
    pub(super) params: &'a PathParams<'a>,
    pub(super) client: &'a Client,
    pub(super) trust: &'a Trust,
    pub(super) log_keys: LogKeys,
    /// Its own method and one that overrides it lead to different guarded routes.
    pub(super) is_contested: bool,
}

impl RequestContext<'_> {
    /// What a head says, as far as its operation goes.
    pub(super) fn request<'a>(&'a self, head: &'a Head) -> key::Request<'a> {
        key::Request {
            method: self.method,
            headers: &head.headers,
            host: self.host,
            path: self.path,
            params: self.params,
            query: head.uri.query(),
            peer: self.client.peer.map(|peer| peer.ip()),
            trust: self.trust,
            now: clock::wall(),
            log_keys: self.log_keys,
        }
    }
}

/// Few requests name another method.
fn overriding_methods(head: &Head) -> Vec<Method> {
    let may_name = head.fields.has(Fields::OVERRIDE | Fields::RESPELLED);
    if may_name { key::overriding_methods(&head.headers) } else { Vec::new() }
}

/// What the head alone tells.
fn read_head<'a>(rule: &'a Rule, head: &'a Head, context: &'a RequestContext<'a>) -> Result<HeadOutcome<'a>, Problem> {
    if let Some(why) = why_ambiguous(rule, context, head) {
        return Err(head::bad(why));
    }
    key::read_head(rule, context.request(head)).map_err(|error| refusal::of_key(&error))
}

/// A refusal for which the body need not be known. A client that waits to be asked for it (`Expect: 100-continue`) is
/// not asked.
async fn refuse_before_body(problem: Problem, fields: Fields, body: IncomingBody) -> Problem {
    if !fields.has(Fields::EXPECT) {
        body::drain(body).await;
    }
    problem
}

/// How long a repeat waits for the first.
#[derive(Clone, Copy)]
struct WaitLimit {
    time: Duration,
    /// Because its client asked for it (`Prefer: wait=N`, RFC 7240, 4.3).
    is_preferred: bool,
}

impl WaitLimit {
    /// As long as the route lets it, or less where the client says so. `None`: it does not wait.
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

fn refused(problem: &Problem, form: ProblemFormat) -> ProxyResponse {
    problem.response(form).map(ResponseBody::from_bytes)
}

/// There is an answer, and it cannot be given now.
fn not_replayed(why: NoReplay) -> Problem {
    match why {
        NoReplay::NoRoom => refusal::overloaded(),
        NoReplay::Store(error) => unread_record(&error),
    }
}

/// The record is there, and its body did not come.
fn unread_record(error: &StoreError) -> Problem {
    match error {
        StoreError::Unreadable { .. } => {
            tracing::error!(error = error as &dyn Error, "a record cannot be read; its key is blocked");
            refusal::record_unreadable()
        }
        StoreError::Unavailable(_) | StoreError::Refused(_) | StoreError::Uncertain(_) => refusal::store_unavailable(),
    }
}
