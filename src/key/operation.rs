//! From a request to its operation: first from the head, then from the body.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method};

use super::body::{Body, Declared};
use super::fingerprint::{by_bytes, fingerprint};
use super::jwt::Credential;
use super::name::{KeyParts, TargetInName, by_key, by_payload};
use super::probe::{self, NoProbe, ProbeValues, ReadParts};
use super::select::{self, KeyPart, Role};
use super::{DigestKey, KeyError, KeyText, age, query};
use crate::record::probe::ProbeFacts;
use crate::record::{Extensions, Fingerprint, RecordName, Terms, UnknownPolicy};
use crate::rule::LogKeys;
#[cfg(test)]
use crate::rule::TrustedProxies;
use crate::rule::{FingerprintMode, OnMissingKey, OnUnknown, PathParams, Rule, Selector, Trust};

/// The facts of a request's head that determine its operation.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// All header lines.
    pub headers: &'a HeaderMap,
    /// The host, as [`normalise_host`](crate::uri::normalise_host) has it.
    pub host: Option<&'a str>,
    /// The path, as [`normalise_path`](crate::uri::normalise_path) has it.
    pub path: &'a str,
    /// The values of the path's parameters.
    pub params: &'a PathParams<'a>,
    /// The query as received, without its question mark.
    pub query: Option<&'a str>,
    /// The address at the other end of the connection; `None` on a Unix socket.
    pub peer: Option<IpAddr>,
    /// Who is trusted to identify the client.
    pub trust: &'a Trust,
    /// When it arrived.
    pub now: SystemTime,
    /// How log lines show its key.
    pub log_keys: LogKeys,
}

#[cfg(test)]
impl<'a> Request<'a> {
    /// A request with neutral facts.
    pub(super) fn plain(method: &'a Method, headers: &'a HeaderMap, params: &'a PathParams<'a>) -> Self {
        const NOBODY: &Trust = &Trust { proxies: TrustedProxies::new(Vec::new()), jwt: None };
        let (host, path, query, peer, trust, now) = (None, "/", None, None, NOBODY, SystemTime::UNIX_EPOCH);
        Self { method, headers, host, path, params, query, peer, trust, now, log_keys: LogKeys::Hashed }
    }
}

/// The result of reading the head.
pub enum HeadOutcome<'a> {
    /// There is no key, whatever the body contains, and [`Rule::on_missing_key`] is `Forward` or `Reject`. The missing part
    /// of the key.
    Missing(&'a Selector),
    /// The body is needed for the key, the scope or the fingerprint.
    Partial(PartialOperation<'a>),
}

/// An operation without its body: the head is read and valid.
pub struct PartialOperation<'a> {
    rule: &'a Rule,
    request: Request<'a>,
    declared: Declared<'a>,
    /// One for each selector of the rule; `None`: in the body.
    scope: Vec<Option<KeyPart<'a>>>,
    key: Vec<Option<KeyPart<'a>>>,
}

/// The result of reading the whole request.
#[derive(Debug)]
pub enum KeyOutcome<'a> {
    /// There is no key, and [`Rule::on_missing_key`] is `Forward` or `Reject`. The missing part of the key.
    Missing(&'a Selector),
    /// The request's operation.
    Operation(Operation),
}

/// What a request asks for. Requests with the same name are the same operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The name of its record.
    pub name: RecordName,
    /// What the key is used for.
    pub fingerprint: Fingerprint,
    /// The terms of its claim.
    pub terms: Terms,
    /// What its record keeps besides.
    pub extensions: Extensions,
    /// The key for log lines; `None` when scope and payload are the key.
    pub key: Option<KeyText>,
    /// What the backend is asked with if the outcome is unknown, where the route has a probe.
    pub probe: Option<Box<OperationProbe>>,
}

/// What the backend is asked with about an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationProbe {
    /// The values of this request.
    pub values: Result<ProbeValues, NoProbe>,
    /// What others need to ask about it, kept with its record. `None`: they cannot ask.
    pub kept: Option<ProbeFacts>,
}

