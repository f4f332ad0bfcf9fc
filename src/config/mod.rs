//! The configuration, as resolved data.
//!
//! [`load`] reads one TOML file, checks all of it, and returns a [`Config`]: durations are
//! [`Duration`](std::time::Duration)s, sizes are bytes, presets and defaults are filled in, and no value needs a further
//! check. A file with an error is refused as a whole, and every problem is reported with its place.
//!
//! The data types of the rules are here too, because all other rooms use them:
//! [`Rule`] (one `[[route]]`), [`Selector`] (where a key or scope is read), [`PolicyTable`] (what
//! happens to a response by its status) and [`Routes`] (which rule guards a request).

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
mod words;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use http::uri::Authority;

use crate::tls;
pub use field::{is_foldable, is_same_field, may_begin_with};
pub(crate) use file::nearest;
pub use file::{ConfigFile, LogConfig, ServerConfig, StoreConfig, UpstreamConfig, load, parse};
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
    Rule, Selector, WARNINGS,
};
pub use schema::schema;
pub use secret::Secret;
pub use trust::{Trust, TrustedProxies};
pub use units::{HumanDuration, HumanSize};
pub use words::Words;
use words::words;

/// A whole configuration file, checked and resolved.
#[derive(Debug)]
pub struct Config {
    /// The listener that clients talk to, and its limits.
    pub server: ServerConfig,
    /// The format of log lines.
    pub log: LogConfig,
    /// The listener of operators and of Prometheus; `None` when it is `"off"`.
    pub admin: Option<AdminConfig>,
    /// The backend.
    pub upstream: UpstreamConfig,
    /// Where records are kept.
    pub store: StoreConfig,
    /// Who is trusted to identify clients.
    pub trust: Trust,
    /// The guarded routes, and which requests each one matches.
    pub routes: Routes,
}

words! {
    /// `header_case`: how HTTP/1 writes the names of fields, which have no case (RFC 9110, 5.1).
    pub enum HeaderCase {
        /// `content-type`
        Lower = "lower",
        /// `Content-Type`, for readers that know names in this spelling only.
        Title = "title",
    }
}

/// `server.threads`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One for each processor that is available to this process.
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

words! {
    /// `log.format`
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// For log collectors.
        Json = "json",
    }
}

words! {
    /// `log.keys`
    pub enum LogKeys {
        /// A short keyed digest.
        Hashed = "hashed",
        /// As the client sent it.
        Plain = "plain",
    }
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub listen: SocketAddr,
    /// The bearer token that calls with a side effect must present.
    pub token: Option<Secret>,
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

/// Without user and password, and a folder as an absolute path.
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

words! {
    /// `on_error`, of a route or of the store
    pub enum OnStoreError {
        /// 503.
        Reject = "reject",
        /// Guarded requests go through unguarded.
        Forward = "forward",
    }
}

words! {
    /// `store.durability`, for the embedded store.
    pub enum Durability {
        /// Acknowledged when on disk: survives a power loss.
        Disk = "disk",
        /// Acknowledged when written to the operating system: survives only a crash of the process.
        Process = "process",
    }
}
