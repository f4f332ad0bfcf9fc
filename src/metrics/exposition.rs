//! The counts of routes in the text exposition format.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::durations::{DurationCounts, SECONDS};
use super::labels::{ProbeResult, RecordState, ReplayAuthResult, RequestOutcome, ShadowVerdict};
use super::routes::{CLASSES, RouteCounts};

/// Counts with a name.
pub(super) struct RouteFamily {
    pub(super) name: &'static str,
    help: &'static str,
    kind: &'static str,
    write: fn(&mut Series<'_>, &RouteCounts),
}

/// All of them, in the order of their names.
pub(super) const FAMILIES: [RouteFamily; 13] = [
    RouteFamily {
        name: "onlyonce_duplicates_observed_total",
        help: "Requests in observe mode that a guard would not simply have run.",
        kind: "counter",
        write: |series, counts| {
            let Some(observed) = counts.known_observed() else { return };
            for would in ShadowVerdict::ALL {
                series.count(None, Some(("would", would.as_str())), &observed.would[would as usize]);
            }
        },
    },
    RouteFamily {
        name: "onlyonce_in_flight",
        help: "Guarded attempts at work.",
        kind: "gauge",
        write: |series, counts| series.gauge(&counts.in_flight),
    },
    RouteFamily {
        name: "onlyonce_lease_lost_total",
        help: "Attempts that found their record in other hands.",
        kind: "counter",
        write: |series, counts| series.count(None, None, &counts.lease_lost),
    },
    RouteFamily {
        name: "onlyonce_probes_total",
        help: "Questions to the backend about unknown outcomes, by what came of them.",
        kind: "counter",
        write: |series, counts| {
            let Some(probes) = counts.known_probes() else { return };
            for result in ProbeResult::ALL {
                series.count(None, Some(("result", result.as_str())), &probes[result as usize]);
            }
        },
    },
    RouteFamily {
        name: "onlyonce_records_total",
        help: "What became of records.",
        kind: "counter",
        write: |series, counts| {
            for state in RecordState::ALL {
                series.count(None, Some(("state", state.as_str())), &counts.records[state as usize]);
            }
        },
    },
    RouteFamily {
        name: "onlyonce_records_unknown",
        help: "Records in the store, now, of which nobody knows whether they took effect.",
        kind: "gauge",
        write: |series, counts| series.gauge(&counts.records_unknown),
    },
    RouteFamily {
        name: "onlyonce_replay_auth_total",
        help: "Questions whether a caller may see a recorded answer.",
        kind: "counter",
        write: |series, counts| {
            let Some(answers) = counts.known_replay_auth() else { return };
            for result in ReplayAuthResult::ALL {
                series.count(Some(("result", result.as_str())), None, &answers[result as usize]);
            }
        },
    },
    RouteFamily {
        name: "onlyonce_request_duration_seconds",
        help: "From the request's head to the answer's head.",
        kind: "histogram",
        write: |series, counts| {
            for outcome in RequestOutcome::ALL {
                series.durations(Some(("outcome", outcome.as_str())), &counts.request_duration(outcome));
            }
        },
    },
    RouteFamily {
        name: "onlyonce_requests_total",
        help: "Requests by what they got.",
        kind: "counter",
        write: |series, counts| {
            for outcome in RequestOutcome::ALL {
                series.count(Some(("outcome", outcome.as_str())), None, &counts.requests[outcome as usize]);
            }
        },
    },
    RouteFamily {
        name: "onlyonce_unobserved_total",
        help: "Requests in observe mode of which nothing could be told.",
        kind: "counter",
        write: |series, counts| {
            if let Some(observed) = counts.known_observed() {
                series.count(None, None, &observed.unobserved);
            }
        },
    },
    RouteFamily {
        name: "onlyonce_upstream_duration_seconds",
        help: "Guarded attempts, from sending to the answer.",
        kind: "histogram",
        write: |series, counts| series.durations(None, &counts.upstream_duration()),
    },
    RouteFamily {
        name: "onlyonce_upstream_responses_total",
        help: "What the backend answered to guarded attempts.",
        kind: "counter",
        write: |series, counts| {
            for (class, count) in CLASSES.iter().zip(&counts.answers) {
                series.count(None, Some(("status", class)), count);
            }
        },
    },
    RouteFamily {
        name: "onlyonce_waiting",
        help: "Repeats waiting for the first.",
        kind: "gauge",
        write: |series, counts| series.gauge(&counts.waiting),
    },
];

impl RouteFamily {
    /// Appends what this shows of `routes`: nothing at all where there is no series of it.
    pub(super) fn write(&self, out: &mut String, routes: &[(Arc<str>, Arc<RouteCounts>)]) {
        let start = out.len();
        let Self { name, help, kind, write } = self;
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        let head = out.len();
        for (route, counts) in routes {
            write(&mut Series { out, name, route, shows_zero: counts.is_introduced() }, counts);
        }
        if out.len() == head {
            out.truncate(start);
        }
    }
}

type Label<'a> = Option<(&'a str, &'a str)>;

/// The series of one route in one family. Labels are in the order of their names, as everywhere else.
struct Series<'a> {
    out: &'a mut String,
    name: &'a str,
    route: &'a str,
    /// What was counted for no route of the configuration is shown once there is something.
    shows_zero: bool,
}

