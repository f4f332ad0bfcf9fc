//! The hot connections of one core to the nodes of a cluster: one for each node.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::task::AbortOnDropHandle;

use super::Cluster;
use crate::store::redis::connected::Connected;
use crate::store::redis::core_connection::CoreConnection;

/// The connections of one core, by the number of their node.
pub(in crate::store::redis) struct ClusterConnections {
    by_node: Arc<ArcSwap<HashMap<u64, Arc<CoreConnection>>>>,
    _task: AbortOnDropHandle<()>,
}

impl ClusterConnections {
    /// Opens a connection to each node and keeps it, on the current runtime.
    pub(in crate::store::redis) fn start(cluster: Arc<Cluster>) -> Self {
        let by_node = Arc::<ArcSwap<_>>::default();
        #[expect(clippy::disallowed_methods, reason = "ends with the core's store")]
        let task = AbortOnDropHandle::new(tokio::spawn(follow(cluster, by_node.clone())));
        Self { by_node, _task: task }
    }

    /// The current connection to this node, if there is one.
    pub(super) fn connected(&self, node: u64) -> Option<Arc<Connected>> {
        self.by_node.load().get(&node)?.connected()
    }
}

async fn follow(cluster: Arc<Cluster>, by_node: Arc<ArcSwap<HashMap<u64, Arc<CoreConnection>>>>) {
    let mut changes = cluster.nodes.subscribe();
    loop {
        changes.borrow_and_update();
        let before = by_node.load_full();
        let now = cluster.nodes().into_iter().map(|node| {
            let own = before.get(&node.number).cloned();
            (node.number, own.unwrap_or_else(|| Arc::new(CoreConnection::start(&cluster.settings, &node.server.link))))
        });
        by_node.store(Arc::new(now.collect()));
        if changes.changed().await.is_err() {
            return;
        }
    }
}
