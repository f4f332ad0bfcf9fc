//! Reads the text of a file into a [`Config`], or into a list of its problems.

mod address;
mod declare;
mod fallback;
mod host;
mod item;
mod jwt;
mod layer;
mod mask;
mod order;
mod origin;
mod path;
mod pem;
mod preset;
mod public_key;
mod report;
mod route;
mod section;
mod selector;
mod setting;
mod shape;
mod store_url;
mod syntax;
mod tables;

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use self::jwt::JwtTable;
use self::layer::Layer;
use self::path::BRACES;
pub(super) use self::report::KnownKey;
pub(crate) use self::report::nearest;
use self::report::{ByteRange, FileReport, Finding};
use self::route::{Bounds, RouteTable};
use self::section::Section;
pub(super) use self::shape::Shape;
use self::syntax::SyntaxErrors;
use self::tables::{AdminTable, LogTable, ServerTable, StoreTable, UpstreamTable};
pub use self::tables::{LogConfig, ServerConfig, StoreConfig, UpstreamConfig};
use super::excerpt::Excerpt;
use super::{Config, ConfigError, ConfigProblem, RouteConflict, Routes, Trust};

/// The file that is read by default.
const DEFAULT_NAME: &str = "onlyonce.toml";

/// The text of a configuration file at one moment, not yet checked, with digests of the files that it names.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigFile {
    path: PathBuf,
    text: Result<String, ConfigError>,
    /// Certificates, keys and the like: only digests are kept.
    beside: Vec<(PathBuf, Option<u64>)>,
}

impl ConfigFile {
    /// Reads the file at `path`. A failure to read it is kept as well.
    pub fn of(path: &Path) -> Self {
        let text = read_text(path);
        let named = text
            .as_ref()
            .map_or_else(|_| Vec::new(), |text| inspect(&path.display().to_string(), text, &variable).files);
        Self { path: path.to_owned(), text, beside: named.into_iter().map(digested).collect() }
    }

    /// Reads the file again. Cheap while it is unchanged.
    pub fn again(&self) -> Self {
        if read_text(&self.path) != self.text {
            return Self::of(&self.path);
        }
        let beside = self.beside.iter().map(|(path, _)| digested(path.clone())).collect();
        Self { beside, ..self.clone() }
    }

    /// Whether it asks for a JSON log. The file may be invalid.
    pub fn asks_for_json(&self) -> bool {
        let Ok(text) = &self.text else { return false };
        let (table, _) = DeTable::parse_recoverable(text);
        let format = table.get_ref().get("log").and_then(|log| log.get_ref().as_table()?.get("format"));
        format.is_some_and(|format| format.get_ref().as_str() == Some("json"))
    }

    /// Checks it, with the variables of this process's environment.
    pub fn check(&self) -> Result<Config, ConfigError> {
        let text = self.text.as_ref().map_err(Clone::clone)?;
        parse(&self.path.display().to_string(), text, &variable)
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| unreadable(&name, &error));
    bytes.and_then(|bytes| String::from_utf8(bytes).map_err(|error| not_text(&name, &error)))
}

