//! Nothing survives the process: for tests and for trying out. The reference for the other stores.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::digest_key::{self, Wanted};
use super::{
    Answer, Changes, Claimed, Cursor, Exchanged, FOREVER, Health, Listed, Listing, Page, Released, Renewed, Settled,
    Store, StoreError,
};
use crate::config;
use crate::key::DigestKey;
use crate::record::moves::{self, ClaimMove, Exchange, Held, RenewMove};
use crate::record::{Claim, Record, RecordName, State, Token};

/// Records in a map, expired ones swept out as it grows.
pub struct Memory {
    digest_key: DigestKey,
    records: Mutex<Records>,
}

#[derive(Default)]
struct Records {
    by_name: HashMap<RecordName, Kept>,
    /// The map is swept when it has grown to this.
    sweep_at: usize,
}

struct Kept {
    record: Record,
    expires: Instant,
}

const FIRST_SWEEP: usize = 1024;

impl Memory {
    /// An empty store with the configured digest key, or one of its own.
    pub fn open(config: &config::Store) -> Result<Self, getrandom::Error> {
        Ok(Self::new(Wanted::new(digest_key::configured(config), None)?.key()))
    }

    /// An empty store.
    pub fn new(digest_key: DigestKey) -> Self {
        Self { digest_key, records: Mutex::new(Records { sweep_at: FIRST_SWEEP, ..Records::default() }) }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        // Every step below leaves the map whole, so a panic elsewhere does not make it unusable.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    fn held(&self, name: &RecordName) -> Option<Held> {
        let kept = self.by_name.get(name)?;
        let left = kept.expires.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        Some(Held { record: kept.record.clone(), silent_for: kept.record.claim.terms.retention.saturating_sub(left) })
    }

    /// The records after the cursor, which is a name.
    fn page(&self, listing: &Listing) -> Page {
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
            let seen = self.held(name)?.seen();
            Some(Listed { name: name.clone(), seen: Ok(seen) })
        };
        Page { records: names.into_iter().filter_map(listed).collect(), next }
    }

    fn write(&mut self, name: &RecordName, record: Record) {
        if self.by_name.len() >= self.sweep_at {
            let now = Instant::now();
            self.by_name.retain(|_, kept| kept.expires > now);
            self.sweep_at = (self.by_name.len() * 2).max(FIRST_SWEEP);
        }
        let expires = Instant::now() + moves::time_to_live(&record).min(FOREVER);
        self.by_name.insert(name.clone(), Kept { record, expires });
    }
}

impl Store for Memory {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> Answer<'a, Claimed> {
        Box::pin(async move {
            let mut records = self.records();
            Ok(match moves::claim(records.held(name), claim) {
                ClaimMove::Write(claim) => {
                    records.write(name, Record { claim: claim.clone(), state: State::InFlight });
                    Claimed::Granted(claim)
                }
                ClaimMove::AlreadyMine(claim) => Claimed::Granted(claim),
                ClaimMove::Refuse(held) => Claimed::Refused(held),
            })
        })
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> Answer<'a, Renewed> {
        Box::pin(async move {
            let mut records = self.records();
            let held = records.held(name).map(|held| held.record);
            // A claim never changes while it is in flight: a renewal gives the record time, and nothing else.
            let (renewed, record) = match (moves::renew(held.as_ref(), claim.token), held) {
                (RenewMove::Refuse, _) => return Ok(Renewed::Lost),
                (RenewMove::Extend, Some(record)) => (Renewed::Extended, record),
                (RenewMove::Extend | RenewMove::ClaimAgain, _) => {
                    (Renewed::ClaimedAgain, Record { claim: claim.clone(), state: State::InFlight })
                }
            };
            records.write(name, record);
            Ok(renewed)
        })
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a Record) -> Answer<'a, Settled> {
        Box::pin(async move {
            let mut records = self.records();
            match records.held(name).map(|held| held.record) {
                Some(kept) if !moves::settles(Some(&kept), record.claim.token) => Ok(Settled::Kept(Box::new(kept))),
                _ => {
                    records.write(name, with_own_body(record.clone()));
                    Ok(Settled::Written)
                }
            }
        })
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> Answer<'a, Released> {
        Box::pin(async move {
            let mut records = self.records();
            Ok(match records.held(name) {
                None => Released::Absent,
                Some(held) if moves::releases(&held.record, token) => {
                    records.by_name.remove(name);
                    Released::Deleted
                }
                Some(_) => Released::Kept,
            })
        })
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> Answer<'a, Option<Held>> {
        Box::pin(async move { Ok(self.records().held(name)) })
    }

    fn list<'a>(&'a self, listing: &'a Listing) -> Answer<'a, Page> {
        Box::pin(async move { Ok(self.records().page(listing)) })
    }

    fn exchange<'a>(&'a self, name: &'a RecordName, exchange: &'a Exchange) -> Answer<'a, Exchanged> {
        Box::pin(async move {
            let mut records = self.records();
            match records.held(name) {
                Some(held) if exchange.is_due(&held) => {}
                other => return Ok(Exchanged::Changed(other.map(Box::new))),
            }
            match &exchange.to {
                Some(record) => records.write(name, record.clone()),
                None => drop(records.by_name.remove(name)),
            }
            Ok(Exchanged::Done)
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
        let body = reply.body.concat();
        Arc::make_mut(reply).body = if body.is_empty() { Vec::new() } else { vec![body.into()] };
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
}