impl Series<'_> {
    fn count(&mut self, before: Label<'_>, after: Label<'_>, count: &AtomicU64) {
        let count = count.load(Ordering::Relaxed);
        if count > 0 || self.shows_zero || before == Some(ALWAYS) {
            self.line("", before, after, count);
        }
    }

    fn gauge(&mut self, gauge: &AtomicI64) {
        let value = gauge.load(Ordering::Relaxed);
        if value != 0 || self.shows_zero {
            self.line("", None, None, value);
        }
    }

    fn durations(&mut self, before: Label<'_>, durations: &DurationCounts) {
        if durations.count == 0 && !self.shows_zero && before != Some(ALWAYS) {
            return;
        }
        for (count, bound) in durations.buckets.iter().zip(BOUNDS) {
            self.bucket(before, bound, *count);
        }
        self.bucket(before, "+Inf", durations.count);
        self.line("_sum", before, None, durations.seconds);
        self.line("_count", before, None, durations.count);
    }

    fn bucket(&mut self, before: Label<'_>, bound: &str, count: u64) {
        self.begin("_bucket", before, Some(("le", bound)));
        let _ = writeln!(self.out, "{count}");
    }

    fn line(&mut self, suffix: &str, before: Label<'_>, after: Label<'_>, value: impl std::fmt::Display) {
        self.begin(suffix, before, after);
        let _ = writeln!(self.out, "{value}");
    }

    fn begin(&mut self, suffix: &str, before: Label<'_>, after: Label<'_>) {
        let Self { out, name, route, .. } = self;
        out.push_str(name);
        out.push_str(suffix);
        out.push('{');
        if let Some((label, value)) = before {
            put_label(out, label, value);
            out.push(',');
        }
        put_label(out, "route", route);
        if let Some((label, value)) = after {
            out.push(',');
            put_label(out, label, value);
        }
        out.push_str("} ");
    }
}

/// Traffic that matches no route: most of it is passed on.
const ALWAYS: (&str, &str) = ("outcome", "unguarded");

fn put_label(out: &mut String, label: &str, value: &str) {
    out.push_str(label);
    out.push_str("=\"");
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// [`SECONDS`] as the `le` label has them.
const BOUNDS: [&str; SECONDS.len()] = [
    "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "25", "60",
    "120", "300", "600",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_shown_as_they_are_counted() {
        assert_eq!(SECONDS.map(|bound| bound.to_string()), BOUNDS);
    }

    #[test]
    fn families_are_in_the_order_of_their_names() {
        assert!(FAMILIES.is_sorted_by_key(|family| family.name));
    }

    #[test]
    fn a_label_cannot_end_before_its_end() {
        let mut out = String::new();
        put_label(&mut out, "route", "a\"b\\c\nd");
        assert_eq!(out, "route=\"a\\\"b\\\\c\\nd\"");
    }
}
