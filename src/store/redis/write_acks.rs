//! `store.replica_acks` and `store.fsync_acks`: waits until replicas have the writes, or until they are on disk.
//!
//! `WAIT` and `WAITAOF` apply to the connection on which they are sent, and block the commands behind them. So they have
//! their own connection. A mark is written on that connection first. The replication stream and the append-only file are
//! ordered, so whoever has the mark has all earlier writes, from any connection. All concurrent waiters share one mark.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::command_error::CommandError;
use super::commands::nonzero_millis;
use super::multiplexed::Multiplexed;
use super::own_names::OwnNames;
use super::timing::TIMEOUTS;
use crate::config;

/// The acknowledgements that a write needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequiredAcks {
    /// The number of replicas that must have it.
    pub(super) replicas: u64,
    /// The server must have it on disk, and so must these replicas.
    pub(super) on_disk: bool,
}

/// Waits for the acknowledgements of one server. The task ends with the last clone.
#[derive(Clone)]
pub(super) struct WriteAcks {
    connection: Multiplexed,
    asked: mpsc::UnboundedSender<oneshot::Sender<Confirmation>>,
}

/// The result of a wait.
#[derive(Debug, Clone)]
pub(super) enum Confirmation {
    /// All earlier writes are acknowledged.
    Enough,
    /// They are not, in time. They may be later.
    Short(Shortfall),
    /// There was no reply in time.
    Late,
    /// The result is unknown.
    Failed(RedisError),
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortfall {
    /// Only this number of replicas has it.
    Replicas(u64),
    /// The server does not have it on disk.
    Disk,
    /// Only this number of replicas has it on disk.
    DisksOfReplicas(u64),
}

/// The time to live of a mark. A newer mark replaces it.
const MARK_LIVES: Duration = Duration::from_secs(60);
/// In a cluster, the slot of a mark may be moving to another node. Then another mark is written.
const MARKS_TRIED: usize = 3;
/// The number of different marks. After the last one, the first one is used again.
const SKIPS: usize = 8;

impl RequiredAcks {
    /// `None` if the reply to a write is enough.
    pub(super) fn of(config: &config::StoreConfig) -> Option<Self> {
        let acks = Self { replicas: config.replica_acks, on_disk: config.fsync_acks };
        (acks.replicas > 0 || acks.on_disk).then_some(acks)
    }

    /// The name of the command.
    pub(super) fn command_name(self) -> &'static str {
        if self.on_disk { "WAITAOF" } else { "WAIT" }
    }

    fn command(self, timeout: Duration) -> Cmd {
        let mut command = redis::cmd(self.command_name());
        if self.on_disk {
            command.arg(1);
        }
        command.arg(self.replicas).arg(nonzero_millis(timeout));
        command
    }

    /// Reads the reply to that command.
    fn confirmation(self, reply: Value) -> RedisResult<Confirmation> {
        if !self.on_disk {
            let replicas: u64 = redis::from_redis_value(reply)?;
            let is_enough = replicas >= self.replicas;
            return Ok(if is_enough {
                Confirmation::Enough
            } else {
                Confirmation::Short(Shortfall::Replicas(replicas))
            });
        }
        let (own, replicas): (u64, u64) = redis::from_redis_value(reply)?;
        Ok(match (own, replicas) {
            (0, _) => Confirmation::Short(Shortfall::Disk),
            (_, replicas) if replicas < self.replicas => Confirmation::Short(Shortfall::DisksOfReplicas(replicas)),
            (_, _) => Confirmation::Enough,
        })
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replicas(count) => write!(f, "only {count} replicas have it (store.replica_acks)"),
            Self::Disk => f.write_str("Redis does not have it on disk yet (store.fsync_acks)"),
            Self::DisksOfReplicas(count) => {
                write!(f, "only {count} replicas have it on disk (store.replica_acks, store.fsync_acks)")
            }
        }
    }
}

impl WriteAcks {
    /// Requires `acks`, each time within `timeout`. `marks` has the names of the server and the start of the marks'
    /// names.
    pub(super) fn start(
        connection: Multiplexed,
        marks: (Arc<OwnNames>, String),
        acks: RequiredAcks,
        timeout: Duration,
        lost: CancellationToken,
    ) -> Self {
        let (asked, waiting) = mpsc::unbounded_channel();
        #[expect(clippy::disallowed_methods, reason = "ends with the last who may ask")]
        tokio::spawn(run(connection.clone(), marks, acks, timeout, waiting, lost));
        Self { connection, asked }
    }

    /// For commands that keep the connection from being idle. They may wait behind a wait.
    pub(super) fn handle(&self) -> MultiplexedConnection {
        self.connection.handle()
    }

