//! The nodes of a Redis Cluster, and the node of each record.
//!
//! Each primary has its own connections and supervisor, like a single server. The slots of each node are looked up
//! repeatedly. Nodes also report changes themselves: a node that no longer serves a slot names the node that does, and
//! does not execute the command.

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
use super::finding::{NodeReport, ServerFinding};
use super::link::{is_tried, until, unusable};
use super::server::{ServerSettings, WatchedServer};
use super::supervisor::Source;
use crate::clock::millis;
use crate::config::StoreEndpoint;
use crate::store::StoreError;
use crate::store::timing::FIRST_DELAY;

/// The known state of a cluster.
pub(super) struct Cluster {
    settings: ServerSettings,
    /// Some nodes. The others are learned from them.
    seeds: Vec<StoreEndpoint>,
    routes: ArcSwap<SlotRoutes>,
    /// Nodes that get their first slot: they are in no list of the owners yet.
    newcomers: Mutex<Vec<Newcomer>>,
    /// Allows one change of the routes at a time.
    changing: Mutex<()>,
    /// Counts the changes of the node list.
    nodes: watch::Sender<u64>,
    /// Whether the whole cluster works, or why not.
    state: watch::Sender<Result<(), Arc<ConnectError>>>,
    /// Set when the routes may be outdated.
    look_now: Notify,
    /// The start of the latest look-up of the slots that has ended, in milliseconds of [`since_boot`].
    looked: AtomicU64,
}

