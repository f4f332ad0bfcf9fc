//! Lists of records. A cursor is a segment and an offset in it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::condition::CurrentCondition;
use super::frame::FrameHead;
use super::read::silence;
use super::view::{LogReadError, View, Walk};
use crate::record::codec;
use crate::record::transitions::RecordSnapshot;
use crate::store::{Cursor, ListError, ListQuery, ListedRecord, Page};

/// The segment and the offset in it that a cursor names.
pub(super) fn place_of(Cursor(cursor): &Cursor) -> Result<(u64, u64), ListError> {
    let place = cursor.split_once('.').and_then(|(segment, at)| Some((segment.parse().ok()?, at.parse().ok()?)));
    place.ok_or(ListError::BadCursor)
}

/// The records after a place, from the first one without it.
pub(super) fn page(
    view: &View,
    condition: &CurrentCondition,
    listing: &ListQuery,
    after: Option<(u64, u64)>,
    now: u64,
    until: Instant,
) -> Result<Page, LogReadError> {
    let mut records = Vec::new();
    let list = |head: &FrameHead, start: &[u8]| {
        let left = Duration::from_millis(head.expires_at.saturating_sub(now));
        if let Some(name) =
            head.name.as_ref().filter(|name| listing.route.as_ref().is_none_or(|route| *route == name.route))
            && !left.is_zero()
        {
            let seen = codec::summarise(&Bytes::copy_from_slice(start)).map(|summary| {
                let silent_for = condition.silence(summary.phase, silence(summary.claim.terms.retention, left), now);
                RecordSnapshot { summary, silent_for }
            });
            records.push(ListedRecord { name: name.clone(), seen });
        }
        if records.len() >= listing.limit { Walk::Stop } else { Walk::Continue }
    };
    let next = view.walk(after.unwrap_or((0, 0)), codec::LISTED, list, || Instant::now() > until)?;
    Ok(Page { records, next: next.map(|(segment, place)| Cursor(format!("{segment}.{place}"))) })
}
