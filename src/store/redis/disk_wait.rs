//! How long writes wait until they are on disk, and whether calls wait for as long: `store.fsync_acks`.

use std::fmt;
use std::time::Duration;

/// How long a write waits until it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DiskWait {
    /// `appendfsync always`.
    AtOnce,
    /// `appendfsync everysec`.
    Second,
    /// The same, and a call does not wait for so long.
    LongSecond,
    /// Another value of `appendfsync`, which leaves it to the operating system.
    Endless(String),
    /// The server does not tell its `appendfsync` to this user.
    Unknown {
        /// Whether a call waits for a second.
        is_patient: bool,
    },
}

/// With `appendfsync everysec`, a write is on disk after a second, the pause of the server's timer, and the fsync itself.
/// A call waits for a quarter of `store.timeout` at a time.
const PATIENT: Duration = Duration::from_secs(8);

impl DiskWait {
    /// By `appendfsync`, if the server tells it, and the time limit of a call.
    pub(super) fn of(append_fsync: Option<&str>, timeout: Duration) -> Self {
        let is_patient = timeout >= PATIENT;
        match append_fsync {
            Some("always") => Self::AtOnce,
            Some("everysec") if is_patient => Self::Second,
            Some("everysec") => Self::LongSecond,
            Some(other) => Self::Endless(other.to_owned()),
            None => Self::Unknown { is_patient },
        }
    }

    /// Whether claims are refused because of it.
    pub(super) fn is_too_long(&self) -> bool {
        match self {
            Self::LongSecond | Self::Endless(_) => true,
            Self::AtOnce | Self::Second | Self::Unknown { .. } => false,
        }
    }
}

/// For operators.
impl fmt::Display for DiskWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WAITS: &str = "claims wait until they are on disk (WAITAOF)";
        let longer = format_args!("store.timeout to {}s or more", PATIENT.as_secs());
        match self {
            Self::AtOnce => write!(f, "{WAITS}: at once, as appendfsync is always"),
            Self::Second => write!(f, "{WAITS}: up to a second, as appendfsync is everysec"),
            Self::LongSecond => write!(
                f,
                "{WAITS}: up to a second, as appendfsync is everysec. Where they get 503, set it to always, or {longer}"
            ),
            Self::Endless(other) => {
                write!(f, "never, so that claims get 503: appendfsync is {other}. Set it to always")
            }
            Self::Unknown { is_patient: true } => {
                write!(f, "{WAITS}; appendfsync is not told to this user (it needs CONFIG GET)")
            }
            Self::Unknown { is_patient: false } => {
                write!(f, "{WAITS}; appendfsync is not told to this user: make sure that it is always, or set {longer}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_slow_for_a_call_is_warned_of() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(8));
        for (append_fsync, timeout, is_too_long, text) in [
            (Some("always"), short, false, "at once, as appendfsync is always"),
            (Some("everysec"), short, true, "store.timeout to 8s or more"),
            (Some("everysec"), long, false, "up to a second, as appendfsync is everysec"),
            (Some("no"), long, true, "appendfsync is no. Set it to always"),
            (None, short, false, "make sure that it is always, or set store.timeout to 8s or more"),
            (None, long, false, "(it needs CONFIG GET)"),
        ] {
            let wait = DiskWait::of(append_fsync, timeout);
            assert_eq!(wait.is_too_long(), is_too_long, "{wait}");
            assert!(wait.to_string().ends_with(text), "{wait}");
        }
    }
}
