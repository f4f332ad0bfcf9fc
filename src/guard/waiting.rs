//! Repeats that wait for the first.
//!
//! A waiter never becomes an owner. In the owner's process it is woken the moment the attempt ends; in
//! other processes when the store tells of it; and in any case it looks at the record now and then.

use std::pin::pin;
use std::time::Duration;

use crate::store::Changes;
use crate::tick;

/// Waits until there is reason to look at a record that another process owns: it is told to have changed, or a
/// while has passed.
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
    // Late or lost, a notification costs promptness and nothing else.
    let _ = tick::timeout(backoff(looks), told).await;
}

/// The pause before the next look at a record: 50 ms, growing by 1.6 up to a second, half of it left to chance so
/// that many waiters do not look at once.
pub(super) fn backoff(looks: u32) -> Duration {
    let full = 0.05 * 1.6_f64.powi(looks.min(10).cast_signed());
    let chance = f64::from(u8::from_le_bytes(super::random::random())) / 255.0;
    Duration::from_secs_f64(full.min(1.0) * (0.5 + chance / 2.0))
}
