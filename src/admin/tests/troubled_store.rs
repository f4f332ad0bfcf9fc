//! A store whose answers are lost, late, or missing.

use super::*;

/// What is wrong with a store.
pub(super) enum Trouble {
    /// The answer to a write is lost.
    Lost,
    /// A write takes so long.
    Late(Duration),
    /// Nothing can be read, once this is set.
    Blind(Arc<AtomicBool>),
}

pub(super) struct Troubled(pub(super) Arc<dyn Store>, pub(super) Trouble);

impl Store for Troubled {
    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a SettledRecord) -> StoreFuture<'a, Settled> {
        Box::pin(async move {
            match &self.1 {
                Trouble::Lost => {
                    self.0.settle(name, record).await?;
                    Err(StoreError::Uncertain("by plan".into()))
                }
                Trouble::Late(pause) => {
                    tokio::time::sleep(*pause).await;
                    self.0.settle(name, record).await
                }
                Trouble::Blind(_) => self.0.settle(name, record).await,
            }
        })
    }

    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        self.0.claim(name, claim)
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Renewed> {
        self.0.renew(name, claim)
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> StoreFuture<'a, Released> {
        self.0.release(name, token)
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> StoreFuture<'a, Option<StoredRecord>> {
        match &self.1 {
            Trouble::Blind(is_blind) if is_blind.load(Ordering::Relaxed) => {
                Box::pin(async { Err(StoreError::Unavailable("by plan".into())) })
            }
            Trouble::Blind(_) | Trouble::Lost | Trouble::Late(_) => self.0.find(name),
        }
    }

    fn list<'a>(&'a self, listing: &'a ListQuery) -> StoreFuture<'a, Page, ListError> {
        self.0.list(listing)
    }

    fn compare_and_swap<'a>(&'a self, name: &'a RecordName, swap: &'a CompareAndSwap) -> StoreFuture<'a, SwapResult> {
        self.0.compare_and_swap(name, swap)
    }

    fn subscribe(&self, name: &RecordName, patience: Duration) -> Option<Changes> {
        self.0.subscribe(name, patience)
    }

    fn digest_key(&self) -> Result<DigestKey, StoreError> {
        self.0.digest_key()
    }

    fn health(&self) -> Health {
        self.0.health()
    }
}
