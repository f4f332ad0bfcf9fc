//! How much of a segment is live, and for how long, without reading the segment.

use std::collections::BTreeMap;

use super::frame::FrameKind;

/// About four minutes. Records that expire within one span are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExpirySpan(pub(super) u64);

impl ExpirySpan {
    fn of(time: u64) -> Self {
        Self(time >> 18)
    }
}

/// The bytes and the number of the newest versions of records, by the time at which they expire. Replaced versions are
/// subtracted. After a crash the figures may be wrong by the last writes. Only the lengths of segments, the order in
/// which they are copied, and the number of records in the log line at the start depend on them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Usage {
    by_span: BTreeMap<ExpirySpan, Used>,
    total: Used,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Used {
    bytes: u64,
    records: u64,
}

impl Usage {
    pub(super) fn bytes(&self) -> u64 {
        self.total.bytes
    }

    pub(super) fn records(&self) -> u64 {
        self.total.records
    }

    pub(super) fn add(&mut self, kind: FrameKind, expires_at: u64, bytes: u64) {
        self.restore(ExpirySpan::of(expires_at), bytes, records_in(kind));
    }

    pub(super) fn subtract(&mut self, kind: FrameKind, expires_at: u64, bytes: u64) {
        if let Some(used) = self.by_span.get_mut(&ExpirySpan::of(expires_at)) {
            let gone = Used { bytes: bytes.min(used.bytes), records: records_in(kind).min(used.records) };
            used.take(gone);
            self.total.take(gone);
        }
    }

    /// Subtracts the records that have expired.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some(first) = self.by_span.first_entry().filter(|first| *first.key() < ExpirySpan::of(now)) {
            self.total.take(first.remove());
        }
    }

    pub(super) fn spans(&self) -> impl ExactSizeIterator<Item = (ExpirySpan, u64, u64)> {
        self.by_span.iter().map(|(span, used)| (*span, used.bytes, used.records))
    }

    pub(super) fn restore(&mut self, span: ExpirySpan, bytes: u64, records: u64) {
        for used in [self.by_span.entry(span).or_default(), &mut self.total] {
            used.bytes = used.bytes.saturating_add(bytes);
            used.records = used.records.saturating_add(records);
        }
    }
}

/// The chunks of a large answer have bytes, and are no records.
fn records_in(kind: FrameKind) -> u64 {
    u64::from(kind == FrameKind::Record)
}

impl Used {
    fn take(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.records = self.records.saturating_sub(other.records);
    }
}

#[cfg(test)]
mod tests {
    use super::FrameKind::{Chunk, Record};
    use super::*;

    #[test]
    fn what_expires_or_is_written_over_counts_no_more() {
        let mut usage = Usage::default();
        usage.add(Record, 1_000_000, 100);
        usage.add(Record, 9_000_000, 10);
        usage.add(Record, 9_000_000, 10);
        assert_eq!((usage.bytes(), usage.records()), (120, 3));
        usage.subtract(Record, 9_000_000, 10);
        assert_eq!((usage.bytes(), usage.records()), (110, 2));
        usage.expire(5_000_000);
        assert_eq!((usage.bytes(), usage.records()), (10, 1));
        usage.add(Chunk, 9_000_000, 70);
        assert_eq!((usage.bytes(), usage.records()), (80, 1));
        usage.subtract(Chunk, 9_000_000, 70);
        assert_eq!((usage.bytes(), usage.records()), (10, 1));
        // Records that were not added are not subtracted.
        usage.subtract(Record, 1_000_000, 100);
        usage.subtract(Record, 9_000_000, 1000);
        assert_eq!((usage.bytes(), usage.records()), (0, 0));
    }
}
