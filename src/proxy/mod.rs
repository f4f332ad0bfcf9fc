//! The data path of HTTP: heads, bodies, the upstream, and the order in which a request passes them.
//!
//! [`Proxy::handle`] is the way of a request, from its head to the head of its response. The files below have an order,
//! which a test holds: none of them leads back to itself.

mod ambiguous;
mod blocking;
mod body;
mod budget;
mod client;
mod context;
mod cors;
mod credentials;
mod decode;
mod event;
mod execute;
mod fields;
mod framing;
mod handle;
mod head;
mod hops;
mod inject;
mod limits;
mod observe;
mod outdated;
mod pass;
mod probe;
mod refusal;
mod refused_page;
mod repeat;
mod replay;
mod replay_auth;
mod script_request;
#[cfg(test)]
mod sizes;
mod state;
mod stream;
mod tunnel;
mod upstream;

pub use blocking::BlockingReader;
pub use body::error::BodyError;
pub use body::incoming::IncomingBody;
pub use body::response::ResponseBody;
pub use budget::Budget;
pub use client::{Client, DisconnectSignal};
pub use decode::Decoders;
pub use head::REPLAYED;
pub(crate) use limits::{MAX_BUFFER, MAX_HEAD};
pub use replay_auth::servers::AuthServers;
pub use state::Proxy;
pub use tunnel::Tunnel;
pub use upstream::{Upstream, UpstreamBody};