/// A digest that tells whether a file has changed.
fn digested(path: PathBuf) -> (PathBuf, Option<u64>) {
    let digest = pem::bytes(&path).ok().map(|bytes| {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        hasher.finish()
    });
    (path, digest)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads and checks the file at `path`, with the variables of this process's environment.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    ConfigFile::of(path).check()
}

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
pub(super) fn keys() -> Vec<KnownKey> {
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
    let Finding { span, message, advice } = fault;
    let excerpt = span.as_ref().map(|span| Excerpt::new(text, span, masks));
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
    admin.check(&server, report);
    upstream.check(&server, report);
    store.check(report);
    let bounds =
        Bounds { attempt_timeout: &upstream.attempt_timeout, on_error: &store.on_error, reads_tokens: jwt.is_there() };
    let routes = routes(tables, &layer, &bounds, report);
    let (proxies, jwt) = (server.trusted_proxies(), jwt.build(report));
    Some(Config {
        server: server.build()?,
        log: log.build()?,
        admin: admin.build()?,
        upstream: upstream.build()?,
        store: store.build()?,
        trust: Trust { proxies: proxies?, jwt: jwt? },
        routes,
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
                report.add(span, format!("this path cannot be matched: {reason}"), BRACES);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{
        Durability, HumanDuration, OnConcurrent, OnMissingKey, OnUnknown, RouteTarget, Selector, StoreLocation,
    };
    use super::*;

    const REFERENCE: &str = include_str!("../../../config/onlyonce.toml");

    fn config(text: &str) -> Config {
        parse("test.toml", text, &|name| (name == "NAME").then(|| "from-env".into()))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// The least that a file needs, with `extra` added to its route.
    fn with_route(extra: &str) -> Config {
        config(&format!("{LEAST}{extra}"))
    }

    const LEAST: &str = "[upstream]\nurl = \"http://127.0.0.1:3000\"\n[store]\nurl = \"redis://127.0.0.1:6379/0\"\n\
                         [[route]]\nname = \"create-order\"\npath = \"/orders\"\nscope = [\"header:Authorization\"]\n";

    #[test]
    fn the_reference_shows_the_defaults() {
        // Except for where the retention comes from, and for what its readers have thought of.
        let least = with_route("accept = [\"authorization-as-caller\", \"busy-503\"]");
        let least = format!("{least:#?}").replace("retention_given: false", "retention_given: true");
        assert_eq!(format!("{:#?}", config(REFERENCE)), least);
    }

    #[test]
    fn a_route_wins_over_the_defaults() {
        let text =
            LEAST.replace("[[route]]", "[defaults]\nlease = \"5s\"\nretention = \"1h\"\n[[route]]\nlease = \"9s\"");
        let rule = &config(&text).routes.rules()[0].clone();
        assert_eq!((rule.lease, rule.retention), (Duration::from_secs(9), Duration::from_secs(3600)));
        assert_eq!(rule.hold_for, rule.retention);
    }

    /// Every choice of keys that are compared with one another, some given and some not: a file is wrong only where two
    /// that are given contradict each other, and what it comes to is always in order.
    #[test]
    fn no_default_makes_a_file_wrong() {
        const UPSTREAM: [&[&str]; 2] = [&["", "15m"], &["", "4s"]];
        const ROUTE: [&[&str]; 5] = [&["", "20m"], &["", "30h"], &["", "1s", "400d"], &["", "2s", "4d"], &["", "4d"]];
        const NAMES: [&str; 7] = [
            "response_timeout",
            "attempt_timeout",
            "wait_timeout",
            "lease",
            "retention",
            "hold_for",
            "fingerprint_window",
        ];
        let mut choices: Vec<Vec<&str>> = vec![Vec::new()];
        for values in UPSTREAM.iter().chain(&ROUTE) {
            let longer = |choice: &Vec<&'static str>, value: &&'static str| [&choice[..], &[*value]].concat();
            choices = choices.iter().flat_map(|choice| values.iter().map(|value| longer(choice, value))).collect();
        }
        let duration = |text: &str| text.parse().ok().map(|HumanDuration(duration)| duration);
        for choice in choices {
            let given: Vec<Option<Duration>> = choice.iter().map(|value| duration(value)).collect();
            let [response, attempt, wait, lease, retention, hold, window] = given[..] else { panic!("seven keys") };
            let fits = |short: Option<Duration>, long: Option<Duration>| short.zip(long).is_none_or(|(a, b)| a <= b);
            let is_right = fits(response, attempt)
                && fits(wait, attempt)
                && fits(lease, retention)
                && fits(lease, hold)
                && fits(hold, retention)
                && fits(window, retention);
            let lines: Vec<String> = NAMES
                .iter()
                .zip(&choice)
                .map(|(name, value)| if value.is_empty() { String::new() } else { format!("{name} = \"{value}\"\n") })
                .collect();
            let text = LEAST.replace("[store]", &format!("{}[store]", lines[..2].concat()));
            for preset in ["", "preset = \"stripe\"\n"] {
                let text = format!("{text}on_missing_key = \"fingerprint\"\n{preset}{}", lines[2..].concat());
                let config = match parse("test.toml", &text, &|_| None) {
                    Ok(config) if is_right => config,
                    Err(_) if !is_right => continue,
                    Ok(_) => panic!("two keys contradict each other:\n{text}"),
                    Err(error) => panic!("{error}\n{text}"),
                };
                let (upstream, rule) = (&config.upstream, &config.routes.rules()[0]);
                let OnMissingKey::Fingerprint(window) = rule.on_missing_key else { panic!("a window") };
                assert!(upstream.response_timeout <= upstream.attempt_timeout, "{text}");
                assert!(rule.wait_timeout <= upstream.attempt_timeout, "{text}");
                assert!(rule.lease <= rule.hold_for && rule.hold_for <= rule.retention, "{text}\n{rule:?}");
                assert!(window <= rule.retention, "{text}\n{rule:?}");
            }
        }
    }

    #[test]
    fn defaults_give_way_to_what_the_file_says() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let of = |extra: &str| with_route(extra).routes.rules()[0].clone();
        assert_eq!(of("").retention, hours(24));
        assert_eq!(of("preset = \"stripe\"").retention, hours(72));
        assert_eq!(of("preset = \"stripe\"\nretention = \"24h\"").retention, hours(24));
        assert_eq!(of("preset = \"cloudevents\"\nhold_for = \"100h\"").retention, hours(100));
        assert_eq!(of("lease = \"20h\"").retention, hours(40));
        assert_eq!(of("key = [\"header:Number\", \"date:month\"]").retention, hours(31 * 24));
        assert_eq!(of("fingerprint_window = \"48h\"").retention, hours(24), "without effect here");
        assert_eq!(of("retention = \"20s\"").lease, Duration::from_secs(10));
        assert_eq!(of("hold_for = \"5s\"").lease, Duration::from_secs(5));
        let config = config(&LEAST.replace("[store]", "attempt_timeout = \"4s\"\n[store]"));
        assert_eq!(config.routes.rules()[0].wait_timeout, Duration::from_secs(4));
        assert_eq!(config.upstream.response_timeout, Duration::from_secs(4));
    }

    #[test]
    fn a_form_waits_by_default() {
        let of = |extra: &str| with_route(extra).routes.rules()[0].on_concurrent;
        assert_eq!(of("key = \"form:order\""), OnConcurrent::Wait);
        assert_eq!(of("key = [\"header:X-Shop\", \"form:order\"]"), OnConcurrent::Wait);
        assert_eq!(of("key = \"form:order\"\non_concurrent = \"reject\""), OnConcurrent::Reject);
        assert_eq!(of("key = \"form:order\"\nwait_timeout = \"0s\""), OnConcurrent::Reject);
        assert_eq!(of("key = \"form:order\"\nmax_waiters = 0"), OnConcurrent::Reject);
        assert_eq!(of("key = \"json:/order\""), OnConcurrent::Reject);
    }

    #[test]
    fn a_lenient_policy_retries_unless_told_otherwise() {
        let of = |extra: &str| with_route(extra).routes.rules()[0].on_unknown;
        assert_eq!(of(""), OnUnknown::Hold);
        assert_eq!(of("policy = \"lenient\""), OnUnknown::Retry);
        assert_eq!(of("policy = \"lenient\"\non_unknown = \"hold\""), OnUnknown::Hold);
        assert_eq!(of("on_unknown = \"retry\""), OnUnknown::Retry);
    }

    #[test]
    fn the_lists_of_a_route_win_over_those_of_the_defaults() {
        let text = LEAST.replace("[[route]]", "[defaults]\nhold = [\"503\", \"500\"]\n[[route]]\nrelease = [\"503\"]");
        let rule = &config(&text).routes.rules()[0].clone();
        let of = |status| rule.policy.disposition(http::StatusCode::from_u16(status).expect("a status"));
        assert_eq!(of(503), super::super::Disposition::Release);
        assert_eq!(of(500), super::super::Disposition::Hold);
    }

    #[test]
    fn cookies_are_replayed_where_one_names_the_caller() {
        let text = LEAST.replace("header:Authorization", "cookie:session");
        assert!(config(&text).routes.rules()[0].replay_set_cookie);
        assert!(!config(&format!("{text}replay_set_cookie = false")).routes.rules()[0].replay_set_cookie);
    }

    #[test]
    fn a_fingerprint_for_a_key_has_a_window() {
        let rule =
            with_route("on_missing_key = \"fingerprint\"\nfingerprint_window = \"2m\"").routes.rules()[0].clone();
        assert_eq!(rule.on_missing_key, OnMissingKey::Fingerprint(Duration::from_secs(120)));
    }

    #[test]
    fn what_is_not_built_may_be_given_with_its_default() {
        with_route("refuse_expired_keys = false\nresponse = \"buffer\"");
        let tables = "[server]\ntrusted_proxies = []\n[upstream]\nhttp2 = false\nurl = \"http://backend\"\n";
        config(&format!("{tables}{}", LEAST.replace("[upstream]\nurl = \"http://127.0.0.1:3000\"\n", "")));
        config(&LEAST.replace("[store]", "[store]\nreplica_acks = 0\nencryption_keys = []"));
    }

    #[test]
    fn any_string_may_come_from_the_environment() {
        let config = with_route("message = \"env:NAME\"");
        assert_eq!(config.routes.rules()[0].message.as_deref(), Some("from-env"));
        let text = LEAST.replace("redis://127.0.0.1:6379/0", "env:URL");
        let config = parse("t", &text, &|_| Some("redis://u:p%40@[::1]/3".into())).expect("a configuration");
        let StoreLocation::Redis(address) = config.store.location else { panic!("not a Redis") };
        assert_eq!(address.to_string(), "redis://[::1]:6379/3");
        assert_eq!(address.password, Some(crate::config::RedisPassword::Fixed(crate::config::Secret::new("p@"))));
    }

    #[test]
    fn the_admin_listener_can_be_off() {
        assert!(config(&format!("[admin]\nlisten = \"off\"\n{LEAST}")).admin.is_none());
        assert!(config(LEAST).admin.is_some_and(|admin| admin.token.is_none()));
    }

    #[test]
    fn stores_are_told_apart_by_their_url() {
        let of = |url: &str| config(&LEAST.replace("redis://127.0.0.1:6379/0", url)).store;
        assert_eq!(of("embedded:data").location, StoreLocation::Embedded("data".into()));
        assert_eq!(of("memory:").location, StoreLocation::Memory);
        assert_eq!(of("memory:").durability, Durability::Disk);
        for url in ["redis://cache:7000/1", "valkey://cache:7000/1", "REDIS://cache:7000/1", "Valkey://cache:7000/1"] {
            let StoreLocation::Redis(address) = of(url).location else { panic!("{url}") };
            assert_eq!(address.to_string(), "redis://cache:7000/1");
        }
        for (url, shown) in [
            ("redis+unix:///run/redis.sock?db=2", "redis+unix:///run/redis.sock?db=2"),
            ("unix://app:pw@/run/redis.sock", "redis+unix:///run/redis.sock"),
            ("redis+sentinel://:pw@a,[::1]:7/orders/3", "redis+sentinel://a:26379,[::1]:7/orders/3"),
            ("rediss://a", "rediss://a:6379/0"),
            ("rediss+sentinel://a/orders", "rediss+sentinel://a:26379/orders/0"),
        ] {
            assert_eq!(of(url).location.to_string(), shown, "{url}");
        }
    }

    #[test]
    fn hosts_and_selectors_are_read_without_regard_to_case_where_they_have_none() {
        let rule = with_route("host = \"API.Example.com\"\nkey = \"header:IDEMPOTENCY-KEY\"").routes.rules()[0].clone();
        assert_eq!(rule.host.as_deref(), Some("api.example.com"));
        assert_eq!(rule.key, [Selector::Header(http::HeaderName::from_static("idempotency-key"))]);
    }

    #[test]
    fn the_most_specific_route_wins_and_methods_do_not_hide_one_another() {
        let second = "[[route]]\nname = \"b\"\npath = \"/{*rest}\"\nscope = []\nmethods = [\"POST\", \"PUT\"]\n";
        let config = with_route(second);
        let of = |method: http::Method| {
            let path = "/orders";
            let target = RouteTarget { method: &method, overriding: &[], host: None, path, normal: path };
            config.routes.find(&target).map(|found| found.rule.name.to_string())
        };
        assert_eq!(of(http::Method::POST).as_deref(), Some("create-order"));
        assert_eq!(of(http::Method::PUT).as_deref(), Some("b"));
        assert_eq!(of(http::Method::PATCH), None);
    }
}
