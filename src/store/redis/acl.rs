//! The permissions that a Redis user needs.

use std::fmt;

use crate::config::{self, RedisServers, StoreLocation};

/// The commands that every sidecar sends.
const COMMANDS: [&str; 15] = [
    "get",
    "set",
    "del",
    "pttl",
    "pexpire",
    "evalsha",
    "script|load",
    // For lists of records.
    "scan",
    "getrange",
    // For waiting repeats: notices from other sidecars.
    "publish",
    "subscribe",
    "unsubscribe",
    "info",
    "role",
    "wait",
];
/// Additional commands in a cluster: the owners of slots, and sharded channels.
const OF_NODES: [&str; 6] = ["cluster|slots", "cluster|nodes", "asking", "spublish", "ssubscribe", "sunsubscribe"];
/// For `store.fsync_acks`. Servers that do not have it refuse a rule with its name.
const FSYNC: [&str; 1] = ["waitaof"];

/// The ACL rules (`ACL SETUSER`, or a line of an ACL file) that are sufficient for a store.
///
/// `ROLE` is for sentinels, and `WAIT` for `store.replica_acks`. `INFO` reports the eviction policy and the memory in
/// use. Without it, neither is known. Channels have the names of records.
#[derive(Debug, Clone)]
pub struct AclRule {
    /// The start of all names.
    pub prefix: String,
    /// Whether the server is a node of a cluster.
    pub is_node: bool,
    /// Whether writes wait for the disk.
    pub fsync_acks: bool,
}

impl AclRule {
    /// For the store of a configuration.
    pub fn of(config: &config::StoreConfig) -> Self {
        let is_node = matches!(&config.location, StoreLocation::Redis(address)
            if matches!(address.servers, RedisServers::Cluster(_)));
        Self { prefix: config.prefix.clone(), is_node, fsync_acks: config.fsync_acks }
    }
}

impl fmt::Display for AclRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = &self.prefix;
        write!(f, "resetkeys ~{prefix}:* ~{{{prefix}:* resetchannels &{prefix}:* -@all")?;
        let of_nodes = OF_NODES.iter().filter(|_| self.is_node);
        let fsync = FSYNC.iter().filter(|_| self.fsync_acks);
        COMMANDS.iter().chain(of_nodes).chain(fsync).try_for_each(|command| write!(f, " +{command}"))
    }
}
