use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    AnyStore, Changes, Claimed, Health, ListError, ListQuery, NodeUse, Page, Released, Renewed, Settled, Store,
    StoreError, StoreFuture, StoredChunks, SwapResult,
};
use crate::key::DigestKey;
use crate::metrics::{Metrics, StoreOp};
use crate::record::chunks::ApartBody;
use crate::record::encryption::EncryptionKey;
use crate::record::transitions::{CompareAndSwap, StoredRecord};
use crate::record::{Claim, RecordName, SettledRecord, Token};

/// Counts and times the calls to a store.
pub struct Metered {
    store: AnyStore,
    metrics: Arc<Metrics>,
}

impl Metered {
    /// Counts the calls to `store`.
    pub fn new(store: AnyStore, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    /// The same store, with its own connections for claims and settles. They belong to the runtime on which this is
    /// called.
    pub fn on_core(&self) -> Self {
        Self { store: self.store.on_core(), metrics: Arc::clone(&self.metrics) }
    }

    /// See [`Store::claim`]. The future is not boxed.
    pub async fn claim(&self, name: &RecordName, claim: &Claim) -> Result<Claimed, StoreError> {
        let begun = Instant::now();
        let claimed = self.store.claim(name, claim).await;
        self.metrics.store(StoreOp::Claim, begun.elapsed(), claimed.is_err());
        claimed
    }

    /// See [`Store::settle`]. The future is not boxed.
    pub async fn settle(&self, name: &RecordName, record: &SettledRecord) -> Result<Settled, StoreError> {
        let begun = Instant::now();
        let settled = self.store.settle(name, record).await;
        self.metrics.store(StoreOp::Settle, begun.elapsed(), settled.is_err());
        settled
    }

    fn timed<'a, T: 'a>(&'a self, op: StoreOp, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        let begun = Instant::now();
        Box::pin(async move {
            let answer = call.await;
            self.metrics.store(op, begun.elapsed(), answer.is_err());
            answer
        })
    }
}

impl Store for Metered {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        Box::pin(self.claim(name, claim))
    }

    fn open_body<'a>(&'a self, name: &'a RecordName, body: ApartBody) -> StoreFuture<'a, Box<dyn StoredChunks>> {
        Box::pin(async move {
            let chunks = self.store.open_body(name, body).await?;
            Ok(Box::new(MeteredChunks { chunks, metrics: Arc::clone(&self.metrics) }) as Box<dyn StoredChunks>)
        })
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Renewed> {
        self.timed(StoreOp::Renew, self.store.renew(name, claim))
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a SettledRecord) -> StoreFuture<'a, Settled> {
        Box::pin(self.settle(name, record))
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> StoreFuture<'a, Released> {
        self.timed(StoreOp::Release, self.store.release(name, token))
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> StoreFuture<'a, Option<StoredRecord>> {
        self.timed(StoreOp::Find, self.store.find(name))
    }

    fn list<'a>(&'a self, listing: &'a ListQuery) -> StoreFuture<'a, Page, ListError> {
        let begun = Instant::now();
        let call = self.store.list(listing);
        Box::pin(async move {
            let page = call.await;
            // A bad cursor is no failure of the store.
            self.metrics.store(StoreOp::List, begun.elapsed(), matches!(page, Err(ListError::Store(_))));
            page
        })
    }

    fn compare_and_swap<'a>(&'a self, name: &'a RecordName, swap: &'a CompareAndSwap) -> StoreFuture<'a, SwapResult> {
        self.timed(StoreOp::Exchange, self.store.compare_and_swap(name, swap))
    }

    fn subscribe(&self, name: &RecordName, patience: Duration) -> Option<Changes> {
        self.store.subscribe(name, patience)
    }

    fn digest_key(&self) -> Result<DigestKey, StoreError> {
        self.store.digest_key()
    }

    fn encryption_keys(&self) -> &[Arc<EncryptionKey>] {
        self.store.encryption_keys()
    }

    fn losses(&self) -> u64 {
        self.store.losses()
    }

    fn used_ratio(&self) -> Option<f64> {
        self.store.used_ratio()
    }

    fn used_by_node(&self) -> Vec<NodeUse> {
        self.store.used_by_node()
    }

    fn may_evict(&self) -> bool {
        self.store.may_evict()
    }

    fn left_behind(&self) -> Option<u64> {
        self.store.left_behind()
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}

/// Each read of a chunk is a call.
struct MeteredChunks {
    chunks: Box<dyn StoredChunks>,
    metrics: Arc<Metrics>,
}

impl StoredChunks for MeteredChunks {
    fn read(&mut self, index: u64) -> StoreFuture<'_, Option<Bytes>> {
        let begun = Instant::now();
        let read = self.chunks.read(index);
        let metrics = &self.metrics;
        Box::pin(async move {
            let read = read.await;
            metrics.store(StoreOp::Body, begun.elapsed(), read.is_err());
            read
        })
    }
}
