//! What lies on the disk.
//!
//! ```text
//! records    route:digest                → expires at u64, record
//! expiries   expires at u64, route:digest →                          (big endian: in the order of time)
//! meta       layout, clock, digest-key
//! ```
//!
//! Times are milliseconds on the store's own clock.

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, LsmError, OwnedWriteBatch, PersistMode};

use crate::store::Cause;

/// Why a folder cannot be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// It is something else.
    #[error("{0} is not a folder")]
    NotAFolder(PathBuf),
    /// Another process has it.
    #[error("another onlyonce uses {0}")]
    InUse(PathBuf),
    /// The system does not let us.
    #[error("{path} cannot be read and written")]
    Inaccessible {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It does not hold what was written.
    #[error("the store in {path} is damaged, or not one of onlyonce")]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What does not fit.
        #[source]
        source: Cause,
    },
    /// A newer version wrote it.
    #[error("the store in {0} was written by a newer version of onlyonce")]
    Newer(PathBuf),
    /// The store was used with a digest key that is not here.
    #[error(
        "the store in {0} was used with another store.digest_key, and none is set: set it, or use an empty folder to go \
         on without the records of before"
    )]
    DigestKeyWithheld(PathBuf),
    /// No random bytes.
    #[error("there is no randomness to make a digest key of")]
    Randomness(#[source] getrandom::Error),
    /// No thread.
    #[error("the store's thread cannot be started")]
    Thread(#[source] io::Error),
}

/// The open files.
pub(super) struct Disk {
    database: Database,
    records: Keyspace,
    expiries: Keyspace,
    meta: Keyspace,
}

/// A record with its end.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) expires_at: u64,
    pub(super) record: Bytes,
}

impl Stored {
    fn of(mut record: Bytes) -> Self {
        // A value without even its time is damaged, and no reason to take it for expired.
        let expires_at = record.try_get_u64().unwrap_or(u64::MAX);
        Self { expires_at, record }
    }
}

/// What is written down about the store as a whole.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meta {
    Layout,
    Clock,
    DigestKey,
}

