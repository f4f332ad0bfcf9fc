//! Times for display.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::clock::{self, millis};
use crate::units::HumanDuration;

/// A time of a wall clock, written as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Since the Unix epoch.
    pub millis: u64,
}

/// A text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no time: write it as 2026-11-21T19:30:00Z, or as a duration ago, as 2h or 3d")]
pub struct InvalidTimestamp(String);

impl Timestamp {
    /// By this machine's clock.
    pub fn now() -> Self {
        Self { millis: clock::unix_millis() }
    }

    /// RFC 3339, or a duration before `self`.
    pub fn at_or_ago(self, text: &str) -> Result<Self, InvalidTimestamp> {
        match text.parse::<HumanDuration>() {
            Ok(HumanDuration(ago)) => Ok(self.before(ago)),
            Err(_) => rfc3339(text).ok_or_else(|| InvalidTimestamp(text.to_owned())),
        }
    }

    /// This time minus a duration.
    pub fn before(self, span: Duration) -> Self {
        Self { millis: self.millis.saturating_sub(millis(span)) }
    }

    /// This time plus a duration.
    pub fn after(self, span: Duration) -> Self {
        Self { millis: self.millis.saturating_add(millis(span)) }
    }

    /// How long ago `earlier` was, or zero.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.millis.saturating_sub(earlier.millis))
    }
}

/// Accepts offsets (RFC 3339, 4.2), which the library does not read.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let upper = text.to_ascii_uppercase();
    let (local, offset) = match upper.strip_suffix('Z') {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = upper.split_at_checked(upper.len().checked_sub(6)?)?;
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
            let sign = match offset.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            (local, sign * (hours * 60 + minutes) * 60_000)
        }
    };
    let utc = humantime::parse_rfc3339(&format!("{local}Z")).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp { millis: millis(utc).checked_add_signed(-offset)? })
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The library supports only years of four digits.
        let at_most = Duration::from_millis(self.millis.min(253_402_300_799_999));
        write!(f, "{}", humantime::format_rfc3339_millis(UNIX_EPOCH + at_most))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        rfc3339(&text).ok_or_else(|| de::Error::custom(InvalidTimestamp(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp { millis: 1_795_262_400_000 };

    #[test]
    fn times_are_read_as_they_are_written() {
        assert_eq!(NOON.to_string(), "2026-11-21T12:00:00.000Z");
        for text in [
            "2026-11-21T12:00:00.000Z",
            "2026-11-21T12:00:00Z",
            "2026-11-21t12:00:00z",
            "2026-11-21T14:00:00+02:00",
            "2026-11-21T06:30:00-05:30",
        ] {
            assert_eq!(NOON.at_or_ago(text), Ok(NOON), "{text}");
        }
        assert_eq!(NOON.at_or_ago("2h"), Ok(NOON.before(Duration::from_secs(7200))));
        assert_eq!(Timestamp { millis: u64::MAX }.to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_is_no_time_is_said_to_be_none() {
        for text in
            ["", "yesterday", "2026-11-21", "2026-11-21T12:00:00", "2026-11-21T12:00:00+0200", "🙂🙂", "12:00+02:00"]
        {
            let error = NOON.at_or_ago(text).expect_err(text);
            assert!(error.to_string().contains("2h or 3d"), "{error}");
        }
    }
}
