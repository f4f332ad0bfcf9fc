//! Nothing survives the process: for tests and for trying out. The reference for the other stores.
//!
//! Records are kept as they are, and as bytes only where they are to be encrypted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::digest_key::{self, Wanted};
use super::format::RecordFormat;
use super::{
    Changes, Claimed, Cursor, FOREVER, Health, ListQuery, ListedRecord, Page, Released, Renewed, Settled, Store,
    StoreError, StoreFuture, SwapResult,
};
use crate::config;
use crate::key::DigestKey;
use crate::record::codec::{Placement, Unreadable};
use crate::record::transitions::{self, ClaimTransition, CompareAndSwap, RenewTransition, StoredRecord};
use crate::record::{Claim, Record, RecordName, SettledRecord, State, Token};

/// Records in a map, expired ones swept out as it grows.
pub struct Memory {
    digest_key: DigestKey,
    records: Mutex<RecordMap>,
}

#[derive(Default)]
struct RecordMap {
    format: RecordFormat,
    by_name: HashMap<RecordName, KeptRecord>,
    /// The map is swept when it has grown to this.
    sweep_at: usize,
}

struct KeptRecord {
    record: KeptAs,
    expires: Instant,
}

enum KeptAs {
    Record(Record),
    Encrypted(Bytes),
}

const FIRST_SWEEP: usize = 1024;

impl Memory {
    /// An empty store with the configured digest key, or one of its own.
    pub fn open(config: &config::StoreConfig) -> Result<Self, getrandom::Error> {
        let digest_key = Wanted::new(digest_key::configured(config), None)?.key();
        Ok(Self::with_format(digest_key, RecordFormat::of(config)))
    }

    /// An empty store.
    pub fn new(digest_key: DigestKey) -> Self {
        Self::with_format(digest_key, RecordFormat::default())
    }

    fn with_format(digest_key: DigestKey, format: RecordFormat) -> Self {
        let records = RecordMap { format, sweep_at: FIRST_SWEEP, ..RecordMap::default() };
        Self { digest_key, records: Mutex::new(records) }
    }

    fn records(&self) -> MutexGuard<'_, RecordMap> {
        // Every step below leaves the map whole, so a panic elsewhere does not make it unusable.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordMap {
    fn held(&self, name: &RecordName) -> Result<Option<StoredRecord>, StoreError> {
        let unreadable = |source| StoreError::Unreadable { name: name.to_string(), source };
        self.seen(name).map_err(unreadable)
    }

    fn seen(&self, name: &RecordName) -> Result<Option<StoredRecord>, Unreadable> {
        let Some(kept) = self.by_name.get(name) else { return Ok(None) };
        let Some(left) = kept.expires.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
            return Ok(None);
        };
        let record = match &kept.record {
            KeptAs::Record(record) => record.clone(),
            KeptAs::Encrypted(bytes) => self.format.decode(name, bytes)?,
        };
        let silent_for = record.claim.terms.retention.saturating_sub(left);
        Ok(Some(StoredRecord { record, silent_for }))
    }

    /// The records after the cursor, which is a name.
    fn page(&self, listing: &ListQuery) -> Page {
        fn place(name: &RecordName) -> (&str, &[u8; 16]) {
            (&name.route, &name.digest)
        }
        let after = listing.after.as_ref().and_then(|cursor| cursor.0.parse::<RecordName>().ok());
        let names = self.by_name.keys().filter(|name| listing.route.as_ref().is_none_or(|route| *route == name.route));
        let rest = names.filter(|name| after.as_ref().is_none_or(|after| place(name) > place(after)));
        let mut names: Vec<&RecordName> = rest.collect();
        // One more than is shown tells whether there is another page; what lies behind need not be in order.
        let more = names.len() > listing.limit;
        if more {
            names.select_nth_unstable_by(listing.limit, |one, other| place(one).cmp(&place(other)));
            names.truncate(listing.limit);
        }
        names.sort_unstable_by(|one, other| place(one).cmp(&place(other)));
        let next = names.last().filter(|_| more).map(|name| Cursor(name.to_string()));
        let listed = |name: &RecordName| {
            let seen = self.seen(name).transpose()?.map(|held| held.seen());
            Some(ListedRecord { name: name.clone(), seen })
        };
        Page { records: names.into_iter().filter_map(listed).collect(), next }
    }

    fn write(&mut self, name: &RecordName, record: Record) {
        if self.by_name.len() >= self.sweep_at {
            let now = Instant::now();
            self.by_name.retain(|_, kept| kept.expires > now);
            self.sweep_at = (self.by_name.len() * 2).max(FIRST_SWEEP);
        }
        let expires = Instant::now() + transitions::time_to_live(&record).min(FOREVER);
        let record = match self.format.encrypts() {
            false => KeptAs::Record(record),
            true => KeptAs::Encrypted(self.format.encode(name, &record, Placement::Within).into()),
        };
        self.by_name.insert(name.clone(), KeptRecord { record, expires });
    }
}

