//! `replay_auth`: who is asked before a stored answer is shown.

use std::fmt;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};

/// Who decides whether a caller may see the recorded answer to another request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayAuth {
    /// The server that is asked.
    pub server: AuthServer,
    /// The path and query that is asked for.
    pub target: PathAndQuery,
    /// How long a permission holds for the same question. Zero: every time is asked anew.
    pub cache: Duration,
}

/// The server that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AuthServer {
    /// The backend of all routes.
    Backend,
    /// Another server, without TLS.
    Http(Authority),
    /// Another server, over TLS.
    Https(Authority),
}

/// As in the file.
impl fmt::Display for ReplayAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            AuthServer::Backend => self.target.fmt(f),
            AuthServer::Http(authority) => write!(f, "http://{authority}{}", self.target),
            AuthServer::Https(authority) => write!(f, "https://{authority}{}", self.target),
        }
    }
}
