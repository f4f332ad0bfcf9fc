//! Stores of records: one trait, four implementations, one conformance suite.
//!
//! Every store carries out the transitions of [`crate::record::transitions`] atomically, by its own clock.

mod any;
mod body;
mod certificate_fault;
#[cfg(test)]
#[path = "../../tests/it/support/certificates.rs"]
mod certificates;
#[cfg(test)]
mod conformance;
mod digest_key;
mod embedded;
mod format;
mod memory;
mod metered;
mod password;
mod postgres;
#[cfg(test)]
#[path = "../../tests/support/postgres_server.rs"]
mod postgres_server;
mod redis;
#[cfg(test)]
#[path = "../../tests/support/redis_rewriting.rs"]
mod redis_rewriting;
#[cfg(test)]
#[path = "../../tests/support/redis_server.rs"]
mod redis_server;
#[cfg(test)]
#[path = "../../tests/support/redis_topologies.rs"]
mod redis_topologies;
mod store_state;
mod timing;
mod usable_since;

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use any::AnyStore;
pub use body::{StoredBody, StoredChunks};
pub use embedded::{Embedded, EmbeddedError, ExaminedFolder};
pub use memory::Memory;
pub use metered::Metered;
pub use postgres::{Postgres, PostgresError, SCHEMA, grants};
pub use redis::{AclRule, ConnectError, NodeReport, Redis, ServerFinding};

use crate::config::{self, StoreLocation};
use crate::key::DigestKey;
use crate::record::chunks::ApartBody;
use crate::record::codec::Unreadable;
use crate::record::encryption::EncryptionKey;
use crate::record::transitions::{CompareAndSwap, RecordSnapshot, StoredRecord};
use crate::record::{Claim, Record, RecordName, SettledRecord, Token};

/// Opens the store that the configuration names. Must be called within a Tokio runtime. Large bodies outlive their records
/// by `body_survives`.
///
/// A Redis or PostgreSQL that cannot be reached is no reason not to start: it is waited for in the background, and calls
/// fail until it is there. One that must not be used is.
pub async fn open(config: &config::StoreConfig, body_survives: Duration) -> Result<AnyStore, OpenError> {
    match &config.location {
        StoreLocation::Memory => Ok(AnyStore::Other(Arc::new(Memory::open(config)?))),
        StoreLocation::Embedded(path) => Ok(AnyStore::Embedded(Arc::new(Embedded::open(path, config, body_survives)?))),
        StoreLocation::Redis(address) => {
            let store = Redis::open(address, config, body_survives);
            match store.ready(FIRST_CONNECT).await {
                Err(why) if why.is_final() => Err(OpenError::Redis { server: address.server(), why }),
                // The store has logged why not.
                Ok(()) | Err(_) => Ok(AnyStore::Redis(Arc::new(store))),
            }
        }
        StoreLocation::Postgres(address) => {
            let store = Postgres::open(address, config, body_survives);
            match store.ready(FIRST_CONNECT).await {
                Err(why) if why.is_final() => Err(OpenError::Postgres { server: address.server(), why }),
                Ok(()) | Err(_) => Ok(AnyStore::Other(Arc::new(store))),
            }
        }
    }
}

/// The same for whoever only looks into it while others use it. Waits until it is known whether it can be reached.
pub async fn open_to_look(config: &config::StoreConfig) -> Result<AnyStore, OpenError> {
    match &config.location {
        StoreLocation::Redis(address) => {
            let store = Redis::open_to_look(address, config);
            store.tried().await.map_err(|why| OpenError::Redis { server: address.server(), why })?;
            Ok(AnyStore::Redis(Arc::new(store)))
        }
        StoreLocation::Postgres(address) => {
            let store = Postgres::open_to_look(address, config);
            store.tried().await.map_err(|why| OpenError::Postgres { server: address.server(), why })?;
            Ok(AnyStore::Other(Arc::new(store)))
        }
        StoreLocation::Embedded(_) | StoreLocation::Memory => open(config, Duration::ZERO).await,
    }
}

