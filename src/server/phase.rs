//! What a connection is doing, and since when, in one atomic each: the connection writes them, its watcher reads them.
//! Times are in milliseconds since the connection began.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionPhase {
    /// Nothing has come in yet.
    Fresh,
    /// Between two requests.
    Idle,
    /// A part of a head has come in.
    Head,
    /// A request is being answered.
    Busy,
}

/// A [`ConnectionPhase`] and its beginning. The phase takes the two lowest bits.
pub(super) struct PhaseClock(AtomicU64);

/// A time that may be absent.
#[derive(Default)]
pub(super) struct OptionalTime(AtomicU64);

impl PhaseClock {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(ConnectionPhase::Fresh.bits()))
    }

    pub(super) fn set(&self, phase: ConnectionPhase, now: u64) {
        self.0.store((now << 2) | phase.bits(), Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> ConnectionPhase {
        self.get().0
    }

    /// The phase, and its beginning.
    pub(super) fn get(&self) -> (ConnectionPhase, u64) {
        let packed = self.0.load(Ordering::Relaxed);
        (ConnectionPhase::of_bits(packed), packed >> 2)
    }
}

impl ConnectionPhase {
    const fn bits(self) -> u64 {
        match self {
            Self::Fresh => 0,
            Self::Idle => 1,
            Self::Head => 2,
            Self::Busy => 3,
        }
    }

    const fn of_bits(packed: u64) -> Self {
        match packed & 3 {
            0 => Self::Fresh,
            1 => Self::Idle,
            2 => Self::Head,
            _ => Self::Busy,
        }
    }
}

impl OptionalTime {
    pub(super) fn set(&self, now: u64) {
        self.0.store(now + 1, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<u64> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_read_as_it_was_set() {
        let clock = PhaseClock::new();
        assert_eq!(clock.get(), (ConnectionPhase::Fresh, 0));
        for (now, phase) in [
            (0, ConnectionPhase::Idle),
            (1, ConnectionPhase::Head),
            (86_400_000, ConnectionPhase::Busy),
            (u64::MAX >> 2, ConnectionPhase::Fresh),
        ] {
            clock.set(phase, now);
            assert_eq!((clock.phase(), clock.get()), (phase, (phase, now)));
        }
    }

    #[test]
    fn a_time_at_the_very_beginning_is_a_time() {
        let time = OptionalTime::default();
        assert_eq!(time.get(), None);
        time.set(0);
        assert_eq!(time.get(), Some(0));
        time.clear();
        assert_eq!(time.get(), None);
    }
}
