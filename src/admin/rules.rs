//! The rules in force: for comparison with another configuration, and for `explain`.
//!
//! | call | does |
//! |---|---|
//! | `GET /rules?digest_key=` | the inputs of the names of records |
//! | `POST /explain` | what a request would get now; nothing is sent, claimed or written |
//!
//! `explain` runs in the sidecar, which has the store's digest key. Neither the key nor a digest of a credential leaves the
//! sidecar, except the name of a record.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::RecordPlacement;
use super::Timestamp;
use super::access::Access;
use super::error::{AdminError, AdminErrorKind};
use super::shape::{ExplainRequest, ExplainResponse, ProspectName, RecordEntry, RouteNotConfigured, RulesPage};
use crate::clock;
use crate::config;
use crate::guard::{self, Difference, Verdict};
use crate::key::{self, DescribedRequest, KeyOutcome, Operation};
use crate::record;
use crate::record::codec::Unreadable;
use crate::record::transitions::RecordSnapshot;
use crate::rule::{Mode, Naming, OnMismatch, Routes, Rule, Trust};
use crate::store::{Store, StoreError};

/// The rules that apply to requests now.
pub struct ActiveRules {
    /// Which requests are guarded, and how.
    pub routes: Arc<Routes>,
    /// Who is trusted to identify clients.
    pub trust: Trust,
    /// Where records are kept.
    pub keeping: RecordPlacement,
    /// Who may see and change records.
    pub access: Arc<Access>,
}

/// As many routes are named to whoever has mistyped one.
const NAMED: usize = 20;

impl ActiveRules {
    /// Where no route has this name. The records of an observed route have a name of their own.
    pub(super) fn not_configured(&self, name: &str) -> Option<RouteNotConfigured> {
        let plain = record::without_observed(name);
        let names = || self.routes.rules().iter().map(|rule| &*rule.name);
        if names().any(|other| other == plain) {
            return None;
        }
        Some(RouteNotConfigured {
            route: name.to_owned(),
            near: config::nearest(plain, names()).map(str::to_owned),
            routes: names().take(NAMED).map(str::to_owned).collect(),
        })
    }
}

/// The inputs of the names of records. `query` may contain the check of a digest key, to compare it with the one in use.
pub(super) async fn told(
    in_force: &ActiveRules,
    store: &dyn Store,
    query: Option<&str>,
) -> Result<RulesPage, AdminError> {
    let asked = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("digest_key="));
    let same_digest_key = match asked {
        None => None,
        Some(asked) => {
            let own = store.digest_key().map_err(|error| AdminError::of_look(&error))?;
            Some(check(&own) == asked)
        }
    };
    Ok(RulesPage { routes: Naming::all(&in_force.routes), keeping: in_force.keeping.clone(), same_digest_key })
}

/// The check of a digest key, as text. It identifies the key without revealing it.
pub fn check(key: &key::DigestKey) -> String {
    record::Hex::of(&key.check()).to_string()
}

/// What a request would get now.
pub(super) async fn explain(
    in_force: &ActiveRules,
    store: &dyn Store,
    asked: ExplainRequest,
) -> Result<ExplainResponse, AdminError> {
    let bad = |what: String| AdminError::new(AdminErrorKind::BadRequest, what);
    let ExplainRequest { method, url, headers: lines, body } = asked;
    let method: Method = method.parse().map_err(|_| bad(format!("'{method}' is no method.")))?;
    let url: Uri = url.parse().map_err(|_| bad("The URL cannot be read.".to_owned()))?;
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = name.parse::<HeaderName>().map_err(|_| bad(format!("'{name}' is no header name.")))?;
        // Not repeated: the value may be a credential.
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| bad(format!("The value of {name} has characters that no header may hold.")))?;
        headers.append(name, value);
    }
    let body = body.bytes().map_err(|what| bad(what.to_owned()))?;
    let digest_key = store.digest_key().map_err(|error| AdminError::of_look(&error))?;

    let mut explained = ExplainResponse { route: None, record: None, now: None, request: None };
    let request = DescribedRequest::new(&method, &url, &headers);
    let Some(found) = in_force.routes.find(&request.target().route()) else { return Ok(explained) };
    explained.route = Some(found.rule.name.to_string());
    if found.rule.mode == Mode::Off || found.is_contested {
        return Ok(explained);
    }
    let facts = request.on(&found, &in_force.trust, clock::wall());
    let Ok(KeyOutcome::Operation(operation)) = key::read(found.rule, &digest_key, facts, &body) else {
        return Ok(explained);
    };
    let looked_up = look_up(store, found.rule, &operation).await.map_err(|error| AdminError::of_look(&error))?;
    Ok(ExplainResponse { route: explained.route, ..looked_up })
}

/// The record of an operation, and what its request would get.
pub async fn look_up(store: &dyn Store, rule: &Rule, operation: &Operation) -> Result<ExplainResponse, StoreError> {
    let name = match rule.mode {
        Mode::Observe => operation.name.observed(),
        Mode::Enforce | Mode::Off => operation.name.clone(),
    };
    let entry = |seen: Result<&RecordSnapshot, &Unreadable>| RecordEntry::new(&name, seen, Timestamp::now());
    let (now, request) = match store.find(&name).await {
        Err(StoreError::Unreadable { source, .. }) => (Some(entry(Err(&source))), ProspectName::Unreadable),
        Err(error) => return Err(error),
        Ok(held) => {
            let now = held.as_ref().map(|held| entry(Ok(&held.seen())));
            let prospect = guard::forecast(held, &operation.fingerprint, rule.on_mismatch);
            (now, ProspectName::of(&prospect, rule.on_mismatch))
        }
    };
    Ok(ExplainResponse {
        route: Some(rule.name.to_string()),
        record: Some(name.to_string()),
        now,
        request: Some(request),
    })
}

impl ProspectName {
    fn of(prospect: &guard::Forecast, on_mismatch: OnMismatch) -> Self {
        match prospect {
            guard::Forecast::Runs => Self::Runs,
            guard::Forecast::TakesOver => Self::TakesOver,
            guard::Forecast::Repeat(Verdict::Replay(..)) => Self::Replayed,
            guard::Forecast::Repeat(Verdict::InFlight) => Self::InFlight,
            guard::Forecast::Repeat(Verdict::OutcomeUnknown) => Self::OutcomeUnknown,
            guard::Forecast::Repeat(Verdict::AlreadyCompleted(_)) => Self::AlreadyCompleted,
            guard::Forecast::Repeat(Verdict::KeyReused(Difference::Target)) => Self::KeyReusedElsewhere,
            guard::Forecast::Repeat(Verdict::KeyReused(Difference::Body)) => match on_mismatch {
                OnMismatch::Conflict => Self::KeyConflict,
                OnMismatch::Reject | OnMismatch::Replay => Self::KeyReused,
            },
        }
    }
}