/// Reads the head. An invalid part of a key is an error even when another part is missing.
pub fn read_head<'a>(rule: &'a Rule, request: Request<'a>) -> Result<HeadOutcome<'a>, KeyError> {
    if let Some(selector) = plainly_missing(rule, request.headers) {
        return Ok(HeadOutcome::Missing(selector));
    }
    let declared = Declared::of(request.headers);
    let credential = Credential::of(rule, &request);
    let claims = credential.claims();
    let read = |selectors: &[Selector], role| -> Result<Vec<_>, _> {
        selectors.iter().map(|selector| select::in_head(selector, role, &request, declared, &claims)).collect()
    };
    let scope = read(&rule.scope, Role::Scope)?;
    let key = read(&rule.key, Role::of_key(rule))?;
    if let [Some(key)] = &key[..] {
        not_expired(rule, key, request.now)?;
    }
    let missing = first_absent(&rule.key, key.iter().map(Option::as_ref));
    match (missing, rule.on_missing_key) {
        (Some(selector), OnMissingKey::Forward | OnMissingKey::Reject) => Ok(HeadOutcome::Missing(selector)),
        (Some(_), OnMissingKey::Fingerprint(_)) | (None, _) => {
            Ok(HeadOutcome::Partial(PartialOperation { rule, request, declared, scope, key }))
        }
    }
}

/// The missing part of the key, where nothing else can be wrong: the key is in a field, and a scope of fields is always
/// valid. A shortcut for requests that are forwarded, which saves 2,500 instructions.
fn plainly_missing<'a>(rule: &'a Rule, headers: &HeaderMap) -> Option<&'a Selector> {
    let ([selector @ Selector::Header(name)], OnMissingKey::Forward | OnMissingKey::Reject) =
        (&rule.key[..], rule.on_missing_key)
    else {
        return None;
    };
    let is_field = |selector: &Selector| matches!(selector, Selector::Header(_));
    (rule.scope.iter().all(is_field) && !headers.contains_key(name)).then_some(selector)
}

/// Reads a whole request.
pub fn read<'a>(
    rule: &'a Rule,
    digest_key: &DigestKey,
    request: Request<'a>,
    body: &[u8],
) -> Result<KeyOutcome<'a>, KeyError> {
    match read_head(rule, request)? {
        HeadOutcome::Missing(selector) => Ok(KeyOutcome::Missing(selector)),
        HeadOutcome::Partial(draft) => draft.with_body(digest_key, body),
    }
}

impl<'a> PartialOperation<'a> {
    /// Reads the body. It is parsed at most once, and only if a selector or the fingerprint needs it.
    pub fn with_body(self, digest_key: &DigestKey, body: &[u8]) -> Result<KeyOutcome<'a>, KeyError> {
        let body = Body::of(self.rule, self.declared, body);
        self.of_body(digest_key, &body)
    }

    fn of_body<'b>(self, digest_key: &DigestKey, body: &'b Body<'_>) -> Result<KeyOutcome<'a>, KeyError>
    where
        'a: 'b,
    {
        let Self { rule, request, .. } = self;
        let scope = complete(&rule.scope, self.scope, Role::Scope, body)?;
        let key = complete(&rule.key, self.key, Role::of_key(rule), body)?;
        if let [key] = &key[..] {
            not_expired(rule, key, request.now)?;
        }
        let probe = rule.probe.as_ref().map(|probe| {
            let parts = ReadParts { key: &key, scope: &scope, body };
            let values = match first_absent(&rule.key, key.iter().map(Some)) {
                None => probe::values(&probe.path, rule, &request, parts),
                Some(_) => Err(NoProbe::NoKey),
            };
            Box::new(OperationProbe { values, kept: None })
        });
        // Ignored parameters are removed first.
        let query = query::counted(request.query, &rule.ignore_query);
        let request = Request { query: query.as_deref(), ..request };
        let fingerprint = || fingerprint(&rule.fingerprint, digest_key, &request, body);
        let operation = match (first_absent(&rule.key, key.iter().map(Some)), rule.on_missing_key) {
            (None, _) => Operation {
                name: {
                    let target = rule.target_in_name.then(|| TargetInName::of(&request)).flatten();
                    named(rule, by_key(digest_key, KeyParts(&rule.scope, &scope), KeyParts(&rule.key, &key), target))
                },
                fingerprint: fingerprint(),
                terms: terms(rule),
                key: Some(KeyText::of(request.log_keys, digest_key, KeyParts(&rule.key, &key))),
                extensions: Extensions::default(),
                probe,
            },
            (Some(_), OnMissingKey::Fingerprint(window)) => {
                let fingerprint = fingerprint();
                // `fingerprint = "none"` ignores the body only where there is a key.
                let payload = match rule.fingerprint {
                    FingerprintMode::None => by_bytes(digest_key, body),
                    FingerprintMode::Auto { .. }
                    | FingerprintMode::Raw
                    | FingerprintMode::Json { .. }
                    | FingerprintMode::Form => fingerprint.body,
                };
                let (scope, key) = (KeyParts(&rule.scope, &scope), KeyParts(&rule.key, &key));
                let digest = by_payload(digest_key, scope, key, request.host, &fingerprint, &payload);
                let (name, terms) = (named(rule, digest), terms_within(rule, window));
                let extensions = Extensions::default();
                Operation { name, fingerprint, terms, key: None, extensions, probe }
            }
            (Some(selector), OnMissingKey::Forward | OnMissingKey::Reject) => return Ok(KeyOutcome::Missing(selector)),
        };
        Ok(KeyOutcome::Operation(operation))
    }
}

