//! Notices of changes that other sidecars make to a record.
//!
//! A waiter leaves a sign beside the records, in a table that is not logged, and then reads the record. Whoever changes it
//! looks for signs after that is committed, and notifies where there is one. So a waiter sees earlier changes by its read, and
//! hears of later ones. All notices are on one channel, with the record's name; a sidecar listens to it on one connection,
//! as long as somebody waits.
//!
//! Nothing depends on notices: waiters also read the record periodically.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::call::millis;
use super::dial::PostgresDialer;
use super::error::PostgresError;
use super::examine::LISTENER;
use super::link::PostgresLink;
use super::session::Session;
use crate::store::timing::{LONGEST_DELAY, jittered};
use crate::store::{Changes, causes};

/// Reports changes of records that have waiters.
pub(super) struct NoticeListener {
    waiters: Arc<RecordWaiters>,
    _task: AbortOnDropHandle<()>,
}

/// The records that have waiters here, by their key.
#[derive(Default)]
struct RecordWaiters {
    by_key: Mutex<HashMap<String, RecordWaiter>>,
    /// There is a new one, or one that waits for longer.
    added: Notify,
}

/// Where a session leaves the notices that the server sends: those of all sidecars.
pub(super) struct NoticeSender {
    keys: mpsc::Sender<String>,
    /// Some found no room.
    has_missed: Arc<AtomicBool>,
}

/// What it has left, in order.
struct NoticeReceiver {
    keys: mpsc::Receiver<String>,
    has_missed: Arc<AtomicBool>,
}

/// A notice.
#[derive(Debug, PartialEq, Eq)]
enum RecordNotice {
    Changed(String),
    /// Any record may have changed.
    Missed,
}

struct RecordWaiter {
    tell: watch::Sender<()>,
    /// When the last of them gives up.
    until: Instant,
}

/// Signs last a little longer than their waiters, so that those who join need no new one.
const LONGER: Duration = Duration::from_secs(10);
/// The delay before an unused connection is closed.
const SWEEP: Duration = Duration::from_secs(5);
/// For one sign, and for the connection.
const PATIENCE: Duration = Duration::from_secs(2);
/// Notices that are not read yet. If there are more, every waiter looks for itself.
const UNREAD: usize = 1024;

fn notices() -> (NoticeSender, NoticeReceiver) {
    let (sender, keys) = mpsc::channel(UNREAD);
    let has_missed = Arc::<AtomicBool>::default();
    (NoticeSender { keys: sender, has_missed: has_missed.clone() }, NoticeReceiver { keys, has_missed })
}

impl NoticeSender {
    pub(super) fn send(&self, key: &str) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.keys.try_send(key.to_owned()) {
            self.has_missed.store(true, Ordering::SeqCst);
        }
    }
}

impl NoticeReceiver {
    /// `None`: the session is lost.
    async fn next(&mut self) -> Option<RecordNotice> {
        let key = self.keys.recv().await?;
        // Where one found no room, there is a later one to receive.
        Some(if self.has_missed.swap(false, Ordering::SeqCst) {
            RecordNotice::Missed
        } else {
            RecordNotice::Changed(key)
        })
    }
}

impl NoticeListener {
    pub(super) fn start(link: &Arc<PostgresLink>, dialer: &Arc<PostgresDialer>) -> Self {
        let waiters = Arc::<RecordWaiters>::default();
        #[expect(clippy::disallowed_methods, reason = "ends with the listener")]
        let task = tokio::spawn(run(waiters.clone(), link.clone(), dialer.clone()));
        Self { waiters, _task: AbortOnDropHandle::new(task) }
    }

    /// Changes of one record. The start of listening counts as a change too, because earlier changes were missed.
    pub(super) fn subscribe(&self, key: String, patience: Duration) -> Changes {
        let now = Instant::now();
        let mut by_key = self.waiters.by_key();
        let waiter = by_key.entry(key).or_insert_with(|| RecordWaiter { tell: watch::channel(()).0, until: now });
        if waiter.until < now + patience {
            waiter.until = now + patience + LONGER;
            self.waiters.added.notify_one();
        }
        let mut changes = waiter.tell.subscribe();
        changes.mark_changed();
        changes
    }
}

