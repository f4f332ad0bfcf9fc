//! Time limits, and pauses between attempts.

use std::time::Duration;

/// The limit for opening the connection that listens, and for each of its commands.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A slow server must not count as out of reach: this allows five round trips of one second each.
const LEAST_CONNECT: Duration = Duration::from_secs(5);
const LONGEST_CONNECT: Duration = Duration::from_secs(15);

/// The time limit for a connect with the examination, and for each ping. It covers a few successive round trips. `timeout` is
/// the time limit of a call.
pub(super) fn connect_timeout(timeout: Duration) -> Duration {
    (timeout * 10).clamp(LEAST_CONNECT, LONGEST_CONNECT)
}

pub(super) const FIRST_DELAY: Duration = Duration::from_millis(20);
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// One late reply may be the network's fault. After this many, the connection is at fault.
pub(super) const TIMEOUTS: u32 = 3;

/// A random time between half of `delay` and all of it. So sidecars that lost the same server do not return at the same
/// time.
pub(super) fn jittered(delay: Duration) -> Duration {
    let mut random = [0; 1];
    // Without random bytes, there is no jitter. That is the only effect.
    let _ = getrandom::fill(&mut random);
    delay / 2 + delay / 2 * u32::from(random[0]) / 255
}
