//! Since when a server can be used without a break.
//!
//! An owner cannot renew while the server is away, and a promoted replica may lack its last renewals or have a clock that
//! is ahead. So the silence of an owner counts from the end of the last break: for a whole lease after it, no owner is
//! treated as lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::FOREVER;
use crate::clock::{millis, since_boot};
use crate::record::{Phase, Terms};

/// Times are milliseconds of [`since_boot`].
#[derive(Default)]
pub(in crate::store) struct UsableSince {
    /// The end of the last break, or 0 if there was none.
    broken: AtomicU64,
    /// When owners could certainly renew, or 0 where nobody finds that out. Silence after it does not count yet.
    confirmed: AtomicU64,
}

impl UsableSince {
    /// One that is confirmed from time to time. Nobody is silent before the first time.
    pub(in crate::store) fn confirmed_repeatedly() -> Self {
        Self { broken: AtomicU64::new(0), confirmed: AtomicU64::new(1) }
    }

    /// Notes that a break ends now, or has not ended yet.
    pub(in crate::store) fn note_break(&self) {
        self.broken.store(now(), Ordering::Relaxed);
    }

    /// Notes that owners can renew now. A break before it is noted first.
    pub(in crate::store) fn confirm(&self) {
        // Whoever reads this reads that break.
        self.confirmed.store(now(), Ordering::Release);
    }

    /// How long an owner has been silent, by the remaining time to live of its record. A record that is not in flight is
    /// not renewed: it is as old as it looks.
    pub(in crate::store) fn silence(&self, phase: Phase, retention: Duration, left: Option<Duration>) -> Duration {
        let silence = left.map_or(Duration::ZERO, |left| retention.min(FOREVER).saturating_sub(left));
        match phase {
            Phase::InFlight => silence.min(since(self.millis()).unwrap_or(Duration::MAX)),
            Phase::Completed | Phase::Unreplayable | Phase::Unknown => silence,
        }
    }

    /// The part of the silence that counts: up to the last confirmation. Less than a lease proves nothing in any case.
    pub(in crate::store) fn confirmed_silence(&self, phase: Phase, terms: &Terms, left: Duration) -> Duration {
        // This is read first, so that a break which ended before it is seen.
        let confirmed = self.confirmed.load(Ordering::Acquire);
        let silence = self.silence(phase, terms.retention, Some(left));
        match phase {
            Phase::InFlight if silence >= terms.lease => {
                silence.saturating_sub(since(confirmed).unwrap_or(Duration::ZERO))
            }
            Phase::InFlight | Phase::Completed | Phase::Unreplayable | Phase::Unknown => silence,
        }
    }

    /// The end of the last break. It identifies the time without a break.
    pub(in crate::store) fn millis(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }
}

/// In milliseconds of [`since_boot`], and not 0.
fn now() -> u64 {
    millis(since_boot()).max(1)
}

/// The time since then, if it is not 0.
fn since(then: u64) -> Option<Duration> {
    (then > 0).then(|| Duration::from_millis(millis(since_boot()).saturating_sub(then)))
}
