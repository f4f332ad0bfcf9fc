//! A store in memory. Nothing survives the process: it is for tests and for trying out, and the reference for other
//! stores.
//!
//! Records are kept as bytes, as in the other stores. That takes much less memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::digest_key::{self, Wanted};
use super::format::RecordFormat;
use super::{
    Changes, Claimed, Cursor, FOREVER, Health, ListError, ListQuery, ListedRecord, Page, Released, Renewed, Settled,
    Store, StoreError, StoreFuture, StoredChunks, SwapResult,
};
use crate::config;
use crate::key::DigestKey;
use crate::record::chunks::{ApartBody, SIZE};
use crate::record::codec::{self, Placement, Unreadable};
use crate::record::encryption::EncryptionKey;
use crate::record::transitions::{
    self, ClaimTransition, CompareAndSwap, RecordSnapshot, RenewTransition, StoredRecord,
};
use crate::record::{Claim, Record, RecordName, SettledRecord, State, Token};

/// Records in a map. Expired ones are swept out as it grows.
pub struct Memory {
    digest_key: DigestKey,
    format: Arc<RecordFormat>,
    records: Mutex<RecordMap>,
}

#[derive(Default)]
struct RecordMap {
    format: Arc<RecordFormat>,
    by_name: HashMap<RecordName, KeptRecord>,
    /// The map is swept when it has this number of records.
    sweep_at: usize,
}

/// A record as bytes. Header fields, as they were received, would keep the 8 KiB buffer that they were read into.
struct KeptRecord {
    bytes: Bytes,
    body: Option<KeptBody>,
    retention: Duration,
    expires: Instant,
}

/// A large body. Replays share it, and need memory only for what is being sent.
#[derive(Clone)]
struct KeptBody {
    token: Token,
    chunks: Arc<[Bytes]>,
}

impl KeptRecord {
    /// A record with its whole body, if it has one, in the same bytes.
    fn within(format: &RecordFormat, name: &RecordName, record: &Record) -> Self {
        Self::new(record, format.encode(name, record, Placement::Within).into(), None)
    }

    /// The outcome of an attempt. The body's bytes are borrowed from their receiver, which counts them until they are
    /// returned. So they are copied here, and nowhere else.
    fn settled(format: &RecordFormat, name: &RecordName, record: &Record) -> Self {
        let State::Completed { reply, .. } = &record.state else { return Self::within(format, name, record) };
        if reply.body.stored_len() <= u64::from(SIZE) {
            return Self::within(format, name, record);
        }
        let token = record.claim.token;
        let (chunks, cut) = format.cut(name, token, reply.body.stored());
        let chunks = chunks.into_iter().map(|chunk| chunk.pieces.concat().into()).collect();
        let bytes = format.encode(name, record, Placement::Apart(cut)).into();
        Self::new(record, bytes, Some(KeptBody { token, chunks }))
    }

    fn new(record: &Record, bytes: Bytes, body: Option<KeptBody>) -> Self {
        let expires = Instant::now() + transitions::time_to_live(record).min(FOREVER);
        Self { bytes, body, retention: record.claim.terms.retention, expires }
    }

    /// How long the owner has been silent. `None`: the record has expired.
    fn silent_for(&self) -> Option<Duration> {
        let left = self.expires.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        Some(self.retention.saturating_sub(left))
    }
}

const FIRST_SWEEP: usize = 1024;

impl Memory {
    /// An empty store with the configured digest key, or else a random one.
    pub fn open(config: &config::StoreConfig) -> Result<Self, getrandom::Error> {
        let digest_key = Wanted::new(digest_key::configured(config), None)?.key();
        Ok(Self::with_format(digest_key, RecordFormat::of(config)))
    }

    /// An empty store.
    pub fn new(digest_key: DigestKey) -> Self {
        Self::with_format(digest_key, RecordFormat::default())
    }

    fn with_format(digest_key: DigestKey, format: RecordFormat) -> Self {
        let format = Arc::new(format);
        let records = RecordMap { format: Arc::clone(&format), sweep_at: FIRST_SWEEP, ..RecordMap::default() };
        Self { digest_key, format, records: Mutex::new(records) }
    }

