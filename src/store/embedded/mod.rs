//! Records in a folder on the local disk: durable, with nothing to install, for one sidecar.
//!
//! One thread writes, and what many ask of it at once goes to the disk together. Whatever the committed
//! state alone can answer is read from where the caller is.

mod clock;
mod disk;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fjall::PersistMode;
use tokio::sync::oneshot;
use tokio::time::Instant;

use clock::Clock;
pub use disk::EmbeddedError;
use disk::{Disk, Meta, Stored, open_error};
use writer::{Operation, Reply, Writer};

use super::digest_key::{self, Agreement, Note, Wanted};
use super::{
    Answer, Cause, Changes, Claimed, Cursor, Exchanged, FOREVER, Health, Listed, Listing, Page, Released, Renewed,
    Settled, Store, StoreError,
};
use crate::config;
use crate::key::DigestKey;
use crate::record::codec::{self, Decoded, Placement, Unreadable};
use crate::record::moves::{self, ClaimMove, Exchange, Held, Seen};
use crate::record::{Claim, Record, RecordName, Token};

/// Records in a folder.
pub struct Embedded {
    disk: Arc<Disk>,
    clock: Arc<Clock>,
    digest_key: DigestKey,
    timeout: Duration,
    broken: Arc<AtomicBool>,
    /// `None` while it is dropped.
    inbox: Option<SyncSender<Operation>>,
    writer: Option<JoinHandle<()>>,
}

/// Operations that wait for the thread.
const WAITING: usize = 4096;
/// What is larger is not read on a thread that others wait for.
const LARGE: u32 = 64 * 1024;

const BROKEN: &str = "the embedded store could not be written, and is out of use";

impl Embedded {
    /// Opens the store in `path`, and makes it if there is none. Reads the disk: for the start only.
    pub fn open(path: &Path, config: &config::Store) -> Result<Self, EmbeddedError> {
        let disk = Arc::new(Disk::open(path)?);
        let digest_key = agree(&disk, path, config)?;
        let mark = disk.meta(Meta::Clock).map_err(|error| open_error(path, error))?;
        let mark = mark.and_then(|mark| mark.try_into().ok()).map_or(0, u64::from_be_bytes);
        let clock = Arc::new(Clock::start(mark));
        let broken = Arc::new(AtomicBool::new(false));
        let (inbox, operations) = sync_channel(WAITING);
        let writer = Writer {
            disk: disk.clone(),
            clock: clock.clone(),
            durability: config.durability,
            inbox: operations,
            broken: broken.clone(),
            swept: 0,
            next_sweep: clock.now(),
        };
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || writer.run());
        let writer = Some(thread.map_err(EmbeddedError::Thread)?);
        Ok(Self { disk, clock, digest_key, timeout: config.timeout, broken, inbox: Some(inbox), writer })
    }

    /// Has the thread do something, and waits for it.
    async fn ask<T>(&self, timeout: Duration, operation: impl FnOnce(Reply<T>) -> Operation) -> Result<T, StoreError> {
        self.check()?;
        let (answer, result) = oneshot::channel();
        let inbox = self.inbox.as_ref().ok_or_else(out_of_use)?;
        inbox.try_send(operation(answer)).map_err(|_| {
            // Full, or its thread is gone.
            StoreError::Unavailable("the embedded store does not keep up".into())
        })?;
        match tokio::time::timeout(timeout, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Uncertain("the embedded store's thread is gone".into())),
            Err(_) => Err(StoreError::Uncertain("the embedded store did not answer in time".into())),
        }
    }

    /// Reads what is committed.
    async fn committed(&self, name: &RecordName) -> Result<Option<Held>, StoreError> {
        self.check()?;
        let key = name.to_string();
        let stored = match self.disk.size(&key).map_err(unread)? {
            None => return Ok(None),
            Some(size) if size <= LARGE => self.disk.stored(&key).map_err(unread)?,
            Some(_) => {
                let disk = self.disk.clone();
                let reading = tokio::task::spawn_blocking(move || disk.stored(&key));
                let read = tokio::time::timeout(self.timeout, reading).await.map_err(unread)?;
                read.map_err(unread)?.map_err(unread)?
            }
        };
        match stored {
            Some(stored) => read(name, &stored, self.clock.now()),
            None => Ok(None),
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.broken.load(Ordering::Acquire) { Err(out_of_use()) } else { Ok(()) }
    }
}

