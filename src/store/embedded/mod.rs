//! Records in a folder on the local disk: durable, with nothing to install, for one sidecar.
//!
//! All writes are appended to files, the segments. An index in memory says where the newest frame of each record lies.
//! A segment is removed as a whole when none of its frames is needed any more. A caller carries out its operation
//! itself. Changes of many callers are written together as a batch. With `durability = "disk"` one thread writes the
//! batch; with `durability = "process"` usually the core of the first caller does. `docs/embedded-store.md` gives
//! the reasons and the costs.
//!
//! | to find | look in |
//! |---|---|
//! | the bytes of a frame, and how long it is needed | `frame.rs` |
//! | the batches, and the operations | `queue.rs`; `batch.rs` |
//! | who waits, and who writes | `waiters.rs`; `core_writer.rs`, `writer.rs` |
//! | opening the store | `open.rs`; what a crash leaves, in `segment.rs` |
//! | appending, beginning another segment | `log.rs` |
//! | reading a record; lists | `read.rs`; `list.rs` |
//! | large answers | `bodies.rs` |
//! | giving room back | `reclaim.rs` |
//! | a full disk, a folder that is gone | `writer.rs`, `condition.rs` |

mod batch;
mod bodies;
mod clock;
mod condition;
mod core_writer;
mod error;
mod examine;
mod folder;
mod frame;
mod index;
mod key_agreement;
mod list;
mod log;
mod manifest;
mod open;
mod queue;
mod read;
mod reclaim;
mod segment;
#[cfg(test)]
mod tests;
mod usage;
mod view;
mod waiters;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::time::Instant;

use batch::{EncodedRecord, Purpose, Transaction};
use bodies::{EmbeddedChunks, LARGE_BODY};
use clock::Clock;
use condition::{Condition, CurrentCondition};
use core_writer::CoreWriter;
pub use error::EmbeddedError;
pub use examine::ExaminedFolder;
use frame::FrameKind;
use key_agreement::agree;
use list::{page, place_of};
use log::RecordLog;
use open::OpenedLog;
use queue::CommitQueue;
use read::{held, uncertain, unread};
use segment::SegmentEntry;
use view::View;
use waiters::{Commit, Waiters};
use writer::{NextWork, RecordLogWriter};

use super::format::RecordFormat;
use super::{
    Changes, Claimed, Health, ListError, ListQuery, Page, Released, Renewed, Settled, Store, StoreError, StoreFuture,
    StoredChunks, SwapResult,
};
use crate::config;
use crate::key::DigestKey;
use crate::record::chunks::ApartBody;
use crate::record::codec::Placement;
use crate::record::encryption::EncryptionKey;
use crate::record::transitions::{self, ClaimTransition, CompareAndSwap, StoredRecord};
use crate::record::{Claim, RecordName, SettledRecord, State, Token};
use crate::tick;

/// Records in a folder.
pub struct Embedded {
    shared: Arc<SharedStore>,
    /// The waiters of this core. Each core has its own list.
    waiters: Arc<Waiters>,
}

/// What all cores share.
struct SharedStore {
    view: Arc<View>,
    format: Arc<RecordFormat>,
    clock: Arc<Clock>,
    digest_key: DigestKey,
    timeout: Duration,
    /// How long the chunks of a body outlive their record.
    body_survives: Duration,
    /// Held while a large body is written: large bodies are written one after the other.
    body_turn: tokio::sync::Mutex<()>,
    condition: Arc<CurrentCondition>,
    losses: Arc<AtomicU64>,
    used: Arc<AtomicU64>,
    queue: Arc<CommitQueue>,
    /// Set with `durability = "process"`: the cores write, since no write waits for the disk.
    core_writer: Option<CoreWriter>,
    /// `None` while the store is dropped.
    writer: Option<JoinHandle<()>>,
    #[cfg(test)]
    syncs: Arc<AtomicU64>,
    #[cfg(test)]
    fails: Arc<std::sync::atomic::AtomicBool>,
}

/// A larger record is read on a blocking thread, not on a runtime thread.
const LARGE: u32 = 64 * 1024;

impl Embedded {
    /// Looks whether a store can be opened in `path`, and changes nothing there.
    pub fn examine(path: &Path) -> Result<ExaminedFolder, EmbeddedError> {
        examine::examine(path)
    }

    /// Opens the store in `path`, or makes one there. Reads the disk, so call it only at the start. Large bodies
    /// outlive their records by `body_survives`.
    pub fn open(path: &Path, config: &config::StoreConfig, body_survives: Duration) -> Result<Self, EmbeddedError> {
        let mut opened = RecordLog::open(path, config.durability)?;
        let clock = Arc::new(Clock::start(opened.clock));
        let log = &mut opened.log;
        let digest_key = agree(log, path, config, clock.now())?;
        // The log line shows the full path: it is where a user notices a wrong folder.
        let shown = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if opened.is_new {
            tracing::info!("made a new store in {}: it holds no earlier records", shown.display());
        } else {
            tracing::info!("opened the store in {}: {} records", shown.display(), log.records(clock.now()));
        }
        Self::start(opened, clock, digest_key, config, body_survives)
    }

