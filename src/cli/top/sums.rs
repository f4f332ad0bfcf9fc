//! What the requests of the last hour got, in sums.

use crate::admin::status::RouteStatus;

/// Requests of the last hour, by what they got.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) ran: u64,
    pub(super) replayed: u64,
    pub(super) held: u64,
    pub(super) refused: u64,
    pub(super) trouble: u64,
    pub(super) passed: u64,
}

impl Sums {
    /// As the status page groups them.
    pub(super) fn of(routes: &[RouteStatus]) -> Self {
        let mut sums = Self::default();
        for (outcome, counts) in routes.iter().flat_map(|route| &route.outcomes) {
            let of = match outcome.as_str() {
                "executed" => &mut sums.ran,
                "replayed" => &mut sums.replayed,
                "in_flight" | "key_reused" | "unknown" | "unreplayable" => &mut sums.held,
                "store_unavailable" | "record_unreadable" | "overloaded" | "upstream_error" => &mut sums.trouble,
                "unguarded" => &mut sums.passed,
                _ => &mut sums.refused,
            };
            *of += counts.iter().sum::<u64>();
        }
        sums
    }

    pub(super) fn all(&self) -> u64 {
        self.ran + self.replayed + self.held + self.refused + self.trouble + self.passed
    }

    pub(super) fn in_words(&self) -> String {
        let counts = [
            (self.ran, "ran"),
            (self.replayed, "replayed"),
            (self.held, "held back"),
            (self.refused, "refused"),
            (self.trouble, "in trouble"),
            (self.passed, "passed"),
        ];
        let counts = counts.map(|(count, what)| format!("{} {what}", compact(count)));
        counts.join(", ")
    }
}

/// At most six characters.
pub(super) fn compact(count: u64) -> String {
    match count {
        0..1_000_000 => count.to_string(),
        1_000_000..100_000_000 => format!("{}.{}M", count / 1_000_000, count / 100_000 % 10),
        100_000_000..1_000_000_000_000 => format!("{}M", count / 1_000_000),
        _ => "many".to_owned(),
    }
}
