//! Test support: a scripted backend, a sidecar in front of it, and connections used with bytes.

pub mod backend;
pub mod browser;
pub mod certificates;
pub mod fault_proxy;
pub mod firefox;
pub mod front;
pub mod http2;
pub mod issuer;
pub mod load;
#[path = "../../support/postgres_server.rs"]
pub mod postgres_server;
pub mod process;
#[path = "../../support/redis_rewriting.rs"]
pub mod redis_rewriting;
#[path = "../../support/redis_server.rs"]
pub mod redis_server;
#[path = "../../support/redis_topologies.rs"]
pub mod redis_topologies;
pub mod sidecar;
#[path = "../../support/small_disk.rs"]
pub mod small_disk;
pub mod store;
pub mod wire;

pub use backend::{Backend, ByHand, Gate, Step, answer, nobody, say};
pub use browser::{Accessible, Browser, Look};
pub use certificates::Authority;
pub use fault_proxy::{FaultProxy, Faults};
pub use firefox::Firefox;
pub use front::Front;
pub use issuer::{IssuerKey, issue};
pub use postgres_server::PostgresServer;
pub use process::Process;
pub use redis_server::RedisServer;
pub use sidecar::{Setup, Sidecar};
pub use small_disk::SmallDisk;
pub use store::Store;
pub(crate) use store::{on_every_lasting_store, on_every_store};
pub use wire::{Request, Response, Wire, chunk, order, post, request, until, within};
