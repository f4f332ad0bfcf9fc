//! Deletes claims that were given up, in case they reach the store late.
//!
//! A claim that timed out may arrive later, and would then block its key until the retention ends. Only this process
//! knows its token, so only this process can delete it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::record::{RecordName, Token};
use crate::store::{Metered, Released, Store, StoreError};
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
        let orphan = Orphan { store, name: name.clone(), token, since, looks: 0, answers: 0, open };
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
                if is_left(&mut orphan).await {
                    orphan.looks += 1;
                    left.push(orphan);
                }
            }
            orphans = left;
            while orphans.len() < CAPACITY {
                match inbox.try_recv() {
                    Ok(orphan) => orphans.push(orphan),
                    Err(_) => break,
                }
            }
            if let Some(youngest) = orphans.iter().map(|orphan| orphan.looks).min() {
                tick::sleep(super::waiting::backoff(youngest)).await;
            }
        }
    }
}

/// Whether to look for this claim again.
async fn is_left(orphan: &mut Orphan) -> bool {
    let found = orphan.store.release(&orphan.name, orphan.token).await;
    if found.is_ok() {
        orphan.answers += 1;
        if orphan.answers >= ENOUGH {
            orphan.open = None;
        }
    }
    if let Ok(Released::Deleted) = found {
        tracing::info!(record = %orphan.name, "a claim that had been given up arrived, and was deleted");
    }
    looks_again(&found, orphan.since.elapsed())
}
