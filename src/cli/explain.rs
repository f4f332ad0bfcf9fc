//! `onlyonce explain`: what would be done with one request.

mod lookup;
mod outcomes;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use self::lookup::{LookupResult, asked, digest_key, is_unmade, looked_up, now};
use self::outcomes::{covered, outcomes};
use super::text::labelled;
use super::{BAD_USAGE, FAILED, given, output, records};
use crate::admin::shape::ProspectName;
use crate::clock;
use crate::config::{Config, StoreLocation};
use crate::key::{self, DescribedRequest, DigestKey, KeyError, KeyOutcome, KeyText, Request, SelectorReading};
use crate::rule::{Mode, OnMissingKey, ProbeRule, RouteTarget, Routes, Rule, Selector};
use crate::text::listed;
use crate::units::{HumanDuration, HumanSize};

#[derive(Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: super::ConfigArg,
    /// The request's method
    method: Method,
    /// Its URL, or only the path and query
    #[arg(value_parser = url)]
    url: Uri,
    /// A header line of it; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = given::header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body, or @FILE to read it from a file, @- from standard input, as curl sends it: a form, unless -H says what it
    /// is, also where it looks like JSON, which `onlyonce verify` sends as JSON; several are joined with &
    #[arg(short = 'd', long = "data", value_name = "BODY")]
    data: Vec<String>,
    /// A body of JSON, or @FILE, or @-
    #[arg(long, value_name = "BODY", conflicts_with = "data")]
    json: Option<String>,
    /// Look up what the store holds now, and what this request would get. A Redis and a PostgreSQL are asked themselves; an
    /// embedded store that is in use, and a memory store, through the admin listener of the sidecar
    #[arg(long)]
    lookup: bool,
    /// The admin listener to ask instead, as http://HOST:PORT
    #[arg(long, value_name = "URL", requires = "lookup")]
    admin: Option<String>,
}

const EXIT_STATUS: &str = "\
Exit status: 0; 1 if --lookup could not tell what the store holds; 2 for a wrong command line or configuration.";

const FORM: &str = "application/x-www-form-urlencoded";
const LOOKS_LIKE_JSON: &str = "a form, as curl -d sends it, although it looks like JSON: --json, or -H 'Content-Type: \
                               application/json', is for a client that sends JSON";

