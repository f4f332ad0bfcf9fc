//! Tests with real clients and real backends of other projects.
//!
//! `tests/run` installs them. A test whose peer is missing fails.

#![allow(clippy::disallowed_methods)]
// In a binary, nothing is reachable from outside.
#![allow(unreachable_pub)]

mod curl;
mod early;
mod frameworks;
mod grpc;
mod http2;
mod ledger;
mod nginx;
mod node;
mod peer;
mod plain;
mod sdks;
// The support of the other tests, of which a part is unused here.
#[allow(dead_code, unused_imports, unused_macros)]
#[path = "../it/support/mod.rs"]
mod support;
mod table;
mod tls;
mod trial;
mod valgrind;
mod verify;
mod websocket;
