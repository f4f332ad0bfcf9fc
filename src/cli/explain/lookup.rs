//! `--lookup`: what the store holds now, and what the request would get; from the store itself, or from the sidecar that has it
//! open.

use http::HeaderValue;

use super::ExplainArgs;
use crate::admin::shape::{BodyContent, ExplainRequest, ExplainResponse, ProspectName};
use crate::cli::text::labelled;
use crate::cli::{block_on, records};
use crate::config::{Config, StoreLocation};
use crate::key::{DigestKey, Operation};
use crate::record::RecordName;
use crate::rule::Rule;
use crate::run;

/// What came of --lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookupResult {
    /// It was not asked for, or the request has no record.
    NotNeeded,
    Told,
    NotTold,
}

/// The request's record, whose name by this file is `name`.
pub(super) fn now(out: &mut String, found: Result<ExplainResponse, String>, name: Option<&RecordName>) -> LookupResult {
    let lookup = if found.is_ok() { LookupResult::Told } else { LookupResult::NotTold };
    let text = match found {
        Ok(
            ExplainResponse { route: None, .. }
            | ExplainResponse { record: None, .. }
            | ExplainResponse { request: None, .. },
        ) => "the sidecar does not guard this request: it uses another configuration file".to_owned(),
        Ok(ExplainResponse { record: Some(record), now, request: Some(request), .. }) => {
            let found = records::in_short(now.as_ref(), request);
            // Observed routes have a separate namespace.
            let is_same = |name: &RecordName| [name.to_string(), name.observed().to_string()].contains(&record);
            match name {
                Some(name) if !is_same(name) => format!(
                    "{found}; the sidecar calls the record {record}: its key, scope or digest key is another than in \
                     this file"
                ),
                Some(_) | None => found,
            }
        }
        Err(why) => {
            // Its second line is advice for `onlyonce records`.
            let why = why.lines().next().unwrap_or_default();
            format!("cannot be told: {}", why.strip_prefix("error: ").unwrap_or(why))
        }
    };
    labelled(out, "now", &text);
    lookup
}

/// Looks up the record: in the store if it can be opened, else through the sidecar that uses it.
pub(super) fn looked_up(
    config: &Config,
    args: &ExplainArgs,
    rule: &Rule,
    operation: &Operation,
    body: &[u8],
) -> Result<ExplainResponse, String> {
    let itself =
        || block_on(run::look_up(&config.store, rule, operation)).unwrap_or_else(|error| Err(error.to_string()));
    match &config.store.location {
        _ if args.admin.is_some() => asked(args, body),
        StoreLocation::Redis(_) | StoreLocation::Postgres(_) => itself(),
        StoreLocation::Memory => asked(args, body),
        StoreLocation::Embedded(_) if is_unmade(config, args) => asked(args, body).or_else(|_| {
            let (route, record) = (Some(rule.name.to_string()), Some(operation.name.to_string()));
            Ok(ExplainResponse { route, record, now: None, request: Some(ProspectName::Runs) })
        }),
        // A running sidecar has locked it.
        StoreLocation::Embedded(_) => itself().or_else(|_| asked(args, body)),
    }
}

/// Asks the sidecar, which has the digest key. Neither the key nor a digest of the request leaves the sidecar.
pub(super) fn asked(args: &ExplainArgs, body: &[u8]) -> Result<ExplainResponse, String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let request = ExplainRequest {
        method: args.method.to_string(),
        url: args.url.to_string(),
        headers: args.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: BodyContent::of(body),
    };
    let told = block_on(records::explain(args.admin.as_deref(), args.config(), &request));
    told.unwrap_or_else(|error| Err(error.to_string()))
}

/// Whether there can be no record, because no sidecar is running.
pub(super) fn is_unmade(config: &Config, args: &ExplainArgs) -> bool {
    args.admin.is_none() && matches!(&config.store.location, StoreLocation::Embedded(path) if !path.exists())
}

/// The store's digest key, or why it is not available.
pub(super) fn digest_key(config: &Config) -> Result<DigestKey, String> {
    block_on(run::digest_key(&config.store)).unwrap_or_else(|error| Err(error.to_string()))
}
