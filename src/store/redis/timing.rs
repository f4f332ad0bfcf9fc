//! How long things may take, and how long is waited before they are tried again.

use std::time::Duration;

/// Opening the connection that listens, and each of its commands.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A server that is merely late must not count as out of reach: five round trips of a second each.
const LEAST_CONNECT: Duration = Duration::from_secs(5);
const LONGEST_CONNECT: Duration = Duration::from_secs(15);

/// How long opening a connection and finding out about the server may take, and each ping, where a call may take
/// `timeout`: a few round trips, one after the other.
pub(super) fn connect_timeout(timeout: Duration) -> Duration {
    (timeout * 10).clamp(LEAST_CONNECT, LONGEST_CONNECT)
}

pub(super) const FIRST_DELAY: Duration = Duration::from_millis(20);
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// One late answer may be the network's fault; this many are the connection's.
pub(super) const TIMEOUTS: u32 = 3;

/// Between half and all of it, so that sidecars which lost the same server do not come back in step.
pub(super) fn jittered(delay: Duration) -> Duration {
    let mut random = [0; 1];
    // Without randomness there is no jitter, and nothing worse.
    let _ = getrandom::fill(&mut random);
    delay / 2 + delay / 2 * u32::from(random[0]) / 255
}

/// For what is kept in an atomic number.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