    fn records(&self) -> MutexGuard<'_, RecordMap> {
        // A change under the lock is never left half done, so a panic elsewhere does not make the map unusable.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordMap {
    fn held(&self, name: &RecordName) -> Result<Option<StoredRecord>, StoreError> {
        let unreadable = |source| StoreError::Unreadable { name: name.to_string(), source };
        self.seen(name).map_err(unreadable)
    }

    fn seen(&self, name: &RecordName) -> Result<Option<StoredRecord>, Unreadable> {
        let Some((kept, silent_for)) = self.by_name.get(name).and_then(|kept| Some((kept, kept.silent_for()?))) else {
            return Ok(None);
        };
        Ok(Some(StoredRecord { record: self.format.decode(name, &kept.bytes)?, silent_for }))
    }

    /// The records after the cursor. A cursor is a name.
    fn page(&self, listing: &ListQuery) -> Result<Page, ListError> {
        fn place(name: &RecordName) -> (&str, &[u8; 16]) {
            (&name.route, &name.digest)
        }
        let after = listing.after.as_ref().map(|Cursor(name)| name.parse::<RecordName>());
        let after = after.transpose().map_err(|_| ListError::BadCursor)?;
        let names = self.by_name.keys().filter(|name| listing.route.as_ref().is_none_or(|route| *route == name.route));
        let rest = names.filter(|name| after.as_ref().is_none_or(|after| place(name) > place(after)));
        let mut names: Vec<&RecordName> = rest.collect();
        // One record more than is shown tells that there is another page. The records after it need no order.
        let more = names.len() > listing.limit;
        if more {
            names.select_nth_unstable_by(listing.limit, |one, other| place(one).cmp(&place(other)));
            names.truncate(listing.limit);
        }
        names.sort_unstable_by(|one, other| place(one).cmp(&place(other)));
        let next = names.last().filter(|_| more).map(|name| Cursor(name.to_string()));
        let listed = |name: &RecordName| {
            let kept = self.by_name.get(name)?;
            let silent_for = kept.silent_for()?;
            let seen = codec::summarise(&kept.bytes).map(|summary| RecordSnapshot { summary, silent_for });
            Some(ListedRecord { name: name.clone(), seen })
        };
        Ok(Page { records: names.into_iter().filter_map(listed).collect(), next })
    }

    fn write(&mut self, name: &RecordName, record: &Record) {
        let kept = KeptRecord::within(&self.format, name, record);
        self.keep(name, kept);
    }

    fn keep(&mut self, name: &RecordName, kept: KeptRecord) {
        if self.by_name.len() >= self.sweep_at {
            let now = Instant::now();
            self.by_name.retain(|_, kept| kept.expires > now);
            self.sweep_at = (self.by_name.len() * 2).max(FIRST_SWEEP);
        }
        self.by_name.insert(name.clone(), kept);
    }
}

