//! What is read is a record, or says why there is none.

use std::time::Duration;

use super::batch::EncodedRecord;
use super::condition::CurrentCondition;
use super::view::LogReadError;
use crate::record::RecordName;
use crate::record::codec::Unreadable;
use crate::record::transitions::StoredRecord;
use crate::store::format::RecordFormat;
use crate::store::{Cause, FOREVER, StoreError};

/// The record that `stored` holds at `now`, or `None` if it has expired.
pub(super) fn held(
    name: &RecordName,
    format: &RecordFormat,
    stored: &EncodedRecord,
    now: u64,
    condition: &CurrentCondition,
) -> Result<Option<StoredRecord>, StoreError> {
    let left = Duration::from_millis(stored.expires_at.saturating_sub(now));
    if left.is_zero() {
        return Ok(None);
    }
    let unreadable = |source| StoreError::Unreadable { name: name.to_string(), source };
    let record = format.decode(name, &stored.record).map_err(unreadable)?;
    let silent_for = condition.silence(record.state.phase(), silence(record.claim.terms.retention, left), now);
    Ok(Some(StoredRecord { record, silent_for }))
}

pub(super) fn silence(retention: Duration, left: Duration) -> Duration {
    retention.min(FOREVER).saturating_sub(left)
}

/// The error for a record that exists and cannot be read. It must not look like an absent record.
pub(super) fn unread(name: &RecordName, error: LogReadError) -> StoreError {
    match error {
        LogReadError::Io(error) => uncertain(error),
        LogReadError::Damaged => StoreError::Unreadable {
            name: name.to_string(),
            source: Unreadable::Damaged("the file that it lies in does not hold it any more"),
        },
    }
}

pub(super) fn uncertain(error: impl Into<Cause>) -> StoreError {
    StoreError::Uncertain(error.into())
}
