//! Since when a server can be used without a break.
//!
//! An owner cannot renew while the server is away, and a promoted replica may lack its last renewals or have a clock that
//! is ahead. So the silence of an owner counts from the end of the last break: for a whole lease after it, no owner is
//! treated as lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::FOREVER;
use super::store_state::millis;
use crate::clock::since_boot;
use crate::record::Phase;

/// The end of the last break: milliseconds of [`since_boot`], or 0 if there was none.
#[derive(Default)]
pub(in crate::store) struct UsableSince(AtomicU64);

impl UsableSince {
    /// Notes that a break ends now, or has not ended yet.
    pub(in crate::store) fn note_break(&self) {
        self.0.store(millis(since_boot()).max(1), Ordering::Relaxed);
    }

    /// How long an owner has been silent, by the remaining time to live of its record. A record that is not in flight is
    /// not renewed: it is as old as it looks.
    pub(in crate::store) fn silence(&self, phase: Phase, retention: Duration, left: Option<Duration>) -> Duration {
        let silence = left.map_or(Duration::ZERO, |left| retention.min(FOREVER).saturating_sub(left));
        match phase {
            Phase::InFlight => silence.min(self.elapsed()),
            Phase::Completed | Phase::Unreplayable | Phase::Unknown => silence,
        }
    }

    /// In milliseconds of [`since_boot`]. It identifies the time without a break.
    pub(in crate::store) fn millis(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        match self.millis() {
            0 => Duration::MAX,
            since => Duration::from_millis(millis(since_boot()).saturating_sub(since)),
        }
    }
}