/// A cluster and its background tasks.
pub(super) struct WatchedCluster {
    pub(super) cluster: Arc<Cluster>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// A primary.
pub(super) struct ClusterNode {
    /// Unique: a number is never used again.
    number: u64,
    endpoint: StoreEndpoint,
    server: WatchedServer,
}

/// A node without slots, to which another one redirects the new names of a slot that is on its way.
struct Newcomer {
    endpoint: StoreEndpoint,
    server: Arc<WatchedServer>,
    /// When it was last named.
    named: Instant,
}

/// The node of each slot.
struct SlotRoutes {
    nodes: Vec<Arc<ClusterNode>>,
    /// The index in `nodes` of the node that serves a slot.
    of_slot: Box<[Option<u16>]>,
}

/// How many redirects one call follows.
pub(super) const MOST_REDIRECTS: usize = 5;
/// The connections to a newcomer are closed when it was not named for this time, or serves slots.
const NEWCOMER_STAYS: Duration = Duration::from_secs(60);

impl WatchedCluster {
    /// Starts to look for the nodes.
    pub(super) fn start(settings: ServerSettings, seeds: &[(String, u16)]) -> Self {
        let (state, _) = watch::channel(Err(Arc::new(ConnectError::NotYet)));
        let (nodes, _) = watch::channel(0);
        let none = SlotRoutes { nodes: Vec::new(), of_slot: vec![None; SLOTS].into() };
        let cluster = Arc::new(Cluster {
            settings,
            seeds: seeds.iter().map(|(host, port)| StoreEndpoint::Tcp(host.clone(), *port)).collect(),
            routes: ArcSwap::from_pointee(none),
            newcomers: Mutex::default(),
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
    /// The connection for this slot: the core's own, if there is one.
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
            // The node's slots may have moved to another node. Only a new look-up shows this.
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

    /// The connection that a redirect names, for this call only. If the node is not known yet, this waits until it is.
    pub(super) async fn follow(&self, redirect: &Redirect, deadline: Instant) -> Option<Arc<Connected>> {
        if let Redirect::Moved(slot, endpoint) = redirect {
            self.note_moved(*slot, endpoint);
        }
        loop {
            let node = self.routes.load().nodes.iter().find(|node| node.endpoint == *redirect.endpoint()).cloned();
            let connected = match (node, redirect) {
                (Some(node), _) => node.server.link.connected().ok(),
                (None, Redirect::Moved(..)) => None,
                (None, Redirect::Ask(endpoint)) => self.newcomer(endpoint).link.connected().ok(),
            };
            if let Some(connected) = connected {
                return Some(match redirect {
                    Redirect::Moved(..) => connected,
                    Redirect::Ask(_) => Arc::new(connected.importing()),
                });
            }
            self.look_now.notify_one();
            tokio::time::timeout_at(deadline, tokio::time::sleep(FIRST_DELAY)).await.ok()?;
        }
    }

    /// A node that serves no slot yet. It is connected to when it is first named.
    fn newcomer(&self, endpoint: &StoreEndpoint) -> Arc<WatchedServer> {
        let mut newcomers = self.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = newcomers.iter_mut().find(|known| known.endpoint == *endpoint) {
            known.named = Instant::now();
            return known.server.clone();
        }
        let source = Source::Fixed(endpoint.clone());
        let server = Arc::new(WatchedServer::start(&self.settings, source, ServerDuty::Importing));
        // It may have missed renewals of the records that it gets, as any node that gains a slot.
        self.note_break(&server);
        newcomers.push(Newcomer { endpoint: endpoint.clone(), server: server.clone(), named: Instant::now() });
        server
    }

    /// Notes that a node has named this endpoint as the owner of the slot.
    fn note_moved(&self, slot: u16, endpoint: &StoreEndpoint) {
        // Calls that were sent before the first redirect get one too. Only the first has to change the routes.
        if self.routes.load().node(slot).is_some_and(|node| node.endpoint == *endpoint) {
            return;
        }
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.routes.load_full();
        // The look-up finds all other changes.
        self.look_now.notify_one();
        let Some(index) = before.nodes.iter().position(|node| node.endpoint == *endpoint) else { return };
        let mut of_slot = before.of_slot.clone();
        of_slot[usize::from(slot)] = u16::try_from(index).ok();
        self.set(&before, SlotRoutes { nodes: before.nodes.clone(), of_slot });
    }

    /// Sets the owners of all slots.
    fn set_owners(&self, owners: SlotOwners) {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.routes.load_full();
        let node = |endpoint: StoreEndpoint| match before.nodes.iter().find(|node| node.endpoint == endpoint) {
            Some(known) => known.clone(),
            None => {
                let server = WatchedServer::start(&self.settings, Source::Fixed(endpoint.clone()), ServerDuty::Node);
                let number = self.next_number();
                tracing::debug!(node = %endpoint, "a node of the cluster serves slots");
                Arc::new(ClusterNode { number, endpoint, server })
            }
        };
        let nodes: Vec<_> = owners.endpoints.into_iter().map(node).collect();
        let mut newcomers = self.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
        newcomers.retain(|newcomer| {
            let has_slots = nodes.iter().any(|node| node.endpoint == newcomer.endpoint);
            !has_slots && newcomer.named.elapsed() < NEWCOMER_STAYS
        });
        drop(newcomers);
        self.set(&before, SlotRoutes { nodes, of_slot: owners.of_slot });
    }

    fn next_number(&self) -> u64 {
        self.nodes.send_modify(|number| *number += 1);
        *self.nodes.borrow()
    }

    /// Replaces the routes. A node that gains a slot may have missed renewals of the slot's records, or its clock may
    /// be ahead. So silence counts from now on at that node.
    fn set(&self, before: &SlotRoutes, now: SlotRoutes) {
        for (index, node) in now.nodes.iter().enumerate() {
            let slots =
                || (0..SLOTS as u16).filter(|slot| now.of_slot[usize::from(*slot)] == u16::try_from(index).ok());
            let is_new = |slot| before.node(slot).is_none_or(|other| !Arc::ptr_eq(other, node));
            if slots().any(is_new) {
                self.note_break(&node.server);
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

    /// Read-only use shows how long owners have been silent, and concludes nothing.
    fn note_break(&self, server: &WatchedServer) {
        if !self.settings.options.is_read_only {
            server.link.usable_since.note_break();
        }
    }

    fn looked(&self) -> Duration {
        Duration::from_millis(self.looked.load(Ordering::Relaxed))
    }

    fn note_look(&self, begun: Duration) {
        self.looked.fetch_max(millis(begun), Ordering::Relaxed);
    }

    /// The first known problem: a node without a connection, or slots that no node serves. While there are nodes to which
    /// no attempt to connect has ended, the problem is that.
    fn survey(&self) -> Result<(), Arc<ConnectError>> {
        let routes = self.routes.load();
        let mut problem = None;
        for node in &routes.nodes {
            if let Err(why) = node.server.link.state() {
                if let ConnectError::NotYet = *why {
                    return Err(why);
                }
                let server = || node.endpoint.to_string();
                problem = problem.or_else(|| Some(ConnectError::Node { server: server(), why }));
            }
        }
        let uncovered = || match routes.uncovered() {
            0 => None,
            uncovered => Some(ConnectError::Uncovered(uncovered)),
        };
        problem.or_else(uncovered).map_or(Ok(()), |problem| Err(Arc::new(problem)))
    }

    /// The node that serves this slot, if one does. It also reports changes of the slot's records.
    pub(super) fn node(&self, slot: u16) -> Option<Arc<ClusterNode>> {
        self.routes.load().node(slot).cloned()
    }

    /// The nodes that serve slots, sorted by address.
    pub(super) fn nodes(&self) -> Vec<Arc<ClusterNode>> {
        let mut nodes = self.routes.load().nodes.clone();
        nodes.sort_by_cached_key(|node| node.endpoint.to_string());
        nodes
    }

    pub(super) fn is_up(&self) -> bool {
        self.state.borrow().is_ok() && self.survey().is_ok()
    }

    /// Why the cluster does not work as a whole, if it does not.
    pub(super) fn why_down(&self) -> Option<StoreError> {
        self.state.borrow().as_ref().err().cloned().map(unusable)
    }

    /// Waits until the whole cluster works, until an error is final, or for `patience`.
    pub(super) async fn ready(&self, patience: Duration) -> Result<(), Arc<ConnectError>> {
        until(&self.state, patience, |state| state.as_ref().map_or_else(|why| why.is_final(), |()| true)).await
    }

    /// Waits until the first attempt to connect to all nodes has ended.
    pub(super) async fn tried(&self) -> Result<(), Arc<ConnectError>> {
        until(&self.state, Duration::MAX, is_tried).await
    }

    /// A finding about the cluster as a whole. `None` while no node is known.
    pub(super) fn finding(&self) -> Option<ServerFinding> {
        let routes = self.routes.load();
        let primaries = match routes.nodes.len() {
            0 => return None,
            1 => "1 primary serves".to_owned(),
            count => format!("{count} primaries serve"),
        };
        let found = match routes.uncovered() {
            0 => format!("{primaries} all slots"),
            uncovered => format!("{primaries} {} slots, and nobody the other {uncovered}", SLOTS - uncovered),
        };
        Some(ServerFinding { what: "cluster", found })
    }

    /// Findings about each node.
    pub(super) fn reports(&self) -> Vec<NodeReport> {
        let report = |node: Arc<ClusterNode>| {
            let link = &node.server.link;
            NodeReport { node: node.endpoint.to_string(), found: link.state().map(|_| link.findings()) }
        };
        self.nodes().into_iter().map(report).collect()
    }
}

impl ClusterNode {
    pub(super) fn endpoint(&self) -> &StoreEndpoint {
        &self.endpoint
    }

    pub(super) fn server(&self) -> &WatchedServer {
        &self.server
    }
}

impl SlotRoutes {
    /// The number of slots that no node serves.
    fn uncovered(&self) -> usize {
        self.of_slot.iter().filter(|owner| owner.is_none()).count()
    }

    fn node(&self, slot: u16) -> Option<&Arc<ClusterNode>> {
        self.nodes.get(usize::from((*self.of_slot.get(usize::from(slot))?)?))
    }
}
