//! Durations and sizes as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A duration that reads `"250ms"`, `"30s"`, `"10m"`, `"24h"` or `"3d"`, and writes the shortest exact form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

/// A number of bytes that reads `"512B"`, `"64KiB"`, `"1MiB"` or `"2GiB"`, and writes the shortest exact form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanSize(pub u64);

/// Why a text is not a duration, or not a size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    /// There is no number.
    #[error("it does not begin with a number")]
    NoNumber,
    /// `"1.5h"`
    #[error("the number must be a whole one")]
    NotWhole,
    /// `"30"`
    #[error("it has no unit")]
    NoUnit,
    /// `"30sec"`
    #[error("\"{0}\" is not a unit here")]
    UnknownUnit(String),
    /// Larger than clocks and counters can represent.
    #[error("it is too large")]
    TooLarge,
}

/// Unit and its milliseconds, from long to short.
pub const DURATIONS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Unit and its bytes, from large to small.
pub const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Ten years. Adding it to a clock cannot overflow.
const LONGEST: u64 = 3_650 * 86_400_000;

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let millis = read(text, &DURATIONS)?;
        if millis > LONGEST { Err(UnitError::TooLarge) } else { Ok(Self(Duration::from_millis(millis))) }
    }
}

impl FromStr for HumanSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        read(text, &SIZES).map(Self)
    }
}

fn read(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() {
        return Err(UnitError::NoNumber);
    }
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    if unit.starts_with(['.', ',', '_']) {
        return Err(UnitError::NotWhole);
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::UnknownUnit(unit.to_owned()));
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or(UnitError::TooLarge)
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u64::try_from(self.0.as_millis()) {
            Ok(0) if self.0.is_zero() => f.write_str("0s"),
            Ok(millis) if self.0 == Duration::from_millis(millis) => write(f, millis, &DURATIONS),
            // A measured time, finer than a millisecond.
            _ => write!(f, "{:?}", self.0),
        }
    }
}

impl fmt::Display for HumanSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("0B") } else { write(f, self.0, &SIZES) }
    }
}

fn write(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)]) -> fmt::Result {
    match units.iter().find(|(_, factor)| amount.is_multiple_of(*factor)) {
        Some((unit, factor)) => write!(f, "{}{unit}", amount / factor),
        None => write!(f, "{amount}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> Result<u128, UnitError> {
        text.parse::<HumanDuration>().map(|duration| duration.0.as_millis())
    }

    fn bytes(text: &str) -> Result<u64, UnitError> {
        text.parse::<HumanSize>().map(|size| size.0)
    }

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("30s"), Ok(30_000));
        assert_eq!(millis("10m"), Ok(600_000));
        assert_eq!(millis("24h"), millis("1d"));
        assert_eq!(millis("0s"), Ok(0));
    }

    #[test]
    fn sizes_are_a_whole_number_and_a_unit() {
        assert_eq!(bytes("512B"), Ok(512));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("1MiB"), Ok(1_048_576));
        assert_eq!(bytes("2GiB"), Ok(2_147_483_648));
    }

    #[test]
    fn a_failure_says_why() {
        assert_eq!(millis(""), Err(UnitError::NoNumber));
        assert_eq!(millis("-1s"), Err(UnitError::NoNumber));
        assert_eq!(millis("30"), Err(UnitError::NoUnit));
        assert_eq!(millis("1.5h"), Err(UnitError::NotWhole));
        assert_eq!(millis("30 s"), Err(UnitError::UnknownUnit(" s".into())));
        assert_eq!(millis("1h30m"), Err(UnitError::UnknownUnit("h30m".into())));
        assert_eq!(millis("3651d"), Err(UnitError::TooLarge));
        assert_eq!(millis("99999999999999999999999s"), Err(UnitError::TooLarge));
        assert_eq!(bytes("1MB"), Err(UnitError::UnknownUnit("MB".into())));
        assert_eq!(bytes("99999999999GiB"), Err(UnitError::TooLarge));
    }

    #[test]
    fn the_shortest_exact_form_is_written() {
        let shown = |text: &str| text.parse::<HumanDuration>().map(|duration| duration.to_string());
        assert_eq!(shown("72h"), Ok("3d".into()));
        assert_eq!(shown("90s"), Ok("90s".into()));
        assert_eq!(shown("1500ms"), Ok("1500ms".into()));
        assert_eq!(shown("0ms"), Ok("0s".into()));
        assert_eq!(HumanDuration(Duration::from_micros(1500)).to_string(), "1.5ms");
        assert_eq!(HumanDuration(Duration::from_nanos(7)).to_string(), "7ns");
        assert_eq!(HumanSize(1024 * 1024).to_string(), "1MiB");
        assert_eq!(HumanSize(1025).to_string(), "1025B");
        assert_eq!(HumanSize(0).to_string(), "0B");
    }
}
