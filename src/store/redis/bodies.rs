//! Transfers of bodies that are stored apart from their records: their turns, their time limits, and shared reads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::command_error::CommandError;
use crate::store::StoreError;

/// The lowest rate of a link to Redis that is supported, in bytes per second. A slower transfer times out.
pub(super) const LEAST_RATE: u64 = 256 * 1024;

/// The number of concurrent transfers in one direction. A write transfers a whole body, a read one chunk. Other
/// transfers wait for a turn, and their time has not started.
pub(super) const TURNS: usize = 4;

/// The transfers in progress.
pub(super) struct Bodies {
    reading: Semaphore,
    /// Writes have their own turns. A replay can wait, but a write must end within its lease.
    writing: Semaphore,
    /// The total length of the transfers that have a turn. They share the link.
    under_way: AtomicU64,
    /// The reads in progress, by the key of the chunk. A key is used for one chunk only, so a later reader gets the
    /// same bytes.
    reads: Mutex<HashMap<String, BodyRead>>,
}

/// The direction of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// The result of a read. `None`: there is no chunk under that key.
type BodyRead = Arc<OnceCell<Result<Option<Bytes>, Arc<ReadError>>>>;

/// Why a read has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// There is no connection, so nothing was asked.
    #[error(transparent)]
    NotConnected(#[from] StoreError),
    #[error("{0}")]
    Command(CommandError),
}

/// One transfer. It is counted until it is dropped.
pub(super) struct BodyTransfer<'a> {
    bodies: &'a Bodies,
    length: u64,
    _turn: Option<SemaphorePermit<'a>>,
    /// When the transfer is given up, and the time from its start until then.
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
    /// Waits for a turn to transfer `length` bytes. Its time limit starts then: the timeout of a call, plus the time
    /// that these bytes and all bytes in progress take at the [least rate](LEAST_RATE). So every turn ends, and every
    /// waiting transfer gets one.
    pub(super) async fn turn(&self, direction: Direction, length: u64, timeout: Duration) -> BodyTransfer<'_> {
        let turns = match direction {
            Direction::Read => &self.reading,
            Direction::Write => &self.writing,
        };
        // The semaphore is never closed.
        let turn = turns.acquire().await.ok();
        let ahead = self.under_way.fetch_add(length, Ordering::Relaxed);
        // A damaged record may state any length.
        let millis = ahead.saturating_add(length).saturating_mul(1000) / LEAST_RATE;
        let allowed = timeout + Duration::from_millis(millis);
        BodyTransfer { bodies: self, length, _turn: turn, deadline: Instant::now() + allowed, allowed }
    }

    /// Reads the value under `key`, with `read`. Readers that come during a read share its result. A reader that asks
    /// again after that gets a new read.
    pub(super) async fn read<Fut>(&self, key: &str, read: impl FnOnce() -> Fut) -> Result<Option<Bytes>, Arc<ReadError>>
    where
        Fut: Future<Output = Result<Option<Bytes>, ReadError>>,
    {
        let reader =
            BodyReader { bodies: self, key, cell: Arc::clone(self.reads().entry(key.to_owned()).or_default()) };
        // If the first reader leaves, another waiting reader reads.
        reader.cell.get_or_init(|| async { read().await.map_err(Arc::new) }).await.clone()
    }

    fn reads(&self) -> MutexGuard<'_, HashMap<String, BodyRead>> {
        // Every step leaves the map consistent.
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BodyTransfer<'_> {
    fn drop(&mut self) {
        self.bodies.under_way.fetch_sub(self.length, Ordering::Relaxed);
    }
}

/// One reader of a shared read. The first reader that has the result removes the read from the map. If no reader gets a
/// result, the last one to leave removes it.
struct BodyReader<'a> {
    bodies: &'a Bodies,
    key: &'a str,
    cell: BodyRead,
}

impl Drop for BodyReader<'_> {
    fn drop(&mut self) {
        let mut reads = self.bodies.reads();
        // References are made and dropped under the lock only. Otherwise two readers that leave at once would each
        // count the other's reference, and neither would remove the read.
        let cell = std::mem::take(&mut self.cell);
        // The map may have a newer read under this key, with other readers.
        let is_there = reads.get(self.key).is_some_and(|there| Arc::ptr_eq(there, &cell));
        // Two references: the map's and this one.
        if is_there && (cell.initialized() || Arc::strong_count(&cell) <= 2) {
            reads.remove(self.key);
        }
        drop(cell);
        drop(reads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn whoever_shares_a_read_that_fails_can_ask_again_and_nothing_is_left_of_it() {
        let bodies = Bodies::default();
        let asked = AtomicU64::new(0);
        let ask = || {
            bodies.read("key", || async {
                let is_first = asked.fetch_add(1, Ordering::Relaxed) == 0;
                tokio::time::sleep(TIMEOUT).await;
                if is_first {
                    Err(ReadError::Command(CommandError::Late))
                } else {
                    Ok(Some(Bytes::from_static(b"chunk")))
                }
            })
        };
        let reader = || async {
            assert!(ask().await.is_err(), "they share the first");
            ask().await
        };
        let (one, other) = tokio::join!(reader(), reader());
        for read in [one, other] {
            assert_eq!(read.expect("it was asked for again").as_deref(), Some(&b"chunk"[..]));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2, "they share the second, too");
        assert!(bodies.reads().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_of_a_read_that_nobody_waits_for_any_more() {
        let bodies = Bodies::default();
        let never = || bodies.read("key", std::future::pending);
        let both = async { tokio::join!(never(), never()) };
        assert!(tokio::time::timeout(TIMEOUT, both).await.is_err());
        assert!(bodies.reads().is_empty());
    }

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
            // Both directions share the link.
            assert_eq!(deadline.duration_since(begun), TIMEOUT + Duration::from_secs(TURNS as u64 + 1));
        }
    }
}
