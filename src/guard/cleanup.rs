//! Deletes claims that were given up, in case they reach the store late.
//!
//! A claim that timed out may arrive later, and would then block its key until the retention ends. Only this process
//! knows its token, so only this process can delete it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::record::{RecordName, Token};
use crate::store::{Health, Metered, Released, Store, StoreError};
use crate::tick;

/// Takes claims that are to be deleted.
#[derive(Clone)]
pub(super) struct Cleanup {
    orphans: mpsc::Sender<Orphan>,
    /// The number of claims that a shutdown waits for.
    open: watch::Sender<usize>,
}

/// Whether a claim that was given up may still arrive at the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// A try had no answer, so it may be on its way.
    Possible,
    /// Each try was answered: it is there, and too few replicas or disks have it.
    Over,
}

struct Orphan {
    /// The store handle that made the claim: on the same connection, the release follows the claim.
    store: Arc<Metered>,
    name: RecordName,
    token: Token,
    arrival: Arrival,
    since: Instant,
    looks: u32,
    /// The time of the next look.
    next: Instant,
    /// Whether the last look had no answer, and whether the store was down since then.
    waits_for_store: bool,
    was_down: bool,
    /// How often the store has answered.
    answers: u32,
    /// Set while a shutdown waits for this claim.
    open: Option<OpenOrphan>,
}

/// Counts one claim for the shutdown until it is dropped.
struct OpenOrphan(watch::Sender<usize>);

impl OpenOrphan {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|open| *open += 1);
        Self(count.clone())
    }
}

impl Drop for OpenOrphan {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// How many claims are looked for at the same time.
const LOOKS: usize = 32;

/// The limit of claims at once. Further ones are left to their lease: this limits memory, and a blocked key is safe.
const CAPACITY: usize = 4096;

/// How long a late claim is looked for. It travels on a connection that broke or stalled; after this time the server
/// has read or dropped it.
pub const HORIZON: Duration = Duration::from_secs(60);

/// After this time without an answer of the store, the claim is left to its lease.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// A shutdown waits for this many answers about one claim. A server that was unreachable may read its connections in
/// any order, so it may read the claim after the first release.
const ENOUGH: u32 = 3;

/// How often to see whether a store that did not answer is back.
const WHILE_DOWN: Duration = Duration::from_millis(100);

/// Whether to look again for a claim that was given up `age` ago, after this result.
pub fn looks_again(found: &Result<Released, StoreError>, age: Duration, arrival: Arrival) -> bool {
    match (found, arrival) {
        (Ok(Released::Deleted), Arrival::Over) => false,
        // Even after a deletion: the claim may have been sent twice.
        (Ok(Released::Deleted | Released::Absent | Released::Kept), Arrival::Possible | Arrival::Over) => age < HORIZON,
        (Err(_), Arrival::Possible | Arrival::Over) => age < PATIENCE,
    }
}

impl Cleanup {
    /// Starts the task. It ends with the last handle.
    pub(super) fn start() -> Self {
        let (orphans, inbox) = mpsc::channel(CAPACITY);
        #[expect(clippy::disallowed_methods, reason = "ends with the last handle")]
        tokio::spawn(run(inbox));
        Self { orphans, open: watch::Sender::new(0) }
    }

    /// The number of claims that a shutdown still waits for.
    pub(super) fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Waits until that number is 0.
    pub(super) async fn settled(&self) {
        // This holds the sender, so it cannot fail.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Deletes the record of this claim when it arrives. Never blocks.
    pub(super) fn add(&self, store: &Arc<Metered>, name: &RecordName, token: Token, arrival: Arrival) {
        let open = Some(OpenOrphan::new(&self.open));
        let (since, store) = (Instant::now(), Arc::clone(store));
        let orphan = Orphan {
            store,
            name: name.clone(),
            token,
            arrival,
            since,
            looks: 0,
            next: since,
            waits_for_store: false,
            was_down: false,
            answers: 0,
            open,
        };
        if self.orphans.try_send(orphan).is_err() {
            tracing::error!(record = %name, "too many claims to clean up; this one, if it arrived, is held");
        }
    }
}

/// The claims that nobody looks for at the moment.
#[derive(Default)]
struct OrphanQueue {
    /// They are to be looked for now, in this order.
    due: VecDeque<Orphan>,
    /// They are to be looked for later.
    later: Vec<Orphan>,
    /// When to see which of those are due.
    wakes: Option<Instant>,
}

async fn run(mut inbox: mpsc::Receiver<Orphan>) {
    let (mut queue, mut looks) = (OrphanQueue::default(), JoinSet::new());
    loop {
        while looks.len() < LOOKS
            && let Some(orphan) = queue.due.pop_front()
        {
            looks.spawn(orphan.look());
        }
        tokio::select! {
            // A claim that was just given up blocks its key, so it is looked for before those that were not there.
            Some(orphan) = inbox.recv(), if queue.len() + looks.len() < CAPACITY => queue.due.push_front(orphan),
            Some(left) = looks.join_next() => {
                if let Ok(Some(orphan)) = left {
                    queue.put_off(orphan);
                }
            }
            () = tick::sleep_until(queue.wakes.unwrap_or_else(Instant::now)), if queue.wakes.is_some() => queue.wake(),
            else => return,
        }
    }
}

impl OrphanQueue {
    fn len(&self) -> usize {
        self.due.len() + self.later.len()
    }

    fn put_off(&mut self, orphan: Orphan) {
        let wakes = orphan.wakes();
        self.wakes = Some(self.wakes.map_or(wakes, |others| others.min(wakes)));
        self.later.push(orphan);
    }

    /// Finds those that are due by now.
    fn wake(&mut self) {
        self.wakes = None;
        for mut orphan in std::mem::take(&mut self.later) {
            if orphan.is_due() {
                self.due.push_back(orphan);
            } else {
                self.put_off(orphan);
            }
        }
    }
}

impl Orphan {
    /// Whether it is to be looked for now: its pause is over, or the store is back.
    fn is_due(&mut self) -> bool {
        if self.waits_for_store {
            let is_up = self.store.health() == Health::Up;
            if is_up && self.was_down {
                return true;
            }
            self.was_down |= !is_up;
        }
        self.next <= Instant::now()
    }

    /// When to see whether it is due.
    fn wakes(&self) -> Instant {
        if self.waits_for_store { self.next.min(Instant::now() + WHILE_DOWN) } else { self.next }
    }

    /// Looks for this claim. Returns it if it is to be looked for again.
    async fn look(mut self) -> Option<Self> {
        let found = self.store.release(&self.name, self.token).await;
        if found.is_ok() {
            self.answers += 1;
            if self.answers >= ENOUGH {
                self.open = None;
            }
        }
        if let Ok(Released::Deleted) = found {
            tracing::info!(record = %self.name, "a claim that had been given up arrived, and was deleted");
        }
        self.next = Instant::now() + super::waiting::backoff(self.looks);
        self.looks += 1;
        self.waits_for_store = found.is_err();
        self.was_down = self.waits_for_store && self.store.health() == Health::Down;
        looks_again(&found, self.since.elapsed(), self.arrival).then_some(self)
    }
}
