//! Questions to the backend about requests whose outcome is unknown.

use std::pin::pin;
use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, EXPECT, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

use super::body::request::RequestBody;
use super::budget::Budget;
use super::credentials::credentials;
use super::head::{self, Head};
use super::state::Proxy;
use super::upstream::{AskError, OwnAnswer, SendError, Upstream};
use crate::guard::{
    AskFn, Inconclusive, NextAnswer, NotAsked, ProbeHost, ProbeOutcome, ProbePlan, ProbeReading, ProbedBy, Verdict,
};
use crate::key::{NoProbe, Operation, OperationProbe, ProbeValues};
use crate::record::probe::ProbeFacts;
use crate::record::{RecordName, Reply};
use crate::rule::{ProbeRule, Rule};
use crate::store::Store;
use crate::tick;
use crate::trace;

const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OURSELVES: HeaderValue = HeaderValue::from_static(concat!("onlyonce/", env!("CARGO_PKG_VERSION")));

/// The fields that a question has itself, whatever the scope names.
const OUR_OWN: [HeaderName; 6] = [HOST, EXPECT, CACHE_CONTROL, ACCEPT_ENCODING, ACCEPT, USER_AGENT];

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

/// What differs between the question of an owner and that of another.
struct PlannedQuestion {
    by: ProbedBy,
    values: Option<Result<ProbeValues, NoProbe>>,
    host: ProbeHost,
    fields: HeaderMap,
    parent: trace::Parent,
}

impl Questioner {
    /// Asks once.
    async fn ask(&self, target: &str, host: Option<HeaderValue>) -> ProbeReading {
        let Ok(path) = PathAndQuery::try_from(target) else {
            return ProbeReading::Inconclusive(Inconclusive::Unsent);
        };
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

/// The fields of a question with the credential of the route, or else with those of a request.
fn fields(rule: &Rule, probe: &ProbeRule, request: Option<&HeaderMap>) -> HeaderMap {
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
            for name in credentials(rule, &OUR_OWN) {
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
    pub(super) fn keep_values(&self, operation: &mut Operation, head: &Head) {
        if let Some(OperationProbe { values: Ok(values), kept }) = operation.probe.as_deref_mut()
            && !self.store.encryption_keys().is_empty()
        {
            let (attempt_timeout, values) = (self.upstream.settings().attempt_timeout, values.all().to_vec());
            let mut facts = ProbeFacts { attempt_timeout, values };
            // Also where the route fixes the host: it says nothing of the port, and may change.
            if let Some(host) = self.attempted_host(head) {
                facts.add_host(&host);
            }
            *kept = Some(facts);
        }
    }

    /// The host that the backend gets with a request. `None`: its own.
    fn attempted_host(&self, head: &Head) -> Option<HeaderValue> {
        head::authority(&head.uri, &head.headers).filter(|_| self.upstream.target().preserves_host())
    }

    /// The host that a question of others names, as far as the configuration fixes it.
    fn fixed_host(&self, rule: &Rule) -> ProbeHost {
        if !self.upstream.target().preserves_host() {
            return ProbeHost::Known(None);
        }
        match rule.host.as_deref().map(HeaderValue::from_str) {
            Some(Ok(host)) => ProbeHost::Known(Some(host)),
            Some(Err(_)) | None => ProbeHost::Kept,
        }
    }

    /// The question of the owner: with the host of its request, and with the credentials of its client, unless the route
    /// has one of its own.
    pub(super) fn plan_of_owner(
        &self,
        rule: &Arc<Rule>,
        probe: &Arc<ProbeRule>,
        operation: &mut Operation,
        head: &Head,
    ) -> Arc<ProbePlan> {
        let values = operation.probe.take().map(|probe| probe.values);
        let host = ProbeHost::Known(self.attempted_host(head));
        let fields = fields(rule, probe, Some(&head.headers));
        let question = PlannedQuestion { by: ProbedBy::Owner, values, host, fields, parent: head.trace.clone() };
        self.plan(rule, probe, question)
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
            let own = operation.probe.as_ref().and_then(|probe| probe.values.as_ref().ok());
            let same = own.filter(|values| values.are_the_same_for_repeats()).cloned();
            self.plan_of_another(rule, probe, same.map(Ok), head.trace.clone())
        });
        self.guard.probe_for_repeat(rule, probe, operation, plan).await
    }

    /// Asks about a record of this route for an operator.
    pub async fn probe_by_hand(&self, rule: &Arc<Rule>, name: &RecordName) -> NextAnswer {
        let not_asked = |why| NextAnswer::Came(ProbeOutcome::NotAsked(why));
        let Some(probe) = &rule.probe else { return not_asked(NotAsked::NoProbe) };
        if probe.authorization.is_none() {
            return not_asked(NotAsked::NoCredential);
        }
        let plan = self.plan_of_another(rule, probe, None, trace::Parent::default());
        self.guard.probe_by_hand(name, &plan).await
    }

    /// The question of whoever meets the record: with the credential of the route.
    fn plan_of_another(
        &self,
        rule: &Arc<Rule>,
        probe: &Arc<ProbeRule>,
        values: Option<Result<ProbeValues, NoProbe>>,
        parent: trace::Parent,
    ) -> Arc<ProbePlan> {
        let (host, fields) = (self.fixed_host(rule), fields(rule, probe, None));
        self.plan(rule, probe, PlannedQuestion { by: ProbedBy::Another, values, host, fields, parent })
    }

    fn plan(&self, rule: &Arc<Rule>, probe: &Arc<ProbeRule>, question: PlannedQuestion) -> Arc<ProbePlan> {
        let PlannedQuestion { by, values, host, fields, parent } = question;
        let questioner = Arc::new(Questioner {
            upstream: self.upstream.clone(),
            budget: self.budget.clone(),
            rule: Arc::clone(rule),
            probe: Arc::clone(probe),
            fields,
            parent,
        });
        let attempt_timeout = self.upstream.settings().attempt_timeout;
        let ask: AskFn = Box::new(move |target, host| {
            let questioner = Arc::clone(&questioner);
            Box::pin(async move { questioner.ask(&target, host).await })
        });
        Arc::new(ProbePlan { probe: Arc::clone(probe), attempt_timeout, by, values, host, ask })
    }
}