    /// Waits until all writes of this process that have a reply are acknowledged. An earlier wait may delay this one
    /// beyond the caller's deadline.
    pub(super) async fn confirm(&self, deadline: Instant) -> Result<Confirmation, CommandError> {
        let (tell, told) = oneshot::channel();
        let gone = || CommandError::Lost(RedisError::from((redis::ErrorKind::Io, "the connection is closed")));
        self.asked.send(tell).map_err(|_| gone())?;
        let told = tokio::time::timeout_at(deadline, told).await.map_err(|_| CommandError::Late)?;
        told.map_err(|_| gone())
    }
}

/// Whether the server has the command for these acknowledgements, and permits it to this user. No replica is asked for.
/// On a connection that has written nothing, the server waits for nothing.
pub(super) async fn try_acks(connection: &Multiplexed, acks: RequiredAcks) -> RedisResult<()> {
    let acks = RequiredAcks { replicas: 0, ..acks };
    let reply = acks.command(Duration::from_millis(1)).query_async(&mut connection.handle()).await?;
    // Whether there are enough is for each write to find out.
    acks.confirmation(reply).map(drop)
}

async fn run(
    connection: Multiplexed,
    (names, base): (Arc<OwnNames>, String),
    acks: RequiredAcks,
    timeout: Duration,
    mut waiting: mpsc::UnboundedReceiver<oneshot::Sender<Confirmation>>,
    lost: CancellationToken,
) {
    let (mut together, mut skip, mut late) = (Vec::new(), 0, 0);
    while waiting.recv_many(&mut together, usize::MAX).await > 0 {
        let mut tried = 0;
        let confirmation = loop {
            let mark = names.name(&base, skip);
            let confirmation = tokio::select! {
                confirmation = ask(&connection, &mark, acks, timeout) => confirmation,
                () = lost.cancelled() => return,
            };
            tried += 1;
            match &confirmation {
                // The slot of this mark is moving, or has moved. Nothing was written.
                Confirmation::Failed(error) if matches!(error.code(), Some("MOVED" | "ASK")) && tried < MARKS_TRIED => {
                    skip = (skip + 1) % SKIPS;
                }
                Confirmation::Enough | Confirmation::Short(_) | Confirmation::Late | Confirmation::Failed(_) => {
                    break confirmation;
                }
            }
        };
        late = if matches!(confirmation, Confirmation::Late) { late + 1 } else { 0 };
        let is_lost = late >= TIMEOUTS || is_broken(&confirmation);
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

/// Whether the connection is lost. An error with a code is from the server.
fn is_broken(confirmation: &Confirmation) -> bool {
    matches!(confirmation, Confirmation::Failed(error) if error.code().is_none())
}

async fn ask(connection: &Multiplexed, mark: &str, acks: RequiredAcks, timeout: Duration) -> Confirmation {
    let mut pipeline = redis::Pipeline::new();
    pipeline.ignore_errors();
    pipeline.cmd("SET").arg(mark).arg("").arg("PX").arg(nonzero_millis(MARK_LIVES));
    pipeline.add_command(acks.command(timeout));
    let late = Instant::now() + timeout * 2;
    let mut handle = connection.handle();
    let answers: RedisResult<Vec<RedisResult<Value>>> =
        match tokio::time::timeout_at(late, pipeline.query_async(&mut handle)).await {
            Ok(answers) => answers,
            Err(_) => return Confirmation::Late,
        };
    let confirmed = answers.and_then(|answers| {
        // The reply to the wait is the last one.
        let replies: Vec<Value> = answers.into_iter().collect::<RedisResult<_>>()?;
        acks.confirmation(replies.into_iter().next_back().unwrap_or(Value::Nil))
    });
    confirmed.unwrap_or_else(Confirmation::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_read_from_the_reply() {
        let acks = |replicas, on_disk| RequiredAcks { replicas, on_disk };
        let aof = |local, replicas| Value::Array(vec![Value::Int(local), Value::Int(replicas)]);
        for (acks, reply, short) in [
            (acks(2, false), Value::Int(2), None),
            (acks(2, false), Value::Int(1), Some(Shortfall::Replicas(1))),
            (acks(0, true), aof(1, 0), None),
            (acks(0, true), aof(0, 0), Some(Shortfall::Disk)),
            (acks(1, true), aof(1, 2), None),
            (acks(1, true), aof(1, 0), Some(Shortfall::DisksOfReplicas(0))),
            (acks(1, true), aof(0, 1), Some(Shortfall::Disk)),
        ] {
            let found = match acks.confirmation(reply.clone()) {
                Ok(Confirmation::Enough) => None,
                Ok(Confirmation::Short(shortfall)) => Some(shortfall),
                other => panic!("{acks:?} {reply:?}: {other:?}"),
            };
            assert_eq!(found, short, "{acks:?} {reply:?}");
        }
        // What is no number of acknowledgements confirms nothing.
        for (on_disk, reply) in [(false, Value::Nil), (false, Value::Okay), (true, Value::Int(1)), (true, Value::Nil)] {
            let read = acks(0, on_disk).confirmation(reply.clone());
            assert!(read.is_err(), "{reply:?}: {read:?}");
        }
    }
}
