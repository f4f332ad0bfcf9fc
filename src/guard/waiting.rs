//! Repeats that wait for the first request.
//!
//! A waiter never becomes an owner. If the attempt runs in this process, the waiter is woken when it ends. Otherwise it
//! is woken when the store reports a change. It also looks at the record from time to time.

use std::pin::pin;
use std::time::Duration;

use crate::store::Changes;
use crate::tick;

/// Waits for a reason to look at a record of another process: a change is reported, or a pause is over.
pub(super) async fn wait_for_change(changes: Option<&mut Changes>, looks: u32) {
    let told = pin!(async {
        let told = match changes {
            Some(changes) => changes.changed().await.is_ok(),
            None => false,
        };
        if !told {
            std::future::pending::<()>().await;
        }
    });
    // A late or lost notification costs time only.
    let _ = tick::timeout(backoff(looks), told).await;
}

/// The pause before the next look at a record: 50 ms, growing by 1.6 up to a second. Half of it is random, so that many
/// waiters do not look at once.
pub(super) fn backoff(looks: u32) -> Duration {
    let full = 0.05 * 1.6_f64.powi(looks.min(10).cast_signed());
    let chance = f64::from(u8::from_le_bytes(crate::random::random())) / 255.0;
    Duration::from_secs_f64(full.min(1.0) * (0.5 + chance / 2.0))
}
