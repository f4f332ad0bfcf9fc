//! From the text of a file to a [`Config`], or to everything that is wrong with it.

mod address;
mod layer;
mod mask;
mod pattern;
mod route;
mod section;
mod selector;
mod store_url;
mod syntax;
mod tables;
mod uri;

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use toml::de::DeTable;

use self::layer::Layer;
use self::route::{Bounds, RouteTable};
use self::section::{Fault, Known, Report, Section, Span};
use self::syntax::SyntaxErrors;
use self::tables::{AdminTable, LogTable, ServerTable, StoreTable, UpstreamTable};
use super::excerpt::Excerpt;
use super::{Config, ConfigError, Problem, RouteConflict, Routes};

/// The file that is read when none is named.
const DEFAULT_NAME: &str = "onlyonce.toml";

/// Reads and checks the file at `path`, with the variables of this process's environment.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| unreadable(&name, &error))?;
    let text = String::from_utf8(bytes).map_err(|error| not_text(&name, &error))?;
    parse(&name, &text, &|variable| std::env::var(variable).ok())
}

/// Checks `text`, the content of the file `name`; `env` is asked for every `"env:NAME"`.
pub fn parse(name: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    inspect(name, text, env).0
}

/// The same, with the keys that were looked for.
fn inspect(name: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> (Result<Config, ConfigError>, Vec<Known>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut masks = mask::secrets(table.get_ref());
    let syntax = SyntaxErrors::of(text, &errors);
    if !syntax.is_empty() {
        masks.extend(mask::secret_lines(text));
    }
    let (config, mut faults, known) = if syntax.hide_the_rest {
        (None, Vec::new(), Vec::new())
    } else {
        let report = Report::new(text, env);
        let config = read(table.get_ref(), &report);
        let (faults, known) = report.finish();
        (config, faults, known)
    };
    faults.retain(|fault| !syntax.covers(text, fault.span.as_ref()));
    faults.extend(syntax.faults);
    // What is missing altogether has no place, and comes last.
    faults.sort_by_key(|fault| fault.span.as_ref().map_or(usize::MAX, |span| span.start));
    let result = match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(ConfigError::Invalid {
            file: name.to_owned(),
            problems: faults.into_iter().map(|fault| problem(fault, text, &masks)).collect(),
        }),
    };
    (result, known)
}

fn problem(fault: Fault, text: &str, masks: &[Span]) -> Problem {
    let Fault { span, message, advice } = fault;
    let excerpt = span.as_ref().map(|span| Excerpt::new(text, span, masks));
    Problem { span, message, advice, excerpt }
}

/// Reads every table before it gives up on any, so that all problems are reported.
fn read(table: &DeTable<'_>, report: &Report<'_>) -> Option<Config> {
    let root = Section::root(table, report);
    let server = ServerTable::read(root.section("server"));
    let log = LogTable::read(root.section("log"));
    let admin = AdminTable::read(root.section("admin"));
    let upstream = UpstreamTable::read(root.section("upstream"));
    let store = StoreTable::read(root.section("store"));
    root.later("jwt", "take the scope from a header or a cookie: scope = [\"header:Authorization\"]");
    let defaults = root.section("defaults");
    let layer = Layer::read(&defaults);
    defaults.finish();
    let tables: Vec<RouteTable> = root.sections("route").into_iter().map(RouteTable::read).collect();
    let no_route = tables.is_empty() && !root.has("route");
    root.finish();

    if no_route {
        let advice = "say what to guard:\n  [[route]]\n  name = \"create-order\"\n  path = \"/orders\"\n  \
                      scope = [\"header:Authorization\"]";
        report.add(None, "there is no [[route]]", advice);
    }
    admin.check(&server, report);
    upstream.check(&server, report);
    let bounds = Bounds { attempt_timeout: &upstream.attempt_timeout, max_buffered: &server.max_buffered };
    let routes = routes(tables, &layer, &bounds, report);
    Some(Config {
        server: server.build()?,
        log: log.build()?,
        admin: admin.build()?,
        upstream: upstream.build()?,
        store: store.build()?,
        routes,
    })
}

fn routes(tables: Vec<RouteTable>, defaults: &Layer, bounds: &Bounds<'_>, report: &Report<'_>) -> Routes {
    let mut routes = Routes::default();
    let mut names: HashMap<String, Span> = HashMap::new();
    // Where the paths of the rules in `routes` stand, in the same order.
    let mut paths: Vec<Option<Span>> = Vec::new();
    for table in tables {
        if let (Some(name), Some(span)) = (table.name.get(), table.name.span()) {
            match names.get(name) {
                Some(first) => {
                    let message = format!("two routes are named \"{name}\", here and in line {}", report.line(first));
                    report.add(Some(span), message, "a route's records go by its name: give each its own");
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
                let advice =
                    "a parameter is one name in braces, {order}; the last segment may be all the rest, {*rest}";
                report.add(span, format!("this path cannot be matched: {reason}"), advice);
            }
        }
    }
    routes
}

fn unreadable(name: &str, error: &std::io::Error) -> ConfigError {
    let choose = "name one with --config or $ONLYONCE_CONFIG";
    let (message, advice) = match error.kind() {
        ErrorKind::NotFound if name == DEFAULT_NAME => {
            (format!("no {DEFAULT_NAME} in this folder"), format!("{choose}, or try `onlyonce demo`"))
        }
        ErrorKind::NotFound => (format!("there is no file {name}"), format!("check the path, or {choose}")),
        ErrorKind::PermissionDenied => {
            (format!("{name} may not be read"), "let the user that onlyonce runs as read it".to_owned())
        }
        ErrorKind::IsADirectory => {
            (format!("{name} is a folder"), format!("name the file in it: {name}/{DEFAULT_NAME}"))
        }
        _ => (format!("{name} cannot be read: {error}"), format!("check the file, or {choose}")),
    };
    ConfigError::Unreadable { message, advice }
}

fn not_text(name: &str, error: &std::string::FromUtf8Error) -> ConfigError {
    let valid = error.utf8_error().valid_up_to();
    let line = 1 + error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count();
    ConfigError::Unreadable {
        message: format!("{name} is not UTF-8 text: line {line} has a byte that cannot be read"),
        advice: "save it as UTF-8, which every editor can do".to_owned(),
    }
}
