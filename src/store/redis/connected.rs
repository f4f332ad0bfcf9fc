//! The connections to one server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::body_connections::BodyConnections;
use super::command_error::CommandError;
use super::multiplexed::Multiplexed;
use super::pipeline::Pipeline;
use super::replication::Replication;
use super::stream::RedisStream;
use super::timing::{TIMEOUTS, millis};
use crate::clock::since_boot;
use crate::config::RedisEndpoint;

/// Connections that work, as far as is known.
#[derive(Clone)]
pub(super) struct Connected {
    /// Which server it is.
    pub(super) endpoint: RedisEndpoint,
    /// A random number of each run, where the server tells it.
    pub(super) run: Option<Arc<str>>,
    pub(super) duty: ServerDuty,
    /// For what every request asks.
    pub(super) hot: Pipeline,
    /// For all else that concerns records.
    pub(super) control: Multiplexed,
    /// For lists of records, which would hold up the others.
    pub(super) lists: Multiplexed,
    /// For bodies that lie apart, which would do so too.
    pub(super) connections: Arc<BodyConnections>,
    pub(super) acquire: AcquireMethod,
    /// Where `store.replica_acks` asks for it.
    pub(super) replication: Option<Replication>,
    /// When the server, or what it serves, was last found to be another than before.
    pub(super) changed: Arc<LastChange>,
    /// Cancelled when none of the connections to this server is to be used any more.
    pub(super) lost: CancellationToken,
    /// The same, or else cancelled when it is too: when the hot connection of a core is closed, and that alone.
    pub(super) closed: CancellationToken,
    /// Calls in a row that had no answer in time, on whatever connection.
    pub(super) timeouts: Arc<AtomicU32>,
}

/// What a server does for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerDuty {
    /// It has all records.
    Alone,
    /// It is a node of a cluster, and has those in its slots.
    Node,
    /// It is the node to which a slot is just being moved: each command has to say that it knows.
    Importing,
}

/// How a name is taken that nobody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcquireMethod {
    /// `SET NX GET`.
    Natively,
    /// By script: Redis before 7.0, and others like it.
    ByScript,
}

/// When a server was last found to be another than before: milliseconds of [`since_boot`]; 0 if it never was.
#[derive(Default)]
pub(super) struct LastChange(AtomicU64);

impl LastChange {
    pub(super) fn note(&self) {
        self.0.store(millis(since_boot()).max(1), Ordering::Relaxed);
    }

    /// Whether an owner that has been silent for this lease may be taken for lost. Not within a lease of a change of the
    /// server: it may have missed renewals, and the clock of a replica that was promoted may be ahead.
    pub(super) fn may_take_over(&self, lease: Duration) -> bool {
        match self.0.load(Ordering::Relaxed) {
            0 => true,
            changed => millis(since_boot()).saturating_sub(changed) >= millis(lease),
        }
    }
}

impl Connected {
    /// Draws the conclusions for the connection from how a command went.
    pub(super) fn record_result(&self, fault: Option<&CommandError>) {
        match fault {
            Some(CommandError::Late) => {
                if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS {
                    self.drop_it();
                }
            }
            Some(CommandError::Lost(_)) => self.drop_it(),
            Some(fault) if fault.is_elsewhere() => self.drop_it(),
            Some(CommandError::Refused(..) | CommandError::Full) | None => self.timeouts.store(0, Ordering::Relaxed),
        }
    }

    /// The same, with connections of a core's own for what requests ask.
    pub(super) fn on_core(&self, hot: RedisStream) -> Self {
        let (lost, closed) = (self.lost.clone(), self.lost.child_token());
        let hot = Pipeline::start_beside(self.hot.clone(), hot, closed.clone(), lost, self.timeouts.clone());
        let connections = Arc::new(BodyConnections::on_core(&self.connections));
        Self { hot, connections, closed, ..self.clone() }
    }

    /// The same, for what is in a slot that is being moved to this node.
    pub(super) fn importing(&self) -> Self {
        Self { duty: ServerDuty::Importing, ..self.clone() }
    }

    pub(super) fn drop_it(&self) {
        self.lost.cancel();
    }

    pub(super) fn is_lost(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until it is.
    pub(super) async fn until_lost(&self) {
        self.closed.cancelled().await;
    }
}