/// Why a store cannot be opened, also not later.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be used.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The server must not be used.
    #[error("the Redis at {server}")]
    Redis {
        /// Which.
        server: String,
        /// Why not.
        #[source]
        why: Arc<ConnectError>,
    },
    /// The server must not be used.
    #[error("the PostgreSQL at {server}")]
    Postgres {
        /// Which.
        server: String,
        /// Why not.
        #[source]
        why: Arc<PostgresError>,
    },
    /// No random bytes.
    #[error("there is no randomness to make a digest key of")]
    Randomness(#[from] getrandom::Error),
}

impl OpenError {
    /// The error and its causes, and what would mend it.
    pub fn with_advice(&self) -> String {
        match self {
            Self::Redis { server, why } => format!("the Redis at {server}: {}", why.with_advice()),
            Self::Embedded(_) | Self::Postgres { .. } | Self::Randomness(_) => causes(self),
        }
    }
}

/// Longer than any record lives, and within the range of every clock and server.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Above this share of what a store may take, it is short of room: see [`Store::used_ratio`].
pub const SHORT: f64 = 0.8;

/// How long a start waits for a server.
const FIRST_CONNECT: Duration = Duration::from_secs(2);

/// The future of a store's reply.
pub type StoreFuture<'a, T, E = StoreError> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// Keeps records, and decides atomically who owns an operation.
///
/// Every call ends within the store's own deadline, to which the time for a large body is added. Dropping the future of
/// a call leaves it uncertain whether it was carried out.
pub trait Store: Send + Sync + 'static {
    /// Claims the operation. Takes over from a lost owner if its terms allow it. If the reply is lost, the same claim
    /// may be repeated: it takes half the time of a call.
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Claimed>;

    /// Opens the body of a response that is stored [apart](crate::record::ReplyBody::Apart) from its record. The store
    /// decides where a body is stored when the outcome is settled.
    fn open_body<'a>(&'a self, name: &'a RecordName, body: ApartBody) -> StoreFuture<'a, Box<dyn StoredChunks>> {
        let _ = body;
        let source = Unreadable::Damaged("its body cannot lie apart in this store");
        Box::pin(async move { Err(StoreError::Unreadable { name: name.to_string(), source }) })
    }

    /// Renews the lease; makes the claim again if the record is gone.
    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Renewed>;

    /// Writes the outcome of the attempt that `record.claim` owns.
    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a SettledRecord) -> StoreFuture<'a, Settled>;

    /// Frees the key, if the record is still in flight under this token.
    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> StoreFuture<'a, Released>;

    /// Looks the record up.
    fn find<'a>(&'a self, name: &'a RecordName) -> StoreFuture<'a, Option<StoredRecord>>;

    /// A page of records. A record that exists during the whole listing is on at least one page, sometimes on two; one
    /// that is added or deleted meanwhile may be on a page.
    fn list<'a>(&'a self, listing: &'a ListQuery) -> StoreFuture<'a, Page, ListError>;

    /// Replaces or deletes the record, if it [still matches](CompareAndSwap::still_matches).
    fn compare_and_swap<'a>(&'a self, name: &'a RecordName, swap: &'a CompareAndSwap) -> StoreFuture<'a, SwapResult>;

    /// Notifications of changes of the record by other processes, if the store has them. Begins to subscribe, and does
    /// not wait for it. Changes after `patience` may be missed.
    fn subscribe(&self, name: &RecordName, patience: Duration) -> Option<Changes>;

    /// The key for digests of names and fingerprints, shared by all users of the store. Does no I/O.
    fn digest_key(&self) -> Result<DigestKey, StoreError>;

    /// What it encrypts answers with: the first key encrypts, and all decrypt. Empty: nothing is encrypted.
    fn encryption_keys(&self) -> &[Arc<EncryptionKey>] {
        &[]
    }

    /// How often the store has lost its data since it was opened, as far as it was noticed. The lost operations run
    /// again when they are repeated.
    fn losses(&self) -> u64 {
        0
    }

    /// The used share of the store's memory or disk, from 0 to 1, if known.
    fn used_ratio(&self) -> Option<f64> {
        None
    }

    /// The same of each part of the store that has its own memory: the nodes of a cluster.
    fn used_by_node(&self) -> Vec<NodeUse> {
        let alone = |used_ratio| NodeUse { node: None, used_ratio };
        self.used_ratio().map(alone).into_iter().collect()
    }

    /// Whether the store may drop records before their time to make room for others.
    fn may_evict(&self) -> bool {
        false
    }

    /// At how many sessions of lost connections the server is still at work, if that is known. Does no I/O.
    fn left_behind(&self) -> Option<u64> {
        None
    }

    /// Whether the store can be reached, as far as is known now. Does no I/O.
    fn health(&self) -> Health;
}

