use std::time::Duration;

use super::super::units::{HumanDuration, HumanSize};
use super::report::Report;
use super::setting::Setting;

/// Checks that compare two keys.
pub(super) struct Order<'a> {
    pub(super) report: &'a Report<'a>,
}

impl Order<'_> {
    /// `short` may not be longer than `long`, and `why` not.
    pub(super) fn durations(&self, long: (&str, &Setting<Duration>), short: (&str, &Setting<Duration>), why: &str) {
        self.check(long, short, "longer", |duration| HumanDuration(*duration).to_string(), why);
    }

    /// `small` may not be larger than `large`.
    pub(super) fn sizes(&self, large: (&str, &Setting<u64>), small: (&str, &Setting<u64>)) {
        let why = "there must be room for at least one body";
        self.check(large, small, "larger", |size| HumanSize(*size).to_string(), why);
    }

    /// Reports `lower` where it is given, else `upper`, and says where the other one comes from.
    fn check<T: PartialOrd>(
        &self,
        (upper_name, upper): (&str, &Setting<T>),
        (lower_name, lower): (&str, &Setting<T>),
        more: &str,
        show: impl Fn(&T) -> String,
        why: &str,
    ) {
        let (Some(most), Some(value)) = (upper.get(), lower.get()) else { return };
        if value <= most {
            return;
        }
        let (most, value) = (show(most), show(value));
        let (span, lower_origin, upper_origin) = match lower.span() {
            Some(span) => (Some(span), String::new(), format!(", {}", self.report.origin(upper))),
            None => (upper.span(), format!(", {}", self.report.origin(lower)), String::new()),
        };
        self.report.add(
            span,
            format!("{lower_name} ({value}{lower_origin}) is {more} than {upper_name} ({most}{upper_origin})"),
            format!("{why}: {lower_name} = \"{most}\" at most, or {upper_name} = \"{value}\" at least"),
        );
    }
}
