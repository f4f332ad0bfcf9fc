//! Deletes claims that were given up, in case they reach the store late.
//!
//! A claim that timed out may arrive later, and would then block its key until the retention ends. Only this process
//! knows its token, so only this process can delete it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
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

struct Orphan {
    /// The store handle that made the claim: on the same connection, the release follows the claim.
    store: Arc<Metered>,
    name: RecordName,
    token: Token,
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
pub fn looks_again(found: &Result<Released, StoreError>, age: Duration) -> bool {
    match found {
        // Even after a deletion: the claim may have been sent twice.
        Ok(Released::Deleted | Released::Absent | Released::Kept) => age < HORIZON,
        Err(_) => age < PATIENCE,
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
    pub(super) fn add(&self, store: &Arc<Metered>, name: &RecordName, token: Token) {
        let open = Some(OpenOrphan::new(&self.open));
        let (since, store) = (Instant::now(), Arc::clone(store));
        let orphan = Orphan {
            store,
            name: name.clone(),
            token,
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

async fn run(mut inbox: mpsc::Receiver<Orphan>) {
    while let Some(first) = inbox.recv().await {
        let mut orphans = vec![first];
        while !orphans.is_empty() {
            let mut left = Vec::with_capacity(orphans.len());
            for mut orphan in orphans {
                if !orphan.is_due() || orphan.is_left_after_a_look().await {
                    left.push(orphan);
                }
            }
            orphans = left;
            let Some(next) = orphans.iter().map(Orphan::wakes).min() else { break };
            // A claim that was just given up blocks its key, so it is looked for at once.
            if orphans.len() < CAPACITY {
                tokio::select! {
                    () = tick::sleep_until(next) => {}
                    Some(orphan) = inbox.recv() => orphans.push(orphan),
                }
            } else {
                tick::sleep_until(next).await;
            }
            while orphans.len() < CAPACITY {
                match inbox.try_recv() {
                    Ok(orphan) => orphans.push(orphan),
                    Err(_) => break,
                }
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

    /// Looks for this claim. Returns whether to look again.
    async fn is_left_after_a_look(&mut self) -> bool {
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
        looks_again(&found, self.since.elapsed())
    }
}
