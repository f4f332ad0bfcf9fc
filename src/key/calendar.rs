use std::time::SystemTime;

use crate::rule::Period;

/// The day, month or year of a time, in UTC: `2026-11-21`, `2026-11`, `2026`. `None` outside of the years 1970 to 9999.
pub(super) fn bucket(period: Period, now: SystemTime) -> Option<String> {
    let is_known = now.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since.as_secs() < YEAR_10000);
    let mut date = is_known.then(|| humantime::format_rfc3339_seconds(now).to_string())?;
    date.truncate(match period {
        Period::Day => "2026-11-21".len(),
        Period::Month => "2026-11".len(),
        Period::Year => "2026".len(),
    });
    Some(date)
}

/// 9999-12-31T23:59:59Z is the last second before.
const YEAR_10000: u64 = 253_402_300_800;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn buckets_begin_at_midnight_utc() {
        use Period::{Day, Month, Year};
        let at = |text: &str| humantime::parse_rfc3339(text).expect("a time");
        for (time, period, expected) in [
            ("2026-11-21T00:00:00Z", Day, "2026-11-21"),
            ("2026-11-21T23:59:59.999Z", Day, "2026-11-21"),
            ("2026-11-22T00:00:00Z", Day, "2026-11-22"),
            ("2024-02-29T12:00:00Z", Day, "2024-02-29"),
            ("2026-01-31T23:59:59Z", Month, "2026-01"),
            ("2026-02-01T00:00:00Z", Month, "2026-02"),
            ("2025-12-31T23:59:59Z", Year, "2025"),
            ("2026-01-01T00:00:00Z", Year, "2026"),
            ("1970-01-01T00:00:00Z", Year, "1970"),
            ("9999-12-31T23:59:59Z", Day, "9999-12-31"),
        ] {
            assert_eq!(bucket(period, at(time)).as_deref(), Some(expected), "{time}");
        }
    }

    #[test]
    fn a_clock_that_stands_nowhere_names_no_bucket() {
        assert_eq!(bucket(Period::Day, SystemTime::UNIX_EPOCH - Duration::from_secs(1)), None);
        assert_eq!(bucket(Period::Day, SystemTime::UNIX_EPOCH + Duration::from_secs(YEAR_10000)), None);
    }
}