impl Store for Memory {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        Box::pin(async move {
            let mut records = self.records();
            Ok(match transitions::claim(records.held(name)?, claim) {
                ClaimTransition::Write(claim) => {
                    records.write(name, Record { claim: claim.clone(), state: State::InFlight });
                    Claimed::Granted(claim)
                }
                ClaimTransition::AlreadyMine(claim) => Claimed::Granted(claim),
                ClaimTransition::Refuse(held) => Claimed::Refused(held),
            })
        })
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Renewed> {
        Box::pin(async move {
            let mut records = self.records();
            let held = records.held(name)?.map(|held| held.record);
            // A claim never changes while it is in flight: a renewal gives the record time, and nothing else.
            let (renewed, record) = match (transitions::renew(held.as_ref(), claim.token), held) {
                (RenewTransition::Refuse, _) => return Ok(Renewed::Lost),
                (RenewTransition::Extend, Some(record)) => (Renewed::Extended, record),
                (RenewTransition::Extend | RenewTransition::ClaimAgain, _) => {
                    (Renewed::ClaimedAgain, Record { claim: claim.clone(), state: State::InFlight })
                }
            };
            records.write(name, record);
            Ok(renewed)
        })
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a SettledRecord) -> StoreFuture<'a, Settled> {
        Box::pin(async move {
            let mut records = self.records();
            match records.held(name)?.map(|held| held.record) {
                Some(kept) if !transitions::settles(Some(&kept), record.claim.token) => {
                    Ok(Settled::Kept(Box::new(kept)))
                }
                _ => {
                    records.write(name, with_own_body(Record::clone(record)));
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

    fn list<'a>(&'a self, listing: &'a ListQuery) -> StoreFuture<'a, Page> {
        Box::pin(async move { Ok(self.records().page(listing)) })
    }

    fn compare_and_swap<'a>(&'a self, name: &'a RecordName, swap: &'a CompareAndSwap) -> StoreFuture<'a, SwapResult> {
        Box::pin(async move {
            let mut records = self.records();
            match records.held(name)? {
                Some(held) if swap.still_matches(&held) => {}
                other => return Ok(SwapResult::Changed(other.map(Box::new))),
            }
            match &swap.to {
                Some(record) => records.write(name, Record::clone(record)),
                None => drop(records.by_name.remove(name)),
            }
            Ok(SwapResult::Done)
        })
    }

    fn subscribe(&self, _name: &RecordName, _patience: Duration) -> Option<Changes> {
        // Whoever changes a record here is in this process.
        None
    }

    fn digest_key(&self) -> Result<DigestKey, StoreError> {
        Ok(self.digest_key)
    }

    fn health(&self) -> Health {
        Health::Up
    }
}

/// The body's bytes are on loan from whoever received them, who counts them until they are given back.
fn with_own_body(mut record: Record) -> Record {
    if let State::Completed { reply, .. } = &mut record.state {
        let own = reply.body.pieces().iter().map(|piece| Bytes::copy_from_slice(piece)).collect::<Vec<_>>();
        Arc::make_mut(reply).body = own.into();
    }
    record
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
        use crate::config::{Durability, SecretKey, StoreConfig, StoreLocation};
        use crate::rule::OnStoreError;

        async fn encrypted() -> Subject {
            let config = StoreConfig {
                location: StoreLocation::Memory,
                prefix: "onlyonce".to_owned(),
                timeout: Duration::from_secs(1),
                on_error: OnStoreError::Reject,
                digest_key: None,
                durability: Durability::Disk,
                accept_eviction: false,
                replica_acks: 0,
                encryption_keys: vec![SecretKey::new([1; 32]), SecretKey::new([2; 32])],
            };
            Subject::new(Arc::new(Memory::open(&config).expect("random bytes")), ())
        }

        conformance::suite!(encrypted);
    }
}
