//! Why there is no connection, and how to fix it.

use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError};

use super::command_error::CommandError;
use super::stream::{Dialer, password_fault, tls_fault};
use super::timing::CONNECT_TIMEOUT;
use crate::store::causes;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The first attempt is in progress.
    #[error("there is no connection to Redis yet")]
    NotYet,
    /// The connection was lost.
    #[error("the connection to Redis is lost")]
    Lost,
    /// The server does not reply.
    #[error("Redis did not answer within {0:?}")]
    Silent(Duration),
    /// The server cannot be reached.
    #[error("Redis cannot be reached")]
    Unreachable(#[source] RedisError),
    /// Something else than Redis answers. Its answer is not told: it may hold anything.
    #[error("what answers there is no Redis: it does not speak its protocol (RESP)")]
    NotRedis,
    /// The server accepts connections, and does not reply.
    #[error(
        "Redis takes connections and did not answer within {0:?}: it hangs, or it speaks TLS on this port (write rediss:// in \
         store.url)"
    )]
    Mute(Duration),
    /// The same, if TLS is used.
    #[error(
        "no TLS with Redis: it takes connections and did not answer within {0:?}: it hangs, or the port does not speak TLS \
         (write redis:// without the second s, or name the server's tls-port)"
    )]
    MuteInTls(Duration),
    /// The server is reached, and TLS fails.
    #[error("no TLS with Redis: {0}")]
    Tls(String),
    /// The server closes the connection without a reply.
    #[error("Redis hung up at once; if it speaks TLS on this port, write rediss:// in store.url")]
    HungUp(#[source] RedisError),
    /// No sentinel names the server.
    #[error("no sentinel names a primary {master:?}")]
    NoPrimary {
        /// The name of the primary for which the sentinels were asked.
        master: String,
        /// The reply of one sentinel.
        #[source]
        source: RedisError,
    },
    /// The server is not a primary, or not any more.
    #[error("{server} is not the primary, or not any more: it is looked for again")]
    NotPrimary {
        /// Host and port.
        server: String,
    },
    /// The slots of a node are moving to another one, as far as they were tried.
    #[error("{server} is giving its slots to another node of the cluster: it is tried again")]
    SlotsMoving {
        /// Host and port.
        server: String,
    },
    /// The file with the password cannot be read.
    #[error("{0}")]
    PasswordFile(String),
    /// The server has fewer databases, or is a node of a cluster, which has one.
    #[error(
        "store.url names database {0}, which this server does not have: name one that it has (a node of a cluster has 0 only), \
         or leave the number out"
    )]
    NoDatabase(i64),
    /// The server does not accept the credentials.
    #[error("Redis does not accept the user and password (store.url, store.password), or asks for some")]
    Credentials(#[source] RedisError),
    /// The server lacks a command, or does not permit it to this user.
    #[error("Redis lacks {missing}, or refuses it to this user; nothing guarded runs until that is mended")]
    Permission {
        /// What is missing.
        missing: String,
        /// The [ACL rule](super::AclRule) that permits it.
        rule: String,
        /// The server's error.
        #[source]
        source: RedisError,
    },
    /// Writes are to wait for the disk, and the server cannot tell when they are there.
    #[error(
        "Redis has no WAITAOF, which store.fsync_acks needs (Redis has it from 7.2 on, and Valkey has it): take \
         store.fsync_acks out, or use another server"
    )]
    NoWaitAof(#[source] RedisError),
    /// Writes are to wait for the disk, and the server writes nothing there.
    #[error(
        "Redis has no append-only file, and store.fsync_acks makes claims wait until they are in it: set appendonly to yes \
         there, or take store.fsync_acks out"
    )]
    NoAppendOnlyFile(#[source] RedisError),
    /// The server is one of several, and another one holds the record.
    #[error(
        "Redis is a node of a cluster, and names another one for what was asked: write redis+cluster:// in store.url, or \
         rediss+cluster:// for TLS"
    )]
    Elsewhere(#[source] RedisError),
    /// The server is not a node of a cluster.
    #[error("{server} is no node of a Redis Cluster: write redis:// without +cluster in store.url")]
    NoCluster {
        /// Host and port.
        server: String,
    },
    /// Connections to one address reach several servers.
    #[error(
        "several servers answer at {server}, some on one connection and some on another: name one of them in store.url, or \
         what always leads to the same"
    )]
    SeveralServers {
        /// Host and port.
        server: String,
    },
    /// No node serves some of the slots.
    #[error("no node of the cluster serves {0} of its 16384 slots")]
    Uncovered(usize),
    /// A node of the cluster cannot be used.
    #[error("the node {server} of the cluster")]
    Node {
        /// Host and port.
        server: String,
        /// Why it cannot be used.
        #[source]
        why: Arc<ConnectError>,
    },
    /// The server replies, and cannot be used.
    #[error("Redis refuses to work")]
    Refused(#[source] RedisError),
    /// Records could be evicted.
    #[error(
        "Redis may evict records (maxmemory-policy {policy}), and an operation whose record is gone runs again: \
         set maxmemory-policy to noeviction, or store.accept_eviction to true"
    )]
    Evicting {
        /// The server's `maxmemory-policy`.
        policy: String,
    },
    /// The store was used with a digest key that this sidecar does not have.
    #[error(
        "this store was used with another store.digest_key, and none is set: set it, or delete {name} from Redis to go on \
         without the earlier records"
    )]
    DigestKeyWithheld {
        /// The name of the store's note about the key.
        name: String,
    },
    /// Another sidecar has replaced the digest key by one that this sidecar does not have.
    #[error(
        "another sidecar has replaced the digest key of this store ({name}) by that of its own store.digest_key: this one \
         claims nothing any more. Give all of them the same, and start this one again"
    )]
    DigestKeyReplaced {
        /// The name of the store's note about the key.
        name: String,
    },
    /// Another application uses the prefix.
    #[error("{name} in Redis was not written by onlyonce: choose another store.prefix")]
    NotOurs {
        /// The name of the store's note about the digest key.
        name: String,
    },
    /// No random bytes are available.
    #[error("there is no randomness to make a digest key of")]
    Randomness(#[source] getrandom::Error),
}

