//! Records as text for terminals of 80 columns.

use std::fmt::Write;
use std::time::Duration;

use super::super::client::{AdminCallError, AdminClient, TokenFrom};
use super::super::output;
use super::super::text::{labelled, wrapped};
use crate::admin::Timestamp;
use crate::admin::shape::{
    AuditLine, OwnerName, ProspectName, RecordDetail, RecordEntry, RecordFacts, RouteNotConfigured, StateName,
    StoredAnswer,
};
use crate::admin::story;

/// A record in a list. Its name is on a separate line, for copying.
pub(super) fn entry(entry: &RecordEntry, now: Timestamp) -> String {
    let mut out = format!("{}\n", entry.record);
    wrapped(&mut out, "  ", &since_when(entry, now));
    out
}

/// A record in one line: `create-order:b218…, unknown, 2m ago`
pub(in super::super) fn named(entry: &RecordEntry, now: Timestamp) -> String {
    let began = entry.facts.as_ref().map(|facts| facts.settled_at.unwrap_or(facts.claimed_at));
    let began = began.map(|began| format!(", {}", ago(began, now))).unwrap_or_default();
    format!("{}  {}{began}", entry.record, state(entry))
}

fn since_when(entry: &RecordEntry, now: Timestamp) -> String {
    match (&entry.facts, &entry.detail) {
        (Some(facts), _) => format!("{}, {}", state(entry), times(facts, now)),
        (None, Some(detail)) => format!("{}: {detail}", state(entry)),
        (None, None) => state(entry),
    }
}

/// The same in one sentence, and what a repeat gets.
pub(super) fn repeated(entry: &RecordEntry, now: Timestamp) -> String {
    let then = match entry.state {
        StateName::Completed => "gets that answer",
        StateName::InFlight
        | StateName::Unreplayable
        | StateName::Unknown
        | StateName::Unreadable
        | StateName::Absent => story::retry(entry),
    };
    format!("{}: a repeat {then}", since_when(entry, now))
}

/// A request's record, and what the request gets.
pub(super) fn in_short(entry: Option<&RecordEntry>, request: ProspectName, now: Timestamp) -> String {
    let gets = match request {
        ProspectName::Runs => "would run",
        ProspectName::TakesOver => "takes over, and runs",
        ProspectName::Replayed => "gets that answer",
        ProspectName::InFlight => "waits, or gets 409 in-flight",
        ProspectName::KeyReused => "gets 422 key-reused, as the key was used with another body",
        ProspectName::KeyConflict => "gets 409 key-reused, as the key was used with another body",
        ProspectName::KeyReusedElsewhere => {
            "gets 422 key-reused, as the key was used with another method, path or query"
        }
        ProspectName::OutcomeUnknown => "gets 409 outcome-unknown",
        ProspectName::AlreadyCompleted => "gets 409 already-completed",
        ProspectName::Unreadable => "gets 503 record-unreadable",
    };
    let found = entry.map_or_else(|| "nothing".to_owned(), |entry| since_when(entry, now));
    format!("{found}: this request {gets}")
}

fn times(facts: &RecordFacts, now: Timestamp) -> String {
    let began = facts.settled_at.unwrap_or(facts.claimed_at);
    let attempt = if facts.attempt > 1 { format!(", attempt {}", facts.attempt) } else { String::new() };
    format!("{} ({}){attempt}, gone in {}", ago(began, now), time(began), coarse(facts.expires_at.since(now)))
}

/// A state in words.
pub(super) fn state(entry: &RecordEntry) -> String {
    let facts = entry.facts.as_ref();
    let status = facts.and_then(|facts| facts.status).map(|status| format!(" with {status}")).unwrap_or_default();
    let found = if facts.is_some_and(|facts| facts.found_by_probe) { ", found by a probe" } else { "" };
    match (entry.state, facts.and_then(|facts| facts.owner)) {
        (StateName::InFlight, Some(OwnerName::Lost)) => "in flight, its owner lost".into(),
        (StateName::InFlight, Some(OwnerName::Alive) | None) => "in flight".into(),
        (StateName::Completed, _) => format!("completed{status}{found}"),
        (StateName::Unreplayable, _) => format!("unreplayable{status}{found}"),
        (StateName::Unknown, _) => "unknown".into(),
        (StateName::Unreadable, _) => "unreadable".into(),
        (StateName::Absent, _) => "no record: the key is free".into(),
    }
}

