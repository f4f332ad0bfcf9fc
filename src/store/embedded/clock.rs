//! The embedded store's own clock.

use std::time::Duration;

use crate::clock;

/// Milliseconds that never go backwards. While the store is open, changes of the wall clock have no effect. From one
/// run to the next, the time that the store has written is the lower limit.
#[derive(Debug)]
pub(super) struct Clock {
    origin: u64,
    opened: Duration,
    /// How far a test has moved the clock ahead.
    #[cfg(test)]
    ahead: std::sync::atomic::AtomicU64,
}

impl Clock {
    /// Starts at the wall clock, or at `mark` if that is later.
    pub(super) fn start(mark: u64) -> Self {
        Self {
            origin: clock::unix_millis().max(mark),
            opened: clock::since_boot(),
            #[cfg(test)]
            ahead: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// A clock that only a test moves.
    #[cfg(test)]
    pub(super) fn stopped(origin: u64) -> Self {
        Self { origin, opened: Duration::MAX, ahead: std::sync::atomic::AtomicU64::new(0) }
    }

    pub(super) fn now(&self) -> u64 {
        let now = self.origin.saturating_add(clock::since_boot().saturating_sub(self.opened).as_millis() as u64);
        #[cfg(test)]
        let now = now + self.ahead.load(std::sync::atomic::Ordering::Relaxed);
        now
    }

    #[cfg(test)]
    pub(super) fn advance(&self, by: Duration) {
        self.ahead.fetch_add(by.as_millis() as u64, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_the_later_of_wall_clock_and_mark() {
        let ahead = Clock::start(0).now() + 1_000_000;
        let clock = Clock::start(ahead);
        let first = clock.now();
        assert!(first >= ahead);
        std::thread::sleep(Duration::from_millis(20));
        assert!(clock.now() >= first + 20);
    }
}
