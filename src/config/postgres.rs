//! Where a PostgreSQL is, and how to log in: what `store.url` and the keys beside it come to.

use std::fmt;

use super::{StoreEndpoint, StorePassword};
use crate::tls;

/// `store.url` of a PostgreSQL, with what else is needed to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresAddress {
    /// The servers of which one is the primary. A socket is the file itself, and not its folder.
    pub servers: Vec<StoreEndpoint>,
    /// Role.
    pub username: String,
    /// Name of the database.
    pub database: String,
    /// Password of the role.
    pub password: Option<StorePassword>,
    /// TLS, where the URL asks for it.
    pub tls: Option<tls::TlsClient>,
}

impl PostgresAddress {
    /// The servers, for messages.
    pub fn server(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        servers.join(",")
    }
}

/// As in a URL, without role and password.
impl fmt::Display for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.servers.first() {
            Some(StoreEndpoint::Unix(path)) => write!(f, "postgres:///{}?host={}", self.database, path.display())?,
            _ => write!(f, "postgres://{}/{}", self.server(), self.database)?,
        }
        if self.tls.is_some() { f.write_str("?sslmode=verify-full") } else { Ok(()) }
    }
}