    fn start(
        opened: OpenedLog,
        clock: Arc<Clock>,
        digest_key: DigestKey,
        config: &config::StoreConfig,
        body_survives: Duration,
    ) -> Result<Self, EmbeddedError> {
        let format = Arc::new(RecordFormat::of(config));
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
        let queue = Arc::new(CommitQueue::new(view.clone(), format.clone(), clock.clone(), condition.clone()));
        let log = Arc::new(Mutex::new(log));
        let core_writer = match config.durability {
            config::Durability::Process => Some(CoreWriter::new(log.clone(), clock.clone())),
            config::Durability::Disk => None,
        };
        let writer = RecordLogWriter {
            log,
            clock: clock.clone(),
            queue: queue.clone(),
            condition: condition.clone(),
            losses: losses.clone(),
            used: used.clone(),
            next: NextWork::default(),
            is_short: false,
        };
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || writer.run());
        let writer = Some(thread.map_err(EmbeddedError::Thread)?);
        let waiters = queue.waiters();
        let shared = SharedStore {
            view,
            format,
            clock,
            digest_key,
            timeout: config.timeout,
            body_survives,
            body_turn: tokio::sync::Mutex::new(()),
            condition,
            losses,
            used,
            queue,
            core_writer,
            writer,
            #[cfg(test)]
            syncs,
            #[cfg(test)]
            fails,
        };
        Ok(Self { shared: Arc::new(shared), waiters })
    }

    /// The same store, for callers on another runtime.
    pub fn on_core(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), waiters: self.shared.queue.waiters() }
    }

    /// See [`Store::claim`].
    pub async fn claim(&self, name: &RecordName, claim: &Claim) -> Result<Claimed, StoreError> {
        let shared = &*self.shared;
        let absent_at = shared.queue.finished();
        let (open, entry) = shared.view.look(name).map_err(|error| unread(name, error))?;
        let is_there = entry.is_some();
        let mut is_held = false;
        if let Some(entry) = entry {
            let held = Box::pin(self.held(name, entry)).await?;
            is_held = held.is_some();
            match transitions::claim(held, claim) {
                // The claim writes nothing, so the written record is enough. Unwritten changes are not looked at.
                ClaimTransition::Refuse(held) => return Ok(Claimed::Refused(held)),
                ClaimTransition::AlreadyMine(claim) => return Ok(Claimed::Granted(claim)),
                ClaimTransition::Write(_) => {}
            }
        }
        let (absent_at, absent_before) = if is_there { (None, 0) } else { (Some(absent_at), open) };
        let change = |on: &mut Transaction<'_>| on.claim(claim, absent_before);
        let changed = self.change(name, shared.timeout / 2, Purpose::Begin, absent_at, change).await;
        // The previous owner may have run the request. A takeover that fails must not look like a free key.
        if is_held { changed.map_err(StoreError::there_may_be_a_record) } else { changed }
    }

    /// See [`Store::settle`].
    pub async fn settle(&self, name: &RecordName, record: &SettledRecord) -> Result<Settled, StoreError> {
        let (token, time_to_live) = (record.claim.token, transitions::time_to_live(record));
        let format = &self.shared.format;
        let compressed = match format.compresses() {
            true => Box::pin(format.compressed(record)).await,
            false => None,
        };
        let stored = compressed.as_ref().unwrap_or(record);
        let mut placement = Placement::Within;
        if let State::Completed { reply, .. } = &stored.state
            && reply.body.stored_len() > LARGE_BODY
        {
            let pieces = reply.body.stored();
            placement = Placement::Apart(Box::pin(self.write_body(name, token, pieces, time_to_live)).await?);
        }
        let bytes = format.encode(name, stored, placement).into();
        let change = |on: &mut Transaction<'_>| on.settle(token, bytes, time_to_live);
        Ok(match self.change(name, self.shared.timeout, Purpose::End, None, change).await? {
            Settled::Kept(kept) => Settled::Kept(Box::new(RecordFormat::kept(*kept, stored, record))),
            Settled::Written => Settled::Written,
        })
    }

    /// Carries out an operation, and waits until the changes that its result depends on are written.
    async fn change<T>(
        &self,
        name: &RecordName,
        timeout: Duration,
        purpose: Purpose,
        absent_at: Option<u64>,
        operation: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let queue = &self.shared.queue;
        if self.shared.is_writer_gone() {
            return Err(StoreError::Refused("the embedded store's thread is gone".into()));
        }
        let (result, ticket) = queue.carry_out(name, purpose, absent_at, operation)?;
        let Some(ticket) = ticket else { return result };
        let commit = Commit::new(queue, &self.waiters, self.shared.core_writer.as_ref(), ticket);
        match tick::timeout(timeout, commit).await {
            Ok(written) => written.and(result),
            Err(_) => Err(StoreError::Uncertain("the embedded store did not answer in time".into())),
        }
    }

    /// Reads what is written. This works in every condition of the store.
    async fn written(&self, name: &RecordName) -> Result<Option<StoredRecord>, StoreError> {
        match self.shared.view.find(name).map_err(|error| unread(name, error))? {
            Some(entry) => self.held(name, entry).await,
            None => Ok(None),
        }
    }

    async fn held(&self, name: &RecordName, entry: SegmentEntry) -> Result<Option<StoredRecord>, StoreError> {
        let (expires_at, now) = (entry.head.expires_at, self.shared.clock.now());
        if entry.head.kind != FrameKind::Record || expires_at <= now {
            return Ok(None);
        }
        let record = if entry.is_read() || entry.head.record_len <= LARGE {
            entry.record()
        } else {
            let reading = tokio::task::spawn_blocking(move || entry.record());
            tick::timeout(self.shared.timeout, reading).await.map_err(uncertain)?.map_err(uncertain)?
        };
        let record = record.map_err(|error| unread(name, error.into()))?;
        held(name, &self.shared.format, &EncodedRecord { expires_at, record }, now, &self.shared.condition)
    }
}

