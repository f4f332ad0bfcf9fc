//! Transfers of bodies that lie apart: whose turn it is, how long one may take, and one for all who want the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::command_error::CommandError;
use crate::store::StoreError;

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
type BodyRead = Arc<OnceCell<Result<Option<Bytes>, Arc<ReadError>>>>;

/// Why a read has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// There is no connection: nothing was asked.
    #[error(transparent)]
    NotConnected(#[from] StoreError),
    #[error("{0}")]
    Command(CommandError),
}

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

    /// Reads what lies under `key`, with `read`. Those who come while it is being read wait for the same transfer. Whoever
    /// was told its outcome, and asks again, is not told the same once more: it is read again.
    pub(super) async fn read<Fut>(&self, key: &str, read: impl FnOnce() -> Fut) -> Result<Option<Bytes>, Arc<ReadError>>
    where
        Fut: Future<Output = Result<Option<Bytes>, ReadError>>,
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

/// One of those who wait for a read. The first who was told its outcome takes it out of the map, or the last who leaves.
struct BodyReader<'a> {
    bodies: &'a Bodies,
    key: &'a str,
    cell: BodyRead,
}

impl Drop for BodyReader<'_> {
    fn drop(&mut self) {
        let mut reads = self.bodies.reads();
        // References are made and given back under the lock only: or two who leave at once would each see the other's, and
        // neither would take it out.
        let cell = std::mem::take(&mut self.cell);
        // Another read may lie there by now, which others wait for.
        let is_there = reads.get(self.key).is_some_and(|there| Arc::ptr_eq(there, &cell));
        // Two: the map's own, and this one.
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
            // They share the link all the same.
            assert_eq!(deadline.duration_since(begun), TIMEOUT + Duration::from_secs(TURNS as u64 + 1));
        }
    }
}
