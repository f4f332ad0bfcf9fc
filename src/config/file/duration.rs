//! Durations of keys.

use std::time::Duration;

use super::item::Item;

const MILLISECOND: Duration = Duration::from_millis(1);

pub(super) fn above_zero(item: &Item<'_>) -> Option<Duration> {
    item.duration(MILLISECOND)
}

pub(super) fn from_zero(item: &Item<'_>) -> Option<Duration> {
    item.duration(Duration::ZERO)
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
