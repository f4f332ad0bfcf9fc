//! The permissions that a Redis user needs.

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

/// The ACL rules (`ACL SETUSER`, or a line of an ACL file) that are sufficient for names that begin with `prefix`.
///
/// `ROLE` is for sentinels, and `WAIT` for `store.replica_acks`. `INFO` reports the eviction policy and the memory in
/// use. Without it, neither is known. Channels have the names of records.
pub fn acl_rule(prefix: &str, is_cluster: bool) -> String {
    let of_nodes = OF_NODES.iter().filter(|_| is_cluster);
    let commands: Vec<String> = COMMANDS.iter().chain(of_nodes).map(|command| format!("+{command}")).collect();
    format!("resetkeys ~{prefix}:* ~{{{prefix}:* resetchannels &{prefix}:* -@all {}", commands.join(" "))
}
