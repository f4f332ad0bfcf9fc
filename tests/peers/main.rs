//! Peers that were not written here: real clients and real backends, on either side of onlyonce.
//!
//! What they are is installed by `tests/run`. A test whose peer is missing fails, and says so.

#![allow(clippy::disallowed_methods)]
// In a binary, nothing is reachable from outside.
#![allow(unreachable_pub)]

mod curl;
mod early;
mod grpc;
mod http2;
mod ledger;
mod nginx;
mod node;
mod peer;
mod plain;
mod sdks;
// Told with what the other stories use, though not with all of it.
#[allow(dead_code, unused_imports, unused_macros)]
#[path = "../it/support/mod.rs"]
mod support;
mod table;
mod tls;
mod trial;
mod valgrind;
mod websocket;