impl Store for Embedded {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> Answer<'a, Claimed> {
        Box::pin(async move {
            match moves::claim(self.committed(name).await?, claim) {
                // Nothing to write: the thread could not say more.
                ClaimMove::Refuse(held) => Ok(Claimed::Refused(held)),
                ClaimMove::Write(_) | ClaimMove::AlreadyMine(_) => {
                    let (name, claim) = (name.clone(), claim.clone());
                    self.ask(self.timeout / 2, |answer| Operation::Claim { name, claim, answer }).await
                }
            }
        })
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> Answer<'a, Renewed> {
        let (name, claim) = (name.clone(), claim.clone());
        Box::pin(self.ask(self.timeout, |answer| Operation::Renew { name, claim, answer }))
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a Record) -> Answer<'a, Settled> {
        let (name, token) = (name.clone(), record.claim.token);
        Box::pin(self.ask(self.timeout, move |answer| Operation::Settle {
            name,
            token,
            record: codec::encode(record, Placement::Within),
            time_to_live: moves::time_to_live(record),
            answer,
        }))
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> Answer<'a, Released> {
        let name = name.clone();
        Box::pin(self.ask(self.timeout, move |answer| Operation::Release { name, token, answer }))
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> Answer<'a, Option<Held>> {
        Box::pin(self.committed(name))
    }

    fn list<'a>(&'a self, listing: &'a Listing) -> Answer<'a, Page> {
        Box::pin(async move {
            self.check()?;
            let (disk, listing, now) = (self.disk.clone(), listing.clone(), self.clock.now());
            // Large records are read as a whole: whoever lists many has as many pages as the time asks for.
            let until = Instant::now() + self.timeout / 2;
            let reading = tokio::task::spawn_blocking(move || page(&disk, &listing, now, until));
            let read = tokio::time::timeout(self.timeout, reading).await.map_err(unread)?;
            read.map_err(unread)?.map_err(unread)
        })
    }

    fn exchange<'a>(&'a self, name: &'a RecordName, exchange: &'a Exchange) -> Answer<'a, Exchanged> {
        let (name, exchange) = (name.clone(), Box::new(exchange.clone()));
        Box::pin(self.ask(self.timeout, |answer| Operation::Exchange { name, exchange, answer }))
    }

    fn subscribe(&self, _name: &RecordName) -> Option<Changes> {
        // Whoever changes a record here is in this process.
        None
    }

    fn digest_key(&self) -> Answer<'_, DigestKey> {
        Box::pin(async move { Ok(self.digest_key) })
    }

    fn health(&self) -> Health {
        let gone = self.writer.as_ref().is_none_or(JoinHandle::is_finished);
        if gone || self.broken.load(Ordering::Acquire) { Health::Down } else { Health::Up }
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
fn agree(disk: &Disk, path: &Path, config: &config::Store) -> Result<DigestKey, EmbeddedError> {
    let wanted = Wanted::new(digest_key::configured(config), None).map_err(EmbeddedError::Randomness)?;
    let found = disk.meta(Meta::DigestKey).map_err(|error| open_error(path, error))?;
    let write = || {
        let mut changes = disk.change();
        changes.put_meta(Meta::DigestKey, &wanted.note().encode());
        changes.commit(PersistMode::SyncAll).map_err(|error| open_error(path, error))
    };
    match wanted.compare(found.as_deref().and_then(Note::decode)) {
        Agreement::Founded(key) => write().map(|()| key),
        Agreement::Agreed(key) | Agreement::Adopted(key) => Ok(key),
        Agreement::Forgotten(key) => {
            tracing::warn!(
                "store.digest_key is not the key that this store was used with: the records kept under that are forgotten"
            );
            // Nobody else uses this store, so it is said once.
            write().map(|()| key)
        }
        Agreement::Withheld => Err(EmbeddedError::DigestKeyWithheld(path.to_owned())),
    }
}

/// The records after the cursor, which is a name.
fn page(disk: &Disk, listing: &Listing, now: u64, until: Instant) -> fjall::Result<Page> {
    let after = listing.after.as_ref().map(|cursor| cursor.0.as_str());
    let mut page = Page { records: Vec::new(), next: None };
    let mut last = None;
    for (count, entry) in disk.names_after(listing.route.as_deref(), after).enumerate() {
        if count > 0 && (count >= listing.limit || Instant::now() > until) {
            page.next = last.map(Cursor);
            break;
        }
        let (text, stored) = entry?;
        let left = Duration::from_millis(stored.expires_at.saturating_sub(now));
        if let Ok(name) = text.parse()
            && !left.is_zero()
        {
            let seen = codec::summarise(&stored.record).map(|summary| {
                let silent_for = silence(summary.claim.terms.retention, left);
                Seen { summary, silent_for }
            });
            page.records.push(Listed { name, seen });
        }
        last = Some(text);
    }
    Ok(page)
}

/// What `stored` means at `now`: expired records are nowhere.
fn read(name: &RecordName, stored: &Stored, now: u64) -> Result<Option<Held>, StoreError> {
    let left = Duration::from_millis(stored.expires_at.saturating_sub(now));
    if left.is_zero() {
        return Ok(None);
    }
    let unreadable = |source| StoreError::Unreadable { name: name.to_string(), source };
    match codec::decode(&stored.record).map_err(unreadable)? {
        Decoded::Whole(record) => {
            let silent_for = silence(record.claim.terms.retention, left);
            Ok(Some(Held { record, silent_for }))
        }
        Decoded::Bodiless(_) => Err(unreadable(Unreadable::Damaged("its body is gone"))),
    }
}

fn silence(retention: Duration, left: Duration) -> Duration {
    retention.min(FOREVER).saturating_sub(left)
}

/// The disk does not tell what is there: that must not pass for "nothing".
fn unread(error: impl Into<Cause>) -> StoreError {
    StoreError::Uncertain(error.into())
}

fn out_of_use() -> StoreError {
    StoreError::Unavailable(BROKEN.into())
}
