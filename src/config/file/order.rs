use std::time::Duration;

use super::report::FileReport;
use super::setting::Setting;
use crate::units::HumanDuration;

impl FileReport<'_> {
    /// Reports `short` if it is longer than `long`. The problem is placed at `short` where it is given, else at `long`, and
    /// names the source of the other. `why`: the reason for the limit.
    pub(super) fn ordered(
        &self,
        (long_name, long): (&str, &Setting<Duration>),
        (short_name, short): (&str, &Setting<Duration>),
        why: &str,
    ) {
        let (Some(most), Some(value)) = (long.get(), short.get()) else { return };
        if value <= most {
            return;
        }
        let (most, value) = (HumanDuration(*most), HumanDuration(*value));
        let (span, short_origin, long_origin) = match short.span() {
            Some(span) => (Some(span), String::new(), format!(", {}", self.origin(long))),
            None => (long.span(), format!(", {}", self.origin(short)), String::new()),
        };
        self.add(
            span,
            format!("{short_name} ({value}{short_origin}) is longer than {long_name} ({most}{long_origin})"),
            format!("{why}: {short_name} = \"{most}\" at most, or {long_name} = \"{value}\" at least"),
        );
    }
}
