//! The rights that a Redis user needs.

/// What every sidecar asks for.
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
    // For repeats that wait: to hear of what other sidecars do.
    "publish",
    "subscribe",
    "unsubscribe",
    "info",
    "role",
    "wait",
];
/// What is asked of the nodes of a cluster, too: who serves which slot, and channels of slots.
const OF_NODES: [&str; 6] = ["cluster|slots", "cluster|nodes", "asking", "spublish", "ssubscribe", "sunsubscribe"];

/// The rules of an ACL user (`ACL SETUSER`, or a line of an ACL file) that suffice where names begin with `prefix`.
///
/// `ROLE` is for sentinels, and `WAIT` for `store.replica_acks`. `INFO` tells the policy of eviction, and how full the server is; without it, neither is known. Channels have the
/// names of records.
pub fn acl_rule(prefix: &str, is_cluster: bool) -> String {
    let of_nodes = OF_NODES.iter().filter(|_| is_cluster);
    let commands: Vec<String> = COMMANDS.iter().chain(of_nodes).map(|command| format!("+{command}")).collect();
    format!("resetkeys ~{prefix}:* ~{{{prefix}:* resetchannels &{prefix}:* -@all {}", commands.join(" "))
}
