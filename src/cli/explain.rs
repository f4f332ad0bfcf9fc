//! `onlyonce explain`: what would be done with one request.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::text::labelled;
use super::{BAD_USAGE, block_on, given};
use crate::config::{
    Config, FingerprintMode, HumanDuration, Mode, OnMissingKey, OnUnknown, PathParams, Routes, Rule, Selector, Target,
};
use crate::key::{self, DigestKey, KeyError, Reading, Request, SelectorReading};
use crate::run;

#[derive(Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: super::ConfigArg,
    /// The request's method
    method: Method,
    /// Its URL, or only the path and query
    url: Uri,
    /// A header line of it; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = given::header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body, or @FILE to read it from a file
    #[arg(short = 'd', long = "data", value_name = "BODY")]
    data: Option<String>,
}

impl ExplainArgs {
    pub(super) fn config(&self) -> &Path {
        &self.config.config
    }
}

pub(super) fn explain(config: &Config, args: &ExplainArgs) -> ExitCode {
    let body = match given::body(args.data.as_deref()) {
        Ok(body) => body,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(BAD_USAGE);
        }
    };
    let headers: HeaderMap = args.headers.iter().cloned().collect();
    let host = args.url.authority().map(http::uri::Authority::as_str);
    let host = host.or_else(|| headers.get(http::header::HOST)?.to_str().ok()).and_then(key::normalise_host);
    let path = key::normalise_path(args.url.path());
    let overriding = key::overriding_methods(&headers);
    let found = config.routes.find(&Target {
        method: &args.method,
        overriding: &overriding,
        host: host.as_deref(),
        path: args.url.path(),
        normal: &path,
    });
    let respelled = found.as_ref().and_then(|found| found.respelled.as_deref());
    let none = PathParams::default();
    let request = Request {
        method: overriding.first().unwrap_or(&args.method),
        headers: &headers,
        host: host.as_deref(),
        path: respelled.unwrap_or(&path),
        params: found.as_ref().map_or(&none, |found| &found.params),
        query: args.url.query(),
        // Nobody is connected.
        peer: None,
        trust: &config.trust,
        now: SystemTime::now(),
    };

    let mut out = String::new();
    labelled(&mut out, "request", &format!("{} {path}", args.method));
    if let Some(method) = overriding.first() {
        labelled(&mut out, "", &format!("may be taken as {method}: a field overrides the method"));
    }
    if let Some(respelled) = respelled {
        labelled(&mut out, "", &format!("is taken as another spelling of {respelled}"));
    }
    match found.as_ref().map(|found| found.rule) {
        Some(rule) if rule.mode == Mode::Off => {
            labelled(&mut out, "route", &format!("{} (off)", rule.name));
            labelled(&mut out, "so", "it is passed on untouched and unguarded");
        }
        Some(rule) => {
            labelled(&mut out, "route", &format!("{} ({} {})", rule.name, methods(rule), rule.path));
            if rule.mode == Mode::Observe {
                labelled(&mut out, "mode", "observe: it is passed on; this is what would be done, and is only told");
            }
            others(&mut out, &config.routes, Some(rule), &request);
            guarded(&mut out, config, rule, request, &body);
        }
        None => {
            labelled(&mut out, "route", "none");
            others(&mut out, &config.routes, None, &request);
            labelled(&mut out, "so", "it is passed on untouched and unguarded");
        }
    }
    print!("{out}");
    ExitCode::SUCCESS
}

fn methods(rule: &Rule) -> String {
    rule.methods.iter().map(Method::as_str).collect::<Vec<_>>().join("|")
}

/// Why it is none of the other routes.
fn others(out: &mut String, routes: &Routes, found: Option<&Arc<Rule>>, request: &Request<'_>) {
    for rule in routes.rules().iter().filter(|rule| found.is_none_or(|found| !Arc::ptr_eq(rule, found))) {
        let why = if !rule.methods.contains(request.method) {
            format!("it guards {} only", methods(rule))
        } else if rule.host.is_some() && rule.host.as_deref() != request.host {
            format!("it is for the host {}", rule.host.as_deref().unwrap_or_default())
        } else if found.is_some() {
            format!("{} does not match, or less exactly", rule.path)
        } else {
            format!("{} does not match", rule.path)
        };
        labelled(out, "", &format!("not {}: {why}", rule.name));
    }
}

