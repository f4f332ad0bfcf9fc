//! The task for the whole cluster: it agrees on the digest key with the node that holds it, and keeps a canary on each
//! node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Cluster, MOST_REDIRECTS, Redirect, slot_of};
use crate::store::redis::canary::{Canary, canary_base, report_outdated};
use crate::store::redis::connect_error::ConnectError;
use crate::store::redis::connected::{Connected, ServerDuty};
use crate::store::redis::key_agreement::{KeyAgreement, note_name};
use crate::store::timing::FIRST_DELAY;

pub(super) struct Keeper {
    cluster: Arc<Cluster>,
    agreement: KeyAgreement,
}

impl Keeper {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        let settings = &cluster.settings;
        let agreement = KeyAgreement::new(&settings.config, settings.state.clone(), ServerDuty::Node, settings.options);
        Self { cluster, agreement }
    }

    pub(super) async fn run(self) {
        let keeps_canaries = !self.cluster.settings.options.is_read_only;
        let canaries = keep_canaries(self.cluster.clone());
        let never = async {
            if keeps_canaries {
                canaries.await;
            }
        };
        tokio::join!(self.agree_again_and_again(), never);
    }

    async fn agree_again_and_again(mut self) {
        let every = self.cluster.settings.options.ping_every;
        let mut delay = FIRST_DELAY;
        loop {
            let agreed = self.agree().await;
            let whole = self.cluster.survey().and(agreed);
            // While no nodes are known, the slot watcher reports why.
            let is_known = !self.cluster.routes.load().nodes.is_empty();
            let is_ok = whole.is_ok();
            if is_known {
                drop(self.cluster.state.send_replace(whole));
            }
            tokio::time::sleep(if is_ok { every } else { delay }).await;
            delay = if is_ok { FIRST_DELAY } else { (delay * 2).min(every) };
        }
    }

    async fn agree(&mut self) -> Result<(), Arc<ConnectError>> {
        let slot = slot_of(&[note_name(&self.cluster.settings.config.prefix).as_bytes()]);
        let Some(node) = self.cluster.node(slot) else { return Err(self.cluster.why_unserved()) };
        let mut connected = node.server.link.state()?;
        let deadline = Instant::now() + self.cluster.settings.connect_timeout;
        for _ in 0..MOST_REDIRECTS {
            match self.agreement.agree(&connected, None, deadline).await {
                Err(ConnectError::Elsewhere(error)) => match self.elsewhere(&error, &connected, deadline).await {
                    Some(other) => connected = other,
                    None => return Err(Arc::new(ConnectError::Elsewhere(error))),
                },
                agreed => return agreed.map_err(Arc::new),
            }
        }
        Err(Arc::new(ConnectError::Uncovered(1)))
    }

    async fn elsewhere(
        &self,
        error: &redis::RedisError,
        connected: &Connected,
        deadline: Instant,
    ) -> Option<Arc<Connected>> {
        let redirect = Redirect::of(error, &connected.endpoint)?;
        self.cluster.follow(&redirect, deadline).await
    }
}

/// Keeps one canary on each node. A node that took over slots without the latest writes has an outdated canary.
async fn keep_canaries(cluster: Arc<Cluster>) {
    let base = canary_base(&cluster.settings.config.prefix);
    let every = cluster.settings.options.ping_every;
    let mut canaries: HashMap<String, Canary> = HashMap::new();
    loop {
        tokio::time::sleep(every).await;
        let mut looks = JoinSet::new();
        let mut kept = HashMap::new();
        for node in cluster.nodes() {
            let name = node.server.link.names.name(&base, 0);
            let mut canary = canaries.remove(&name).unwrap_or_else(|| Canary::new(name));
            let Ok(connected) = node.server.link.state() else {
                kept.insert(canary.name().to_owned(), canary);
                continue;
            };
            looks.spawn(async move {
                let outdated = canary.is_outdated(&connected, Instant::now() + LOOK).await;
                (canary, outdated.unwrap_or(false))
            });
        }
        while let Some(look) = looks.join_next().await {
            let Ok((canary, is_outdated)) = look else { continue };
            if is_outdated {
                report_outdated(&cluster.settings.state);
            }
            kept.insert(canary.name().to_owned(), canary);
        }
        canaries = kept;
    }
}

/// The limit for one canary. A node that hangs delays the other canaries by this time at most.
const LOOK: Duration = Duration::from_secs(2);
