//! Claims of which it is not known whether they arrived, or may arrive once more, and which nobody will ever use.
//!
//! A claim that timed out may reach the store later and would then block its key until the retention
//! ends. Its token lets us, and only us, delete it when it appears.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::record::{RecordName, Token};
use crate::store::{Metered, Released, Store, StoreError};
use crate::tick;

/// Takes claims to be deleted.
#[derive(Clone)]
pub(super) struct Cleanup {
    orphans: mpsc::Sender<Orphan>,
    /// Orphans of which the store has not said enough.
    open: watch::Sender<usize>,
}

struct Orphan {
    /// The handle that the claim was made with: on the same connection, what deletes it comes behind it.
    store: Arc<Metered>,
    name: RecordName,
    token: Token,
    since: Instant,
    looks: u32,
    /// How often the store has answered.
    answers: u32,
    /// A stop waits for it.
    open: Option<OpenOrphan>,
}

/// One of the orphans that a stop waits for, until it is dropped.
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

/// More orphans than this at once are left to their lease: memory is bounded, and holding a key is safe.
const CAPACITY: usize = 4096;

/// How long after its claim a late record is looked for. It travels on a connection that broke or stalled; by then
/// the server has read it or dropped it.
pub const HORIZON: Duration = Duration::from_secs(60);

/// What the store cannot say for so long is left to the lease.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// A stop waits until the store has answered for a claim so often, with pauses in between: a server that is reached again
/// reads its connections in any order, and may read the claim behind the first release.
const ENOUGH: u32 = 3;

/// Whether a claim that was given up `age` ago is looked for again, after this was found.
pub fn looks_again(found: &Result<Released, StoreError>, age: Duration) -> bool {
    match found {
        // Whatever is there now: another owner's record may be freed, and a claim may have been sent twice.
        Ok(Released::Deleted | Released::Absent | Released::Kept) => age < HORIZON,
        Err(_) => age < PATIENCE,
    }
}

impl Cleanup {
    /// Starts the task that deletes them; it ends with the last handle.
    pub(super) fn start() -> Self {
        let (orphans, inbox) = mpsc::channel(CAPACITY);
        #[expect(clippy::disallowed_methods, reason = "ends with the last handle")]
        tokio::spawn(run(inbox));
        Self { orphans, open: watch::Sender::new(0) }
    }

    /// How many claims there are of which the store has not said enough.
    pub(super) fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Waits until there are none.
    pub(super) async fn settled(&self) {
        // The sender is here: it cannot fail.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Deletes this claim's record when it appears. Never blocks.
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

/// Whether there is still something to look for.
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
