//! The rights that a Redis user needs.

/// What every sidecar asks for.
const COMMANDS: [&str; 11] = [
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
];

/// The rules of an ACL user (`ACL SETUSER`, or a line of an ACL file) that suffice where names begin with `prefix`.
///
/// `ROLE` is for sentinels, and `WAIT` for `store.replica_acks`. `INFO` tells the policy of eviction, and how full the server is; without it, neither is known. Channels have the
/// names of records.
pub fn acl_rule(prefix: &str) -> String {
    let commands: Vec<String> =
        COMMANDS.iter().chain(&["unsubscribe", "info", "role", "wait"]).map(|command| format!("+{command}")).collect();
    format!("resetkeys ~{prefix}:* ~{{{prefix}:* resetchannels &{prefix}:* -@all {}", commands.join(" "))
}