const LAYOUT: u8 = 1;
const MIB: u64 = 1024 * 1024;

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, EmbeddedError> {
        if path.exists() && !path.is_dir() {
            return Err(EmbeddedError::NotAFolder(path.to_owned()));
        }
        let disk = Self::open_files(path).map_err(|error| open_error(path, error))?;
        match disk.meta(Meta::Layout).map_err(|error| open_error(path, error))?.as_deref() {
            Some([LAYOUT]) => Ok(disk),
            Some(_) => Err(EmbeddedError::Newer(path.to_owned())),
            None => {
                let mut changes = disk.change();
                changes.put_meta(Meta::Layout, &[LAYOUT]);
                changes.commit(PersistMode::SyncAll).map_err(|error| open_error(path, error))?;
                Ok(disk)
            }
        }
    }

    /// A sidecar shares its machine: all buffers are small, for records are written once and read seldom.
    fn open_files(path: &Path) -> fjall::Result<Self> {
        let database = Database::builder(path)
            .cache_size(2 * MIB)
            .worker_threads(1)
            .max_cached_files(Some(64))
            .max_journaling_size(128 * MIB)
            .open()?;
        let small = |memtable: u64| KeyspaceCreateOptions::default().max_memtable_size(memtable);
        // Large values lie in files of their own: they are not rewritten with the rest, and their size can be told
        // without reading them.
        let large = KvSeparationOptions::default().separation_threshold(64 * 1024).file_target_size(16 * MIB);
        let records = database.keyspace("records", || small(4 * MIB).with_kv_separation(Some(large)))?;
        let expiries = database.keyspace("expiries", || small(MIB))?;
        let meta = database.keyspace("meta", || small(MIB))?;
        Ok(Self { database, records, expiries, meta })
    }

    pub(super) fn stored(&self, name: &str) -> fjall::Result<Option<Stored>> {
        Ok(self.records.get(name)?.map(|value| Stored::of(Bytes::from_owner(value))))
    }

    /// Records after `after`, in the order of their names: all, or those of one route.
    pub(super) fn names_after(
        &self,
        route: Option<&str>,
        after: Option<&str>,
    ) -> impl Iterator<Item = fjall::Result<(String, Stored)>> {
        let start = match (after, route) {
            (Some(after), _) => Bound::Excluded(after.to_owned()),
            (None, Some(route)) => Bound::Included(format!("{route}:")),
            (None, None) => Bound::Unbounded,
        };
        // The colon's next character: behind all names of the route.
        let end = route.map_or(Bound::Unbounded, |route| Bound::Excluded(format!("{route};")));
        // A range that ends before it begins is a mistake to the database, and a cursor may be anything.
        let sensible = match (&start, &end) {
            (Bound::Excluded(start) | Bound::Included(start), Bound::Excluded(end)) => start < end,
            _ => true,
        };
        let entries = sensible.then(|| self.records.range((start, end))).into_iter().flatten();
        entries.map(|entry| {
            let (name, value) = entry.into_inner()?;
            Ok((String::from_utf8_lossy(&name).into_owned(), Stored::of(Bytes::from_owner(value))))
        })
    }

    /// Bytes of the stored value. Reads no large one.
    pub(super) fn size(&self, name: &str) -> fjall::Result<Option<u32>> {
        self.records.size_of(name)
    }

    /// Names whose records expire from `from` up to and with `until`, in the order of time.
    pub(super) fn expiring(&self, from: u64, until: u64) -> impl Iterator<Item = fjall::Result<(u64, String)>> {
        let range = from.to_be_bytes()..until.saturating_add(1).to_be_bytes();
        self.expiries.range(range).map(|entry| {
            let mut name = Bytes::from_owner(entry.key()?);
            let expires_at = name.try_get_u64().unwrap_or(0);
            Ok((expires_at, String::from_utf8_lossy(&name).into_owned()))
        })
    }

    pub(super) fn meta(&self, what: Meta) -> fjall::Result<Option<Vec<u8>>> {
        Ok(self.meta.get(what.key())?.map(|value| value.to_vec()))
    }

    /// Begins a list of changes that take effect at once, or not at all.
    pub(super) fn change(&self) -> Changes<'_> {
        Changes { disk: self, batch: self.database.batch() }
    }

    /// Makes sure that all is on the disk.
    pub(super) fn sync(&self) -> fjall::Result<()> {
        self.database.persist(PersistMode::SyncAll)
    }
}

/// Changes that are not made yet.
pub(super) struct Changes<'a> {
    disk: &'a Disk,
    batch: OwnedWriteBatch,
}

impl Changes<'_> {
    pub(super) fn put(&mut self, name: &str, stored: &Stored) {
        let value = [&stored.expires_at.to_be_bytes()[..], &stored.record].concat();
        self.batch.insert(&self.disk.records, name, value);
        self.batch.insert(&self.disk.expiries, expiry_key(stored.expires_at, name), []);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.batch.remove(&self.disk.records, name);
    }

    pub(super) fn remove_expiry(&mut self, expires_at: u64, name: &str) {
        self.batch.remove(&self.disk.expiries, expiry_key(expires_at, name));
    }

    pub(super) fn put_meta(&mut self, what: Meta, value: &[u8]) {
        self.batch.insert(&self.disk.meta, what.key(), value);
    }

    /// Changes show once this returns; they are then as safe as `mode` makes them.
    pub(super) fn commit(self, mode: PersistMode) -> fjall::Result<()> {
        self.batch.durability(Some(mode)).commit()
    }
}

impl Meta {
    fn key(self) -> &'static str {
        match self {
            Self::Layout => "layout",
            Self::Clock => "clock",
            Self::DigestKey => "digest-key",
        }
    }
}

fn expiry_key(expires_at: u64, name: &str) -> Vec<u8> {
    [&expires_at.to_be_bytes()[..], name.as_bytes()].concat()
}

pub(super) fn open_error(path: &Path, error: fjall::Error) -> EmbeddedError {
    let path = path.to_owned();
    match error {
        fjall::Error::Locked => EmbeddedError::InUse(path),
        fjall::Error::Io(source) | fjall::Error::Storage(LsmError::Io(source))
            if !matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
        {
            EmbeddedError::Inaccessible { path, source }
        }
        source => EmbeddedError::Damaged { path, source: Box::new(source) },
    }
}
