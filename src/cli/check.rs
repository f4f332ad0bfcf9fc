//! `onlyonce check`: the rules as a table, and warnings.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::connect::StoreTrial;
use super::running::SidecarComparison;
use super::table::Table;
use super::text::{labelled, ranges, terminal_width, wrapped};
use super::{BAD_USAGE, FAILED, Format, output};
use crate::advice::{self, Warning, Weight};
use crate::config::{Config, ConfigProblem};
use crate::form_guard::{FormGuard, ScriptTag};
use crate::rule::{Disposition, OnConcurrent, OnMissingKey, Preset, ProbeAnswer, ProbeRule, Rule, WARNINGS};
use crate::text::listed;
use crate::units::HumanDuration;

/// `is_told`: always print the result of asking the sidecar, and not only if there is a difference.
pub(super) fn check(
    config: &Config,
    strict: bool,
    format: Format,
    connection: Option<&StoreTrial>,
    running: &SidecarComparison,
    is_told: bool,
) -> ExitCode {
    let (mut found, accepted) = (advice::warnings(config), advice::accepted(config));
    found.extend(running.warnings.iter().cloned());
    let rows: Vec<RuleRow> = config.routes.rules().iter().map(|rule| RuleRow::of(rule)).collect();
    let form_guard = FormGuard::of(&config.server, &config.routes);
    let is_refused = strict && found.iter().any(|warning| warning.weight == Weight::Warning);
    let out = match format {
        Format::Text => {
            let (mut out, warnings) = text(&rows, &found, &accepted, terminal_width());
            if let Some(form_guard) = &form_guard {
                out.push('\n');
                out.push_str(&script(form_guard));
            }
            if let Some(connection) = connection {
                connection.write(&mut out);
            } else if is_told {
                out.push('\n');
            }
            if is_told {
                labelled(&mut out, "sidecar", &running.said);
            }
            let verdict = match connection {
                _ if is_refused => "refused (--strict)",
                Some(connection) if !connection.is_usable() => "failed (the store cannot be used)",
                Some(_) | None => "ok",
            };
            let is_long = form_guard.is_some() || connection.is_some() || is_told;
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{}{verdict}: {}", if is_long { "\n" } else { "" }, counts(rows.len(), warnings));
            out
        }
        Format::Json => {
            json(&rows, &found, &accepted, form_guard.as_ref(), connection, is_told.then_some(&*running.said))
        }
    };
    let printed = output::print(&out);
    match connection {
        _ if is_refused => ExitCode::from(BAD_USAGE),
        Some(connection) if !connection.is_usable() => ExitCode::from(FAILED),
        Some(_) | None => printed,
    }
}

/// Why a file is refused, for programs: `{"problems":[{"line":3,"column":10,"text":"…","help":"…"}]}`.
pub(super) fn refused(problems: &[ConfigProblem]) -> ExitCode {
    let all: Vec<Value> = problems
        .iter()
        .map(|problem| {
            let (line, column) = problem.place().unzip();
            json!({ "line": line, "column": column, "text": problem.message, "help": problem.advice })
        })
        .collect();
    output::print(&format!("{:#}\n", json!({ "problems": all })));
    ExitCode::from(BAD_USAGE)
}

fn counts(routes: usize, warnings: usize) -> String {
    let count = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    format!("{}, {}", count(routes, "route"), count(warnings, "warning"))
}

/// One rule, as text.
#[derive(Serialize)]
struct RuleRow {
    route: String,
    #[serde(rename = "match")]
    matches: String,
    mode: &'static str,
    preset: Option<&'static str>,
    key: Vec<String>,
    on_missing_key: String,
    scope: Vec<String>,
    policy: &'static str,
    /// The route's own status lists.
    #[serde(skip)]
    exceptions: String,
    store: String,
    release: String,
    hold: String,
    on_concurrent: String,
    on_unknown: &'static str,
    /// What the backend is asked for when an outcome is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<String>,
    /// When, and by whom.
    #[serde(skip)]
    probe_terms: String,
    hold_for: String,
    lease: String,
    retention: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_auth: Option<String>,
}

