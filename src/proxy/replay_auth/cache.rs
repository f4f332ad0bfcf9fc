//! Permissions that still hold.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::question::Question;
use crate::guard::ReplayPermission;
use crate::key::{DigestKey, DigestKind};
use crate::random::random;

/// A keyed digest of everything that is sent. Neither credentials nor paths are kept.
pub(super) type QuestionDigest = [u8; 16];

/// The most permissions that are kept, for each core. The oldest makes room.
const MOST: usize = 4096;

/// The permissions of one core. Times are those since boot, which count the time that the machine is suspended.
pub(super) struct PermissionCache {
    /// Made for this cache: nobody else can compute its digests.
    key: DigestKey,
    kept: Mutex<KeptPermissions>,
}

#[derive(Default)]
struct KeptPermissions {
    until: HashMap<QuestionDigest, (ReplayPermission, Duration)>,
    /// In the order in which they came. A digest that came again is there twice.
    in_order: VecDeque<(QuestionDigest, Duration)>,
}

impl Default for PermissionCache {
    fn default() -> Self {
        Self { key: DigestKey::from_bytes(random()), kept: Mutex::default() }
    }
}

impl PermissionCache {
    /// What a question on this route is known by.
    pub(super) fn digest(&self, route: &str, question: &Question) -> QuestionDigest {
        let mut digest = self.key.digest(DigestKind::ReplayAuth);
        digest.part(route.as_bytes());
        question.add_to(&mut digest);
        digest.finish()
    }

    /// The permission that the same question brought, if it still holds.
    pub(super) fn find(&self, digest: &QuestionDigest, now: Duration) -> Option<ReplayPermission> {
        let kept = self.kept();
        let (permission, until) = kept.until.get(digest)?;
        (now < *until).then(|| permission.clone())
    }

    /// Keeps one.
    pub(super) fn keep(&self, digest: QuestionDigest, permission: ReplayPermission, now: Duration, until: Duration) {
        let mut kept = self.kept();
        kept.until.insert(digest, (permission, until));
        kept.in_order.push_back((digest, until));
        while let Some((oldest, over)) = kept.in_order.front().copied()
            && (kept.in_order.len() > MOST || over <= now)
        {
            kept.in_order.pop_front();
            // Unless it came again.
            if kept.until.get(&oldest).is_some_and(|(_, until)| *until == over) {
                kept.until.remove(&oldest);
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, KeptPermissions> {
        // If a panic leaves one table without the other's entry, the permission is only forgotten earlier.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::guard::AuthAnswer;

    fn permission() -> ReplayPermission {
        match AuthAnswer::of(StatusCode::OK) {
            AuthAnswer::Allowed(permission) => permission,
            AuthAnswer::Denied | AuthAnswer::Neither => panic!("2xx permits"),
        }
    }

    fn digest(number: usize) -> QuestionDigest {
        (number as u128).to_be_bytes()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_permission_holds_until_its_time_and_no_longer() {
        let cache = PermissionCache::default();
        cache.keep(digest(1), permission(), SECOND, 3 * SECOND);
        for (now, holds) in [(SECOND, true), (3 * SECOND - Duration::from_nanos(1), true), (3 * SECOND, false)] {
            assert_eq!(cache.find(&digest(1), now).is_some(), holds, "{now:?}");
        }
        assert!(cache.find(&digest(2), SECOND).is_none());
        // It came again, and the first time is over.
        cache.keep(digest(1), permission(), 2 * SECOND, 9 * SECOND);
        cache.keep(digest(2), permission(), 4 * SECOND, 5 * SECOND);
        assert!(cache.find(&digest(1), 8 * SECOND).is_some());
        cache.keep(digest(3), permission(), 9 * SECOND, 10 * SECOND);
        let kept = cache.kept();
        assert_eq!((kept.until.len(), kept.in_order.len()), (1, 1), "what is over takes no room");
    }

    #[test]
    fn however_many_there_are_the_oldest_make_room() {
        let cache = PermissionCache::default();
        for number in 0..3 * MOST {
            // Each of some comes again and again.
            cache.keep(digest(number), permission(), SECOND, 300 * SECOND + Duration::from_nanos(number as u64));
            cache.keep(digest(number % 7), permission(), SECOND, 301 * SECOND + Duration::from_nanos(number as u64));
            let kept = cache.kept();
            assert!(kept.until.len() <= MOST && kept.in_order.len() <= MOST, "{number}");
        }
        assert!(cache.find(&digest(3 * MOST - 1), 2 * SECOND).is_some());
        assert!(cache.find(&digest(3), 2 * SECOND).is_some());
        assert!(cache.find(&digest(100), 2 * SECOND).is_none());
    }
}
