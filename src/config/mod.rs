//! The configuration, as resolved data.
//!
//! [`load`] reads one TOML file, checks all of it, and returns a [`Config`]: durations are
//! [`Duration`](std::time::Duration)s, sizes are bytes, presets and defaults are filled in, and no value needs a further
//! check. A file with an error is refused as a whole, and every problem is reported with its place.
//!
//! The rules that a file says are in the room [`rule`](crate::rule).

mod admin_token;
mod file;
mod postgres;
mod problem;
mod redis;
mod secret;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use http::uri::Authority;

use crate::rule::{Routes, Trust, words};
use crate::tls;
pub use admin_token::{AdminRight, AdminToken, UNNAMED_TOKEN};
pub use file::{AdminConfig, ConfigFile, LogConfig, ServerConfig, StoreConfig, UpstreamConfig, load, parse};
pub(crate) use file::{KnownKey, Shape, keys, nearest, selector};
pub use postgres::PostgresAddress;
pub use problem::{ConfigError, ConfigProblem};
pub use redis::{RedisAddress, RedisServers, StoreEndpoint, StorePassword};
pub use secret::{Secret, SecretKey};

/// A whole configuration file, checked and resolved.
#[derive(Debug)]
pub struct Config {
    /// The listener that clients talk to, and its limits.
    pub server: ServerConfig,
    /// The format of log lines.
    pub log: LogConfig,
    /// The listener of operators and of Prometheus.
    pub admin: AdminConfig,
    /// The backend.
    pub upstream: UpstreamConfig,
    /// Where records are kept.
    pub store: StoreConfig,
    /// Who is trusted to identify clients.
    pub trust: Trust,
    /// The guarded routes, and which requests each one matches.
    pub routes: Routes,
    /// What a `replay_auth` with https needs. `None`: no route has one.
    pub auth_tls: Option<tls::TlsClient>,
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
    /// A PostgreSQL database.
    Postgres(PostgresAddress),
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
            Self::Postgres(address) => address.fmt(f),
            Self::Embedded(folder) => {
                let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
                write!(f, "embedded:{}", folder.display())
            }
            Self::Memory => f.write_str("memory:"),
        }
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
