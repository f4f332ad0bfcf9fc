//! Repeats that wait for the first.
//!
//! A waiter never becomes an owner. In the owner's process it is woken the moment the attempt ends; in
//! other processes when the store tells of it; and in any case it looks at the record now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::record::{Fingerprint, RecordName, Reply};
use crate::store::Changes;

/// The attempts of this process that are at work, by the record they own.
#[derive(Default)]
pub(super) struct Flights {
    by_record: Mutex<HashMap<RecordName, Departed>>,
}

/// What waiters need of an attempt.
struct Departed {
    fingerprint: Fingerprint,
    landing: watch::Receiver<Landing>,
}

/// How far an attempt of this process came.
#[derive(Debug, Clone)]
pub(super) enum Landing {
    /// At work.
    Pending,
    /// Over; its response, where it is at hand whole.
    Landed(Option<Arc<Reply>>),
}

/// One attempt's entry among the flights. Dropping it tells the waiters that it is over.
pub(super) struct Flight {
    flights: Arc<Flights>,
    name: RecordName,
    landing: watch::Sender<Landing>,
}

impl Flights {
    /// Announces an attempt.
    pub(super) fn depart(self: &Arc<Self>, name: &RecordName, fingerprint: Fingerprint) -> Flight {
        let (landing, receiver) = watch::channel(Landing::Pending);
        self.by_record().insert(name.clone(), Departed { fingerprint, landing: receiver });
        Flight { flights: Arc::clone(self), name: name.clone(), landing }
    }

    /// The attempt at this very request, if it is one of this process. The key may be in use for another by now.
    pub(super) fn find(&self, name: &RecordName, fingerprint: &Fingerprint) -> Option<watch::Receiver<Landing>> {
        let by_record = self.by_record();
        let departed = by_record.get(name)?;
        fingerprint.compare(&departed.fingerprint).may_be_same().then(|| departed.landing.clone())
    }

    fn by_record(&self) -> MutexGuard<'_, HashMap<RecordName, Departed>> {
        // Inserting and removing leave the map whole.
        self.by_record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Tells the waiters how it ended.
    pub(super) fn land(self, reply: Option<Arc<Reply>>) {
        self.landing.send_replace(Landing::Landed(reply));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut by_record = self.flights.by_record();
        // A takeover by this same process may have put its own entry here.
        if by_record.get(&self.name).is_some_and(|departed| departed.landing.same_channel(&self.landing.subscribe())) {
            by_record.remove(&self.name);
        }
    }
}

/// Waits until the attempt is over. `None`: it ended without a response at hand.
pub(super) async fn landed(mut receiver: watch::Receiver<Landing>) -> Option<Arc<Reply>> {
    // An error means that the sender is gone: the attempt is over either way.
    match receiver.wait_for(|landing| matches!(landing, Landing::Landed(_))).await.as_deref() {
        Ok(Landing::Landed(reply)) => reply.clone(),
        Ok(Landing::Pending) | Err(_) => None,
    }
}

/// Waits until there is reason to look at a record that another process owns: it is told to have changed, or a
/// while has passed.
pub(super) async fn change(changes: Option<&mut Changes>, looks: u32) {
    let told = async {
        let told = match changes {
            Some(changes) => changes.changed().await.is_ok(),
            None => false,
        };
        if !told {
            std::future::pending::<()>().await;
        }
    };
    // Late or lost, a notification costs promptness and nothing else.
    let _ = tokio::time::timeout(pause(looks), told).await;
}

/// The pause before the next look at a record: 50 ms, growing by 1.6 up to a second, half of it left to chance so
/// that many waiters do not look at once.
pub(super) fn pause(looks: u32) -> Duration {
    let full = 0.05 * 1.6_f64.powi(looks.min(10).cast_signed());
    let chance = f64::from(u8::from_le_bytes(super::random())) / 255.0;
    Duration::from_secs_f64(full.min(1.0) * (0.5 + chance / 2.0))
}
