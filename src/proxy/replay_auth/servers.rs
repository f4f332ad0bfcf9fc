//! The servers that are asked, for one core.

use std::collections::{HashMap, HashSet};

use super::super::upstream::Upstream;
use super::cache::PermissionCache;
use crate::config::{UpstreamAddress, UpstreamConfig};
use crate::rule::{AuthServer, Routes};
use crate::tls::TlsClient;

/// Idle connections to one authorization server, for each core.
const IDLE: usize = 16;

/// The servers that are asked, and what they have permitted, for one core.
pub struct AuthServers {
    /// Those that are not the backend.
    others: HashMap<AuthServer, Upstream>,
    pub(super) permitted: PermissionCache,
}

impl AuthServers {
    /// Those of these routes. `backend` has the timeouts, and `tls` is for those that are asked over TLS. Connections of
    /// `before` to the same servers are kept, and its permissions are forgotten: the rules that they were given under may
    /// have changed.
    pub fn new(routes: &Routes, backend: &UpstreamConfig, tls: Option<&TlsClient>, before: Option<&Self>) -> Self {
        let asked: HashSet<&AuthServer> =
            routes.rules().iter().filter_map(|rule| Some(&rule.replay_auth.as_ref()?.server)).collect();
        let address = |server: &AuthServer| match server {
            AuthServer::Backend => None,
            AuthServer::Http(authority) => Some(UpstreamAddress::Http(authority.clone())),
            AuthServer::Https(authority) => Some(UpstreamAddress::Https(authority.clone(), tls?.clone())),
        };
        let other = |server: &AuthServer| {
            let address = address(server)?;
            let settings = UpstreamConfig { address, http2: false, preserve_host: false, ..backend.clone() };
            let known = before.and_then(|before| before.others.get(server));
            let upstream = match known.filter(|known| *known.settings() == settings) {
                Some(known) => known.clone(),
                None => Upstream::new(settings, IDLE),
            };
            Some((server.clone(), upstream))
        };
        Self { others: asked.into_iter().filter_map(other).collect(), permitted: PermissionCache::default() }
    }

    /// Where this server is reached. `None`: it is of no route, and another one must not be asked in its place.
    pub(super) fn find<'a>(&'a self, server: &AuthServer, backend: &'a Upstream) -> Option<&'a Upstream> {
        match server {
            AuthServer::Backend => Some(backend),
            AuthServer::Http(_) | AuthServer::Https(_) => self.others.get(server),
        }
    }
}