impl ConnectError {
    /// The error and its causes, with the ACL rule that would mend a lack of rights. Who shows that rule anyway needs the
    /// causes alone.
    pub fn with_advice(&self) -> String {
        let causes = causes(self);
        match self.acl_rule() {
            Some(rule) => format!("{causes}. For an ACL user, this is enough: {rule}"),
            None => causes,
        }
    }

    fn acl_rule(&self) -> Option<&str> {
        match self {
            Self::Permission { rule, .. } => Some(rule),
            Self::Node { why, .. } => why.acl_rule(),
            _ => None,
        }
    }

    /// Whether a start is useless until somebody changes the configuration or the server.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Evicting { .. } | Self::DigestKeyWithheld { .. } | Self::NotOurs { .. } => true,
            Self::NoWaitAof(_) | Self::NoAppendOnlyFile(_) => true,
            Self::Node { why, .. } => why.is_final(),
            Self::NotYet
            | Self::Elsewhere(_)
            | Self::NoCluster { .. }
            | Self::SeveralServers { .. }
            | Self::Uncovered(_)
            | Self::Lost
            | Self::DigestKeyReplaced { .. }
            | Self::Silent(_)
            | Self::Unreachable(_)
            | Self::NotRedis
            | Self::Mute(_)
            | Self::MuteInTls(_)
            | Self::Tls(_)
            | Self::HungUp(_)
            | Self::NoPrimary { .. }
            | Self::NotPrimary { .. }
            | Self::SlotsMoving { .. }
            | Self::PasswordFile(_)
            | Self::NoDatabase(_)
            | Self::Credentials(_)
            | Self::Permission { .. }
            | Self::Refused(_)
            | Self::Randomness(_) => false,
        }
    }

    /// Whether the last attempt to open a connection has failed. A server that uses another digest key is within reach.
    /// The same holds before the first attempt has ended.
    pub(super) fn is_out_of_reach(&self) -> bool {
        match self {
            Self::NotYet | Self::Lost => false,
            Self::Node { why, .. } => why.is_out_of_reach(),
            Self::Elsewhere(_) | Self::NoCluster { .. } | Self::SeveralServers { .. } | Self::Uncovered(_) => false,
            Self::DigestKeyWithheld { .. } | Self::DigestKeyReplaced { .. } | Self::NotOurs { .. } => false,
            Self::Evicting { .. } | Self::Permission { .. } | Self::Randomness(_) => false,
            Self::NoWaitAof(_) | Self::NoAppendOnlyFile(_) => false,
            // The node has answered, and its records are there.
            Self::SlotsMoving { .. } => false,
            Self::Silent(_) | Self::NotRedis | Self::Mute(_) | Self::MuteInTls(_) => true,
            Self::Unreachable(_) | Self::Tls(_) | Self::HungUp(_) | Self::PasswordFile(_) | Self::NoDatabase(_) => true,
            Self::NoPrimary { .. } | Self::NotPrimary { .. } | Self::Credentials(_) | Self::Refused(_) => true,
        }
    }

    pub(super) fn of_opening(error: RedisError, dialer: &Dialer) -> Self {
        if let Some(advice) = tls_fault(&error).filter(|_| dialer.is_tls()) {
            return Self::Tls(advice);
        }
        if let Some(why) = password_fault(&error) {
            return Self::PasswordFile(why);
        }
        if is_of_another_protocol(&error) {
            return Self::NotRedis;
        }
        if dialer.database != 0 && is_of_database(&error) {
            return Self::NoDatabase(dialer.database);
        }
        match (error.kind(), error.code()) {
            (_, None) if error.is_connection_refusal() => Self::Unreachable(error),
            (ErrorKind::Io, None) if !dialer.is_tls() && error.is_connection_dropped() => Self::HungUp(error),
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => Self::Credentials(error),
            (_, Some(_)) => Self::Refused(error),
            (_, None) => Self::Unreachable(error),
        }
    }

    /// `rule` makes the ACL rule of a user with the permissions.
    pub(super) fn of(fault: CommandError, rule: impl FnOnce() -> String) -> Self {
        match fault {
            CommandError::Refused(code, source) if code == "NOPERM" => {
                Self::Permission { missing: "a permission".to_owned(), rule: rule(), source }
            }
            CommandError::Refused(code, source) if code == "MOVED" || code == "ASK" => Self::Elsewhere(source),
            CommandError::Refused(_, error) => Self::Refused(error),
            CommandError::Lost(error) if is_of_another_protocol(&error) => Self::NotRedis,
            CommandError::Lost(error) => Self::Unreachable(error),
            CommandError::Late | CommandError::Full => Self::Silent(CONNECT_TIMEOUT),
        }
    }
}

/// Whether the server refuses to SELECT.
fn is_of_database(error: &RedisError) -> bool {
    let says = |text: &str| error.detail().is_some_and(|detail| detail.contains(text));
    says("DB index is out of range") || says("SELECT is not allowed in cluster mode")
}

fn is_of_another_protocol(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType)
}
