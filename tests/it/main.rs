//! The promises of onlyonce, tested from outside: over real sockets, with bytes, and by what the backend saw.
//!
//! One test binary, because each one is linked with the whole program; one module for each promise.

#![allow(clippy::disallowed_methods)]
// In a binary, nothing is reachable from outside.
#![allow(unreachable_pub)]

mod support;

mod admin;
mod beside;
mod breaks;
mod callers;
mod cli;
mod compression;
mod concurrent;
mod connections;
mod cores;
mod cors;
mod dialects;
mod disconnect;
mod drain;
mod early_answers;
mod edges;
mod encryption;
mod fates;
mod form_guard;
mod framing;
mod frozen_store;
mod full_disk;
mod given_up;
mod heads;
mod hops;
mod http2;
mod http2_frames;
mod http2_upstream;
mod key_formats;
mod keyless;
mod keys;
mod large_bodies;
mod lengths;
mod limits;
mod log;
mod messages;
mod mismatch;
mod natural_keys;
mod observe;
mod operators;
mod page;
mod page_access;
mod passthrough;
mod postgres;
mod presets;
mod probe;
mod reach;
mod records;
mod redis_cluster;
mod redis_links;
mod redis_sentinel;
mod refusals;
mod reload;
mod repeats;
mod replay;
mod replay_auth;
mod routes;
mod shutdown;
mod slow_store;
mod sockets;
mod store_down;
mod streaming;
mod tls;
mod tokens;
mod top;
#[cfg(feature = "otlp")]
mod traces;
mod two_readers;
mod upgrades;
mod uploads;
mod verify;
mod versions;
