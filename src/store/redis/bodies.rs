//! Transfers of bodies that lie apart: whose turn it is, how long one may take, and one for all who want the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::commands::CommandError;

/// Bytes in a second that a link to Redis must carry. A slower one is out of time.
pub(super) const LEAST_RATE: u64 = 256 * 1024;

/// Transfers at once in one direction: of a whole body that is written, of one chunk that is read. The others wait for their turn where they are, and their time has
/// not begun.
pub(super) const TURNS: usize = 4;

/// The transfers under way.
pub(super) struct Bodies {
    reading: Semaphore,
    /// Apart from those that read: a replay can wait, while a lease runs for what is to be written.
    writing: Semaphore,
    /// Bytes of those whose turn it is: they share the link.
    under_way: AtomicU64,
    /// By the key that a chunk lies under. A key is used for one chunk only, so whoever comes later gets the same.
    reads: Mutex<HashMap<String, BodyRead>>,
}

/// Which way a body goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// What came of a read. Nothing: there is no chunk under that key.
type BodyRead = Arc<OnceCell<Result<Option<Bytes>, Arc<CommandError>>>>;

/// One transfer, counted until it is dropped.
pub(super) struct BodyTransfer<'a> {
    bodies: &'a Bodies,
    length: u64,
    _turn: Option<SemaphorePermit<'a>>,
    /// When it is given up, and how long that is from its beginning.
    pub(super) deadline: Instant,
    pub(super) allowed: Duration,
}

impl Default for Bodies {
    fn default() -> Self {
        let [reading, writing] = [(); 2].map(|()| Semaphore::new(TURNS));
        Self { reading, writing, under_way: AtomicU64::new(0), reads: Mutex::default() }
    }
}

impl Bodies {
    /// Waits for a turn to transfer so many bytes. From then on it may take as long as a call, and as those and all that is
    /// under way take at the [least rate](LEAST_RATE): so every turn ends, and those who wait have theirs.
    pub(super) async fn turn(&self, direction: Direction, length: u64, timeout: Duration) -> BodyTransfer<'_> {
        let turns = match direction {
            Direction::Read => &self.reading,
            Direction::Write => &self.writing,
        };
        // It is never closed.
        let turn = turns.acquire().await.ok();
        let ahead = self.under_way.fetch_add(length, Ordering::Relaxed);
        // A damaged record may tell of any length.
        let millis = ahead.saturating_add(length).saturating_mul(1000) / LEAST_RATE;
        let allowed = timeout + Duration::from_millis(millis);
        BodyTransfer { bodies: self, length, _turn: turn, deadline: Instant::now() + allowed, allowed }
    }

    /// Reads what lies under `key`, with `read`. Those who come while it is being read wait for the same transfer.
    pub(super) async fn read<Fut>(
        &self,
        key: &str,
        read: impl FnOnce() -> Fut,
    ) -> Result<Option<Bytes>, Arc<CommandError>>
    where
        Fut: Future<Output = Result<Option<Bytes>, CommandError>>,
    {
        let reader =
            BodyReader { bodies: self, key, cell: Arc::clone(self.reads().entry(key.to_owned()).or_default()) };
        // Where the first leaves, another of those who wait reads.
        reader.cell.get_or_init(|| async { read().await.map_err(Arc::new) }).await.clone()
    }

    fn reads(&self) -> MutexGuard<'_, HashMap<String, BodyRead>> {
        // Every step leaves the map whole.
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BodyTransfer<'_> {
    fn drop(&mut self) {
        self.bodies.under_way.fetch_sub(self.length, Ordering::Relaxed);
    }
}

/// One of those who wait for a read. The last takes it out of the map.
struct BodyReader<'a> {
    bodies: &'a Bodies,
    key: &'a str,
    cell: BodyRead,
}

impl Drop for BodyReader<'_> {
    fn drop(&mut self) {
        let mut reads = self.bodies.reads();
        // The map's own, and this one. Others are made under the lock only.
        if Arc::strong_count(&self.cell) <= 2 {
            reads.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn reads_never_hold_up_writes_nor_writes_reads() {
        for (holds, comes) in [(Direction::Read, Direction::Write), (Direction::Write, Direction::Read)] {
            let (bodies, mut held) = (Bodies::default(), Vec::new());
            for _ in 0..TURNS {
                held.push(bodies.turn(holds, LEAST_RATE, TIMEOUT).await);
            }
            let more = tokio::time::timeout(TIMEOUT * 60, bodies.turn(holds, 1, TIMEOUT)).await;
            assert!(more.is_err(), "{holds:?}: one more than there are turns");
            let begun = Instant::now();
            let turn = tokio::time::timeout(TIMEOUT * 60, bodies.turn(comes, LEAST_RATE, TIMEOUT)).await;
            let deadline = turn.expect("a turn of its own").deadline;
            // They share the link all the same.
            assert_eq!(deadline.duration_since(begun), TIMEOUT + Duration::from_secs(TURNS as u64 + 1));
        }
    }
}