impl RuleRow {
    fn of(rule: &Rule) -> Self {
        Self {
            route: rule.name.to_string(),
            matches: rule.matches(),
            mode: rule.mode.word(),
            preset: rule.preset.map(Preset::word),
            key: rule.key.iter().map(ToString::to_string).collect(),
            on_missing_key: match rule.on_missing_key {
                OnMissingKey::Forward => "forward".to_owned(),
                OnMissingKey::Reject => "reject".to_owned(),
                OnMissingKey::Fingerprint(window) => format!("fingerprint {}", HumanDuration(window)),
            },
            scope: rule.scope.iter().map(ToString::to_string).collect(),
            policy: rule.policy.base().word(),
            exceptions: exceptions(rule),
            store: ranges(rule, Disposition::Store),
            release: ranges(rule, Disposition::Release),
            hold: ranges(rule, Disposition::Hold),
            on_concurrent: match rule.on_concurrent {
                OnConcurrent::Reject => "reject".to_owned(),
                OnConcurrent::Wait => format!("wait {}", HumanDuration(rule.wait_timeout)),
            },
            on_unknown: rule.on_unknown.word(),
            probe: rule.probe.as_ref().map(|probe| format!("GET {}", probe.path)),
            probe_terms: rule.probe.as_deref().map(probe_terms).unwrap_or_default(),
            hold_for: HumanDuration(rule.hold_for).to_string(),
            lease: HumanDuration(rule.lease).to_string(),
            retention: HumanDuration(rule.retention).to_string(),
            replay_auth: rule.replay_auth.as_ref().map(|auth| match auth.cache {
                Duration::ZERO => auth.to_string(),
                cache => format!("{auth}, kept {}", HumanDuration(cache)),
            }),
        }
    }

    fn policy(&self) -> String {
        format!("{}{}", self.policy, self.exceptions)
    }

    fn on_unknown(&self) -> String {
        match self.on_unknown {
            "hold" if self.hold_for != self.retention => format!("hold {}", self.hold_for),
            other => other.to_owned(),
        }
    }

    fn key(&self) -> String {
        self.key.join(" + ")
    }

    fn scope(&self) -> String {
        if self.scope.is_empty() { "-".to_owned() } else { self.scope.join(" + ") }
    }

    /// The table's columns.
    fn cells(&self) -> [(&'static str, String); 14] {
        [
            ("route", self.route.clone()),
            ("match", self.matches.clone()),
            ("mode", self.mode.to_owned()),
            ("preset", self.preset.unwrap_or("-").to_owned()),
            ("key", self.key()),
            ("on_missing_key", self.on_missing_key.clone()),
            ("scope", self.scope()),
            ("policy", self.policy()),
            ("on_concurrent", self.on_concurrent.clone()),
            ("on_unknown", self.on_unknown()),
            ("probe", self.probe.as_ref().map_or("-".to_owned(), |probe| format!("{probe}{}", self.probe_terms))),
            ("lease", self.lease.clone()),
            ("retention", self.retention.clone()),
            ("replay_auth", self.replay_auth.clone().unwrap_or("-".to_owned())),
        ]
    }
}

/// `, after 1m, by the sidecar that ran the request only`
fn probe_terms(probe: &ProbeRule) -> String {
    let by = if probe.authorization.is_none() { ", by the sidecar that ran the request only" } else { "" };
    let answer = match probe.answer {
        ProbeAnswer::AlreadyCompleted => "",
        ProbeAnswer::Probe => "; repeats get its answer",
    };
    format!(", after {}{by}{answer}", HumanDuration(probe.after))
}

/// `, hold 503`
fn exceptions(rule: &Rule) -> String {
    let all = [("store", Disposition::Store), ("release", Disposition::Release), ("hold", Disposition::Hold)];
    let list = |(verb, wanted): (&str, Disposition)| {
        let named = rule.policy.overrides().iter().filter(|(_, disposition)| *disposition == wanted);
        let named: String = named.map(|(set, _)| format!(" {set}")).collect();
        if named.is_empty() { named } else { format!(", {verb}{named}") }
    };
    all.into_iter().map(list).collect()
}

/// A table if the terminal is wide enough, else a block for each route; and the number of warnings.
fn text(rows: &[RuleRow], found: &[Warning], accepted: &[Warning], width: usize) -> (String, usize) {
    let table = table(rows);
    let mut out = if table.width() > width { blocks(rows) } else { table.to_string() };
    out.push('\n');
    policies(&mut out, rows);
    let warnings = told(&mut out, rows, found);
    if !accepted.is_empty() {
        let mut names: Vec<&str> = accepted.iter().map(|warning| warning.name).collect();
        names.sort_unstable();
        names.dedup();
        wrapped(&mut out, "accepted: ", &listed(&names));
    }
    (out, warnings)
}

/// Columns with only default values are omitted.
fn table(rows: &[RuleRow]) -> Table {
    let mut table = Table::default();
    let is_told = |name: &str| match name {
        "preset" => rows.iter().any(|row| row.preset.is_some()),
        "replay_auth" => rows.iter().any(|row| row.replay_auth.is_some()),
        "probe" => rows.iter().any(|row| row.probe.is_some()),
        _ => true,
    };
    for row in rows {
        table.push(row.cells().into_iter().filter(|(name, _)| is_told(name)).collect());
    }
    table
}

fn blocks(rows: &[RuleRow]) -> String {
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        for (name, value) in row.cells() {
            match name {
                "route" => wrapped(&mut out, "", &value),
                "preset" | "probe" | "replay_auth" if value == "-" => {}
                name => wrapped(&mut out, &format!("  {name:<14} "), &value),
            }
        }
    }
    out
}

