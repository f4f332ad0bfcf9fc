//! Redis, Valkey and compatible servers: the store for more than one sidecar.
//!
//! One key holds each record, so one command decides. The chunks of a large body lie under their own keys: they are
//! written before the record and read after it ([`body`]). A claim needs no script if the server has `SET NX GET`. Each
//! transition that depends on the stored record is one script.
//!
//! A fault is reported by what it leaves open. [`StoreError::Unavailable`]: there is no connection, and the last
//! attempt to open one failed. [`StoreError::Refused`]: the server refused the command. [`StoreError::Uncertain`]: the
//! command may have been executed, or may still be.

mod acl;
mod bodies;
mod body;
mod body_connections;
mod call;
mod canary;
mod cluster;
mod command_error;
mod commands;
mod connect_error;
mod connected;
mod core_connection;
mod disk_wait;
mod examine;
mod facts;
mod finding;
mod handshake;
mod hot;
mod key_agreement;
mod link;
mod list;
mod multiplexed;
mod notify;
mod own_names;
mod pipeline;
mod resp;
mod sentinel;
mod server;
mod stream;
mod supervisor;
#[cfg(test)]
mod tests;
mod timing;
mod write_acks;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use acl::AclRule;
use bodies::Bodies;
use body::RedisChunks;
use call::Call;
use cluster::{ClusterConnections, Redirect, WatchedCluster, slot_of};
use command_error::CommandError;
pub use connect_error::ConnectError;
use connected::{Connected, ServerDuty};
use core_connection::CoreConnection;
pub use finding::{NodeReport, ServerFinding};
use hot::RecordKey;
use sentinel::Sentinels;
use server::{ServerSettings, WatchedServer};
use stream::Dialer;
use supervisor::Source;

use super::digest_key;
use super::format::RecordFormat;
use super::store_state::StoreState;
use super::{
    Changes, Claimed, Health, ListError, ListQuery, NodeUse, Page, Released, Renewed, Settled, Store, StoreError,
    StoreFuture, StoredChunks, SwapResult,
};
use crate::config::{self, RedisAddress, RedisServers};
use crate::key::DigestKey;
use crate::record::chunks::ApartBody;
use crate::record::encryption::EncryptionKey;
use crate::record::transitions::{CompareAndSwap, StoredRecord};
use crate::record::{Claim, Record, RecordName, SettledRecord, Token};

/// Records in Redis: in one server, or in the nodes of a cluster.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<SharedState>,
    /// The hot connections of the core that uses this handle.
    local: Option<Arc<LocalConnections>>,
}

/// State that all cores share.
struct SharedState {
    servers: Servers,
    settings: ServerSettings,
    format: RecordFormat,
    bodies: Bodies,
    /// How long the chunks of a body outlive their record. A reader that has begun can finish within this time.
    body_survives: Duration,
}

/// The servers that hold the records.
enum Servers {
    /// One server holds all records.
    One(WatchedServer),
    /// The node that serves a record's slot holds the record.
    Cluster(WatchedCluster),
}

impl SharedState {
    /// The node that a redirect names: `fault` is the error of the node that was asked. `None` if it is no redirect.
    async fn elsewhere(&self, fault: &CommandError, asked: &Connected, deadline: Instant) -> Option<Arc<Connected>> {
        match (fault, &self.servers) {
            (CommandError::Refused(_, error), Servers::Cluster(watched)) => {
                watched.cluster.follow(&Redirect::of(error, &asked.endpoint)?, deadline).await
            }
            (_, _) => None,
        }
    }
}

/// Connections of one core, for the commands of requests.
enum LocalConnections {
    One(CoreConnection),
    Cluster(ClusterConnections),
}

/// Options that differ in tests and in read-only use.
#[derive(Clone, Copy)]
struct ConnectionOptions {
    /// The interval at which the digest key is confirmed. Claims are made only if the last confirmation is not older
    /// than three intervals, or than three seconds if that is longer.
    ping_every: Duration,
    /// The interval at which the server's memory and eviction policy are read.
    look_every: Duration,
    /// The interval at which the owners of a cluster's slots are looked up, if there is no reason for an earlier look.
    slots_every: Duration,
    /// Treats the server as if it had no `SET NX GET`.
    scripts_only: bool,
    /// Whether the store's digest key is written if it is absent or differs. Read-only use writes none.
    is_read_only: bool,
    /// How long the chunks of a body outlive their record. A reader that has begun can finish within this time.
    body_survives: Duration,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            ping_every: Duration::from_secs(1),
            look_every: Duration::from_secs(10),
            slots_every: Duration::from_secs(10),
            scripts_only: false,
            is_read_only: false,
            body_survives: Duration::ZERO,
        }
    }
}

const NOT_A_RECORD: &str = "something else lies under its name";

impl Redis {
    /// Starts to connect. It must be called within a Tokio runtime. Large bodies outlive their records by
    /// `body_survives`.
    pub fn open(address: &RedisAddress, config: &config::StoreConfig, body_survives: Duration) -> Self {
        Self::open_with(address, config, ConnectionOptions { body_survives, ..ConnectionOptions::default() })
    }

