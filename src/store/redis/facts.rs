//! The state and settings that a server reports.

use std::collections::HashMap;

use redis::{FromRedisValue, Pipeline, RedisResult, Value};

pub(super) const NO_EVICTION: &str = "noeviction";

/// The state and settings that a server reports. Managed servers hide some of them.
pub(super) struct ServerFacts {
    /// The eviction policy, or `noeviction` if the server has no memory limit. `None` if it is unknown.
    pub(super) eviction: Option<String>,
    /// The share of the memory limit that is used. `None` without a limit.
    pub(super) used: Option<f64>,
    /// The number of keys that the server has evicted.
    pub(super) evicted: Option<u64>,
    /// Whether the server writes anything to disk. `true` if it is unknown.
    pub(super) persists: bool,
    /// A random number of this run of the server.
    pub(super) run_id: Option<String>,
    /// Product and version. It is shown to people only, and no feature is derived from it.
    pub(super) version: Option<String>,
    /// The number of connected replicas.
    pub(super) replicas: Option<u64>,
    /// When the append-only file is written to disk. It is known only if `CONFIG` is permitted.
    pub(super) append_fsync: Option<String>,
}

impl ServerFacts {
    pub(super) const QUESTIONS: usize = 9;

    /// The commands, with or without those for settings. A user may be permitted only some of them.
    pub(super) fn questions(settings_too: bool) -> Pipeline {
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        for section in ["memory", "stats", "persistence", "server", "replication"] {
            pipeline.cmd("INFO").arg(section);
        }
        for setting in ["maxmemory", "maxmemory-policy", "save", "appendfsync"].into_iter().filter(|_| settings_too) {
            pipeline.cmd("CONFIG").arg("GET").arg(setting);
        }
        pipeline
    }

    pub(super) fn of(answers: &[RedisResult<Value>]) -> Self {
        let told = |index: usize| answers.get(index).and_then(|answer| answer.as_ref().ok());
        let info = |index, name| field(&String::from_redis_value_ref(told(index)?).ok()?, name);
        let setting = |index, name| {
            let mut settings: HashMap<String, String> = FromRedisValue::from_redis_value_ref(told(index)?).ok()?;
            settings.remove(name)
        };
        let maxmemory = info(0, "maxmemory").or_else(|| setting(5, "maxmemory"));
        let policy = info(0, "maxmemory_policy").or_else(|| setting(6, "maxmemory-policy"));
        let eviction = match (maxmemory.as_deref(), policy) {
            (None, _) | (_, None) => None,
            (Some("0"), Some(_)) => Some(NO_EVICTION.to_owned()),
            (Some(_), policy) => policy,
        };
        let limit = maxmemory.and_then(|maxmemory| maxmemory.parse::<f64>().ok()).filter(|limit| *limit > 0.0);
        let used = info(0, "used_memory").and_then(|used| used.parse::<f64>().ok());
        let appends = info(2, "aof_enabled").is_none_or(|enabled| enabled != "0");
        Self {
            eviction,
            used: limit.and_then(|limit| Some(used? / limit)),
            evicted: info(1, "evicted_keys").and_then(|evicted| evicted.parse().ok()),
            run_id: info(3, "run_id"),
            version: match (info(3, "valkey_version"), info(3, "redis_version")) {
                (Some(version), _) => Some(format!("Valkey {version}")),
                (None, Some(version)) => Some(format!("Redis {version}")),
                (None, None) => None,
            },
            replicas: info(4, "connected_slaves").and_then(|replicas| replicas.parse().ok()),
            append_fsync: setting(8, "appendfsync"),
            persists: appends || setting(7, "save").is_none_or(|points| !points.is_empty()),
        }
    }
}

/// The value of one field of `INFO`.
pub(super) fn field(info: &str, name: &str) -> Option<String> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
}
