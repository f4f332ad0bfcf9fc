//! The store without a sidecar: for the commands that look into it, try it, or make what it needs.

use std::path::Path;

use serde::Serialize;

use crate::admin;
use crate::admin::shape::ExplainResponse;
use crate::config::{self, PostgresAddress, StoreLocation};
use crate::key::{DigestKey, Operation};
use crate::rule::Rule;
use crate::store::{self, ExaminedFolder, NodeReport, ServerFinding};

/// The key of the store's digests, or why it is not known.
pub async fn digest_key(settings: &config::StoreConfig) -> Result<DigestKey, String> {
    if let Some(secret) = &settings.digest_key {
        return Ok(DigestKey::from_secret(secret.expose()));
    }
    match &settings.location {
        StoreLocation::Memory => return Err("the memory store makes a new digest key at each start".into()),
        StoreLocation::Embedded(path) if !path.exists() => return Err("the store is not there yet".into()),
        StoreLocation::Embedded(_) | StoreLocation::Redis(_) | StoreLocation::Postgres(_) => {}
    }
    let store = store::open_to_look(settings).await.map_err(|error| error.with_advice())?;
    store.digest_key().map_err(|error| store::causes(&error))
}

/// The record of this operation, and what its request would get now; or why that is not known.
pub async fn look_up(
    settings: &config::StoreConfig,
    rule: &Rule,
    operation: &Operation,
) -> Result<ExplainResponse, String> {
    let store = store::open_to_look(settings).await.map_err(|error| error.with_advice())?;
    admin::look_up(&*store, rule, operation).await.map_err(|error| store::causes(&error))
}

/// The result of connecting to a store.
pub struct Trial {
    /// What kind of server it is.
    pub kind: &'static str,
    /// Host and port.
    pub server: String,
    /// Why it cannot be used, if so.
    pub error: Option<String>,
    /// What was found out about one that can be used.
    pub findings: Vec<ServerFinding>,
    /// What was found out about each node of a cluster.
    pub nodes: Vec<NodeTrial>,
    /// What gives a user just enough rights: the ACL rule of a Redis user, or the statements for a role of PostgreSQL.
    pub rights: String,
}

/// The result of connecting to a node of a cluster.
#[derive(Debug, Serialize)]
pub struct NodeTrial {
    /// Host and port.
    pub node: String,
    /// Why it cannot be used, if so.
    pub error: Option<String>,
    /// What was found out about one that can be used.
    pub findings: Vec<ServerFinding>,
}

/// Connects to the store, and changes nothing in it. `None`: this kind of store has no connection.
pub async fn try_store(settings: &config::StoreConfig) -> Option<Trial> {
    let address = match &settings.location {
        StoreLocation::Redis(address) => address,
        StoreLocation::Postgres(address) => return Some(try_postgres(address, settings).await),
        StoreLocation::Embedded(_) | StoreLocation::Memory => return None,
    };
    let store = store::Redis::open_to_look(address, settings);
    let acl = store::AclRule::of(settings).to_string();
    let error = store.tried().await.err().map(|why| store::causes(&why));
    let nodes: Vec<NodeTrial> = store
        .nodes()
        .into_iter()
        .map(|NodeReport { node, found }| match found {
            Ok(findings) => NodeTrial { node, error: None, findings },
            Err(why) => NodeTrial { node, error: Some(store::causes(&why)), findings: Vec::new() },
        })
        .collect();
    // The nodes of a cluster were examined, whatever is wrong with one of them.
    let findings = if error.is_none() || !nodes.is_empty() { store.findings() } else { Vec::new() };
    Some(Trial { kind: "Redis", server: address.server(), error, findings, nodes, rights: acl })
}

/// Looks whether the embedded store in `path` can be opened, and changes nothing there.
pub fn try_folder(path: &Path) -> Result<ExaminedFolder, String> {
    store::Embedded::examine(path).map_err(|error| store::causes(&error))
}

async fn try_postgres(address: &PostgresAddress, settings: &config::StoreConfig) -> Trial {
    let store = store::Postgres::open_to_look(address, settings);
    let error = store.tried().await.err().map(|why| store::causes(&why));
    let findings = if error.is_none() { store.findings() } else { Vec::new() };
    let rights = store::grants(&address.username);
    Trial { kind: "PostgreSQL", server: address.server(), error, findings, nodes: Vec::new(), rights }
}

/// Makes the tables of a PostgreSQL store where they are missing, and grants this role what a sidecar needs. Returns whether
/// they were missing.
pub async fn init_store(address: &PostgresAddress, role: Option<&str>) -> Result<bool, String> {
    store::Postgres::init(address, role).await.map_err(|error| store::causes(&error))
}

/// The same as statements.
pub fn store_sql(role: Option<&str>) -> String {
    format!("{}{}", store::SCHEMA, role.map_or_else(String::new, store::grants))
}
