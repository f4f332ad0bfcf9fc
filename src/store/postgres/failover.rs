//! Finds out that another server has taken over from the one that is used, which is alive and has not noticed.

use std::time::Duration;

use tokio::time::Instant;

use super::dial::PostgresDialer;
use super::error::PostgresError;
use super::examine::{self, LOOKS};
use super::link::ConnectedPrimary;
use super::pool::first_of;
use super::session::Session;
use crate::config::StoreEndpoint;
use crate::store::causes;
use crate::store::timing::jittered;

/// How long a connection to another server is used. After it, a name may lead to another one.
const LASTS: Duration = Duration::from_secs(10);
/// For a connect, and for each question.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until one of the servers, or the one that the name of the used one leads to by now, is a primary of a later timeline.
/// Returns that timeline.
pub(super) async fn until_taken_over(dialer: &PostgresDialer, primary: &ConnectedPrimary, every: Duration) -> u32 {
    let looks = dialer
        .servers()
        .iter()
        // A socket is one of this machine.
        .filter(|server| matches!(server, StoreEndpoint::Tcp(..)) || **server != primary.endpoint)
        .map(|server| {
            // The used one has a connection that is asked; only a new one shows where its name leads.
            let lasts = if *server == primary.endpoint { Duration::ZERO } else { LASTS };
            Box::pin(until_later(dialer, server, primary.timeline, every, lasts))
        })
        .collect();
    first_of(looks).await
}

async fn until_later(
    dialer: &PostgresDialer,
    server: &StoreEndpoint,
    timeline: u32,
    every: Duration,
    lasts: Duration,
) -> u32 {
    loop {
        let begun = Instant::now();
        match look(dialer, server, timeline, every, lasts).await {
            Ok(Some(later)) => return later,
            Ok(None) => {}
            Err(error) => tracing::debug!(%server, error = causes(&error), "whether it has taken over is not known"),
        }
        tokio::time::sleep(jittered(LASTS.saturating_sub(begun.elapsed()))).await;
    }
}

/// Asks repeatedly, on one connection.
async fn look(
    dialer: &PostgresDialer,
    server: &StoreEndpoint,
    timeline: u32,
    every: Duration,
    lasts: Duration,
) -> Result<Option<u32>, PostgresError> {
    let until = Instant::now() + lasts;
    let session = in_time(Session::open(dialer, server, LOOKS, None)).await?;
    loop {
        let found = in_time(examine::primary_timeline(&session)).await?;
        if let Some(later) = found.filter(|&found| found > timeline) {
            return Ok(Some(later));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        tokio::time::sleep(every).await;
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, PostgresError>>) -> Result<T, PostgresError> {
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(PostgresError::Silent(PATIENCE)))
}
