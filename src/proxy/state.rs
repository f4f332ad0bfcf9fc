use std::sync::Arc;
use std::time::Duration;

use super::blocking::BlockingReader;
use super::budget::Budget;
use super::decode::Decoders;
use super::replay_auth::servers::AuthServers;
use super::upstream::Upstream;
use crate::form_guard::FormGuard;
use crate::guard::Guard;
use crate::metrics::Metrics;
use crate::rule::{LogKeys, Routes, Trust};
use crate::store::Metered;

/// What all requests of one core share.
pub struct Proxy {
    /// Which requests are guarded, and how.
    pub routes: Arc<Routes>,
    /// Who is trusted to identify clients.
    pub trust: Arc<Trust>,
    /// Claims and leases.
    pub guard: Arc<Guard>,
    /// Where the digest key is kept.
    pub store: Arc<Metered>,
    /// The backend.
    pub upstream: Upstream,
    /// Who is asked before recorded answers are shown.
    pub auth_servers: AuthServers,
    /// The limit for all bodies in memory.
    pub budget: Budget,
    /// Threads that read long bodies.
    pub blocking: BlockingReader,
    /// Decoders of content codings.
    pub decoders: Arc<Decoders>,
    /// The time limit for a request body: for all of it if it is read into memory, between two frames if it is
    /// forwarded.
    pub body_timeout: Duration,
    /// How keys appear in log lines.
    pub log_keys: LogKeys,
    /// The script for pages.
    pub form_guard: Option<Arc<FormGuard>>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}