impl RecordWaiters {
    fn by_key(&self) -> MutexGuard<'_, HashMap<String, RecordWaiter>> {
        // Every step leaves the map consistent.
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, key: &str) {
        if let Some(waiter) = self.by_key().get(key) {
            waiter.tell.send_replace(());
        }
    }

    fn tell_all(&self) {
        for waiter in self.by_key().values() {
            waiter.tell.send_replace(());
        }
    }

    /// Removes records without waiters. Returns the others, and when their last waiter gives up.
    fn sweep(&self) -> HashMap<String, Instant> {
        let mut by_key = self.by_key();
        by_key.retain(|_, waiter| waiter.tell.receiver_count() > 0);
        by_key.iter().map(|(key, waiter)| (key.clone(), waiter.until)).collect()
    }
}

async fn run(waiters: Arc<RecordWaiters>, link: Arc<PostgresLink>, dialer: Arc<PostgresDialer>) {
    loop {
        if waiters.sweep().is_empty() {
            waiters.added.notified().await;
        }
        if let Err(error) = listen(&waiters, &link, &dialer).await {
            tracing::debug!(error = causes(&error), "PostgreSQL does not notify; waiters look for themselves");
            waiters.tell_all();
            tokio::time::sleep(jittered(LONGEST_DELAY)).await;
        }
    }
}

/// Listens on one connection until it is lost, or until there are no waiters.
async fn listen(waiters: &RecordWaiters, link: &PostgresLink, dialer: &PostgresDialer) -> Result<(), PostgresError> {
    let primary = link.next().await;
    let (notices, mut heard) = notices();
    let opening = async {
        let session = Session::open(dialer, &primary.endpoint, LISTENER, Some(notices)).await?;
        session.client().batch_execute("LISTEN onlyonce").await.map_err(PostgresError::of)?;
        session.prepare().await?;
        Ok(session)
    };
    let session = tokio::time::timeout(PATIENCE, opening).await.unwrap_or(Err(PostgresError::Silent(PATIENCE)))?;
    let mut signed: HashMap<String, Instant> = HashMap::new();
    loop {
        let wanted = waiters.sweep();
        if wanted.is_empty() {
            return Ok(());
        }
        signed.retain(|key, _| wanted.contains_key(key));
        for (key, until) in &wanted {
            if signed.get(key).is_some_and(|signed| signed >= until) {
                continue;
            }
            let lives = millis(until.saturating_duration_since(Instant::now()));
            if session.count(|all| &all.sign, &[key, &lives], Instant::now() + PATIENCE).await.is_err() {
                return Err(PostgresError::Lost);
            }
            // What changed before the sign was there was not notified.
            if signed.insert(key.clone(), *until).is_none() {
                waiters.tell(key);
            }
        }
        tokio::select! {
            notice = heard.next() => match notice {
                Some(RecordNotice::Changed(key)) => waiters.tell(&key),
                Some(RecordNotice::Missed) => waiters.tell_all(),
                None => return Err(PostgresError::Lost),
            },
            () = session.until_lost() => return Err(PostgresError::Lost),
            () = primary.control.until_lost() => return Err(PostgresError::Lost),
            () = waiters.added.notified() => {}
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn notices_without_room_are_missed_and_that_is_known() {
        let (sender, mut receiver) = notices();
        for number in 0..UNREAD {
            sender.send(&number.to_string());
        }
        assert_eq!(receiver.next().await, Some(RecordNotice::Changed("0".to_owned())));
        sender.send("the last one with room");
        sender.send("one without");
        assert_eq!(receiver.next().await, Some(RecordNotice::Missed));
        for number in 2..UNREAD {
            assert_eq!(receiver.next().await, Some(RecordNotice::Changed(number.to_string())));
        }
        assert_eq!(receiver.next().await, Some(RecordNotice::Changed("the last one with room".to_owned())));
        drop(sender);
        assert_eq!(receiver.next().await, None);
    }
}