/// A path, or an `http` URL.
fn url(text: &str) -> Result<Uri, String> {
    let is_right = text.starts_with('/') || text.starts_with("http://") || text.starts_with("https://");
    match text.parse() {
        Ok(url) if is_right => Ok(url),
        Ok(_) if text.contains("://") => Err("the scheme is http or https".to_owned()),
        Ok(_) => Err("it is a path, as /orders, or a URL, as http://shop.example/orders".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl ExplainArgs {
    pub(super) fn config(&self) -> &Path {
        self.config.file()
    }

    /// The body, and the fields that curl adds to the request for its sake. With what is to be said of them.
    fn body(&mut self) -> Result<(Vec<u8>, Option<&'static str>), String> {
        let mut add = |name, value| {
            if !self.headers.iter().any(|(given, _)| given == name) {
                self.headers.push((name, HeaderValue::from_static(value)));
            }
        };
        if let Some(json) = &self.json {
            add(CONTENT_TYPE, "application/json");
            add(ACCEPT, "application/json");
            return Ok((given::body(Some(json))?, None));
        }
        let is_form = !self.data.is_empty() && self.headers.iter().all(|(name, _)| name != CONTENT_TYPE);
        if is_form {
            self.headers.push((CONTENT_TYPE, HeaderValue::from_static(FORM)));
        }
        let parts: Vec<Vec<u8>> = self.data.iter().map(|part| given::form(part)).collect::<Result<_, _>>()?;
        let body = parts.join(&b'&');
        let note = (is_form && given::looks_like_json(&body)).then_some(LOOKS_LIKE_JSON);
        Ok((body, note))
    }
}

pub(super) fn explain(config: &Config, mut args: ExplainArgs) -> ExitCode {
    let (body, note) = match args.body() {
        Ok(body) => body,
        Err(message) => {
            output::complain(format_args!("error: {message}"));
            return ExitCode::from(BAD_USAGE);
        }
    };
    let args = &args;
    let headers: HeaderMap = args.headers.iter().cloned().collect();
    let described = DescribedRequest::new(&args.method, &args.url, &headers);
    let asked = described.target();
    let target = asked.route();
    let found = config.routes.find(&target);

    let mut out = String::new();
    let mut lookup = LookupResult::NotNeeded;
    labelled(&mut out, "request", &format!("{} {}", args.method, asked.path()));
    if let Some(method) = asked.overriding().first() {
        labelled(&mut out, "", &format!("may be taken as {method}: a field overrides the method"));
    }
    if let Some(respelled) = found.as_ref().and_then(|found| found.respelled.as_deref()) {
        labelled(&mut out, "", &format!("is taken as another spelling of {respelled}"));
    }
    if let Some(note) = note {
        labelled(&mut out, "body", note);
    }
    match found.as_ref().map(|found| (found.rule, found)) {
        Some((rule, _)) if rule.mode == Mode::Off => {
            labelled(&mut out, "route", &format!("{} ({} {}), which is off", rule.name, methods(rule), rule.path));
            others(&mut out, &config.routes, Some(rule), &target);
            labelled(&mut out, "so", "it is passed on untouched and unguarded");
        }
        Some((rule, found)) => {
            labelled(&mut out, "route", &format!("{} ({} {})", rule.name, methods(rule), rule.path));
            if rule.mode == Mode::Observe {
                labelled(&mut out, "mode", "observe: it is passed on; this is what would be done, and is only told");
            }
            others(&mut out, &config.routes, Some(rule), &target);
            if found.is_contested {
                let why = "400 bad-request: the methods that this request names lead to different guarded routes";
                labelled(&mut out, "so", why);
            } else {
                let request = described.on(found, &config.trust, clock::wall());
                let request = Request { log_keys: config.log.keys, ..request };
                lookup = guarded(&mut out, config, args, rule, request, &body);
            }
        }
        None => {
            labelled(&mut out, "route", "none");
            others(&mut out, &config.routes, None, &target);
            labelled(&mut out, "so", "it is passed on untouched and unguarded");
        }
    }
    let printed = output::print(&out);
    match lookup {
        LookupResult::NotTold => ExitCode::from(FAILED),
        LookupResult::NotNeeded | LookupResult::Told => printed,
    }
}

fn methods(rule: &Rule) -> String {
    rule.methods.iter().map(Method::as_str).collect::<Vec<_>>().join("|")
}

/// Why the other routes do not match, grouped by reason.
fn others(out: &mut String, routes: &Routes, found: Option<&Arc<Rule>>, target: &RouteTarget<'_>) {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for rule in routes.rules().iter().filter(|rule| found.is_none_or(|found| !Arc::ptr_eq(rule, found))) {
        let why = why_not(rule, target);
        match reasons.iter_mut().find(|(reason, _)| *reason == why) {
            Some((_, names)) => names.push(&rule.name),
            None => reasons.push((why, vec![&rule.name])),
        }
    }
    for (why, names) in reasons {
        labelled(out, "", &format!("not {}: {why}", listed(&names)));
    }
}

fn why_not(rule: &Rule, target: &RouteTarget<'_>) -> String {
    let is_asked = |method: &Method| rule.methods.contains(method);
    if !is_asked(target.method) && !target.overriding.iter().any(is_asked) {
        return format!("{} only", methods(rule));
    }
    if let Some(host) = rule.host.as_deref().filter(|host| Some(*host) != target.host) {
        return format!("for the host {host} only");
    }
    let mut alone = Routes::default();
    let is_added = alone.add(rule.clone()).is_ok();
    match is_added && alone.find(target).is_some() {
        true => "matches too, but less exactly".to_owned(),
        false => "the path does not match".to_owned(),
    }
}

fn guarded(
    out: &mut String,
    config: &Config,
    args: &ExplainArgs,
    rule: &Rule,
    request: Request<'_>,
    body: &[u8],
) -> LookupResult {
    let mut lookup = LookupResult::NotNeeded;
    let digest_key = digest_key(config);
    // Only the record's name needs the store's digest key.
    let stand_in = DigestKey::from_bytes([0; 32]);
    let readings = key::readings(rule, digest_key.as_ref().unwrap_or(&stand_in), request, body);
    let is_keyed = digest_key.is_ok();
    readings.key.iter().for_each(|reading| labelled(out, "key", &found(reading, is_keyed, "nothing there")));
    if readings.scope.is_empty() {
        labelled(out, "scope", "none: all callers share one space of keys");
    }
    for reading in &readings.scope {
        labelled(out, "scope", &found(reading, is_keyed, "nothing there, which is a caller of its own: anonymous"));
    }
    if let Some(name) = key::respelled(rule, request.headers) {
        let why = format!("400 bad-request: a backend may take the field {name} for another one that matters here");
        labelled(out, "so", &why);
        return lookup;
    }
    if let Some(over) = too_large(rule, body) {
        labelled(out, "so", &over);
        return lookup;
    }
    match key::read(rule, digest_key.as_ref().unwrap_or(&stand_in), request, body) {
        Err(error) => {
            let code = match error {
                KeyError::Key { .. } => "400 invalid-key",
                KeyError::Expired { .. } => "410 key-expired",
                KeyError::Token { .. } => "401 invalid-token",
                KeyError::Body { .. } => "400 invalid-body",
            };
            labelled(out, "so", &format!("{code}: {error}"));
        }
        Ok(KeyOutcome::Missing(selector)) => {
            let then = match rule.on_missing_key {
                OnMissingKey::Forward => "it is passed on unguarded (on_missing_key = \"forward\")",
                OnMissingKey::Reject => "400 missing-key (on_missing_key = \"reject\")",
                OnMissingKey::Fingerprint(_) => "its payload is its key",
            };
            labelled(out, "so", &format!("there is no key, as {selector} is missing: {then}"));
        }
        Ok(KeyOutcome::Operation(operation)) => {
            match &operation.key {
                None => {
                    let window = HumanDuration(operation.terms.retention);
                    let payload = format!("scope and payload, for {window} (on_missing_key = \"fingerprint\")");
                    labelled(out, "so the key is", &payload);
                }
                // Shown only if log lines show it too.
                Some(KeyText::Plain(key)) => labelled(out, "", &format!("as log lines have it: {key}")),
                Some(KeyText::Hashed(_)) => {}
            }
            let covered = covered(&rule.fingerprint, readings.body, body);
            let query = match rule.ignore_query.as_slice() {
                [] => "query".to_owned(),
                ignored => format!("query (without {})", ignored.join(", ")),
            };
            labelled(out, "fingerprint", &format!("method, path and {query}; {covered}"));
            match digest_key {
                Ok(_) => {
                    labelled(out, "record", &operation.name.to_string());
                    if args.lookup {
                        lookup = now(out, looked_up(config, args, rule, &operation, body), Some(&operation.name));
                    }
                }
                Err(why) => {
                    let hint = if args.lookup { "" } else { "; --lookup asks the running sidecar" };
                    let unnamed = || format!("{}:… (its digest cannot be told: {why}{hint})", rule.name);
                    match args.lookup.then(|| asked(args, body)) {
                        None => labelled(out, "record", &unnamed()),
                        Some(told) => {
                            let named = told.as_ref().ok().and_then(|told| told.record.clone());
                            labelled(out, "record", &named.unwrap_or_else(unnamed));
                            if told.is_ok() && config.store.location != StoreLocation::Memory {
                                labelled(out, "as told by", &format!("the sidecar, since {why}"));
                            }
                            match told {
                                Err(_) if is_unmade(config, args) => {
                                    labelled(out, "now", &records::in_short(None, ProspectName::Runs));
                                    lookup = LookupResult::Told;
                                }
                                told => lookup = now(out, told, None),
                            }
                        }
                    }
                }
            }
            if let (Some(probe), Some(asked)) = (&rule.probe, operation.probe.as_deref()) {
                let values = asked.values.as_ref().map_err(Clone::clone);
                labelled(
                    out,
                    "if unknown",
                    &match values.and_then(|values| values.in_path(&probe.path)) {
                        Ok(target) => format!("{} asks the backend: GET {target}", who_asks(config, probe)),
                        Err(why) => format!("the backend cannot be asked: {why}"),
                    },
                );
            }
            out.push('\n');
            outcomes(out, rule, &operation, config.upstream.attempt_timeout);
        }
    }
    lookup
}

/// Who asks about an outcome that is unknown.
fn who_asks(config: &Config, probe: &ProbeRule) -> &'static str {
    if probe.authorization.is_none() {
        "the sidecar that ran it"
    } else if config.store.encryption_keys.is_empty() {
        "the sidecar that ran it, while it lives,"
    } else {
        "any sidecar"
    }
}

fn too_large(rule: &Rule, body: &[u8]) -> Option<String> {
    let size = u64::try_from(body.len()).unwrap_or(u64::MAX);
    (size > rule.max_request_body).then(|| {
        let cap = HumanSize(rule.max_request_body);
        format!("413 request-too-large: its body has {size} bytes, and max_request_body is {cap}")
    })
}

/// A digest with a known key would allow guessing a credential. Without the store's key, no digest is printed.
fn found(reading: &SelectorReading, is_keyed: bool, absent: &str) -> String {
    let what = match &reading.found {
        Ok(Some(digest)) if is_keyed => format!("there (digest {digest})"),
        Ok(Some(_)) => "there".to_owned(),
        Ok(None) if reading.selector == Selector::Ip => "the address of the client, which is not known here".to_owned(),
        Ok(None) => absent.to_owned(),
        Err(_) => "there, and not right".to_owned(),
    };
    format!("{}: {what}", reading.selector)
}
