//! The state of a store on servers as a whole, for any number of them: the digest key, its last confirmation, and the number
//! of data losses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::clock::{millis, since_boot};
use crate::key::DigestKey;
use crate::store::StoreError;

/// Claims are made only while the last confirmation of the digest key is recent. If two sidecars use different keys,
/// one of them learns this before the other may claim.
pub(in crate::store) struct StoreState {
    digest_key: RwLock<Option<DigestKey>>,
    /// The number of data losses that were detected.
    losses: AtomicU64,
    /// The start of the latest request that confirmed the digest key, in milliseconds of [`since_boot`].
    confirmed: AtomicU64,
    /// The time from which claims are allowed, in the same unit.
    claims_from: AtomicU64,
    /// The highest age of a confirmation.
    young: Duration,
}

/// The lowest limit for the age of a confirmation, whatever the interval.
const YOUNG: Duration = Duration::from_secs(3);

impl StoreState {
    /// Starts with the operator's key, if there is one. The key is confirmed at the given interval.
    pub(in crate::store) fn new(digest_key: Option<DigestKey>, confirmed_every: Duration) -> Arc<Self> {
        let [losses, confirmed, claims_from] = [(); 3].map(|()| AtomicU64::new(0));
        let young = (confirmed_every * 3).max(YOUNG);
        Arc::new(Self { digest_key: RwLock::new(digest_key), losses, confirmed, claims_from, young })
    }

    /// Whether claims are allowed. This needs no command.
    pub(in crate::store) fn may_claim(&self) -> Result<(), StoreError> {
        let now = millis(since_boot());
        if now < self.claims_from.load(Ordering::Relaxed) {
            return Err(StoreError::Refused("the digest key is new: others may not know of it yet".into()));
        }
        if now.saturating_sub(self.confirmed.load(Ordering::Relaxed)) > millis(self.young) {
            return Err(StoreError::Refused("the store has not confirmed the digest key for a while".into()));
        }
        Ok(())
    }

    /// Notes that the store confirmed this process's digest key. The request was sent at `asked`.
    pub(in crate::store) fn confirm(&self, asked: Duration) {
        self.confirmed.fetch_max(millis(asked), Ordering::Relaxed);
    }

    /// Allows no claims for `wait`, because others may still use another digest key.
    pub(in crate::store) fn no_claims_for(&self, wait: Duration) {
        self.claims_from.fetch_max(millis(since_boot() + wait), Ordering::Relaxed);
    }

    pub(in crate::store) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    pub(in crate::store) fn count_loss(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::store) fn digest_key(&self) -> Option<DigestKey> {
        *self.digest_key.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::store) fn set_digest_key(&self, key: DigestKey) {
        *self.digest_key.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }
}