    /// The same for read-only use: the store's digest key is not changed.
    pub fn open_to_look(address: &RedisAddress, config: &config::StoreConfig) -> Self {
        Self::open_with(address, config, ConnectionOptions { is_read_only: true, ..ConnectionOptions::default() })
    }

    /// Waits until the first attempt to connect has ended.
    pub async fn tried(&self) -> Result<(), Arc<ConnectError>> {
        match &self.shared.servers {
            Servers::One(server) => server.link.tried().await,
            Servers::Cluster(watched) => watched.cluster.tried().await,
        }
    }

    /// Findings from the last connect: about the server, or about the cluster as a whole.
    pub fn findings(&self) -> Vec<ServerFinding> {
        match &self.shared.servers {
            Servers::One(server) => server.link.findings(),
            Servers::Cluster(watched) => watched.cluster.finding().into_iter().collect(),
        }
    }

    /// Findings about each node of a cluster.
    pub fn nodes(&self) -> Vec<NodeReport> {
        match &self.shared.servers {
            Servers::One(_) => Vec::new(),
            Servers::Cluster(watched) => watched.cluster.reports(),
        }
    }

    fn open_with(address: &RedisAddress, config: &config::StoreConfig, options: ConnectionOptions) -> Self {
        let settings = ServerSettings {
            config: config.clone(),
            dialer: Dialer::new(address),
            options,
            connect_timeout: crate::store::timing::connect_timeout(config.timeout),
            state: StoreState::new(digest_key::configured(config), options.ping_every),
        };
        let servers = match &address.servers {
            RedisServers::One(endpoint) => {
                Servers::One(WatchedServer::start(&settings, Source::Fixed(endpoint.clone()), ServerDuty::Alone))
            }
            RedisServers::Sentinel { sentinels, master } => {
                let sentinels = Sentinels::start(&settings.dialer, sentinels, master);
                Servers::One(WatchedServer::start(&settings, Source::Sentinel(sentinels), ServerDuty::Alone))
            }
            RedisServers::Cluster(nodes) => Servers::Cluster(WatchedCluster::start(settings.clone(), nodes)),
        };
        let shared = SharedState {
            servers,
            settings,
            format: RecordFormat::of(config),
            bodies: Bodies::default(),
            body_survives: options.body_survives,
        };
        Self { shared: Arc::new(shared), local: None }
    }

    /// Waits for the first connection, or for one to each node, for at most `patience`. Only an error that
    /// [is final](ConnectError::is_final) is a reason not to start.
    pub async fn ready(&self, patience: Duration) -> Result<(), Arc<ConnectError>> {
        match &self.shared.servers {
            Servers::One(server) => server.link.ready(patience).await,
            Servers::Cluster(watched) => watched.cluster.ready(patience).await,
        }
    }

    /// The same store, with hot connections on the current runtime.
    pub fn on_core(&self) -> Self {
        let local = match &self.shared.servers {
            Servers::One(server) => LocalConnections::One(CoreConnection::start(&self.shared.settings, &server.link)),
            Servers::Cluster(watched) => LocalConnections::Cluster(ClusterConnections::start(watched.cluster.clone())),
        };
        Self { shared: self.shared.clone(), local: Some(Arc::new(local)) }
    }

    pub(super) async fn claim(&self, name: &RecordName, claim: &Claim) -> Result<Claimed, StoreError> {
        // A claim may be tried twice within the time of one call.
        let call = self.call(name, self.timeout() / 2)?;
        self.shared.settings.state.may_claim()?;
        let claimed = call.claim(claim).await;
        call.or_elsewhere(claimed, claim, |call, claim| Box::pin(call.claim(claim))).await
    }

    pub(super) async fn settle(&self, name: &RecordName, record: &SettledRecord) -> Result<Settled, StoreError> {
        // The time of the call starts after the compression.
        let format = &self.shared.format;
        let compressed = match format.compresses() {
            true => Box::pin(format.compressed(record)).await,
            false => None,
        };
        let record: (&Record, &Record) = (compressed.as_ref().unwrap_or(record), record);
        let call = self.call(name, self.timeout())?;
        let settled = call.settle(record).await;
        call.or_elsewhere(settled, &record, |call, record| Box::pin(call.settle(*record))).await
    }

    fn timeout(&self) -> Duration {
        self.shared.settings.config.timeout
    }

    fn prefix(&self) -> &str {
        &self.shared.settings.config.prefix
    }

    /// The connection to the server that holds this record.
    fn connected(&self, key: RecordKey<'_>) -> Result<Arc<Connected>, StoreError> {
        match (&self.shared.servers, self.local.as_deref()) {
            (Servers::One(server), Some(LocalConnections::One(own))) => match own.connected() {
                Some(connected) => Ok(connected),
                None => server.link.connected(),
            },
            (Servers::One(server), _) => server.link.connected(),
            (Servers::Cluster(watched), local) => {
                let local = match local {
                    Some(LocalConnections::Cluster(local)) => Some(local),
                    Some(LocalConnections::One(_)) | None => None,
                };
                watched.cluster.connected(slot_of(&key.parts()), local)
            }
        }
    }

