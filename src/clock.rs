//! The clocks, and what each is used for.
//!
//! | clock | read with | for |
//! |---|---|---|
//! | of timers | [`tokio::time::Instant::now`] | durations and deadlines inside one process; tests can stop it |
//! | since boot | [`since_boot`] | how old a lease is: it also counts the time that the machine is suspended |
//! | of the processor | [`of_this_thread`] | how much one piece of work may be |
//! | of the wall | [`wall`], [`unix_millis`] | what people read, and dates in keys; it may jump |
//!
//! No decision about a record depends on the wall clock or on the clock of another machine. `clippy.toml` forbids
//! `std::time::Instant::now` and `SystemTime::now` everywhere else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use std::cell::Cell;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// The time since boot, including the time for which the machine was suspended.
///
/// After a suspend or a pause of the virtual machine, a lease must not look younger than it is. On systems other than
/// Linux this is `CLOCK_MONOTONIC`, which counts suspended time on macOS, and may not elsewhere.
pub fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    #[expect(clippy::disallowed_methods, reason = "this is where it is read")]
    let now = clock_gettime(CLOCK);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// The processor time of this thread: a measure of work that does not depend on the load of the machine.
pub fn of_this_thread() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "this is where it is read")]
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "this is where the wall clock is read")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The time of day in milliseconds since 1970. 0 if the clock is set to a time before that.
pub fn unix_millis() -> u64 {
    let since = wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    millis(since)
}

/// Whole milliseconds, for atomic variables and records.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

thread_local! {
    /// When the runtime of this thread last asked the operating system what has happened.
    static EVENTS_READ: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// What was asked longer ago is asked again. A request takes about as long from here to the backend.
const RECENT: Duration = Duration::from_micros(100);

/// The runtime of this thread has just asked the operating system what has happened.
pub fn note_events_read() {
    EVENTS_READ.set(Some(Instant::now()));
}

/// Whether the runtime of this thread has asked the operating system since then, and that only just: all that happened
/// to a socket is known. Where nobody notes it, nothing is.
pub fn has_read_events_since(moment: Instant) -> bool {
    EVENTS_READ.get().is_some_and(|read| read > moment && read.elapsed() < RECENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_known_only_just_after_they_were_read() {
        let before = Instant::now();
        assert!(!has_read_events_since(before), "nobody has noted it");
        std::thread::sleep(Duration::from_millis(1));
        // A thread may be stopped between any two lines for as long as it takes.
        let known = (0..1000).any(|_| {
            note_events_read();
            has_read_events_since(before)
        });
        assert!(known);
        assert!(!has_read_events_since(Instant::now()), "the events before that were read");
        std::thread::sleep(RECENT);
        assert!(!has_read_events_since(before), "more may have happened since");
    }

    #[test]
    fn the_clock_since_boot_goes_forward() {
        let before = since_boot();
        std::thread::sleep(Duration::from_millis(2));
        assert!(since_boot() >= before + Duration::from_millis(2));
    }

    #[test]
    fn the_wall_clock_is_after_this_was_written() {
        assert!(unix_millis() > 1_795_262_400_000);
    }
}
