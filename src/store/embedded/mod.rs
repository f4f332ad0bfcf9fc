//! Records in a folder on the local disk: durable, with nothing to install, for one sidecar.
//!
//! All that is written is appended to files, the segments, and an index in memory says where the newest frame of each
//! record lies. Segments are removed whole when nothing in them is needed any more. One thread writes, and what many ask
//! of it at once goes to the disk together; whatever is written already is read from where the caller is.
//! `docs/embedded-store.md` says why, and what it costs.
//!
//! | to find | look in |
//! |---|---|
//! | the bytes of a write, and how long it is needed | `frame.rs` |
//! | opening, appending, beginning another segment | `log.rs`; what a crash left, in `segment.rs` |
//! | how room comes back | `reclaim.rs` |
//! | a full disk, a folder that is gone | `writer.rs`, `condition.rs` |

mod batch;
mod clock;
mod condition;
mod error;
mod folder;
mod frame;
mod index;
mod log;
mod manifest;
mod reclaim;
mod segment;
#[cfg(test)]
mod tests;
mod usage;
mod view;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use batch::{EncodedRecord, ReplySender, WriteRequest};
use clock::Clock;
use condition::{Condition, CurrentCondition};
pub use error::EmbeddedError;
use log::{OpenedLog, RecordLog};
use segment::SegmentEntry;
use view::{LogReadError, View, Walk};
use writer::{NextWork, RecordLogWriter};

use super::digest_key::{self, Agreement, Wanted};
use super::{
    Cause, Changes, Claimed, Cursor, FOREVER, Health, ListQuery, ListedRecord, Page, Released, Renewed, Settled, Store,
    StoreError, StoreFuture, SwapResult,
};
use crate::config;
use crate::key::DigestKey;
use crate::record::codec::{self, Decoded, Placement, Unreadable};
use crate::record::transitions::{self, ClaimTransition, CompareAndSwap, RecordSnapshot, StoredRecord};
use crate::record::{Claim, Record, RecordName, Token};
use crate::tick;

/// Records in a folder.
pub struct Embedded {
    view: Arc<View>,
    clock: Arc<Clock>,
    digest_key: DigestKey,
    timeout: Duration,
    condition: Arc<CurrentCondition>,
    losses: Arc<AtomicU64>,
    used: Arc<AtomicU64>,
    /// `None` while it is dropped.
    inbox: Option<SyncSender<WriteRequest>>,
    writer: Option<JoinHandle<()>>,
    #[cfg(test)]
    syncs: Arc<AtomicU64>,
    #[cfg(test)]
    fails: Arc<std::sync::atomic::AtomicBool>,
}

/// Operations that wait for the thread.
const WAITING: usize = 4096;
/// What is larger is not read on a thread that others wait for.
const LARGE: u32 = 64 * 1024;

impl Embedded {
    /// Opens the store in `path`, and makes it if there is none. Reads the disk: for the start only.
    pub fn open(path: &Path, config: &config::StoreConfig) -> Result<Self, EmbeddedError> {
        let mut opened = RecordLog::open(path, config.durability)?;
        let clock = Arc::new(Clock::start(opened.clock));
        let log = &mut opened.log;
        let digest_key = agree(log, path, config, clock.now())?;
        // In full: a wrong folder is what this line is looked at for.
        let shown = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if opened.is_new {
            tracing::info!("made a new store in {}: it holds no records of before", shown.display());
        } else {
            tracing::info!("opened the store in {}: {} records", shown.display(), log.records(clock.now()));
        }
        Self::start(opened, clock, digest_key, config.timeout)
    }

