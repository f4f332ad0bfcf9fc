//! Deletes what has expired, in small batches and with pauses: claims go first.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use super::link::ConnectedPrimary;
use crate::store::timing::jittered;

/// Records of one batch: some milliseconds of the server's time.
const BATCH: i64 = 500;
/// Between two batches, as long as there is more.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two rounds.
const EVERY: Duration = Duration::from_secs(60);
/// For one batch. A late one costs its connection, as every late call does.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sweeps as long as the server is there. Several sidecars may do it at once: each passes over the rows of the others.
pub(super) async fn run(primary: &ConnectedPrimary) -> Infallible {
    loop {
        tokio::time::sleep(jittered(EVERY)).await;
        while round(primary).await {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether there is more to do.
pub(super) async fn round(primary: &ConnectedPrimary) -> bool {
    // A batch that waits for its commit would cost a connection.
    if primary.commits.hang() {
        return false;
    }
    let Ok(session) = primary.to_commit() else { return false };
    let deadline = Instant::now() + PATIENCE;
    let swept = session.count(|statements| &statements.sweep, &[&BATCH], deadline).await;
    let swept = match swept {
        Ok(swept) => swept,
        Err(error) => {
            tracing::debug!(%error, "expired records could not be deleted, and are tried again");
            return false;
        }
    };
    if swept >= BATCH.unsigned_abs() {
        return true;
    }
    if let Err(error) = session.count(|statements| &statements.sweep_signs, &[], deadline).await {
        tracing::debug!(%error, "signs of waiters could not be deleted, and are tried again");
    }
    match session.ask(|statements| &statements.drop_partition, &[], deadline).await {
        Ok(rows) => rows.first().is_some_and(|row| row.get(0)),
        // Somebody was in the way.
        Err(error) => {
            tracing::debug!(%error, "a partition of bodies could not be dropped, and is tried again");
            false
        }
    }
}
