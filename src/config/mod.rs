//! What the operator wants, as resolved data.
//!
//! [`load`] reads one TOML file, checks all of it, and hands out a [`Config`]: durations are
//! [`Duration`]s, sizes are bytes, presets and defaults are filled in, and no value needs a further
//! check. A file that is wrong is refused as a whole, with every problem named at its place.
//!
//! The data types of the rules live here too, because everything else is written in their terms:
//! [`Rule`] (one `[[route]]`), [`Selector`] (where a key or scope is read), [`PolicyTable`] (what
//! becomes of a response by its status) and [`Routes`] (which rule guards a request).

mod advice;
mod excerpt;
mod field;
mod file;
mod fixed;
mod jwt;
mod naming;
mod policy;
mod preset;
mod problem;
mod redis;
mod routes;
mod rule;
mod schema;
mod secret;
mod spelling;
mod trust;
pub mod units;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;

use crate::tls;
pub use advice::{WARNINGS, Warning, Weight, accepted, warnings};
pub use field::{is_foldable, is_same_field, may_begin_with};
pub(crate) use file::nearest;
pub use file::{ConfigFile, load, parse};
pub use fixed::Fixed;
pub use jwt::{Jwt, TokenKey, Unverified, Verification};
pub use naming::{FORGOTTEN, ForgottenRoute, Naming, NamingChange, RecordPlacement, forgotten};
pub use policy::{Disposition, Policy, PolicyTable, StatusSet};
pub use preset::Preset;
pub use problem::{ConfigError, ConfigProblem};
pub use redis::{RedisAddress, RedisEndpoint, RedisPassword, RedisServers};
pub use routes::{PathParams, RouteConflict, RouteMatch, RouteTarget, Routes, Unguarded};
pub use rule::{
    Delivery, FingerprintMode, JsonPointer, KeyFormat, Mode, OnConcurrent, OnMismatch, OnMissingKey, OnUnknown, Period,
    Rule, Selector,
};
pub use schema::schema;
pub use secret::Secret;
pub use trust::{Trust, TrustedProxies};
pub use units::{HumanDuration, HumanSize};

/// A whole configuration file, checked and resolved.
#[derive(Debug)]
pub struct Config {
    /// The listener that clients talk to, and its limits.
    pub server: ServerConfig,
    /// How log lines look.
    pub log: LogConfig,
    /// The listener of operators and of Prometheus; `None` when it is `"off"`.
    pub admin: Option<AdminConfig>,
    /// The backend.
    pub upstream: UpstreamConfig,
    /// Where records are kept.
    pub store: StoreConfig,
    /// Whose word is taken for who a client is.
    pub trust: Trust,
    /// The guarded routes, and which requests each one matches.
    pub routes: Routes,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where clients connect.
    pub listen: Vec<Listen>,
    /// What connections to addresses are secured with; those to Unix sockets are not.
    pub tls: Option<tls::TlsIdentity>,
    /// From the first byte of a request's head to its last.
    pub header_timeout: Duration,
    /// A request body: as a whole on guarded routes, between two frames everywhere.
    pub body_timeout: Duration,
    /// A client connection without a request, or whose client takes nothing of its answer.
    pub idle_timeout: Duration,
    /// Client connections at once.
    pub max_connections: usize,
    /// Guarded attempts at work at once.
    pub max_in_flight: usize,
    /// Bytes of all bodies held in memory at once, replays too.
    pub max_buffered: u64,
    /// How long requests are still taken after the signal to stop.
    pub drain_delay: Duration,
    /// How long work in flight may take to finish after that.
    pub drain_timeout: Duration,
    /// How names of fields are written to clients.
    pub header_case: HeaderCase,
    /// Threads that answer requests.
    pub threads: Threads,
}

/// `header_case`: how HTTP/1 writes the names of fields, which have no case (RFC 9110, 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderCase {
    /// `content-type`
    Lower,
    /// `Content-Type`, for readers that know names in this spelling only.
    Title,
}

/// `server.threads`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// As many as there are processors for this process.
    Auto,
    /// This many, at least 1.
    Count(usize),
}

/// One of `server.listen`
#[derive(Clone, PartialEq, Eq)]
pub enum Listen {
    /// `IP:PORT`
    Tcp(SocketAddr),
    /// `unix:PATH`
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// As it is written in the file.
impl fmt::Debug for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// One line of text or one JSON object for each event.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: tracing::Level,
    /// How idempotency keys appear.
    pub keys: LogKeys,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For log collectors.
    Json,
}

/// `log.keys`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKeys {
    /// A short keyed digest.
    Hashed,
    /// As the client sent it.
    Plain,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub listen: SocketAddr,
    /// What calls that change something must present.
    pub token: Option<Secret>,
}

/// `[upstream]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where the backend is.
    pub address: UpstreamAddress,
    /// It is spoken to in HTTP/2.
    pub http2: bool,
    /// One connection attempt, name look-up and TLS included.
    pub connect_timeout: Duration,
    /// How long a client waits for the response head (on guarded routes: for the answer).
    pub response_timeout: Duration,
    /// One guarded attempt, head and body; only after it is the outcome unknown.
    pub attempt_timeout: Duration,
    /// A pooled connection idle for longer is not used again.
    pub idle_timeout: Duration,
    /// The same for guarded requests; zero: always a new connection, as it is with `http2`.
    pub guarded_idle: Duration,
    /// The backend sees the client's `Host`, not its own.
    pub preserve_host: bool,
    /// How names of fields are written to the backend.
    pub header_case: HeaderCase,
}

/// `upstream.url`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamAddress {
    /// `http://host:port`
    Http(Authority),
    /// `https://host:port`
    Https(Authority, tls::TlsClient),
    /// `unix:/path`
    Unix(PathBuf),
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https(authority, _) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[store]`
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Which store, and where it is.
    pub location: StoreLocation,
    /// First part of every name in the store.
    pub prefix: String,
    /// One call to the store.
    pub timeout: Duration,
    /// What becomes of guarded requests while the store is certainly out of reach.
    pub on_error: OnStoreError,
    /// Keys the digests of names and fingerprints; made in the store when absent.
    pub digest_key: Option<Secret>,
    /// What an acknowledged write of the embedded store survives.
    pub durability: Durability,
    /// Use a Redis that may evict records.
    pub accept_eviction: bool,
    /// How many replicas of a Redis must have a claim before it counts, and an outcome before it is told.
    pub replica_acks: u64,
}

/// `store.url`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// A Redis or Valkey.
    Redis(RedisAddress),
    /// A folder on the local disk, for one sidecar.
    Embedded(PathBuf),
    /// Nothing survives the process.
    Memory,
}

/// Without user and password; a folder in full.
impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(address) => address.fmt(f),
            Self::Embedded(folder) => {
                let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
                write!(f, "embedded:{}", folder.display())
            }
            Self::Memory => f.write_str("memory:"),
        }
    }
}

/// `on_error`, of a route or of the store
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStoreError {
    /// 503.
    Reject,
    /// Guarded requests go through unguarded.
    Forward,
}

/// `store.durability`, for the embedded store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk before it is acknowledged: survives a power loss.
    Disk,
    /// With the operating system before it is acknowledged: survives a crash of the process only.
    Process,
}
