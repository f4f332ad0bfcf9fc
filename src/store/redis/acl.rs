//! The permissions that a Redis user needs.

use std::fmt;

use crate::config::{self, RedisServers, StoreLocation};

/// The commands that every sidecar sends.
const COMMANDS: [&str; 13] = [
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
];
/// Additional commands in a cluster: the owners of slots, and sharded channels.
const OF_NODES: [&str; 6] = ["cluster|slots", "cluster|nodes", "asking", "spublish", "ssubscribe", "sunsubscribe"];
/// Behind sentinels: whether the server is the primary.
const OF_SENTINELS: [&str; 1] = ["role"];
/// For `store.replica_acks`.
const REPLICAS: [&str; 1] = ["wait"];
/// For `store.fsync_acks`. Servers that do not have it refuse a rule with its name.
const FSYNC: [&str; 1] = ["waitaof"];

/// The ACL rules (`ACL SETUSER`, or a line of an ACL file) that are sufficient for a store.
///
/// `INFO` reports the eviction policy and the memory in use. Without it, neither is known. Channels have the names of
/// records.
#[derive(Debug, Clone, Default)]
pub struct AclRule {
    /// The start of all names.
    pub prefix: String,
    /// Whether the server is a node of a cluster.
    pub is_node: bool,
    /// Whether sentinels name the server.
    pub behind_sentinels: bool,
    /// Whether writes wait for replicas.
    pub replica_acks: bool,
    /// Whether writes wait for the disk.
    pub fsync_acks: bool,
}

impl AclRule {
    /// For the store of a configuration.
    pub fn of(config: &config::StoreConfig) -> Self {
        let (is_node, behind_sentinels) = match &config.location {
            StoreLocation::Redis(address) => match address.servers {
                RedisServers::One(_) => (false, false),
                RedisServers::Sentinel { .. } => (false, true),
                RedisServers::Cluster(_) => (true, false),
            },
            StoreLocation::Postgres(_) | StoreLocation::Embedded(_) | StoreLocation::Memory => (false, false),
        };
        Self {
            prefix: config.prefix.clone(),
            is_node,
            behind_sentinels,
            // WAITAOF waits for the replicas, too.
            replica_acks: config.replica_acks > 0 && !config.fsync_acks,
            fsync_acks: config.fsync_acks,
        }
    }
}

impl fmt::Display for AclRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = &self.prefix;
        write!(f, "resetkeys ~{prefix}:* ~{{{prefix}:* resetchannels &{prefix}:* -@all")?;
        let groups: [(&[&str], bool); 5] = [
            (&COMMANDS, true),
            (&OF_NODES, self.is_node),
            (&OF_SENTINELS, self.behind_sentinels),
            (&REPLICAS, self.replica_acks),
            (&FSYNC, self.fsync_acks),
        ];
        let commands = groups.into_iter().filter(|(_, is_used)| *is_used).flat_map(|(commands, _)| commands);
        commands.into_iter().try_for_each(|command| write!(f, " +{command}"))
    }
}