    fn start(
        opened: OpenedLog,
        clock: Arc<Clock>,
        digest_key: DigestKey,
        timeout: Duration,
    ) -> Result<Self, EmbeddedError> {
        let OpenedLog { log, is_writable, .. } = opened;
        let condition = match is_writable {
            true if log.folder.take_reserve().unwrap_or(false) => Condition::Up,
            true => Condition::Full,
            false => Condition::Broken,
        };
        if condition != Condition::Up {
            tracing::error!(
                "the disk of the embedded store is full: answers that it holds are replayed, and new requests are \
                 refused until there is room again"
            );
        }
        let condition = Arc::new(CurrentCondition::new(condition));
        let losses = Arc::new(AtomicU64::new(0));
        let used = Arc::new(AtomicU64::new(log.used_ratio().to_bits()));
        let view = log.view.clone();
        #[cfg(test)]
        let (syncs, fails) = (log.syncs.clone(), log.fails.clone());
        let (inbox, operations) = sync_channel(WAITING);
        let writer = RecordLogWriter {
            log,
            clock: clock.clone(),
            inbox: operations,
            condition: condition.clone(),
            losses: losses.clone(),
            used: used.clone(),
            next: NextWork::default(),
        };
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || writer.run());
        let writer = Some(thread.map_err(EmbeddedError::Thread)?);
        Ok(Self {
            view,
            clock,
            digest_key,
            timeout,
            condition,
            losses,
            used,
            inbox: Some(inbox),
            writer,
            #[cfg(test)]
            syncs,
            #[cfg(test)]
            fails,
        })
    }

    /// Has the thread do something, and waits for it.
    async fn ask<T>(
        &self,
        timeout: Duration,
        operation: impl FnOnce(ReplySender<T>) -> WriteRequest,
    ) -> Result<T, StoreError> {
        let (answer, result) = oneshot::channel();
        let operation = operation(answer);
        let condition = self.condition.get();
        let inbox = self.inbox.as_ref().filter(|_| operation.is_allowed(condition));
        let inbox = inbox.ok_or_else(|| condition.unavailable())?;
        inbox.try_send(operation).map_err(|_| {
            // Full, or its thread is gone.
            StoreError::Unavailable("the embedded store does not keep up".into())
        })?;
        match tick::timeout(timeout, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Uncertain("the embedded store's thread is gone".into())),
            Err(_) => Err(StoreError::Uncertain("the embedded store did not answer in time".into())),
        }
    }

    /// Reads what is written, whatever has become of the disk since.
    async fn written(&self, name: &RecordName) -> Result<Option<StoredRecord>, StoreError> {
        match self.view.find(name).map_err(|error| unread(name, error))? {
            Some(entry) => self.held(name, entry).await,
            None => Ok(None),
        }
    }

    async fn held(&self, name: &RecordName, entry: SegmentEntry) -> Result<Option<StoredRecord>, StoreError> {
        let (expires_at, now) = (entry.head.expires_at, self.clock.now());
        if entry.head.is_gone || expires_at <= now {
            return Ok(None);
        }
        let record = if entry.is_read() || entry.head.record_len <= LARGE {
            entry.record()
        } else {
            let reading = tokio::task::spawn_blocking(move || entry.record());
            tick::timeout(self.timeout, reading).await.map_err(untold)?.map_err(untold)?
        };
        let record = record.map_err(|error| unread(name, error.into()))?;
        held(name, &EncodedRecord { expires_at, record }, now, &self.condition)
    }
}

impl Store for Embedded {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        Box::pin(async move {
            let open = self.view.open_segment();
            let (held, absent_before) = match self.view.find(name).map_err(|error| unread(name, error))? {
                Some(entry) => (self.held(name, entry).await?, 0),
                None => (None, open),
            };
            match transitions::claim(held, claim) {
                // Nothing to write: the thread could not say more.
                ClaimTransition::Refuse(held) => Ok(Claimed::Refused(held)),
                ClaimTransition::AlreadyMine(claim) => Ok(Claimed::Granted(claim)),
                ClaimTransition::Write(_) => {
                    let (name, claim) = (name.clone(), claim.clone());
                    self.ask(self.timeout / 2, |answer| WriteRequest::Claim { name, claim, absent_before, answer })
                        .await
                }
            }
        })
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Renewed> {
        let (name, claim) = (name.clone(), claim.clone());
        Box::pin(self.ask(self.timeout, |answer| WriteRequest::Renew { name, claim, answer }))
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a Record) -> StoreFuture<'a, Settled> {
        let (name, token) = (name.clone(), record.claim.token);
        Box::pin(self.ask(self.timeout, move |answer| WriteRequest::Settle {
            name,
            token,
            record: codec::encode(record, Placement::Within),
            time_to_live: transitions::time_to_live(record),
            answer,
        }))
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> StoreFuture<'a, Released> {
        let name = name.clone();
        Box::pin(self.ask(self.timeout, move |answer| WriteRequest::Release { name, token, answer }))
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> StoreFuture<'a, Option<StoredRecord>> {
        Box::pin(self.written(name))
    }

    fn list<'a>(&'a self, listing: &'a ListQuery) -> StoreFuture<'a, Page> {
        Box::pin(async move {
            let (view, listing, now) = (self.view.clone(), listing.clone(), self.clock.now());
            let condition = self.condition.clone();
            // All segments are read for it: whoever lists many has as many pages as the time asks for.
            let until = Instant::now() + self.timeout / 2;
            let reading = tokio::task::spawn_blocking(move || page(&view, &condition, &listing, now, until));
            tick::timeout(self.timeout, reading).await.map_err(untold)?.map_err(untold)?.map_err(untold)
        })
    }

    fn compare_and_swap<'a>(&'a self, name: &'a RecordName, swap: &'a CompareAndSwap) -> StoreFuture<'a, SwapResult> {
        let (name, swap) = (name.clone(), Box::new(swap.clone()));
        Box::pin(self.ask(self.timeout, |answer| WriteRequest::CompareAndSwap { name, swap, answer }))
    }

    fn subscribe(&self, _name: &RecordName, _patience: Duration) -> Option<Changes> {
        // Whoever changes a record here is in this process.
        None
    }

    fn digest_key(&self) -> Result<DigestKey, StoreError> {
        Ok(self.digest_key)
    }

    fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    fn used_ratio(&self) -> Option<f64> {
        Some(f64::from_bits(self.used.load(Ordering::Relaxed))).filter(|ratio| !ratio.is_nan())
    }

    fn health(&self) -> Health {
        let gone = self.writer.as_ref().is_none_or(JoinHandle::is_finished);
        if !gone && self.condition.get() == Condition::Up { Health::Up } else { Health::Down }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(writer) = self.writer.take() {
            // A thread that panicked has said so.
            let _ = writer.join();
        }
    }
}

