//! Bodies that lie apart: whose turn it is, how long one may take, and one transfer for all who want the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::commands::Fault;

/// Bytes in a second that a link to Redis must carry. A slower one is out of time.
pub(super) const LEAST_RATE: u64 = 256 * 1024;

/// Bodies that are transferred at once. The others wait for their turn where they are, and their time has not begun.
pub(super) const TURNS: usize = 4;

/// The transfers under way.
pub(super) struct Bodies {
    turns: Semaphore,
    /// Bytes of those whose turn it is: they share the link.
    under_way: AtomicU64,
    /// By the key that a body lies under. A key is used for one body only, so whoever comes later gets the same.
    reads: Mutex<HashMap<String, Read>>,
}

/// What came of a read. Nothing: there is no body under that key.
type Read = Arc<OnceCell<Result<Option<Bytes>, Arc<Fault>>>>;

/// One transfer, counted until it is dropped.
pub(super) struct Transfer<'a> {
    bodies: &'a Bodies,
    length: u64,
    _turn: Option<SemaphorePermit<'a>>,
    /// When it is given up.
    pub(super) deadline: Instant,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { turns: Semaphore::new(TURNS), under_way: AtomicU64::new(0), reads: Mutex::default() }
    }
}

impl Bodies {
    /// Waits for a turn to transfer so many bytes. From then on it may take as long as a call, and as those and all that is
    /// under way take at the [least rate](LEAST_RATE): so every turn ends, and those who wait have theirs.
    pub(super) async fn turn(&self, length: u64, timeout: Duration) -> Transfer<'_> {
        // It is never closed.
        let turn = self.turns.acquire().await.ok();
        let ahead = self.under_way.fetch_add(length, Ordering::Relaxed);
        // A damaged record may tell of any length.
        let millis = ahead.saturating_add(length).saturating_mul(1000) / LEAST_RATE;
        let deadline = Instant::now() + timeout + Duration::from_millis(millis);
        Transfer { bodies: self, length, _turn: turn, deadline }
    }

    /// Reads what lies under `key`, with `read`. Those who come while it is being read wait for the same transfer.
    pub(super) async fn read<Fut>(&self, key: &str, read: impl FnOnce() -> Fut) -> Result<Option<Bytes>, Arc<Fault>>
    where
        Fut: Future<Output = Result<Option<Bytes>, Fault>>,
    {
        let reader = Reader { bodies: self, key, cell: Arc::clone(self.reads().entry(key.to_owned()).or_default()) };
        // Where the first leaves, another of those who wait reads.
        reader.cell.get_or_init(|| async { read().await.map_err(Arc::new) }).await.clone()
    }

    fn reads(&self) -> MutexGuard<'_, HashMap<String, Read>> {
        // Every step leaves the map whole.
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.bodies.under_way.fetch_sub(self.length, Ordering::Relaxed);
    }
}

/// One of those who wait for a read. The last takes it out of the map.
struct Reader<'a> {
    bodies: &'a Bodies,
    key: &'a str,
    cell: Read,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut reads = self.bodies.reads();
        // The map's own, and this one. Others are made under the lock only.
        if Arc::strong_count(&self.cell) <= 2 {
            reads.remove(self.key);
        }
    }
}
