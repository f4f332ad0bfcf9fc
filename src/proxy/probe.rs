//! Questions to the backend about requests whose outcome is unknown.

use std::pin::pin;
use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, COOKIE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request};

use super::body::request::RequestBody;
use super::budget::Budget;
use super::head::{self, Head};
use super::state::Proxy;
use super::upstream::{AskError, OwnAnswer, SendError, Upstream};
use crate::guard::{AskFn, Inconclusive, NotAsked, ProbeOutcome, ProbePlan, ProbeReading, Verdict};
use crate::key::{NoProbe, Operation, ProbeValues};
use crate::record::probe::{ProbeFacts, ProbedBy};
use crate::record::{RecordName, Reply};
use crate::rule::{ProbeRule, Rule};
use crate::store::Store;
use crate::tick;
use crate::trace;

const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OURSELVES: HeaderValue = HeaderValue::from_static(concat!("onlyonce/", env!("CARGO_PKG_VERSION")));

/// Sends the questions of one record.
struct Questioner {
    upstream: Upstream,
    budget: Budget,
    rule: Arc<Rule>,
    probe: Arc<ProbeRule>,
    /// The fields of every question.
    fields: HeaderMap,
    parent: trace::Parent,
}

impl Questioner {
    /// Asks once.
    async fn ask(&self, target: &str) -> ProbeReading {
        let Ok(path) = PathAndQuery::try_from(target) else {
            return ProbeReading::Inconclusive(Inconclusive::Unsent);
        };
        let host = self.rule.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok());
        let mut fields = self.fields.clone();
        let mut span = self.parent.client(&Method::GET);
        span.inject(&mut fields);
        let head = head::own_request(path, fields, host, self.upstream.target());
        let mut question = Request::from_parts(head, RequestBody::default());
        let asking = pin!(self.upstream.ask(&mut question, self.rule.max_response_body, &self.budget));
        let error = match tick::timeout(self.probe.timeout, asking).await {
            Ok(Ok(OwnAnswer { status, headers, body, is_whole })) => {
                span.status(status);
                let reply = Reply { status, headers, body: body.into(), trailers: HeaderMap::new() };
                return ProbeReading::of(&self.probe, reply, is_whole);
            }
            Ok(Err(error)) => error,
            Err(_) => return ProbeReading::Inconclusive(Inconclusive::TimedOut),
        };
        tracing::debug!(error = &error as &dyn std::error::Error, "a probe was not answered");
        ProbeReading::Inconclusive(match error {
            AskError::Sending(SendError::Unsent(_)) => Inconclusive::Unsent,
            AskError::Sending(SendError::Broken(_) | SendError::Unframed(_)) => Inconclusive::Unanswered,
            AskError::Reading(_) => Inconclusive::BrokenOff,
        })
    }
}

/// The fields of a question with this credential, or with those of a request.
fn fields(probe: &ProbeRule, request: Option<&HeaderMap>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert(CACHE_CONTROL, NO_CACHE);
    fields.insert(ACCEPT_ENCODING, IDENTITY);
    fields.insert(USER_AGENT, OURSELVES);
    if probe.found.reads_json() || probe.absent.reads_json() {
        fields.insert(ACCEPT, JSON);
    }
    match (&probe.authorization, request) {
        (Some(own), _) => drop(fields.insert(AUTHORIZATION, own.clone())),
        (None, Some(request)) => {
            for name in [AUTHORIZATION, COOKIE] {
                for line in request.get_all(&name) {
                    fields.append(&name, line.clone());
                }
            }
        }
        (None, None) => {}
    }
    fields
}

impl Proxy {
    /// Has the values of a first request kept with its record, for others who ask. Where nothing is encrypted, none are.
    pub(super) fn keep_values(&self, operation: &mut Operation) {
        if let Some(Ok(values)) = operation.probe_values.as_deref()
            && !self.store.encryption_keys().is_empty()
        {
            let (attempt_timeout, values) = (self.upstream.settings().attempt_timeout, values.all().to_vec());
            operation.probe = Some(Box::new(ProbeFacts { attempt_timeout, values }));
        }
    }

    /// The question of the owner: with the credentials of its client, unless the route has one of its own.
    pub(super) fn owner_s_plan(
        &self,
        rule: &Arc<Rule>,
        probe: &Arc<ProbeRule>,
        operation: &mut Operation,
        head: &Head,
    ) -> Arc<ProbePlan> {
        let values = operation.probe_values.take().map(|values| *values);
        self.plan(rule, probe, ProbedBy::Owner, values, fields(probe, Some(&head.headers)), head.trace.clone())
    }

    /// What a repeat gets that has met an unknown outcome: the backend is asked first.
    pub(super) async fn ask_about_unknown(
        &self,
        rule: &Arc<Rule>,
        probe: &Arc<ProbeRule>,
        operation: &Operation,
        head: &Head,
    ) -> Verdict {
        // Its own credentials may see less than those of the first request did.
        let plan = probe.authorization.is_some().then(|| {
            let own = operation.probe_values.as_ref().and_then(|values| values.as_ref().as_ref().ok());
            let same = own.filter(|values| values.are_the_same_for_repeats()).cloned();
            self.plan(rule, probe, ProbedBy::Another, same.map(Ok), fields(probe, None), head.trace.clone())
        });
        self.guard.probe_for_repeat(rule, probe, operation, plan).await
    }

    /// Asks about a record of this route for an operator.
    pub async fn probe_by_hand(&self, rule: &Arc<Rule>, name: &RecordName) -> ProbeOutcome {
        let Some(probe) = &rule.probe else { return ProbeOutcome::NotAsked(NotAsked::NoProbe) };
        if probe.authorization.is_none() {
            return ProbeOutcome::NotAsked(NotAsked::NoCredential);
        }
        let parent = trace::Parent::default();
        let plan = self.plan(rule, probe, ProbedBy::Another, None, fields(probe, None), parent);
        self.guard.probe_by_hand(name, &plan).await
    }

    fn plan(
        &self,
        rule: &Arc<Rule>,
        probe: &Arc<ProbeRule>,
        by: ProbedBy,
        values: Option<Result<ProbeValues, NoProbe>>,
        fields: HeaderMap,
        parent: trace::Parent,
    ) -> Arc<ProbePlan> {
        let questioner = Arc::new(Questioner {
            upstream: self.upstream.clone(),
            budget: self.budget.clone(),
            rule: Arc::clone(rule),
            probe: Arc::clone(probe),
            fields,
            parent,
        });
        let attempt_timeout = self.upstream.settings().attempt_timeout;
        let ask: AskFn = Box::new(move |target| {
            let questioner = Arc::clone(&questioner);
            Box::pin(async move { questioner.ask(&target).await })
        });
        Arc::new(ProbePlan { probe: Arc::clone(probe), attempt_timeout, by, values, ask })
    }
}
