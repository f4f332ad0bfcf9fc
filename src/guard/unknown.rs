//! How many records are unknown now. An operator has to look at these.
//!
//! What this process writes, and what its operators and probes resolve, is counted at once. What others write (other
//! sidecars, lost owners, this process before a restart) is found by walking through all records in the background, with
//! limited load and memory. So the count is that of the whole store, and as old as the last walk where others change it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::metrics::Metrics;
use crate::record::transitions::{OwnerState, RecordSnapshot};
use crate::record::{Phase, RecordName};
use crate::store::{ListError, ListQuery, ListedRecord, Page, Store, StoreError, causes};

/// Counts unknown records.
pub(super) struct UnknownRecords {
    metrics: Arc<Metrics>,
    known: Mutex<UnknownSets>,
}

#[derive(Default)]
struct UnknownSets {
    /// The present ones.
    now: UnknownSet,
    /// What the current walk has found so far, with the changes since it began.
    walked: UnknownSet,
}

/// Records, with when they became unknown and when the store forgets them.
#[derive(Default)]
struct UnknownSet {
    by_name: HashMap<RecordName, Holding>,
    /// By route, including those for which there was no room above.
    counts: HashMap<Arc<str>, usize>,
}

/// Since when, and how long, a record is unknown.
#[derive(Clone, Copy)]
struct Holding {
    /// By the wall clock of whoever settled or claimed it, in milliseconds since the Unix epoch: for people.
    since: u64,
    /// When the store forgets it.
    until: Instant,
}

/// More names than this are counted without their names. This limits memory to a few megabytes.
const MOST: usize = 32 * 1024;
/// Records of one page.
const PAGE: usize = 500;
/// The shortest pause between two pages. A million records take eight minutes or more.
const PAUSE: Duration = Duration::from_millis(250);
/// The store is asked for at most this part of the time.
const SHARE: u32 = 50;
/// The pause before the first walk, and between two.
const REST: Duration = Duration::from_secs(30);
const FIRST_REST: Duration = Duration::from_secs(1);

impl UnknownSet {
    fn insert(&mut self, name: RecordName, holding: Holding) {
        if self.by_name.len() >= MOST && !self.by_name.contains_key(&name) {
            *self.counts.entry(name.route).or_default() += 1;
            return;
        }
        let route = Arc::clone(&name.route);
        if self.by_name.insert(name, holding).is_none() {
            *self.counts.entry(route).or_default() += 1;
        }
    }

    fn remove(&mut self, name: &RecordName) {
        if self.by_name.remove(name).is_some() {
            self.uncount(&name.route);
        }
    }

    fn expire(&mut self, now: Instant) {
        let gone: Vec<RecordName> =
            self.by_name.iter().filter(|(_, holding)| holding.until <= now).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.remove(name));
    }

    fn uncount(&mut self, route: &str) {
        if let Some(count) = self.counts.get_mut(route) {
            *count = count.saturating_sub(1);
        }
    }
}

impl UnknownRecords {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, known: Mutex::default() }
    }

    /// This record is unknown from now on, for this time.
    pub(super) fn add(&self, name: &RecordName, time_to_live: Duration) {
        let holding = Holding { since: clock::unix_millis(), until: later(time_to_live) };
        self.change(|known| {
            known.walked.insert(name.clone(), holding);
            known.now.insert(name.clone(), holding);
        });
    }

    /// An operator or a probe has settled or freed this record.
    pub(super) fn resolved(&self, name: &RecordName) {
        self.change(|known| {
            known.walked.remove(name);
            known.now.remove(name);
        });
    }

    /// The names of those that have been unknown for longest.
    pub(super) fn oldest(&self, count: usize) -> Vec<RecordName> {
        let known = self.known();
        let mut all: Vec<(u64, &RecordName)> =
            known.now.by_name.iter().map(|(name, holding)| (holding.since, name)).collect();
        if all.len() > count {
            all.select_nth_unstable_by_key(count, |(since, _)| *since);
            all.truncate(count);
        }
        all.sort_unstable_by_key(|(since, name)| (*since, name.digest));
        all.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// Walks through the records of the store, again and again.
    pub(super) async fn survey(&self, store: &dyn Store) -> Infallible {
        tokio::time::sleep(FIRST_REST).await;
        loop {
            self.known().walked = UnknownSet::default();
            self.walk(store).await;
            self.change(|known| known.now = std::mem::take(&mut known.walked));
            tokio::time::sleep(REST).await;
            self.change(|known| known.now.expire(Instant::now()));
        }
    }

    async fn walk(&self, store: &dyn Store) {
        let mut listing = ListQuery { route: None, after: None, limit: PAGE };
        let mut has_failed = false;
        loop {
            let begun = Instant::now();
            let listed = store.list(&listing).await;
            let pause = PAUSE.max(begun.elapsed() * SHARE);
            match listed {
                Ok(page) => {
                    self.found(&page);
                    listing.after = page.next;
                    if listing.after.is_none() {
                        return;
                    }
                }
                Err(error) => {
                    // Once in a walk: a user that may not list records, for one, never gets further.
                    if !std::mem::replace(&mut has_failed, true) {
                        tracing::warn!(
                            error = causes(&error),
                            "the records of the store cannot be listed now: \
                            onlyonce_records_unknown may lack what lost owners and other sidecars left"
                        );
                    }
                    // Where another server has the records by now, the place in the list means nothing.
                    if matches!(error, ListError::BadCursor | ListError::Store(StoreError::Refused(_))) {
                        listing.after = None;
                        self.known().walked = UnknownSet::default();
                    }
                    tokio::time::sleep(REST).await;
                }
            }
            tokio::time::sleep(pause).await;
            self.change(|known| known.now.expire(Instant::now()));
        }
    }

    fn found(&self, page: &Page) {
        let mut known = self.known();
        let is_enforced = |listed: &&ListedRecord| listed.name.is_of_request() && !listed.name.is_observed();
        for listed in page.records.iter().filter(is_enforced) {
            let seen = listed.seen.as_ref().ok();
            if let Some((seen, left)) = seen.and_then(|seen| Some((seen, unknown_for(seen)?))) {
                let since = seen.summary.settled_at.unwrap_or(seen.summary.claim.claimed_at);
                known.walked.insert(listed.name.clone(), Holding { since, until: later(left) });
            }
        }
    }

    /// Makes a change, and updates the metrics.
    fn change(&self, change: impl FnOnce(&mut UnknownSets)) {
        let mut known = self.known();
        change(&mut known);
        let now = &known.now;
        self.metrics.records_unknown(|route| now.counts.get(route).copied().unwrap_or_default());
    }

    fn known(&self) -> MutexGuard<'_, UnknownSets> {
        // Every step leaves the sets whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much longer a record is unknown, if it is: repeats of its request get `outcome-unknown`.
fn unknown_for(seen: &RecordSnapshot) -> Option<Duration> {
    match (seen.summary.phase, seen.owner()) {
        (Phase::Unknown, _) | (Phase::InFlight, OwnerState::Lost) => Some(seen.left()),
        (Phase::InFlight, OwnerState::Alive | OwnerState::Abandoned) | (Phase::Completed | Phase::Unreplayable, _) => {
            None
        }
    }
}

fn later(time: Duration) -> Instant {
    // Practically for ever.
    const FAR: Duration = Duration::from_secs(86_400 * 365 * 100);
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now + FAR)
}