fn guarded(out: &mut String, config: &Config, rule: &Rule, request: Request<'_>, body: &[u8]) {
    let digest_key = digest_key(config);
    // Without the store's key, its names cannot be told; everything else can.
    let stand_in = DigestKey::from_bytes([0; 32]);
    let readings = key::readings(rule, digest_key.as_ref().unwrap_or(&stand_in), request, body);
    readings.key.iter().for_each(|reading| labelled(out, "key", &found(reading, "nothing there")));
    if readings.scope.is_empty() {
        labelled(out, "scope", "none: all callers share one space of keys");
    }
    for reading in &readings.scope {
        labelled(out, "scope", &found(reading, "nothing there, which is a caller of its own: anonymous"));
    }
    match key::read(rule, digest_key.as_ref().unwrap_or(&stand_in), request, body) {
        Err(error) => {
            let code = match error {
                KeyError::Key { .. } => "400 invalid-key",
                KeyError::Expired { .. } => "410 key-expired",
                KeyError::Body { .. } => "400 invalid-body",
            };
            labelled(out, "so", &format!("{code}: {error}"));
        }
        Ok(Reading::Missing(selector)) => {
            let then = match rule.on_missing_key {
                OnMissingKey::Forward => "it is passed on unguarded (on_missing_key = \"forward\")",
                OnMissingKey::Reject => "400 missing-key (on_missing_key = \"reject\")",
                OnMissingKey::Fingerprint(_) => "its payload is its key",
            };
            labelled(out, "so", &format!("there is no key, as {selector} is missing: {then}"));
        }
        Ok(Reading::Operation(operation)) => {
            if operation.key.is_none() {
                let window = HumanDuration(operation.terms.retention);
                labelled(out, "key", &format!("scope and payload, for {window} (on_missing_key = \"fingerprint\")"));
            }
            labelled(out, "fingerprint", &covered(&rule.fingerprint));
            match digest_key {
                Ok(_) => labelled(out, "record", &operation.name.to_string()),
                Err(why) => labelled(out, "record", &format!("{}:… ({why})", rule.name)),
            }
            outcomes(out, rule);
        }
    }
}

fn found(reading: &SelectorReading, absent: &str) -> String {
    let what = match &reading.found {
        Ok(Some(digest)) => format!("there (digest {digest})"),
        Ok(None) if reading.selector == Selector::Ip => "the address of the client, which is not known here".to_owned(),
        Ok(None) => absent.to_owned(),
        Err(error) => error.to_string(),
    };
    format!("{}: {what}", reading.selector)
}

fn covered(mode: &FingerprintMode) -> String {
    let ignored = |ignore: &[crate::config::JsonPointer]| match ignore {
        [] => String::new(),
        pointers => {
            let pointers: Vec<String> = pointers.iter().map(ToString::to_string).collect();
            format!(", without {}", pointers.join(" "))
        }
    };
    let body = match mode {
        FingerprintMode::Auto { ignore } => {
            format!("the body: JSON by value{}, forms by their fields, anything else by bytes", ignored(ignore))
        }
        FingerprintMode::Raw => "the body by bytes".to_owned(),
        FingerprintMode::Json { ignore } => format!("the body as JSON, by value{}", ignored(ignore)),
        FingerprintMode::Form => "the body as a form, by its fields".to_owned(),
        FingerprintMode::None => "not the body".to_owned(),
    };
    format!("method, path, query; {body}")
}

fn outcomes(out: &mut String, rule: &Rule) {
    let unknown = match rule.on_unknown {
        OnUnknown::Hold => format!("blocked for {}: 409 outcome-unknown", HumanDuration(rule.hold_for)),
        OnUnknown::Retry => format!("a repeat takes over once the lease of {} has run out", HumanDuration(rule.lease)),
    };
    let kept = format!("kept for {} and replayed", HumanDuration(rule.retention));
    out.push('\n');
    let rows = [
        ("an answer that the policy keeps", kept.as_str()),
        ("an answer that the policy releases", "the key is free again"),
        ("certainly not sent", "the key is free again"),
        ("nobody can tell", &unknown),
    ];
    for (outcome, then) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {outcome:<35} {then}");
    }
}

/// The key of the store's digests, or why it is not at hand.
fn digest_key(config: &Config) -> Result<DigestKey, String> {
    block_on(run::digest_key(&config.store)).unwrap_or_else(|error| Err(error.to_string()))
}