/// One record with all its properties.
pub(super) fn shown(shown: &RecordDetail, now: Timestamp) -> String {
    let entry = &shown.entry;
    let mut out = String::new();
    labelled(&mut out, "record", &entry.record);
    labelled(&mut out, "state", &state(entry));
    if let Some(detail) = &entry.detail {
        labelled(&mut out, "", detail);
    }
    if let Some(facts) = &entry.facts {
        told(&mut out, facts, now);
    }
    labelled(&mut out, "a retry", &shown.retry);
    labelled(&mut out, "advice", &shown.advice);
    for line in &shown.audit {
        labelled(&mut out, if line.asked.is_some() { "probed" } else { "by hand" }, &by_hand(line, now));
    }
    if let Some(answer) = &shown.answer {
        out.push('\n');
        answered(&mut out, answer);
    }
    out
}

fn told(out: &mut String, facts: &RecordFacts, now: Timestamp) {
    let moment = |moment: Timestamp| format!("{}, {}", time(moment), ago(moment, now));
    labelled(out, "claimed", &format!("{} (attempt {})", moment(facts.claimed_at), facts.attempt));
    if let Some(heard_at) = facts.heard_at {
        labelled(out, "heard of", &moment(heard_at));
    }
    if let Some(settled_at) = facts.settled_at {
        labelled(out, "settled", &moment(settled_at));
    }
    labelled(out, "gone", &format!("{}, in {}", time(facts.expires_at), coarse(facts.expires_at.since(now))));
    let unknown = match &facts.hold_for {
        Some(hold_for) => format!("an unknown outcome holds the key for {hold_for}"),
        None => "an unknown outcome is tried again".to_owned(),
    };
    labelled(out, "terms", &format!("lease {}, retention {}; {unknown}", facts.lease, facts.retention));
    labelled(out, "fingerprint", &format!("{}…", facts.fingerprint));
}

/// `2026-11-29T04:00:00Z, 2m ago: released by admin.token from 127.0.0.1: "no order in the backend"`, or
/// `2026-11-29T04:00:00Z, 2m ago: completed with 200 by probe, which asked /orders?key={key}`
fn by_hand(line: &AuditLine, now: Timestamp) -> String {
    let did = match &*line.did {
        "release" => "released",
        "complete" => "completed",
        "probe" => "had the backend asked",
        other => other,
    };
    let status = line.status.map(|status| format!(" with {status}")).unwrap_or_default();
    let from = line.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
    let asked = line.asked.as_ref().map(|asked| format!(", which asked {}", printable(asked))).unwrap_or_default();
    let force = if line.force { ", with force" } else { "" };
    let reason = line.reason.as_ref().map(|reason| format!(": \"{}\"", printable(reason))).unwrap_or_default();
    // A question was asked, whatever came of it.
    let so = if line.did == "probe" { "nothing came of it" } else { "not done" };
    let not_done = line.not_done.as_ref().map(|why| format!(" ({so}: {why})")).unwrap_or_default();
    let (at, ago, by) = (time(line.at), ago(line.at, now), &line.by);
    format!("{at}, {ago}: {did}{status} by {by}{from}{asked}{force}{reason}{not_done}")
}

fn answered(out: &mut String, answer: &StoredAnswer) {
    let length = match answer.body_bytes {
        Some(bytes) => format!("{bytes} bytes of body"),
        None => "the body was not kept".to_owned(),
    };
    labelled(out, "answer", &format!("{}, {length}", answer.status));
    for (name, value) in answer.headers.iter().chain(&answer.trailers) {
        labelled(out, "", &printable(&format!("{name}: {value}")));
    }
    match (&answer.body.body, &answer.body.body_base64) {
        (Some(text), _) => {
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            // Writing to a String cannot fail.
            let _ = write!(out, "\n{}{end}", printable(text));
        }
        (None, Some(_)) => out.push_str("\nThe body is no text: --format json shows it in base64.\n"),
        (None, None) => {}
    }
}

/// Without control characters, which a terminal would interpret.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// `3 records`
pub(super) fn records(count: usize) -> String {
    format!("{count} record{}", if count == 1 { "" } else { "s" })
}

