//! The nodes of a Redis Cluster, and which of them has a record.
//!
//! Each primary has connections and a supervisor of its own, as a server that is alone has. Which slots it serves is looked up again and
//! again, and learned from the nodes themselves: one that has given a slot away names the node that has it, and has done
//! nothing then.

mod keeper;
mod local;
mod slots;
mod watcher;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use keeper::Keeper;
pub(super) use local::ClusterConnections;
pub(super) use slots::{Redirect, SlotSet, slot_of};
use slots::{SLOTS, SlotOwners};
use watcher::SlotWatcher;

use super::connect_error::ConnectError;
use super::connected::{Connected, ServerDuty};
use super::link::{is_tried, until, unusable};
use super::probe::ServerFinding;
use super::server::{ServerSettings, WatchedServer};
use super::supervisor::Source;
use super::timing::{FIRST_DELAY, millis};
use crate::config::RedisEndpoint;
use crate::store::StoreError;

/// All that is known of a cluster.
pub(super) struct Cluster {
    settings: ServerSettings,
    /// Some nodes. They know the others.
    seeds: Vec<RedisEndpoint>,
    routes: ArcSwap<SlotRoutes>,
    /// One change of the routes at a time.
    changing: Mutex<()>,
    /// Counts the changes of the nodes.
    nodes: watch::Sender<u64>,
    /// Whether all of it works, or why not.
    state: watch::Sender<Result<(), Arc<ConnectError>>>,
    /// Set when the routes may be out of date.
    look_now: Notify,
    /// When the last look at who serves what began, of those that have ended: milliseconds of [`since_boot`].
    looked: AtomicU64,
}

/// A cluster, and the tasks that watch over it.
pub(super) struct WatchedCluster {
    pub(super) cluster: Arc<Cluster>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// A primary.
pub(super) struct ClusterNode {
    /// No other has it, or had it.
    number: u64,
    endpoint: RedisEndpoint,
    server: WatchedServer,
}

/// Which node serves which slot.
struct SlotRoutes {
    nodes: Vec<Arc<ClusterNode>>,
    /// Where in `nodes` the one that serves a slot is.
    of_slot: Box<[Option<u16>]>,
}

/// How often a call follows nodes that name each other.
pub(super) const MOST_REDIRECTS: usize = 5;

impl WatchedCluster {
    /// Begins to look for the nodes.
    pub(super) fn start(settings: ServerSettings, seeds: &[(String, u16)]) -> Self {
        let (state, _) = watch::channel(Err(Arc::new(ConnectError::NotYet)));
        let (nodes, _) = watch::channel(0);
        let none = SlotRoutes { nodes: Vec::new(), of_slot: vec![None; SLOTS].into() };
        let cluster = Arc::new(Cluster {
            settings,
            seeds: seeds.iter().map(|(host, port)| RedisEndpoint::Tcp(host.clone(), *port)).collect(),
            routes: ArcSwap::from_pointee(none),
            changing: Mutex::default(),
            nodes,
            state,
            look_now: Notify::new(),
            looked: AtomicU64::new(0),
        });
        #[expect(clippy::disallowed_methods, reason = "they end with the store")]
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(SlotWatcher::new(cluster.clone()).run())),
            AbortOnDropHandle::new(tokio::spawn(Keeper::new(cluster.clone()).run())),
        ];
        Self { cluster, _tasks: tasks }
    }
}

impl Cluster {
    /// The connection for what lies in this slot: one of the core's own, if there is one.
    pub(super) fn connected(
        &self,
        slot: u16,
        local: Option<&ClusterConnections>,
    ) -> Result<Arc<Connected>, StoreError> {
        let routes = self.routes.load();
        let Some(node) = routes.node(slot) else {
            self.look_now.notify_one();
            return Err(unusable(self.why_unserved()));
        };
        if let Some(own) = local.and_then(|local| local.connected(node.number)) {
            return Ok(own);
        }
        match node.server.link.connected() {
            // Its slots may have been given to another by now: that is known only by looking again.
            Err(StoreError::Unavailable(why)) if node.server.link.has_failed_since(self.looked()) => {
                Err(StoreError::Refused(why))
            }
            other => other,
        }
    }

    fn why_unserved(&self) -> Arc<ConnectError> {
        match &*self.state.borrow() {
            Ok(()) => Arc::new(ConnectError::Uncovered(1)),
            Err(why) => why.clone(),
        }
    }

    /// The connection that a redirect names, for this call alone. Nodes that are not known yet are waited for.
    pub(super) async fn follow(&self, redirect: &Redirect, deadline: Instant) -> Option<Arc<Connected>> {
        if let Redirect::Moved(slot, endpoint) = redirect {
            self.note_moved(*slot, endpoint);
        }
        loop {
            let node = self.routes.load().nodes.iter().find(|node| node.endpoint == *redirect.endpoint()).cloned();
            if let Some(Ok(connected)) = node.map(|node| node.server.link.connected()) {
                return Some(match redirect {
                    Redirect::Moved(..) => connected,
                    Redirect::Ask(_) => Arc::new(connected.importing()),
                });
            }
            self.look_now.notify_one();
            tokio::time::timeout_at(deadline, tokio::time::sleep(FIRST_DELAY)).await.ok()?;
        }
    }

