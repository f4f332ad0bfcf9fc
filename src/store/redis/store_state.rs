//! What this process knows of the store as a whole, however many servers it has: the digest key, when it was last
//! confirmed, and how often data was lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::timing::millis;
use crate::clock::since_boot;
use crate::key::DigestKey;
use crate::store::StoreError;

/// Claims are made only while the last confirmation of the digest key is young: of two sidecars that know of different
/// keys, one knows it before the other may claim.
pub(super) struct StoreState {
    digest_key: RwLock<Option<DigestKey>>,
    /// How often the store was found to have lost data.
    losses: AtomicU64,
    /// When the store was last asked for the digest key, and confirmed it: milliseconds of [`since_boot`].
    confirmed: AtomicU64,
    /// When claims may begin, likewise.
    claims_from: AtomicU64,
    /// How old a confirmation may be.
    young: Duration,
}

/// However often the digest key is confirmed.
const YOUNG: Duration = Duration::from_secs(3);

impl StoreState {
    /// The key that the operator chose, if they did, which is confirmed as often as this.
    pub(super) fn new(digest_key: Option<DigestKey>, confirmed_every: Duration) -> Arc<Self> {
        let [losses, confirmed, claims_from] = [(); 3].map(|()| AtomicU64::new(0));
        let young = (confirmed_every * 3).max(YOUNG);
        Arc::new(Self { digest_key: RwLock::new(digest_key), losses, confirmed, claims_from, young })
    }

    /// Whether claims may be made. It costs no command.
    pub(super) fn may_claim(&self) -> Result<(), StoreError> {
        let now = millis(since_boot());
        if now < self.claims_from.load(Ordering::Relaxed) {
            return Err(StoreError::Refused("the digest key is new: others may not know of it yet".into()));
        }
        if now.saturating_sub(self.confirmed.load(Ordering::Relaxed)) > millis(self.young) {
            return Err(StoreError::Refused("Redis has not confirmed the digest key for a while".into()));
        }
        Ok(())
    }

    /// The store has the digest key that this process uses; it was asked at `asked`.
    pub(super) fn confirm(&self, asked: Duration) {
        self.confirmed.fetch_max(millis(asked), Ordering::Relaxed);
    }

    /// No claims for so long: others may go by another digest key until then.
    pub(super) fn no_claims_for(&self, wait: Duration) {
        self.claims_from.fetch_max(millis(since_boot() + wait), Ordering::Relaxed);
    }

    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    pub(super) fn count_loss(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn digest_key(&self) -> Option<DigestKey> {
        *self.digest_key.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_digest_key(&self, key: DigestKey) {
        *self.digest_key.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }
}
