//! `store.replica_acks`: waits until replicas have the writes.
//!
//! `WAIT` applies to the connection on which it is sent, and blocks the commands behind it. So it has its own
//! connection. A mark is written on that connection first. The replication stream is ordered, so a replica that has the
//! mark has all earlier writes, from any connection. All concurrent waiters share one mark.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::command_error::CommandError;
use super::commands::millis;
use super::multiplexed::Multiplexed;
use super::own_names::OwnNames;

/// Waits for the replicas of one server. The task ends with the last clone.
#[derive(Clone)]
pub(super) struct Replication {
    asked: mpsc::UnboundedSender<oneshot::Sender<Confirmation>>,
}

/// The result of a wait.
#[derive(Debug, Clone)]
pub(super) enum Confirmation {
    /// Enough replicas have all earlier writes.
    Enough,
    /// Only this many replicas have them in time. More may have them later.
    Short(u64),
    /// The result is unknown.
    Failed(RedisError),
}

/// The time to live of a mark. A newer mark replaces it.
const MARK_LIVES: Duration = Duration::from_secs(60);
/// In a cluster, the slot of a mark may be moving to another node. Then another mark is written.
const MARKS_TRIED: usize = 3;
/// The number of different marks. After the last one, the first one is used again.
const SKIPS: usize = 8;

impl Replication {
    /// Requires `acks` replicas, each time within `timeout`. `marks` has the names of the server and the start of the
    /// marks' names.
    pub(super) fn start(
        connection: Multiplexed,
        marks: (Arc<OwnNames>, String),
        acks: u64,
        timeout: Duration,
        lost: CancellationToken,
    ) -> Self {
        let (asked, waiting) = mpsc::unbounded_channel();
        #[expect(clippy::disallowed_methods, reason = "ends with the last who may ask")]
        tokio::spawn(run(connection, marks, acks, timeout, waiting, lost));
        Self { asked }
    }

    /// Waits until replicas have all writes of this process that have a reply. An earlier wait may delay this one
    /// beyond the caller's deadline.
    pub(super) async fn confirm(&self, deadline: Instant) -> Result<Confirmation, CommandError> {
        let (tell, told) = oneshot::channel();
        let gone = || CommandError::Lost(RedisError::from((redis::ErrorKind::Io, "the connection is closed")));
        self.asked.send(tell).map_err(|_| gone())?;
        let told = tokio::time::timeout_at(deadline, told).await.map_err(|_| CommandError::Late)?;
        told.map_err(|_| gone())
    }
}

async fn run(
    connection: Multiplexed,
    (names, base): (Arc<OwnNames>, String),
    acks: u64,
    timeout: Duration,
    mut waiting: mpsc::UnboundedReceiver<oneshot::Sender<Confirmation>>,
    lost: CancellationToken,
) {
    let (mut together, mut skip) = (Vec::new(), 0);
    while waiting.recv_many(&mut together, usize::MAX).await > 0 {
        let mut confirmation = Confirmation::Short(0);
        for _ in 0..MARKS_TRIED {
            let mark = names.name(&base, skip);
            confirmation = tokio::select! {
                confirmation = ask(&connection, &mark, acks, timeout) => confirmation,
                () = lost.cancelled() => return,
            };
            match &confirmation {
                // The slot of this mark is moving, or has moved. Nothing was written.
                Confirmation::Failed(error) if matches!(error.code(), Some("MOVED" | "ASK")) => {
                    skip = (skip + 1) % SKIPS;
                }
                Confirmation::Enough | Confirmation::Short(_) | Confirmation::Failed(_) => break,
            }
        }
        let is_lost = matches!(&confirmation, Confirmation::Failed(error) if error.code().is_none());
        for tell in together.drain(..) {
            // A waiter that has left needs no reply.
            let _ = tell.send(confirmation.clone());
        }
        if is_lost {
            lost.cancel();
            return;
        }
    }
}

async fn ask(connection: &Multiplexed, mark: &str, acks: u64, timeout: Duration) -> Confirmation {
    let mut pipeline = redis::Pipeline::new();
    pipeline.ignore_errors();
    pipeline.cmd("SET").arg(mark).arg("").arg("PX").arg(millis(MARK_LIVES));
    pipeline.cmd("WAIT").arg(acks).arg(millis(timeout));
    let late = Instant::now() + timeout * 2;
    let mut handle = connection.handle();
    let answers: RedisResult<Vec<RedisResult<Value>>> =
        match tokio::time::timeout_at(late, pipeline.query_async(&mut handle)).await {
            Ok(answers) => answers,
            Err(_) => return Confirmation::Failed(RedisError::from((redis::ErrorKind::Io, "no answer in time"))),
        };
    let confirmed = answers.and_then(|answers| {
        let mut count = 0;
        for answer in answers {
            let answer = answer?;
            // The reply to `WAIT` is the last one.
            count = redis::from_redis_value(answer).unwrap_or(0);
        }
        Ok(count)
    });
    match confirmed {
        Ok(count) if count >= acks => Confirmation::Enough,
        Ok(count) => Confirmation::Short(count),
        Err(error) => Confirmation::Failed(error),
    }
}