impl Role {
    pub(super) fn of_key(rule: &Rule) -> Self {
        Self::Key { max_length: rule.key_max_length, format: rule.key_format }
    }
}

fn complete<'b>(
    selectors: &[Selector],
    parts: Vec<Option<KeyPart<'b>>>,
    role: Role,
    body: &'b Body<'_>,
) -> Result<Vec<KeyPart<'b>>, KeyError> {
    // Indexed instead of zipped, so that the list is changed in place.
    let parts = parts.into_iter().enumerate();
    parts.map(|(at, part)| part.map_or_else(|| select::in_body(&selectors[at], role, body), Ok)).collect()
}

fn first_absent<'s, 'p, 'b: 'p>(
    selectors: &'s [Selector],
    parts: impl Iterator<Item = Option<&'p KeyPart<'b>>>,
) -> Option<&'s Selector> {
    selectors.iter().zip(parts).find(|(_, part)| part.is_some_and(KeyPart::is_absent)).map(|(selector, _)| selector)
}

/// Refuses a key that is older than any record: it may have been used before, without evidence. A creation time in the future
/// counts as new.
fn not_expired(rule: &Rule, key: &KeyPart<'_>, now: SystemTime) -> Result<(), KeyError> {
    let made = if rule.refuse_expired_keys { key.as_text().and_then(age::made_at) } else { None };
    let age = made.and_then(|made| now.duration_since(made).ok());
    match (age, rule.key.first()) {
        (Some(age), Some(selector)) if age > rule.retention => {
            Err(KeyError::Expired { selector: selector.clone(), retention: rule.retention })
        }
        (Some(_) | None, _) => Ok(()),
    }
}

fn named(rule: &Rule, digest: [u8; 16]) -> RecordName {
    RecordName { route: Arc::clone(&rule.name), digest }
}

fn terms(rule: &Rule) -> Terms {
    let on_unknown = match rule.on_unknown {
        OnUnknown::Hold => UnknownPolicy::Hold(rule.hold_for),
        OnUnknown::Retry => UnknownPolicy::Retry,
    };
    Terms { lease: rule.lease, retention: rule.retention, on_unknown }
}

/// An operation identified by its payload lasts no longer than the window.
fn terms_within(rule: &Rule, window: Duration) -> Terms {
    let Terms { lease, on_unknown, .. } = terms(rule);
    let on_unknown = match on_unknown {
        UnknownPolicy::Hold(time) => UnknownPolicy::Hold(time.min(window)),
        UnknownPolicy::Retry => UnknownPolicy::Retry,
    };
    Terms { lease: lease.min(window / 2), retention: window, on_unknown }
}

#[cfg(test)]
mod tests;
