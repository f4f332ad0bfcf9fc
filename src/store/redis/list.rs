//! Lists of records, out of a server that may hold much else.
//!
//! `SCAN` goes through all names there are, a bounded number of them for each page. Only the first bytes of
//! each record are read: what it would replay stays where it is.

use tokio::time::Instant;

use super::Redis;
use super::commands::{CommandError, HeadWithTtl};
use super::hot::RecordKey;
use crate::record::RecordName;
use crate::record::codec::{self, Unreadable};
use crate::record::transitions::RecordSnapshot;
use crate::store::{Cursor, ListQuery, ListedRecord, Page, StoreError};

/// Names that are looked at for one page, at most: about ten milliseconds of the server's time.
const ROUNDS: usize = 10;
/// Names that are looked at in one go, at most: nobody else is served meanwhile.
const MOST: usize = 1000;
/// Records read in one go.
const AT_ONCE: usize = 100;

impl Redis {
    pub(super) async fn page(&self, listing: &ListQuery) -> Result<Page, StoreError> {
        let mut cursor = match &listing.after {
            None => 0,
            Some(Cursor(text)) => text.parse().map_err(|_| StoreError::Unavailable(NO_CURSOR.into()))?,
        };
        let connected = self.server.link.connected()?;
        let deadline = Instant::now() + self.server.timeout;
        let pattern = format!("{}:{}:*", self.server.prefix, listing.route.as_deref().unwrap_or("*"));
        let mut names = Vec::new();
        let mut count = listing.limit.clamp(1, MOST);
        for _ in 0..ROUNDS {
            let (next, keys) = connected.scan(cursor, &pattern, count, deadline).await.map_err(refused)?;
            let found = keys.iter().filter_map(|key| self.named(key, listing));
            let before = names.len();
            names.extend(found);
            cursor = next;
            if cursor == 0 || names.len() >= listing.limit || Instant::now() + self.server.timeout / 2 > deadline {
                break;
            }
            if names.len() == before {
                count = (count * 2).min(MOST);
            }
        }

        let mut records = Vec::with_capacity(names.len());
        for names in names.chunks(AT_ONCE) {
            let keys: Vec<String> =
                names.iter().map(|name| RecordKey::new(&self.server.prefix, name).to_string()).collect();
            let heads = connected.peek(&keys, codec::HEAD, deadline).await.map_err(refused)?;
            let there = names.iter().zip(heads).filter_map(|(name, head)| Some((name, head?)));
            records.extend(there.map(|(name, head)| ListedRecord { name: name.clone(), seen: seen(head) }));
        }
        Ok(Page { records, next: (cursor != 0).then(|| Cursor(cursor.to_string())) })
    }

    /// The record that lies under this key, if one that is asked for does. Others may use names that look alike.
    fn named(&self, key: &[u8], listing: &ListQuery) -> Option<RecordName> {
        let name = std::str::from_utf8(key).ok()?.strip_prefix(&self.server.prefix)?.strip_prefix(':')?;
        let name: RecordName = name.parse().ok()?;
        listing.route.as_ref().is_none_or(|route| *route == name.route).then_some(name)
    }
}

const NO_CURSOR: &str = "this cursor does not come from a list of this store";
const NO_PERMISSION: &str = "the Redis user may not list records: it needs SCAN and GETRANGE";

/// What is asked for at the start, an operator may have left out, as nothing else needs it.
fn refused(fault: CommandError) -> StoreError {
    if fault.is_permission() {
        return StoreError::Unavailable(NO_PERMISSION.into());
    }
    fault.into()
}

fn seen(HeadWithTtl { head, left }: HeadWithTtl) -> Result<RecordSnapshot, Unreadable> {
    let summary = codec::summarise(&head.ok_or(Unreadable::Damaged(super::NOT_A_RECORD))?)?;
    let silent_for = super::silence(summary.claim.terms.retention, left);
    Ok(RecordSnapshot { summary, silent_for })
}
