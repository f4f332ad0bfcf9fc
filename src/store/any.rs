//! One type for all stores.

use std::ops::Deref;
use std::sync::Arc;

use super::{Claimed, Embedded, Redis, Settled, Store, StoreError};
use crate::record::{Claim, RecordName, SettledRecord};

/// Any of the stores. Claim and settle, the two calls of a first request, need no boxed future with Redis and the
/// embedded store. All other calls go through the trait.
#[derive(Clone)]
pub enum AnyStore {
    /// Records in a Redis server.
    Redis(Arc<Redis>),
    /// Records in a folder.
    Embedded(Arc<Embedded>),
    /// Records in this process, or in PostgreSQL: the boxed future costs nothing beside its commit.
    Other(Arc<dyn Store>),
}

impl AnyStore {
    /// The same store, with its own connections for claims and settles. They belong to the runtime on which this is
    /// called.
    pub fn on_core(&self) -> Self {
        match self {
            Self::Redis(redis) => Self::Redis(Arc::new(redis.on_core())),
            Self::Embedded(embedded) => Self::Embedded(Arc::new(embedded.on_core())),
            Self::Other(store) => Self::Other(Arc::clone(store)),
        }
    }

    /// See [`Store::claim`].
    pub async fn claim(&self, name: &RecordName, claim: &Claim) -> Result<Claimed, StoreError> {
        match self {
            Self::Redis(redis) => redis.claim(name, claim).await,
            Self::Embedded(embedded) => embedded.claim(name, claim).await,
            Self::Other(store) => store.claim(name, claim).await,
        }
    }

    /// See [`Store::settle`].
    pub async fn settle(&self, name: &RecordName, record: &SettledRecord) -> Result<Settled, StoreError> {
        match self {
            Self::Redis(redis) => redis.settle(name, record).await,
            Self::Embedded(embedded) => embedded.settle(name, record).await,
            Self::Other(store) => store.settle(name, record).await,
        }
    }
}

impl Deref for AnyStore {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Redis(redis) => &**redis,
            Self::Embedded(embedded) => &**embedded,
            Self::Other(store) => &**store,
        }
    }
}