    fn call<'a>(&'a self, name: &'a RecordName, timeout: Duration) -> Result<Call<'a>, StoreError> {
        let key = RecordKey::new(self.prefix(), name);
        Ok(Call::new(&self.shared, self.connected(key)?, name, key, timeout))
    }
}

impl Store for Redis {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        Box::pin(self.claim(name, claim))
    }

    fn open_body<'a>(&'a self, name: &'a RecordName, body: ApartBody) -> StoreFuture<'a, Box<dyn StoredChunks>> {
        let chunks = RedisChunks::new(self.clone(), name, &body);
        Box::pin(async move { Ok(Box::new(chunks) as Box<dyn StoredChunks>) })
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Renewed> {
        Box::pin(async move {
            let call = self.call(name, self.timeout())?;
            let renewed = call.renew(claim).await;
            call.or_elsewhere(renewed, claim, |call, claim| Box::pin(call.renew(claim))).await
        })
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a SettledRecord) -> StoreFuture<'a, Settled> {
        Box::pin(self.settle(name, record))
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> StoreFuture<'a, Released> {
        Box::pin(async move {
            let call = self.call(name, self.timeout())?;
            let released = call.release(token).await;
            call.or_elsewhere(released, &token, |call, token| Box::pin(call.release(*token))).await
        })
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> StoreFuture<'a, Option<StoredRecord>> {
        Box::pin(async move {
            let call = self.call(name, self.timeout())?;
            let found = call.find().await;
            call.or_elsewhere(found, &(), |call, ()| Box::pin(call.find())).await
        })
    }

    fn list<'a>(&'a self, listing: &'a ListQuery) -> StoreFuture<'a, Page, ListError> {
        Box::pin(self.page(listing))
    }

    fn compare_and_swap<'a>(&'a self, name: &'a RecordName, swap: &'a CompareAndSwap) -> StoreFuture<'a, SwapResult> {
        Box::pin(async move {
            let call = self.call(name, self.timeout())?;
            let swapped = call.compare_and_swap(swap).await;
            call.or_elsewhere(swapped, swap, |call, swap| Box::pin(call.compare_and_swap(swap))).await
        })
    }

    fn subscribe(&self, name: &RecordName, patience: Duration) -> Option<Changes> {
        let key = RecordKey::new(self.prefix(), name);
        match &self.shared.servers {
            Servers::One(server) => Some(server.listener.subscribe(key.to_string(), patience)),
            Servers::Cluster(watched) => {
                let node = watched.cluster.node(slot_of(&key.parts()))?;
                Some(node.server().listener.subscribe(key.to_string(), patience))
            }
        }
    }

    fn digest_key(&self) -> Result<DigestKey, StoreError> {
        self.shared.settings.state.digest_key().ok_or_else(|| {
            let why = match &self.shared.servers {
                Servers::One(server) => server.link.connected().err(),
                Servers::Cluster(watched) => watched.cluster.why_down(),
            };
            // A connection has a digest key, except in read-only use.
            why.unwrap_or_else(|| StoreError::Unavailable("there is no digest key yet".into()))
        })
    }

    fn encryption_keys(&self) -> &[Arc<EncryptionKey>] {
        self.shared.format.keys()
    }

    fn used_ratio(&self) -> Option<f64> {
        self.used_by_node().into_iter().map(|node| node.used_ratio).max_by(f64::total_cmp)
    }

    fn used_by_node(&self) -> Vec<NodeUse> {
        match &self.shared.servers {
            Servers::One(server) => {
                let alone = |used_ratio| NodeUse { node: None, used_ratio };
                server.link.used_ratio().map(alone).into_iter().collect()
            }
            Servers::Cluster(watched) => {
                let of = |node: Arc<cluster::ClusterNode>| {
                    let used_ratio = node.server().link.used_ratio()?;
                    Some(NodeUse { node: Some(node.endpoint().to_string()), used_ratio })
                };
                watched.cluster.nodes().into_iter().filter_map(of).collect()
            }
        }
    }

    fn may_evict(&self) -> bool {
        match &self.shared.servers {
            Servers::One(server) => server.link.may_evict(),
            Servers::Cluster(watched) => watched.cluster.nodes().iter().any(|node| node.server().link.may_evict()),
        }
    }

    fn losses(&self) -> u64 {
        self.shared.settings.state.losses()
    }

    fn health(&self) -> Health {
        let is_up = match &self.shared.servers {
            Servers::One(server) => server.link.connected().is_ok(),
            Servers::Cluster(watched) => watched.cluster.is_up(),
        };
        if is_up && self.shared.settings.state.may_claim().is_ok() { Health::Up } else { Health::Down }
    }
}
