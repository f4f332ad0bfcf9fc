//! The task that looks up the owners of the slots.
//!
//! Several nodes are asked at once, because a node that was cut off may not know of a change. For each slot, the
//! highest configuration epoch decides.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisResult, Value};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Cluster;
use super::slots::{NodeView, SlotOwners};
use crate::clock::since_boot;
use crate::config::StoreEndpoint;
use crate::store::redis::acl::AclRule;
use crate::store::redis::command_error::CommandError;
use crate::store::redis::connect_error::ConnectError;
use crate::store::redis::multiplexed::{self, Multiplexed};
use crate::store::redis::stream::Dialer;
use crate::store::timing::{FIRST_DELAY, LONGEST_DELAY, jittered};

pub(super) struct SlotWatcher {
    cluster: Arc<Cluster>,
    /// The position in the list of nodes of the next node to ask.
    turn: usize,
}

/// The number of nodes that are asked at once. It is limited because the replies of a large cluster are large.
const ASKED: usize = 5;
/// The limit for the first reply, including the connect.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The time that the other nodes have after the first reply.
const PATIENCE: Duration = Duration::from_millis(300);
/// The shortest pause between look-ups, whatever the reason.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

impl SlotWatcher {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, turn: 0 }
    }

    pub(super) async fn run(mut self) {
        let mut delay = FIRST_DELAY;
        let mut complained = None;
        loop {
            let begun = since_boot();
            let looked = self.look().await;
            let is_whole = match looked {
                Ok(owners) => {
                    complained = None;
                    self.cluster.set_owners(owners);
                    self.cluster.survey().is_ok()
                }
                Err(why) => {
                    let reason = why.to_string();
                    if complained.as_ref() != Some(&reason) {
                        tracing::error!(
                            error = why.with_advice(),
                            "no node of the cluster tells who serves which slot"
                        );
                        complained = Some(reason);
                    }
                    if self.cluster.routes.load().nodes.is_empty() {
                        drop(self.cluster.state.send_replace(Err(Arc::new(why))));
                    }
                    false
                }
            };
            self.cluster.note_look(begun);
            if is_whole {
                delay = FIRST_DELAY;
            }
            let every = self.cluster.settings.options.slots_every;
            self.pause(if is_whole { every } else { jittered(delay) }).await;
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    /// Waits until the next look-up: for `pause`, until a slot is reported as moved, or until a node is lost.
    async fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        tokio::time::sleep(LEAST_PAUSE).await;
        let was_whole = self.cluster.survey().is_ok();
        loop {
            let next = (Instant::now() + LEAST_PAUSE * 2).min(until);
            tokio::select! {
                () = self.cluster.look_now.notified() => return,
                () = tokio::time::sleep_until(next) => {}
            }
            if Instant::now() >= until || was_whole && self.cluster.survey().is_err() {
                return;
            }
        }
    }

    /// Asks connected nodes. If none of them replies, the configured nodes and the nodes known before are asked too.
    async fn look(&mut self) -> Result<SlotOwners, ConnectError> {
        let dialer = &self.cluster.settings.dialer;
        let nodes = self.cluster.nodes();
        self.turn = self.turn.wrapping_add(ASKED);
        let connected: Vec<_> = nodes.iter().filter_map(|node| node.server.link.state().ok()).collect();
        let mut asked = JoinSet::new();
        for connected in
            connected.iter().cycle().skip(self.turn % connected.len().max(1)).take(ASKED.min(connected.len()))
        {
            let (control, endpoint) = (connected.control.clone(), connected.endpoint.clone());
            asked.spawn(async move { ask(&control, &endpoint).await.map_err(CommandError::of).map_err(Fault::Answer) });
        }
        let mut views = Vec::new();
        let first = self.take(&mut asked, &mut views).await;
        if views.is_empty() {
            let known = nodes.iter().map(|node| &node.endpoint).filter(|node| !self.cluster.seeds.contains(node));
            for endpoint in self.cluster.seeds.iter().chain(known).cloned() {
                let dialer = dialer.clone();
                asked.spawn(async move { ask_anew(&dialer, endpoint).await });
            }
            let second = self.take(&mut asked, &mut views).await;
            if views.is_empty() {
                return Err(second.or(first).unwrap_or(ConnectError::Silent(TIMEOUT)));
            }
        }
        Ok(SlotOwners::of(&views))
    }

    /// Collects the replies that arrive in time. Returns the first error, if there was one.
    async fn take(
        &self,
        asked: &mut JoinSet<Result<Option<NodeView>, Fault>>,
        views: &mut Vec<NodeView>,
    ) -> Option<ConnectError> {
        let begun = Instant::now();
        let mut failed = None;
        loop {
            let end = begun + if views.is_empty() { TIMEOUT } else { PATIENCE };
            match tokio::time::timeout_at(end, asked.join_next()).await {
                Ok(Some(Ok(Ok(view)))) => views.extend(view.filter(|view| !view.is_empty())),
                Ok(Some(Ok(Err(fault)))) => {
                    failed.get_or_insert(self.error(fault));
                }
                // A panic is reported elsewhere.
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        asked.abort_all();
        failed
    }

    fn error(&self, fault: Fault) -> ConnectError {
        match fault {
            Fault::Opening(error) => ConnectError::of_opening(error, &self.cluster.settings.dialer),
            Fault::NoCluster(endpoint) => ConnectError::NoCluster { server: endpoint.to_string() },
            Fault::Answer(fault) => ConnectError::of(fault, || {
                AclRule { is_node: true, ..AclRule::of(&self.cluster.settings.config) }.to_string()
            }),
        }
    }
}

/// Why a node gave no usable reply.
enum Fault {
    Opening(redis::RedisError),
    NoCluster(StoreEndpoint),
    Answer(CommandError),
}

async fn ask_anew(dialer: &Dialer, endpoint: StoreEndpoint) -> Result<Option<NodeView>, Fault> {
    let connection = multiplexed::open(dialer, &endpoint, |_| {}).await.map_err(Fault::Opening)?;
    match ask(&connection, &endpoint).await {
        Err(error) if error.detail().is_some_and(|detail| detail.contains("cluster support disabled")) => {
            Err(Fault::NoCluster(endpoint))
        }
        other => other.map_err(CommandError::of).map_err(Fault::Answer),
    }
}

async fn ask(connection: &Multiplexed, endpoint: &StoreEndpoint) -> RedisResult<Option<NodeView>> {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors().cmd("CLUSTER").arg("SLOTS").cmd("CLUSTER").arg("NODES");
    let answers: Vec<RedisResult<Value>> = pipeline.query_async(&mut connection.handle()).await?;
    let mut answers = answers.into_iter();
    match (answers.next(), answers.next()) {
        (Some(slots), Some(nodes)) => Ok(NodeView::of(slots?, nodes, endpoint)),
        (_, _) => Ok(None),
    }
}
