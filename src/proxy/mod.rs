//! Crossing: heads, bodies, the upstream, and what a request's way through them is.
//!
//! [`Proxy::handle`] is the data path, from the head of a request to the head of its answer.

mod ambiguous;
mod blocking;
mod body;
mod budget;
mod client;
mod cors;
mod decode;
mod event;
mod fields;
mod framing;
mod handle;
mod head;
mod hops;
mod incoming;
mod observe;
mod refusal;
mod replay;
mod replay_body;
#[cfg(test)]
mod sizes;
mod stream;
mod tee;
mod tunnel;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

pub use blocking::BlockingReader;
pub use body::{BodyError, ResponseBody};
pub use budget::Budget;
pub use client::{Client, DisconnectSignal};
pub use decode::Decoders;
pub(crate) use head::MAX_HEAD;
pub use incoming::IncomingBody;
pub use replay::REPLAYED;
pub use tunnel::Tunnel;
pub(crate) use upstream::MAX_BUFFER;
pub use upstream::{Upstream, UpstreamBody};

use crate::config::{LogKeys, Routes, Trust};
use crate::guard::Guard;
use crate::metrics::Metrics;
use crate::store::Metered;

/// Everything that one request needs on its way, on one core.
pub struct Proxy {
    /// Which requests are guarded, and how.
    pub routes: Arc<Routes>,
    /// Whose word is taken for who a client is.
    pub trust: Arc<Trust>,
    /// Who owns what.
    pub guard: Arc<Guard>,
    /// Where the digest key is kept.
    pub store: Arc<Metered>,
    /// The backend.
    pub upstream: Upstream,
    /// All bodies in memory.
    pub budget: Budget,
    /// Where long bodies are read.
    pub blocking: BlockingReader,
    /// What undoes content codings.
    pub decoders: Arc<Decoders>,
    /// A request body: as a whole where it is held, between two frames where it is passed on.
    pub body_timeout: Duration,
    /// How keys appear in log lines.
    pub log_keys: LogKeys,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}
