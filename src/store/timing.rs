//! Time limits and pauses of connections to servers.

use std::time::Duration;

/// A slow server must not count as out of reach: this allows five round trips of one second each.
const LEAST_CONNECT: Duration = Duration::from_secs(5);
pub(in crate::store) const LONGEST_CONNECT: Duration = Duration::from_secs(15);

/// The time limit for a connect with the examination, and for each ping. It covers a few successive round trips. `timeout` is
/// the time limit of a call.
pub(in crate::store) fn connect_timeout(timeout: Duration) -> Duration {
    (timeout * 10).clamp(LEAST_CONNECT, LONGEST_CONNECT)
}

/// Between two attempts to connect: the first pause, and the longest.
pub(in crate::store) const FIRST_DELAY: Duration = Duration::from_millis(20);
pub(in crate::store) const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// A random time between half of `delay` and all of it. So sidecars that lost the same server do not return at the same
/// time.
pub(in crate::store) fn jittered(delay: Duration) -> Duration {
    let mut random = [0; 1];
    // Without random bytes, there is no jitter. That is the only effect.
    let _ = getrandom::fill(&mut random);
    delay / 2 + delay / 2 * u32::from(random[0]) / 255
}