    /// A node says that this one has the slot.
    fn note_moved(&self, slot: u16, endpoint: &RedisEndpoint) {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.routes.load_full();
        // What else has changed, a look will tell.
        self.look_now.notify_one();
        let Some(index) = before.nodes.iter().position(|node| node.endpoint == *endpoint) else { return };
        let mut of_slot = before.of_slot.clone();
        of_slot[usize::from(slot)] = u16::try_from(index).ok();
        self.set(&before, SlotRoutes { nodes: before.nodes.clone(), of_slot });
    }

    /// From now on, slots are served like this.
    fn set_owners(&self, owners: SlotOwners) {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.routes.load_full();
        let node = |endpoint: RedisEndpoint| match before.nodes.iter().find(|node| node.endpoint == endpoint) {
            Some(known) => known.clone(),
            None => {
                let server = WatchedServer::start(&self.settings, Source::Fixed(endpoint.clone()), ServerDuty::Node);
                let number = self.next_number();
                tracing::debug!(node = %endpoint, "a node of the cluster serves slots");
                Arc::new(ClusterNode { number, endpoint, server })
            }
        };
        let nodes = owners.endpoints.into_iter().map(node).collect();
        self.set(&before, SlotRoutes { nodes, of_slot: owners.of_slot });
    }

    fn next_number(&self) -> u64 {
        self.nodes.send_modify(|number| *number += 1);
        *self.nodes.borrow()
    }

    /// Replaces the routes. Whoever comes to serve a slot may have missed renewals of what lies there, or have a clock that is
    /// ahead.
    fn set(&self, before: &SlotRoutes, now: SlotRoutes) {
        for (index, node) in now.nodes.iter().enumerate() {
            let slots =
                || (0..SLOTS as u16).filter(|slot| now.of_slot[usize::from(*slot)] == u16::try_from(index).ok());
            let is_new = |slot| before.node(slot).is_none_or(|other| !Arc::ptr_eq(other, node));
            if slots().any(is_new) {
                node.server.link.changed.note();
            }
            node.server.link.names.set_slots(SlotSet::new(slots()));
        }
        let is_other = before.nodes.len() != now.nodes.len()
            || before.nodes.iter().zip(&now.nodes).any(|(before, now)| !Arc::ptr_eq(before, now));
        self.routes.store(Arc::new(now));
        if is_other {
            self.nodes.send_modify(|changes| *changes += 1);
        }
    }

    fn looked(&self) -> Duration {
        Duration::from_millis(self.looked.load(Ordering::Relaxed))
    }

    fn note_look(&self, begun: Duration) {
        self.looked.fetch_max(millis(begun), Ordering::Relaxed);
    }

    /// What is wrong, as far as is known: a slot that nobody serves, or a node without a connection.
    fn survey(&self) -> Result<(), Arc<ConnectError>> {
        let routes = self.routes.load();
        let uncovered = routes.of_slot.iter().filter(|owner| owner.is_none()).count();
        for node in &routes.nodes {
            if let Err(why) = node.server.link.state() {
                return Err(match *why {
                    ConnectError::NotYet => why,
                    _ => Arc::new(ConnectError::Node { server: node.endpoint.to_string(), why }),
                });
            }
        }
        if uncovered > 0 { Err(Arc::new(ConnectError::Uncovered(uncovered))) } else { Ok(()) }
    }

    /// Where changes of what lies in this slot are heard of, if anywhere.
    pub(super) fn node(&self, slot: u16) -> Option<Arc<ClusterNode>> {
        self.routes.load().node(slot).cloned()
    }

    /// The nodes that serve slots, in the order of their addresses.
    pub(super) fn nodes(&self) -> Vec<Arc<ClusterNode>> {
        let mut nodes = self.routes.load().nodes.clone();
        nodes.sort_by_cached_key(|node| node.endpoint.to_string());
        nodes
    }

    pub(super) fn is_up(&self) -> bool {
        self.state.borrow().is_ok() && self.survey().is_ok()
    }

    /// Why not all of it works, if it does not.
    pub(super) fn why_down(&self) -> Option<StoreError> {
        self.state.borrow().as_ref().err().cloned().map(unusable)
    }

    /// Waits until all of it works, or for an error that no waiting cures; after `patience`, for nothing more.
    pub(super) async fn ready(&self, patience: Duration) -> Result<(), Arc<ConnectError>> {
        until(&self.state, patience, |state| state.as_ref().map_or_else(|why| why.is_final(), |()| true)).await
    }

    /// Waits until the first try to connect to all nodes has ended.
    pub(super) async fn tried(&self) -> Result<(), Arc<ConnectError>> {
        until(&self.state, Duration::MAX, is_tried).await
    }

    /// What was found out about each node.
    pub(super) fn findings(&self) -> Vec<ServerFinding> {
        let nodes = self.nodes();
        let found = match nodes.len() {
            1 => "1 primary serves all slots".to_owned(),
            count => format!("{count} primaries serve all slots"),
        };
        let whole = ServerFinding { what: "cluster", found };
        std::iter::once(whole).chain(nodes.iter().flat_map(|node| node.server.link.findings())).collect()
    }
}

impl ClusterNode {
    pub(super) fn endpoint(&self) -> &RedisEndpoint {
        &self.endpoint
    }

    pub(super) fn server(&self) -> &WatchedServer {
        &self.server
    }
}

impl SlotRoutes {
    fn node(&self, slot: u16) -> Option<&Arc<ClusterNode>> {
        self.nodes.get(usize::from((*self.of_slot.get(usize::from(slot))?)?))
    }
}
