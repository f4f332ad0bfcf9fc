//! The connections to one server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio_util::sync::CancellationToken;

use super::body_connections::BodyConnections;
use super::command_error::CommandError;
use super::multiplexed::Multiplexed;
use super::pipeline::Pipeline;
use super::stream::RedisStream;
use super::timing::TIMEOUTS;
use super::write_acks::WriteAcks;
use crate::config::StoreEndpoint;
use crate::store::usable_since::UsableSince;

/// Connections that work, as far as is known.
#[derive(Clone)]
pub(super) struct Connected {
    /// The address of the server.
    pub(super) endpoint: StoreEndpoint,
    /// A random number of each run, if the server reports it.
    pub(super) run_id: Option<Arc<str>>,
    pub(super) duty: ServerDuty,
    /// For the commands of requests.
    pub(super) hot: Pipeline,
    /// For all other commands on records.
    pub(super) control: Multiplexed,
    /// For lists of records, which would delay other commands.
    pub(super) lists: Multiplexed,
    /// For bodies that are stored apart, which would delay them too.
    pub(super) connections: Arc<BodyConnections>,
    pub(super) acquire: AcquireMethod,
    /// Set if `store.replica_acks` or `store.fsync_acks` asks for it.
    pub(super) write_acks: Option<WriteAcks>,
    /// Since when the server, with its present slots, can be used without a break.
    pub(super) usable_since: Arc<UsableSince>,
    /// Cancelled when no connection to this server may be used any more.
    pub(super) lost: CancellationToken,
    /// Cancelled with `lost`. It is also cancelled alone, when only the hot connection of a core is closed.
    pub(super) closed: CancellationToken,
    /// The number of calls in a row without a reply in time, on all connections.
    pub(super) timeouts: Arc<AtomicU32>,
}

/// The server's duty for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerDuty {
    /// It holds all records.
    Alone,
    /// It is a node of a cluster, and holds the records in its slots.
    Node,
    /// It is the node to which a slot is being moved. Each command must be preceded by `ASKING`.
    Importing,
}

/// How a claim takes a name that has no owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcquireMethod {
    /// `SET NX GET`.
    Natively,
    /// By a script: for Redis before 7.0, and similar servers.
    ByScript,
}

impl Connected {
    /// Updates the state of the connection after a command.
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

    /// The same, with a core's own connections for the commands of requests.
    pub(super) fn on_core(&self, hot: RedisStream) -> Self {
        let (lost, closed) = (self.lost.clone(), self.lost.child_token());
        let hot = Pipeline::start_beside(self.hot.clone(), hot, closed.clone(), lost, self.timeouts.clone());
        let connections = Arc::new(BodyConnections::on_core(&self.connections));
        Self { hot, connections, closed, ..self.clone() }
    }

    /// The same, for a slot that is being moved to this node.
    pub(super) fn importing(&self) -> Self {
        Self { duty: ServerDuty::Importing, ..self.clone() }
    }

    pub(super) fn drop_it(&self) {
        self.lost.cancel();
    }

    pub(super) fn is_lost(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until the connection is lost.
    pub(super) async fn until_lost(&self) {
        self.closed.cancelled().await;
    }
}
