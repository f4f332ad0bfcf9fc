//! A histogram that takes no more room than its counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// From a replay from memory to the longest attempt. Each bound is at most 2.5 times the one before.
pub(super) const SECONDS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0, 600.0];

const NANOS: [u64; SECONDS.len()] = {
    let mut nanos = [0; SECONDS.len()];
    let mut at = 0;
    while at < nanos.len() {
        nanos[at] = (SECONDS[at] * 1e9) as u64;
        at += 1;
    }
    nanos
};

/// Durations, counted by [`SECONDS`].
#[derive(Debug, Default)]
pub(super) struct Durations {
    /// In each bucket alone; the last one has no bound.
    counts: [AtomicU64; SECONDS.len() + 1],
    nanos: AtomicU64,
}

/// What was counted, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct DurationCounts {
    /// How many took no longer than each bound.
    pub(super) buckets: [u64; SECONDS.len()],
    pub(super) count: u64,
    pub(super) seconds: f64,
}

impl Durations {
    pub(super) fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = NANOS.iter().position(|bound| nanos <= *bound).unwrap_or(NANOS.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> DurationCounts {
        let seconds = self.nanos.load(Ordering::Relaxed) as f64 / 1e9;
        let mut count = 0;
        let mut buckets = [0; SECONDS.len()];
        for (at, inside) in self.counts.iter().enumerate() {
            count += inside.load(Ordering::Relaxed);
            if let Some(bucket) = buckets.get_mut(at) {
                *bucket = count;
            }
        }
        DurationCounts { buckets, count, seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_from_a_millisecond_to_ten_minutes_without_gaps() {
        assert_eq!((SECONDS[0], SECONDS[SECONDS.len() - 1]), (0.001, 600.0));
        for pair in SECONDS.windows(2) {
            let step = pair[1] / pair[0];
            assert!(step > 1.0 && step <= 2.5 + 1e-9, "{pair:?}");
        }
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let durations = Durations::default();
        for bound in SECONDS {
            durations.observe(Duration::from_secs_f64(bound));
        }
        durations.observe(Duration::from_nanos(1_000_001));
        durations.observe(Duration::from_secs(601));
        let told = durations.read();
        let expected: [u64; SECONDS.len()] = std::array::from_fn(|at| at as u64 + if at == 0 { 1 } else { 2 });
        assert_eq!((told.buckets, told.count), (expected, SECONDS.len() as u64 + 2));
        assert!((told.seconds - SECONDS.iter().sum::<f64>() - 601.001).abs() < 1e-3, "{}", told.seconds);
    }
}
