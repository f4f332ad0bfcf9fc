//! The embedded store's own clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds that never go backwards: not while the store is open, whatever is done to the wall clock, and not from
/// one run to the next, as far as the store has written its time down.
#[derive(Debug)]
pub(super) struct Clock {
    origin: u64,
    opened: Duration,
}

impl Clock {
    /// Goes on from the wall clock, or from `mark` if that is later.
    pub(super) fn start(mark: u64) -> Self {
        // A wall clock before 1970 is not set yet.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
        Self { origin: wall.max(mark), opened: since_boot() }
    }

    pub(super) fn now(&self) -> u64 {
        self.origin.saturating_add(since_boot().saturating_sub(self.opened).as_millis() as u64)
    }
}

/// Also counts the time that the machine is suspended.
fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
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