impl Store for Memory {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        Box::pin(async move {
            let mut records = self.records();
            Ok(match transitions::claim(records.held(name)?, claim) {
                ClaimTransition::Write(claim) => {
                    records.write(name, &Record { claim: claim.clone(), state: State::InFlight });
                    Claimed::Granted(claim)
                }
                ClaimTransition::AlreadyMine(claim) => Claimed::Granted(claim),
                ClaimTransition::Refuse(held) => Claimed::Refused(held),
            })
        })
    }

    fn open_body<'a>(&'a self, name: &'a RecordName, body: ApartBody) -> StoreFuture<'a, Box<dyn StoredChunks>> {
        Box::pin(async move {
            let kept = self.records().by_name.get(name).and_then(|kept| kept.body.clone());
            let chunks = kept.filter(|kept| kept.token == body.token).map_or_else(Arc::default, |kept| kept.chunks);
            Ok(Box::new(MemoryChunks(chunks)) as Box<dyn StoredChunks>)
        })
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Renewed> {
        Box::pin(async move {
            let mut records = self.records();
            let held = records.held(name)?.map(|held| held.record);
            // A claim does not change while it is in flight. A renewal only extends the life of the record.
            let (renewed, record) = match (transitions::renew(held.as_ref(), claim.token), held) {
                (RenewTransition::Refuse, _) => return Ok(Renewed::Lost),
                (RenewTransition::Extend, Some(record)) => (Renewed::Extended, record),
                (RenewTransition::Extend | RenewTransition::ClaimAgain, _) => {
                    (Renewed::ClaimedAgain, Record { claim: claim.clone(), state: State::InFlight })
                }
            };
            records.write(name, &record);
            Ok(renewed)
        })
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a SettledRecord) -> StoreFuture<'a, Settled> {
        Box::pin(async move {
            let compressed = self.format.compressed(record).await;
            // Before the lock: a large body is copied, and may be encrypted.
            let settled = KeptRecord::settled(&self.format, name, compressed.as_ref().unwrap_or(record));
            let mut records = self.records();
            match records.held(name)?.map(|held| held.record) {
                Some(kept) if !transitions::settles(Some(&kept), record.claim.token) => {
                    let stored = compressed.as_ref().unwrap_or(record);
                    Ok(Settled::Kept(Box::new(RecordFormat::kept(kept, stored, record))))
                }
                _ => {
                    records.keep(name, settled);
                    Ok(Settled::Written)
                }
            }
        })
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> StoreFuture<'a, Released> {
        Box::pin(async move {
            let mut records = self.records();
            Ok(match records.held(name)? {
                None => Released::Absent,
                Some(held) if transitions::releases(&held.record, token) => {
                    records.by_name.remove(name);
                    Released::Deleted
                }
                Some(_) => Released::Kept,
            })
        })
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> StoreFuture<'a, Option<StoredRecord>> {
        Box::pin(async move { self.records().held(name) })
    }

    fn list<'a>(&'a self, listing: &'a ListQuery) -> StoreFuture<'a, Page, ListError> {
        Box::pin(async move { self.records().page(listing) })
    }

    fn compare_and_swap<'a>(&'a self, name: &'a RecordName, swap: &'a CompareAndSwap) -> StoreFuture<'a, SwapResult> {
        Box::pin(async move {
            let mut records = self.records();
            match records.held(name)? {
                Some(held) if swap.still_matches(&held) => {}
                other => return Ok(SwapResult::Changed(other.map(Box::new))),
            }
            match &swap.to {
                Some(record) => records.write(name, record),
                None => drop(records.by_name.remove(name)),
            }
            Ok(SwapResult::Done)
        })
    }

    fn subscribe(&self, _name: &RecordName, _patience: Duration) -> Option<Changes> {
        // Every change is made in this process.
        None
    }

    fn digest_key(&self) -> Result<DigestKey, StoreError> {
        Ok(self.digest_key)
    }

    fn encryption_keys(&self) -> &[Arc<EncryptionKey>] {
        self.format.keys()
    }

    fn health(&self) -> Health {
        Health::Up
    }
}

/// The chunks of one body. They stay readable when the record is gone.
struct MemoryChunks(Arc<[Bytes]>);

impl StoredChunks for MemoryChunks {
    fn read(&mut self, index: u64) -> StoreFuture<'_, Option<Bytes>> {
        let chunk = usize::try_from(index).ok().and_then(|index| self.0.get(index).cloned());
        Box::pin(async move { Ok(chunk) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{self, Subject};

    async fn memory() -> Subject {
        Subject::new(Arc::new(Memory::new(DigestKey::from_bytes([7; 32]))), ())
    }

    conformance::suite!(memory);

    mod encrypted {
        use super::*;
        use crate::config::{SecretKey, StoreConfig};

        async fn encrypted() -> Subject {
            let encryption_keys = vec![SecretKey::new([1; 32]), SecretKey::new([2; 32])];
            let config = StoreConfig { encryption_keys, ..conformance::settings() };
            Subject::new(Arc::new(Memory::open(&config).expect("random bytes")), ())
        }

        conformance::suite!(encrypted);
    }
}