impl Store for Embedded {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        Box::pin(self.claim(name, claim))
    }

    fn open_body<'a>(&'a self, name: &'a RecordName, body: ApartBody) -> StoreFuture<'a, Box<dyn StoredChunks>> {
        let chunks = EmbeddedChunks::new(Arc::clone(&self.shared), name.clone(), body.token);
        Box::pin(async move { Ok(Box::new(chunks) as Box<dyn StoredChunks>) })
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Renewed> {
        Box::pin(self.change(name, self.shared.timeout, Purpose::End, None, move |on| on.renew(claim)))
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a SettledRecord) -> StoreFuture<'a, Settled> {
        Box::pin(self.settle(name, record))
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> StoreFuture<'a, Released> {
        Box::pin(self.change(name, self.shared.timeout, Purpose::End, None, move |on| on.release(token)))
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> StoreFuture<'a, Option<StoredRecord>> {
        Box::pin(self.written(name))
    }

    fn list<'a>(&'a self, listing: &'a ListQuery) -> StoreFuture<'a, Page, ListError> {
        Box::pin(async move {
            let after = listing.after.as_ref().map(place_of).transpose()?;
            let (view, listing, now) = (self.shared.view.clone(), listing.clone(), self.shared.clock.now());
            let condition = self.shared.condition.clone();
            // A listing reads all segments. It stops after half of the timeout: a long listing has several pages.
            let until = Instant::now() + self.shared.timeout / 2;
            let reading = tokio::task::spawn_blocking(move || page(&view, &condition, &listing, after, now, until));
            let page = tick::timeout(self.shared.timeout, reading).await.map_err(uncertain)?.map_err(uncertain)?;
            Ok(page.map_err(uncertain)?)
        })
    }

    fn compare_and_swap<'a>(&'a self, name: &'a RecordName, swap: &'a CompareAndSwap) -> StoreFuture<'a, SwapResult> {
        Box::pin(self.change(name, self.shared.timeout, Purpose::End, None, move |on| on.compare_and_swap(swap)))
    }

    fn subscribe(&self, _name: &RecordName, _patience: Duration) -> Option<Changes> {
        // Every change is made in this process.
        None
    }

    fn digest_key(&self) -> Result<DigestKey, StoreError> {
        Ok(self.shared.digest_key)
    }

    fn encryption_keys(&self) -> &[Arc<EncryptionKey>] {
        self.shared.format.keys()
    }

    fn losses(&self) -> u64 {
        self.shared.losses.load(Ordering::Relaxed)
    }

    fn used_ratio(&self) -> Option<f64> {
        Some(f64::from_bits(self.shared.used.load(Ordering::Relaxed))).filter(|ratio| !ratio.is_nan())
    }

    fn health(&self) -> Health {
        if !self.shared.is_writer_gone() && self.shared.condition.get() == Condition::Up {
            Health::Up
        } else {
            Health::Down
        }
    }
}

impl SharedStore {
    fn is_writer_gone(&self) -> bool {
        self.writer.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for SharedStore {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // A thread that panics has already logged it.
            let _ = writer.join();
        }
    }
}
