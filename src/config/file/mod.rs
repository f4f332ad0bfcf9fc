//! Reads the text of a file into a [`Config`], or into a list of its problems.

mod address;
mod admin;
mod admin_token;
mod declare;
mod duration;
mod fallback;
mod host;
mod item;
mod jwt;
mod layer;
mod log;
mod mask;
mod on_disk;
mod order;
mod origin;
mod path;
mod pem;
mod postgres_url;
mod preset;
mod probe;
mod replay_auth;
mod report;
mod route;
mod section;
mod selector;
mod server;
mod setting;
mod shape;
mod store;
mod store_url;
mod syntax;
mod tls_keys;
mod upstream;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use self::admin::AdminConfig;
use self::admin::AdminTable;
use self::jwt::JwtTable;
use self::layer::Layer;
pub use self::log::LogConfig;
use self::log::LogTable;
pub use self::on_disk::{ConfigFile, load};
use self::path::BRACES;
use self::replay_auth::AuthTls;
use self::report::{ByteRange, FileReport, Finding};
pub(crate) use self::report::{KnownKey, nearest};
use self::route::{Bounds, RouteTable};
use self::section::Section;
pub(crate) use self::selector::parse as selector;
pub use self::server::ServerConfig;
use self::server::ServerTable;
pub(crate) use self::shape::Shape;
pub use self::store::StoreConfig;
use self::store::StoreTable;
use self::syntax::SyntaxErrors;
pub use self::upstream::UpstreamConfig;
use self::upstream::UpstreamTable;

use super::{Config, ConfigError, ConfigProblem};
use crate::excerpt::Excerpt;
use crate::rule::{RouteConflict, Routes, Trust};

/// Checks `text`, the content of the file `name`; `env` is asked for every `"env:NAME"`.
pub fn parse(name: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    inspect(name, text, env).result
}

/// The result of reading a file.
struct Inspected {
    result: Result<Config, ConfigError>,
    /// The keys that readers asked for.
    known: Vec<KnownKey>,
    /// The other files that it names.
    files: Vec<PathBuf>,
}

/// Every key that a file may contain: those that readers ask for in a file with one empty route.
pub(crate) fn keys() -> Vec<KnownKey> {
    inspect("", "[[route]]", &|_| None).known
}

fn inspect(name: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Inspected {
    let (table, errors) = DeTable::parse_recoverable(text);
    let syntax = SyntaxErrors::of(text, &errors);
    let masks = mask::find(text, table.get_ref(), !syntax.is_empty());
    let (config, mut faults, known, files) = if syntax.hide_the_rest {
        (None, Vec::new(), Vec::new(), Vec::new())
    } else {
        let folder = Path::new(name).parent().unwrap_or(Path::new(""));
        let report = FileReport::new(text, folder, env);
        let config = read(table.get_ref(), &report);
        let (faults, known, files) = report.finish();
        (config, faults, known, files)
    };
    faults.retain(|fault| !syntax.covers(text, fault.span.as_ref()));
    faults.extend(syntax.faults);
    // A missing table has no place, and comes last.
    faults.sort_by_key(|fault| fault.span.as_ref().map_or(usize::MAX, |span| span.start));
    let result = match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(ConfigError::Invalid {
            file: name.to_owned(),
            problems: faults.into_iter().map(|fault| problem(fault, text, &masks)).collect(),
        }),
    };
    Inspected { result, known, files }
}

fn problem(fault: Finding, text: &str, masks: &[ByteRange]) -> ConfigProblem {
    let Finding { span, hidden, message, advice } = fault;
    let excerpt = span.as_ref().map(|span| match hidden {
        Some(hidden) => Excerpt::new(text, span, &mask::merged([masks, &[hidden]].concat())),
        None => Excerpt::new(text, span, masks),
    });
    ConfigProblem { span, message, advice, excerpt }
}

const ROUTE: &str = "say what to guard:\n  [[route]]\n  name = \"create-order\"\n  path = \"/orders\"\n  \
                     scope = [\"header:Authorization\"]";

/// Reads all tables before it fails, so that all problems are reported.
fn read(table: &DeTable<'_>, report: &FileReport<'_>) -> Option<Config> {
    let root = Section::root(table, report);
    let server = ServerTable::read(root.section("server"));
    let log = LogTable::read(root.section("log"));
    let admin = AdminTable::read(root.section("admin"));
    let mut upstream = UpstreamTable::read(root.section("upstream"));
    let mut store = StoreTable::read(root.section("store"));
    let jwt = JwtTable::read(root.section("jwt"));
    let defaults = root.section("defaults");
    let layer = Layer::read(&defaults);
    defaults.finish();
    let tables: Vec<RouteTable> = root.sections("route", ROUTE).into_iter().map(RouteTable::read).collect();
    root.finish();

    let longest_wait =
        tables.iter().filter_map(RouteTable::longest_wait).chain(layer.wait_timeout.given().copied()).max();
    upstream.fill_in(longest_wait);
    server.check(report);
    admin.check(&server, report);
    upstream.check(&server, report);
    store.check(report);
    let bounds = Bounds {
        attempt_timeout: &upstream.attempt_timeout,
        on_error: &store.on_error,
        reads_tokens: jwt.is_there(),
        form_guard: server.form_guard.get().is_some(),
        listening: server.addresses().map(|(address, _)| address).collect(),
        auth_tls: AuthTls::new(upstream.authorities()),
    };
    let routes = routes(tables, &layer, &bounds, report);
    let auth_tls = bounds.auth_tls.client();
    let (proxies, jwt) = (server.trusted_proxies(), jwt.build(report));
    Some(Config {
        server: server.build()?,
        log: log.build()?,
        admin: admin.build()?,
        upstream: upstream.build()?,
        store: store.build()?,
        trust: Trust { proxies: proxies?, jwt: jwt? },
        routes,
        auth_tls,
    })
}

fn routes(tables: Vec<RouteTable>, defaults: &Layer, bounds: &Bounds<'_>, report: &FileReport<'_>) -> Routes {
    let mut routes = Routes::default();
    let mut names: HashMap<String, ByteRange> = HashMap::new();
    // The places of the paths of the rules in `routes`, in the same order.
    let mut paths: Vec<Option<ByteRange>> = Vec::new();
    for table in tables {
        if let (Some(name), Some(span)) = (table.name.get(), table.name.span()) {
            match names.get(name) {
                Some(first) => {
                    let message = format!("two routes are named \"{name}\", here and in line {}", report.line(first));
                    report.add(
                        Some(span),
                        message,
                        "records are kept under the name of their route: give each its own",
                    );
                }
                None => {
                    names.insert(name.clone(), span);
                }
            }
        }
        let span = table.path.span();
        let Some(rule) = table.rule(defaults, bounds, report) else { continue };
        match routes.add(rule) {
            Ok(()) => paths.push(span),
            Err(RouteConflict::With(index)) => {
                let other = routes.rules().get(index).map_or("", |rule| &rule.name);
                let line = paths.get(index).and_then(Option::as_ref).map_or(0, |span| report.line(span));
                report.add(
                    span,
                    format!("this matches the same requests as the route \"{other}\" (line {line})"),
                    "make one of the two paths more specific, or give them different methods or hosts",
                );
            }
            Err(RouteConflict::Pattern(reason)) => {
                report.add(span, format!("this path cannot be matched: {reason}"), BRACES);
            }
        }
    }
    routes
}

#[cfg(test)]
mod tests;
