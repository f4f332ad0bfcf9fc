//! Lists of records, from a server that may hold many other names.
//!
//! `SCAN` goes through all names. In a cluster, it goes through the nodes one after the other. Each page scans a
//! limited number of names. Only the first bytes of each record are read, without the stored response.

use tokio::time::Instant;

use super::command_error::CommandError;
use super::commands::HeadWithTtl;
use super::connected::Connected;
use super::hot::RecordKey;
use super::{Redis, Servers};
use crate::record::RecordName;
use crate::record::codec::{self, Unreadable};
use crate::record::transitions::RecordSnapshot;
use crate::store::{Cursor, ListError, ListQuery, ListedRecord, Page, StoreError};

/// The highest number of scans for one page: about ten milliseconds of the server's time.
const ROUNDS: usize = 10;
/// The highest number of names in one scan. The server executes no other command meanwhile.
const MOST: usize = 1000;
/// The number of records that are read in one round trip.
const AT_ONCE: usize = 100;

/// The end of a page: a server, and a cursor in its names. It is written `CURSOR.PROCESS@NODE`, where the last two may be
/// absent.
struct Place<'a> {
    /// The address of a node. `None` if the store is one server.
    node: Option<&'a str>,
    cursor: u64,
    /// The process that gave the cursor. To any other, it means nothing: records would be left out. `None` at the start
    /// of a node.
    process: Option<&'a str>,
}

impl Redis {
    pub(super) async fn page(&self, listing: &ListQuery) -> Result<Page, ListError> {
        let place = match &listing.after {
            None => None,
            Some(Cursor(text)) => Some(Place::of(text).ok_or(ListError::BadCursor)?),
        };
        match &self.shared.servers {
            Servers::One(server) => {
                if place.as_ref().is_some_and(|place| place.node.is_some()) {
                    return Err(ListError::BadCursor);
                }
                let connected = server.link.connected()?;
                let process = process(&connected);
                let cursor = place.map_or(Ok(0), |place| place.cursor_of(&process))?;
                let (records, next) = self.page_of(&connected, cursor, listing).await?;
                Ok(Page { records, next: (next != 0).then(|| Cursor(format!("{next}.{process}"))) })
            }
            // The nodes are listed one after the other.
            Servers::Cluster(watched) => {
                let nodes = watched.cluster.nodes();
                let names: Vec<String> = nodes.iter().map(|node| node.endpoint().to_string()).collect();
                let index = match &place {
                    None => 0,
                    Some(Place { node, .. }) => {
                        let index = names.iter().position(|name| Some(name.as_str()) == *node);
                        index.ok_or(StoreError::Refused(OTHER_NODES.into()))?
                    }
                };
                let Some(node) = nodes.get(index) else {
                    let why = watched.cluster.why_down();
                    return Err(why.unwrap_or_else(|| StoreError::Refused(OTHER_NODES.into())).into());
                };
                let connected = node.server().link.connected()?;
                let process = process(&connected);
                let cursor = place.map_or(Ok(0), |place| place.cursor_of(&process))?;
                let (records, next) = self.page_of(&connected, cursor, listing).await?;
                let next = match next {
                    0 => names.get(index + 1).map(|name| format!("0@{name}")),
                    next => names.get(index).map(|name| format!("{next}.{process}@{name}")),
                };
                Ok(Page { records, next: next.map(Cursor) })
            }
        }
    }

    /// Some records of one server, and the next cursor. It is 0 after the last record.
    async fn page_of(
        &self,
        connected: &Connected,
        mut cursor: u64,
        listing: &ListQuery,
    ) -> Result<(Vec<ListedRecord>, u64), StoreError> {
        let deadline = Instant::now() + self.timeout();
        let pattern = format!("{}:{}:*", self.prefix(), listing.route.as_deref().unwrap_or("*"));
        let mut names = Vec::new();
        let mut count = listing.limit.clamp(1, MOST);
        for _ in 0..ROUNDS {
            let (next, keys) = connected.scan(cursor, &pattern, count, deadline).await.map_err(refused)?;
            let found = keys.iter().filter_map(|key| self.named(key, listing));
            let before = names.len();
            names.extend(found);
            cursor = next;
            if cursor == 0 || names.len() >= listing.limit || Instant::now() + self.timeout() / 2 > deadline {
                break;
            }
            if names.len() == before {
                count = (count * 2).min(MOST);
            }
        }

        let mut records = Vec::with_capacity(names.len());
        for names in names.chunks(AT_ONCE) {
            let keys: Vec<String> = names.iter().map(|name| RecordKey::new(self.prefix(), name).to_string()).collect();
            let heads = connected.peek(&keys, codec::LISTED, deadline).await.map_err(refused)?;
            let there = names.iter().zip(heads).filter_map(|(name, head)| Some((name, head?)));
            records.extend(there.map(|(name, head)| ListedRecord { name: name.clone(), seen: seen(head, connected) }));
        }
        Ok((records, cursor))
    }

    /// The record name in this key, if the list asks for it. Other applications may use similar names.
    fn named(&self, key: &[u8], listing: &ListQuery) -> Option<RecordName> {
        let name = std::str::from_utf8(key).ok()?.strip_prefix(self.prefix())?.strip_prefix(':')?;
        let name: RecordName = name.parse().ok()?;
        listing.route.as_ref().is_none_or(|route| *route == name.route).then_some(name)
    }
}

impl<'a> Place<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (cursor, node) = match text.split_once('@') {
            Some((cursor, node)) => (cursor, Some(node)),
            None => (text, None),
        };
        let (cursor, process) = match cursor.split_once('.') {
            Some((cursor, process)) => (cursor, Some(process)),
            None => (cursor, None),
        };
        let place = Self { node, cursor: cursor.parse().ok()?, process };
        // Only the start of a node needs no process.
        (place.cursor != 0 || place.node.is_some()).then_some(place)
    }

    /// The cursor, if this process gave it.
    fn cursor_of(&self, process: &str) -> Result<u64, StoreError> {
        match (self.cursor, self.process) {
            (0, None) => Ok(0),
            (cursor, Some(own)) if own == process => Ok(cursor),
            (_, _) => Err(StoreError::Refused(OTHER_PROCESS.into())),
        }
    }
}

/// Identifies the process of the server. A server that does not tell its run ID counts as another one after each break.
fn process(connected: &Connected) -> String {
    match &connected.run_id {
        Some(run_id) => run_id.to_string(),
        None => format!("since-{}", connected.usable_since.millis()),
    }
}

const OTHER_PROCESS: &str = "another process of Redis has these records by now: begin the list again";
const OTHER_NODES: &str = "another node serves these records by now: begin the list again";
const NO_PERMISSION: &str = "the Redis user may not list records: it needs SCAN and GETRANGE";

/// An operator may have omitted the permissions for lists, because no other command needs them.
fn refused(fault: CommandError) -> StoreError {
    if fault.is_permission() {
        return StoreError::Refused(NO_PERMISSION.into());
    }
    fault.into()
}

fn seen(HeadWithTtl { head, left }: HeadWithTtl, connected: &Connected) -> Result<RecordSnapshot, Unreadable> {
    let summary = codec::summarise(&head.ok_or(Unreadable::Damaged(super::NOT_A_RECORD))?)?;
    let silent_for = connected.usable_since.silence(summary.phase, summary.claim.terms.retention, left);
    Ok(RecordSnapshot { summary, silent_for })
}