/// What each policy in the table means.
fn policies(out: &mut String, rows: &[RuleRow]) {
    let mut seen: Vec<String> = Vec::new();
    for row in rows {
        let policy = row.policy();
        if seen.contains(&policy) {
            continue;
        }
        let _ = writeln!(out, "policy {policy}");
        for (name, statuses) in [("stored", &row.store), ("released", &row.release), ("unknown", &row.hold)] {
            wrapped(out, &format!("  {name:<10} "), statuses);
        }
        seen.push(policy);
    }
    if rows.iter().any(|row| row.mode != "off") {
        wrapped(out, "also matched ", SPELLINGS);
    }
    if !rows.is_empty() {
        out.push('\n');
    }
}

/// The spellings that routes match besides their paths and methods (docs/routes.md).
const SPELLINGS: &str = "other spellings of these paths: letter case, doubled slashes, a slash at the end, %2F, \
                         ;parameters; and methods in X-HTTP-Method-Override";

/// Prints a warning about several routes once. Returns the number of warnings.
fn told(out: &mut String, rows: &[RuleRow], found: &[Warning]) -> usize {
    let mut warnings = 0;
    let mut done: Vec<(&str, &str)> = Vec::new();
    for Warning { name, weight, text, advice, .. } in found {
        if done.contains(&(text, advice)) {
            continue;
        }
        done.push((text, advice));
        let same = found.iter().filter(|other| other.text == *text && other.advice == *advice);
        let routes: Vec<&str> = same.filter_map(|other| other.route.as_deref()).collect();
        let about = match routes.as_slice() {
            [] => String::new(),
            all if all.len() == rows.len() && all.len() > 1 => "all routes: ".to_owned(),
            some => format!("{}: ", listed(some)),
        };
        let label = match weight {
            Weight::Note => "note",
            Weight::Warning => {
                warnings += 1;
                "warning"
            }
        };
        let name = if WARNINGS.contains(name) { format!(" [{name}]") } else { String::new() };
        wrapped(out, &format!("{label}: "), &format!("{about}{text}{name}"));
        wrapped(out, &format!("{:>width$}", "help: ", width = label.len() + 2), advice);
    }
    warnings
}