/// Finds the digest key, or makes it.
fn agree(log: &mut RecordLog, path: &Path, config: &config::StoreConfig, now: u64) -> Result<DigestKey, EmbeddedError> {
    let wanted = Wanted::new(digest_key::configured(config), None)?;
    let found = log.digest_key();
    if found.is_none() && !log.is_empty() {
        return Err(EmbeddedError::not_whole(path, "its records are there, and the digest key of their names is gone"));
    }
    let mut keep = || {
        let kept = log.keep_digest_key(wanted.note(), now);
        kept.map_err(|error| EmbeddedError::inaccessible(path, error))
    };
    match wanted.compare(found) {
        Agreement::Founded(key) => keep().map(|()| key),
        Agreement::Agreed(key) | Agreement::Adopted(key) => Ok(key),
        Agreement::Forgotten(key) => {
            tracing::warn!(
                "store.digest_key is not the key that this store was used with: the records kept under that are forgotten"
            );
            // Nobody else uses this store, so it is said once.
            keep().map(|()| key)
        }
        Agreement::Withheld => Err(EmbeddedError::DigestKeyWithheld(path.to_owned())),
    }
}

/// The records after the cursor, which is a segment and a place in it.
fn page(
    view: &View,
    condition: &CurrentCondition,
    listing: &ListQuery,
    now: u64,
    until: Instant,
) -> Result<Page, LogReadError> {
    let after = listing.after.as_ref().and_then(|cursor| cursor.0.split_once('.'));
    let after = after.and_then(|(segment, place)| Some((segment.parse().ok()?, place.parse().ok()?)));
    let mut records = Vec::new();
    let list = |head: &frame::FrameHead, start: &[u8]| {
        let left = Duration::from_millis(head.expires_at.saturating_sub(now));
        if let Some(name) =
            head.name.as_ref().filter(|name| listing.route.as_ref().is_none_or(|route| *route == name.route))
            && !left.is_zero()
        {
            let seen = codec::summarise(&Bytes::copy_from_slice(start)).map(|summary| {
                let silent_for = condition.silence(silence(summary.claim.terms.retention, left), now);
                RecordSnapshot { summary, silent_for }
            });
            records.push(ListedRecord { name: name.clone(), seen });
        }
        if records.len() >= listing.limit { Walk::Stop } else { Walk::Continue }
    };
    let next = view.walk(after.unwrap_or((0, 0)), codec::HEAD, list, || Instant::now() > until)?;
    Ok(Page { records, next: next.map(|(segment, place)| Cursor(format!("{segment}.{place}"))) })
}

/// What `stored` means at `now`: expired records are nowhere.
fn held(
    name: &RecordName,
    stored: &EncodedRecord,
    now: u64,
    condition: &CurrentCondition,
) -> Result<Option<StoredRecord>, StoreError> {
    let left = Duration::from_millis(stored.expires_at.saturating_sub(now));
    if left.is_zero() {
        return Ok(None);
    }
    let unreadable = |source| StoreError::Unreadable { name: name.to_string(), source };
    match codec::decode(&stored.record).map_err(unreadable)? {
        Decoded::Whole(record) => {
            let silent_for = condition.silence(silence(record.claim.terms.retention, left), now);
            Ok(Some(StoredRecord { record, silent_for }))
        }
        Decoded::Bodiless(_) => Err(unreadable(Unreadable::Damaged("its body is gone"))),
    }
}

fn silence(retention: Duration, left: Duration) -> Duration {
    retention.min(FOREVER).saturating_sub(left)
}

/// What is there cannot be read: that must not pass for "nothing".
fn unread(name: &RecordName, error: LogReadError) -> StoreError {
    match error {
        LogReadError::Io(error) => untold(error),
        LogReadError::Damaged => StoreError::Unreadable {
            name: name.to_string(),
            source: Unreadable::Damaged("the file that it lies in does not hold it any more"),
        },
    }
}

fn untold(error: impl Into<Cause>) -> StoreError {
    StoreError::Uncertain(error.into())
}