/// Fails if nothing was found, and the sidecar has no such route; says so beside what was found.
pub(super) fn of_route(missing: Option<RouteNotConfigured>, found: usize) -> Result<(), AdminCallError> {
    let Some(RouteNotConfigured { route, near, routes }) = missing else { return Ok(()) };
    if found > 0 {
        output::complain(format_args!(
            "note: the sidecar has no route '{route}' (any more): its records are kept until they expire"
        ));
        return Ok(());
    }
    let help = match near {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("the sidecar has {}", routes.join(", ")),
    };
    Err(AdminCallError::Usage(format!("there is no route '{route}', and no record of one; {help}")))
}

/// Broken at 80 columns.
pub(super) fn broken(text: &str) -> String {
    let mut out = String::new();
    wrapped(&mut out, "", text);
    out
}

/// To the second.
pub(in super::super) fn time(moment: Timestamp) -> String {
    let text = moment.to_string();
    text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

fn ago(moment: Timestamp, now: Timestamp) -> String {
    format!("{} ago", coarse(now.since(moment)))
}

/// With one unit.
pub(in super::super) fn coarse(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// An error, with advice.
pub(super) fn failure(failure: &AdminCallError, client: &AdminClient) -> String {
    let mut out = String::new();
    let help = match failure {
        AdminCallError::Usage(_) | AdminCallError::Output(_) => None,
        AdminCallError::Unreachable(_) => {
            Some("start it with `onlyonce serve`, or name the admin listener of a running one with --admin URL")
        }
        AdminCallError::Strange(_) => Some("name the sidecar's admin listener, not the proxy, with --admin URL"),
        AdminCallError::Refused(problem) => match problem.code.as_str() {
            "unauthorized" => Some(token(client.token_from)),
            "forbidden" => Some("run this on the sidecar's own machine or through a tunnel, or set admin.token there"),
            "token-needed" => Some(
                "set token = \"env:ONLYONCE_ADMIN_TOKEN\" under [admin] in the sidecar's configuration, start it again with a \
                 token in that variable (openssl rand -hex 32), and have the same one here in $ONLYONCE_ADMIN_TOKEN",
            ),
            "read-only" => Some("use another token: $ONLYONCE_ADMIN_TOKEN comes before that of the configuration"),
            "owner-alive" => Some("wait for it to end, or use --force if you know better"),
            _ => None,
        },
    };
    wrapped(&mut out, "error: ", &what(failure, &client.url()));
    if let Some(help) = help {
        wrapped(&mut out, "help: ", help);
    }
    out
}

/// An error, without advice.
pub(super) fn what(failure: &AdminCallError, url: &str) -> String {
    match failure {
        AdminCallError::Usage(what) => what.clone(),
        AdminCallError::Output(error) => format!("the output cannot be written: {error}"),
        AdminCallError::Unreachable(error) => format!("no sidecar answers at {url}: {error}"),
        AdminCallError::Strange(what) => {
            format!("{url} does not answer as the admin listener of an onlyonce of this version: {what}")
        }
        AdminCallError::Refused(problem) => format!("{} ({})", problem.detail.trim_end_matches('.'), problem.code),
    }
}

fn token(from: TokenFrom) -> &'static str {
    match from {
        TokenFrom::Environment => "$ONLYONCE_ADMIN_TOKEN is not a token that the sidecar takes",
        TokenFrom::Configuration => {
            "admin.token of the configuration file is not a token that the sidecar takes; $ONLYONCE_ADMIN_TOKEN would come \
             before it"
        }
        TokenFrom::Nowhere => {
            "put your token into $ONLYONCE_ADMIN_TOKEN, or name a configuration that has admin.token with --config"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp { millis: 1_795_262_400_000 };

    fn record(state: StateName, facts: Option<RecordFacts>) -> RecordEntry {
        let record = format!("{}:{}", "r".repeat(40), "0".repeat(32));
        RecordEntry {
            record,
            route: "r".repeat(40),
            state,
            detail: Some("it is damaged: it is cut short".into()),
            facts,
        }
    }

    fn facts() -> RecordFacts {
        RecordFacts {
            owner: None,
            is_abandoned: false,
            heard_at: None,
            status: None,
            found_by_probe: false,
            attempt: 12,
            claimed_at: NOON,
            settled_at: None,
            expires_at: NOON.after(Duration::from_secs(86_400 * 30)),
            lease: "1500ms".into(),
            retention: "31d".into(),
            hold_for: Some("1d".into()),
            fingerprint: "0123abcd".into(),
        }
    }

    #[test]
    fn everything_fits_80_columns() {
        let now = NOON.after(Duration::from_secs(5000));
        for owner in [None, Some(OwnerName::Alive), Some(OwnerName::Lost)] {
            for state in [
                StateName::InFlight,
                StateName::Completed,
                StateName::Unreplayable,
                StateName::Unknown,
                StateName::Unreadable,
            ] {
                let facts =
                    RecordFacts { owner, heard_at: Some(NOON), status: Some(201), settled_at: Some(NOON), ..facts() };
                let record = record(state, (state != StateName::Unreadable).then_some(facts));
                let text = [entry(&record, now), shown(&RecordDetail::new(record, None, Vec::new()), now)].concat();
                for line in text.lines() {
                    // The name is never wrapped, so that it can be copied.
                    assert!(line.chars().count() <= 80 || line.contains(&"r".repeat(40)), "{line}");
                }
            }
        }
    }

    #[test]
    fn a_record_in_a_list_says_when_and_for_how_long() {
        let unknown = RecordEntry { detail: None, ..record(StateName::Unknown, Some(facts())) };
        let text = entry(&unknown, NOON.after(Duration::from_secs(130)));
        let expected = "  unknown, 2m ago (2026-11-21T12:00:00Z), attempt 12, gone in 29d\n";
        assert_eq!(text.split_once('\n').map(|(_, rest)| rest), Some(expected));
    }

    #[test]
    fn what_was_done_to_a_record_is_told_in_one_line() {
        let line = AuditLine {
            at: NOON,
            did: "complete".into(),
            by: "probe".into(),
            from: None,
            asked: Some("/orders?idempotency_key={key}".into()),
            reason: None,
            force: false,
            was: StateName::Unknown,
            status: Some(200),
            not_done: None,
        };
        let now = NOON.after(Duration::from_secs(130));
        let told = by_hand(&line, now);
        let expected = "2026-11-21T12:00:00Z, 2m ago: completed with 200 by probe, which asked \
                        /orders?idempotency_key={key}";
        assert_eq!(told, expected);
        let operator = AuditLine {
            did: "release".into(),
            by: "alice".into(),
            from: Some("10.0.0.1".into()),
            asked: None,
            reason: Some("no order".into()),
            status: None,
            not_done: Some("the record had changed".into()),
            ..line.clone()
        };
        let expected = "2026-11-21T12:00:00Z, 2m ago: released by alice from 10.0.0.1: \"no order\" (not done: the \
                        record had changed)";
        assert_eq!(by_hand(&operator, now), expected);
        let asked = AuditLine { did: "probe".into(), not_done: Some("no answer".into()), ..operator };
        let expected = "2026-11-21T12:00:00Z, 2m ago: had the backend asked by alice from 10.0.0.1: \"no order\" \
                        (nothing came of it: no answer)";
        assert_eq!(by_hand(&asked, now), expected);
    }

    #[test]
    fn what_a_probe_has_found_is_marked() {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for (settled, told) in [(StateName::Unreplayable, "unreplayable"), (StateName::Completed, "completed")] {
            for found_by_probe in [true, false] {
                let facts = RecordFacts { found_by_probe, status: Some(200), ..facts() };
                let one = RecordEntry { detail: None, ..record(settled, Some(facts)) };
                let marked = format!("{told} with 200, found by a probe");
                let shown = words(&shown(&RecordDetail::new(one.clone(), None, Vec::new()), NOON));
                assert_eq!(words(&entry(&one, NOON)).contains(&marked), found_by_probe);
                assert_eq!(shown.contains(&marked), found_by_probe);
                assert_eq!(shown.contains("the backend was asked"), found_by_probe);
            }
        }
    }

    #[test]
    fn a_stored_body_does_nothing_to_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n\tc\u{9b}"), "a\u{fffd}[2Jb\n\tc\u{fffd}");
    }
}