/// How much of its room a part of a store has taken.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeUse {
    /// Host and port of a node; `None` where the store is one.
    pub node: Option<String>,
    /// From 0 to 1.
    pub used_ratio: f64,
}

/// Notifies that a record may have changed. It may be spurious or late.
pub type Changes = tokio::sync::watch::Receiver<()>;

/// The result of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The caller owns the operation. The claim as written: its attempt number is more than 1 after a takeover.
    Granted(Claim),
    /// Another request owns it, or owned it.
    Refused(Box<StoredRecord>),
}

/// The result of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// The time to live is the whole retention again.
    Extended,
    /// The record was gone; the claim was written again.
    ClaimedAgain,
    /// The record has another owner, or is settled.
    Lost,
}

/// The result of a settle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The outcome is recorded.
    Written,
    /// Another record exists, and is kept.
    Kept(Box<Record>),
}

/// The result of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// The key is free.
    Deleted,
    /// There was no record.
    Absent,
    /// The record is not the caller's to release, and is kept.
    Kept,
}

/// Which records to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Those of this route; of all routes without it.
    pub route: Option<Arc<str>>,
    /// The end of the previous page; `None` for the first page.
    pub after: Option<Cursor>,
    /// The approximate size of a page, at least 1. A page may be smaller, even empty, or slightly larger.
    pub limit: usize,
}

/// A page of records, in no particular order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Each with its name.
    pub records: Vec<ListedRecord>,
    /// The start of the next page; `None` after the last.
    pub next: Option<Cursor>,
}

/// A record in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRecord {
    /// Its name.
    pub name: RecordName,
    /// The part of the record that a list reads.
    pub seen: Result<RecordSnapshot, Unreadable>,
}

/// A position in a list, in the format of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// Why there is no page of a list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The cursor was made up, or is from another kind of store.
    #[error("the cursor is not from a list of this store")]
    BadCursor,
    /// The store has failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of a compare-and-swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwapResult {
    /// It is made.
    Done,
    /// The record has changed, or is gone.
    Changed(Option<Box<StoredRecord>>),
}

/// Why a call failed, by what the caller may conclude.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Certainly not done: the store is unreachable.
    #[error("the store is unavailable")]
    Unavailable(#[source] Cause),
    /// Certainly not done: the store refuses.
    #[error("the store refuses")]
    Refused(#[source] Cause),
    /// It may have been done, or may still be done.
    #[error("the store did not answer")]
    Uncertain(#[source] Cause),
    /// Done, but fewer replicas or disks have it than the configuration asks for. It may be lost.
    #[error("the store took it, without the acknowledgements that are asked for")]
    Unacknowledged(#[source] Cause),
    /// A record exists that cannot be read. Its operation is never run again.
    #[error("the record {name} cannot be read")]
    Unreadable {
        /// Which record.
        name: String,
        /// What is wrong with it.
        #[source]
        source: Unreadable,
    },
}

impl StoreError {
    /// The same if a record exists or may exist: the failure must not count as "the key is free".
    pub fn there_may_be_a_record(self) -> Self {
        match self {
            Self::Unavailable(cause) | Self::Refused(cause) => Self::Uncertain(cause),
            other => other,
        }
    }
}

/// What went wrong underneath.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Whether a store can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Its last call was answered.
    Up,
    /// It cannot be used now.
    Down,
}

/// An error and its causes, for a log line. A cause that is part of the error's own text is not repeated.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut told = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()).map(ToString::to_string) {
        if !told.contains(&cause) {
            told += &format!(": {cause}");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Told {
        said: &'static str,
        #[source]
        cause: io::Error,
    }

    #[test]
    fn a_cause_is_told_once() {
        let refused = || io::Error::other("connection refused");
        assert_eq!(causes(&Told { said: "no way", cause: refused() }), "no way: connection refused");
        assert_eq!(
            causes(&Told { said: "no way: connection refused", cause: refused() }),
            "no way: connection refused"
        );
    }
}