fn json(
    rows: &[RuleRow],
    found: &[Warning],
    accepted: &[Warning],
    form_guard: Option<&FormGuard>,
    connection: Option<&StoreTrial>,
    sidecar: Option<&str>,
) -> String {
    #[derive(Serialize)]
    struct WarningShape<'a> {
        name: &'a str,
        route: Option<&'a str>,
        text: &'a str,
        advice: &'a str,
    }
    fn told(warning: &Warning) -> WarningShape<'_> {
        let Warning { name, route, text, advice, .. } = warning;
        WarningShape { name, route: route.as_deref(), text, advice }
    }
    #[derive(Serialize)]
    struct ScriptShape<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<&'a str>,
        path: String,
        integrity: &'a str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        hosts: Vec<ScriptShape<'a>>,
    }
    fn shape(ScriptTag { host, path, integrity }: ScriptTag<'_>) -> ScriptShape<'_> {
        ScriptShape { host, path, integrity, hosts: Vec::new() }
    }
    fn script(guard: &FormGuard) -> Option<ScriptShape<'_>> {
        let mut tags = guard.tags().into_iter().map(shape);
        let common = tags.next()?;
        Some(ScriptShape { hosts: tags.collect(), ..common })
    }
    #[derive(Serialize)]
    struct CheckReport<'a> {
        routes: &'a [RuleRow],
        warnings: Vec<WarningShape<'a>>,
        notes: Vec<WarningShape<'a>>,
        accepted: Vec<WarningShape<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        form_guard: Option<ScriptShape<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        connection: Option<&'a StoreTrial>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sidecar: Option<&'a str>,
    }
    let of = |wanted: Weight| found.iter().filter(move |warning| warning.weight == wanted).map(told).collect();
    let report = CheckReport {
        routes: rows,
        warnings: of(Weight::Warning),
        notes: of(Weight::Note),
        accepted: accepted.iter().map(told).collect(),
        form_guard: form_guard.and_then(script),
        connection,
        sidecar,
    };
    // All of it serializes to JSON.
    format!("{}\n", serde_json::to_string_pretty(&report).unwrap_or_default())
}

/// The tags of the form guard's script, to be copied, each in one line: one for all pages, and one for those of each host
/// that routes name.
fn script(form_guard: &FormGuard) -> String {
    let line = |tag: &ScriptTag<'_>| {
        let host = tag.host.map(|host| format!("for {host} ")).unwrap_or_default();
        let ScriptTag { path, integrity, .. } = tag;
        format!("form guard {host}<script src=\"{path}\" integrity=\"{integrity}\" defer></script>\n")
    };
    form_guard.tags().iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn the_tag_of_the_script_is_told_with_its_hash() {
        let text = "[server]\nform_guard = \"/f.js\"\n[upstream]\nurl = \"http://b\"\n[store]\nurl = \"memory:\"\n\
                    [[route]]\nname = \"a\"\npath = \"/a\"\nscope = []\n";
        let config = parse("t.toml", text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let form_guard = FormGuard::of(&config.server, &config.routes).expect("it is on");
        let told = script(&form_guard);
        assert!(told.starts_with("form guard <script src=\"/f."), "{told}");
        assert!(told.contains(".js\" integrity=\"sha384-") && told.ends_with("defer></script>\n"), "{told}");
        assert!(json(&[], &[], &[], Some(&form_guard), None, None).contains("\"integrity\": \"sha384-"));

        // A host that a route names has a separate script.
        let text = format!("{text}[[route]]\nname = \"b\"\npath = \"/b\"\nhost = \"shop.test\"\nscope = []\n");
        let config = parse("t.toml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let form_guard = FormGuard::of(&config.server, &config.routes).expect("it is on");
        let told = script(&form_guard);
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[1].starts_with("form guard for shop.test <script src=\"/f."), "{told}");
        assert_ne!(lines[0].split("integrity").nth(1), lines[1].split("integrity").nth(1));
        let report = json(&[], &[], &[], Some(&form_guard), None, None);
        assert!(report.contains("\"hosts\": [") && report.contains("\"host\": \"shop.test\""), "{report}");
    }

    #[test]
    fn a_narrow_terminal_gets_a_block_for_each_route() {
        let file = include_str!("../../config/orders.toml");
        let config = parse("orders.toml", file, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let rows: Vec<RuleRow> = config.routes.rules().iter().map(|rule| RuleRow::of(rule)).collect();
        let (blocks, _) = text(&rows, &[], &[], 80);
        assert!(
            blocks.starts_with(
                "create-order\n  match          POST /orders\n  mode           enforce\n  \
                 key            header:idempotency-key\n  on_missing_key forward\n  \
                 scope          header:authorization\n  policy         standard, release 503\n  \
                 on_concurrent  wait 10s\n  on_unknown     hold\n  lease          30s\n  \
                 retention      1d\n\nchange-order\n"
            ),
            "{blocks}"
        );
        assert!(blocks.lines().all(|line| line.chars().count() <= 80), "{blocks}");
        assert!(text(&rows, &[], &[], 240).0.starts_with("route         match"));
    }
}
