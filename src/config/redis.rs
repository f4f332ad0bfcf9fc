//! Where a Redis or Valkey is, and how to log in: the result of `store.url` and the other keys of `[store]`.

use std::fmt;
use std::path::PathBuf;

use super::Secret;
use crate::tls;

/// `store.url` of a Redis or Valkey, with what else is needed to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisAddress {
    /// The server, or those that know where it is.
    pub servers: RedisServers,
    /// Number of the logical database.
    pub database: i64,
    /// ACL user.
    pub username: Option<String>,
    /// Password of the user, or of the server.
    pub password: Option<StorePassword>,
    /// TLS, where the URL asks for it.
    pub tls: Option<tls::TlsClient>,
}

/// What `store.url` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisServers {
    /// One server.
    One(StoreEndpoint),
    /// Sentinels, and the name under which they watch the primary.
    Sentinel {
        /// Host and port of each sentinel.
        sentinels: Vec<(String, u16)>,
        /// Their name for the primary and its replicas.
        master: String,
    },
    /// Some nodes of a Redis Cluster. They know the others.
    Cluster(Vec<(String, u16)>),
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoreEndpoint {
    /// Name or address, and port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// The password of a user of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePassword {
    /// As it was when the configuration was read.
    Fixed(Secret),
    /// The content of this file, which is read at each connect.
    File(PathBuf),
}

impl RedisAddress {
    /// A server in clear text that asks for no password.
    pub fn plain(endpoint: StoreEndpoint) -> Self {
        Self { servers: RedisServers::One(endpoint), database: 0, username: None, password: None, tls: None }
    }

    /// Host and port, or the hosts that know them, for messages.
    pub fn server(&self) -> String {
        match &self.servers {
            RedisServers::One(endpoint) => endpoint.to_string(),
            RedisServers::Sentinel { sentinels, master } => format!("{master} of {}", Hosts(sentinels)),
            RedisServers::Cluster(nodes) => Hosts(nodes).to_string(),
        }
    }
}

/// As in a URL, without user and password.
impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        match &self.servers {
            RedisServers::One(StoreEndpoint::Unix(path)) if self.database == 0 => {
                write!(f, "redis+unix://{}", path.display())
            }
            RedisServers::One(StoreEndpoint::Unix(path)) => {
                write!(f, "redis+unix://{}?db={}", path.display(), self.database)
            }
            RedisServers::One(endpoint) => write!(f, "{scheme}://{endpoint}/{}", self.database),
            RedisServers::Sentinel { sentinels, master } => {
                write!(f, "{scheme}+sentinel://{}/{master}/{}", Hosts(sentinels), self.database)
            }
            RedisServers::Cluster(nodes) => write!(f, "{scheme}+cluster://{}", Hosts(nodes)),
        }
    }
}

/// `host:port`, an IPv6 address in brackets; or the path of a socket.
impl fmt::Display for StoreEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Several hosts with their ports.
struct Hosts<'a>(&'a [(String, u16)]);

impl fmt::Display for Hosts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (host, port)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", StoreEndpoint::Tcp(host.clone(), *port))?;
        }
        Ok(())
    }
}
