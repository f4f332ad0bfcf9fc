//! `onlyonce check`: the rules as a table, and what is worth a second thought.

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;

use super::text::{selectors, wrapped};
use super::{BAD_USAGE, Format};
use crate::config::{self, Config, Disposition, HumanDuration, Mode, OnUnknown, Policy, Rule, Warning};

pub(super) fn check(config: &Config, strict: bool, format: Format) -> ExitCode {
    let warnings = config::warnings(config);
    let rows: Vec<Row> = config.routes.rules().iter().map(|rule| Row::of(rule)).collect();
    match format {
        Format::Text => print!("{}", text(&rows, &warnings)),
        Format::Json => println!("{}", json(&rows, &warnings)),
    }
    if strict && !warnings.is_empty() { ExitCode::from(BAD_USAGE) } else { ExitCode::SUCCESS }
}

/// One rule, in words.
#[derive(Serialize)]
struct Row {
    route: String,
    #[serde(rename = "match")]
    matches: String,
    mode: &'static str,
    key: String,
    scope: String,
    policy: &'static str,
    store: String,
    release: String,
    hold: String,
    on_unknown: &'static str,
    hold_for: String,
    lease: String,
    retention: String,
}

impl Row {
    fn of(rule: &Rule) -> Self {
        let methods: Vec<&str> = rule.methods.iter().map(http::Method::as_str).collect();
        Self {
            route: rule.name.to_string(),
            matches: format!("{} {}{}", methods.join("|"), rule.host.as_deref().unwrap_or_default(), rule.path),
            mode: match rule.mode {
                Mode::Enforce => "enforce",
                Mode::Off => "off",
            },
            key: selectors(&rule.key, "-"),
            scope: selectors(&rule.scope, "none: all callers share one space"),
            policy: match rule.policy.base() {
                Policy::Standard => "standard",
                Policy::Strict => "strict",
                Policy::Lenient => "lenient",
            },
            store: ranges(rule, Disposition::Store),
            release: ranges(rule, Disposition::Release),
            hold: ranges(rule, Disposition::Hold),
            on_unknown: match rule.on_unknown {
                OnUnknown::Hold => "hold",
                OnUnknown::Retry => "retry",
            },
            hold_for: HumanDuration(rule.hold_for).to_string(),
            lease: HumanDuration(rule.lease).to_string(),
            retention: HumanDuration(rule.retention).to_string(),
        }
    }

    /// A name and its value, a line each.
    fn lines(&self) -> [(&'static str, String); 9] {
        let unknown = match self.on_unknown {
            "hold" => format!("hold for {}", self.hold_for),
            _ => format!("retry once the lease of {} has run out", self.lease),
        };
        [
            ("match", self.matches.clone()),
            ("key", self.key.clone()),
            ("scope", self.scope.clone()),
            ("policy", self.policy.to_owned()),
            ("  stored", self.store.clone()),
            ("  released", self.release.clone()),
            ("  unknown", self.hold.clone()),
            ("on_unknown", unknown),
            ("lease, retention", format!("{}, {}", self.lease, self.retention)),
        ]
    }
}

fn ranges(rule: &Rule, disposition: Disposition) -> String {
    let ranges = rule.policy.ranges(disposition).into_iter().map(|(first, last)| match last {
        last if last == first => first.to_string(),
        last => format!("{first}-{last}"),
    });
    let ranges: Vec<String> = ranges.collect();
    if ranges.is_empty() { "-".to_owned() } else { ranges.join(" ") }
}

/// A block for each rule: a table of this many columns would not fit 80 characters.
fn text(rows: &[Row], warnings: &[Warning]) -> String {
    let mut out = String::new();
    for row in rows {
        let off = if row.mode == "off" { "  (off: requests pass unguarded)" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}{off}", row.route);
        for (name, value) in row.lines() {
            wrapped(&mut out, &format!("  {name:<17} "), &value);
        }
        out.push('\n');
    }
    for warning in warnings {
        let about = warning.route.as_ref().map(|route| format!("{route}: ")).unwrap_or_default();
        wrapped(&mut out, "warning: ", &format!("{about}{}", warning.text));
        wrapped(&mut out, "   help: ", &warning.advice);
    }
    let count = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let _ = writeln!(out, "ok: {}, {}", count(rows.len(), "route"), count(warnings.len(), "warning"));
    out
}

fn json(rows: &[Row], warnings: &[Warning]) -> String {
    #[derive(Serialize)]
    struct Told<'a> {
        route: Option<&'a str>,
        text: &'a str,
        advice: &'a str,
    }
    #[derive(Serialize)]
    struct Report<'a> {
        routes: &'a [Row],
        warnings: Vec<Told<'a>>,
    }
    let told = warnings.iter().map(|Warning { route, text, advice }| Told { route: route.as_deref(), text, advice });
    let report = Report { routes: rows, warnings: told.collect() };
    serde_json::to_string_pretty(&report).unwrap_or_default()
}
