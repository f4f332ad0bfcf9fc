//! The servers that are asked, for one core.

use std::collections::{HashMap, HashSet};

use http::uri::Authority;

use super::super::upstream::Upstream;
use super::cache::PermissionCache;
use crate::config::{UpstreamAddress, UpstreamConfig};
use crate::rule::{AuthServer, Routes};

/// Idle connections to one authorization server, for each core.
const IDLE: usize = 16;

/// The servers that are asked, and what they have permitted, for one core.
pub struct AuthServers {
    /// Those that are not the backend.
    others: HashMap<Authority, Upstream>,
    pub(super) permitted: PermissionCache,
}

impl AuthServers {
    /// Those of these routes. `backend` has the timeouts. Connections of `before` to the same servers are kept, and its
    /// permissions are forgotten: the rules that they were given under may have changed.
    pub fn new(routes: &Routes, backend: &UpstreamConfig, before: Option<&Self>) -> Self {
        let asked = routes.rules().iter().filter_map(|rule| match &rule.replay_auth.as_ref()?.server {
            AuthServer::Backend => None,
            AuthServer::Http(authority) => Some(authority.clone()),
        });
        let asked: HashSet<Authority> = asked.collect();
        let server = |authority: Authority| {
            let address = UpstreamAddress::Http(authority.clone());
            let settings = UpstreamConfig { address, http2: false, preserve_host: false, ..backend.clone() };
            let known = before.and_then(|before| before.others.get(&authority));
            let server = match known.filter(|known| *known.settings() == settings) {
                Some(known) => known.clone(),
                None => Upstream::new(settings, IDLE),
            };
            (authority, server)
        };
        Self { others: asked.into_iter().map(server).collect(), permitted: PermissionCache::default() }
    }

    /// `None`: the backend is asked.
    pub(super) fn other(&self, server: &AuthServer) -> Option<&Upstream> {
        match server {
            AuthServer::Backend => None,
            AuthServer::Http(authority) => self.others.get(authority),
        }
    }
}
