//! A reverse proxy that makes POST requests safe to repeat: **same key, same result, one effect.**
//!
//! It stands in front of a backend that knows nothing of it. For the routes of one TOML file it recognises a repeated
//! request by its idempotency key, lets exactly one of the repeats through, keeps the response, and gives every later
//! repeat that same response. The promise, while the store keeps its data: *for one key, no second attempt is sent
//! after one that succeeded or may have succeeded.* It is not exactly-once: a proxy cannot be transactional with a
//! backend.
//!
//! # Where things are
//!
//! | to find | look in |
//! |---|---|
//! | the life of a guarded request, type by type, drawn on one page | `docs/architecture.md` |
//! | the same as code, top to bottom | [`proxy`], `proxy/handle.rs` |
//! | which requests a route guards, in whatever spelling | [`rule::Routes`], `rule/spelling.rs` |
//! | what a key, a scope and a fingerprint are | [`key`] |
//! | **the protocol**: states, and every step between them | [`record`], [`record::transitions`] |
//! | what lies in a store, byte by byte | [`record::codec`], [`record::chunks`]; `docs/record-layout.md` |
//! | how stored answers are encrypted | [`record::encryption`]; which key writes, `store/format.rs` |
//! | the claim | [`guard::Guard::claim`] (`guard/claim.rs`), carried out by [`store::Store::claim`]: `store/redis/hot.rs`, `store/embedded/batch.rs`, `store/postgres/sql.rs` |
//! | what a repeat gets | [`guard::decide()`] |
//! | the life of an attempt: send, renew, settle, keep trying | [`guard::attempt`] |
//! | the lease: renewing it, and whether its owner may still send | `guard/lease.rs` (`Lease::keep`, [`guard::SendFence`]) |
//! | who polls an attempt, and what becomes of it when its client leaves | `guard/running.rs` |
//! | which thread answers a request | `server/cores.rs`; `docs/threads.md` |
//! | what a request costs, and how that is guarded | `docs/performance.md`, `benches/` |
//! | what becomes of an outcome | [`guard::policy`], over the table in [`rule::PolicyTable`] (`rule/policy.rs`) |
//! | which answer a refused request gets | `proxy/refusal.rs`; how it looks, [`problem`] |
//! | the replay | `proxy/replay.rs`; of a large answer, `proxy/body/replayed.rs` |
//! | who may see a replay | `replay_auth`: [`guard::ReplayPermission`], `proxy/replay_auth/` |
//! | asking the backend about an unknown outcome | the rule: [`record::probe`]; when it is asked: `guard/probe/`; the question: `proxy/probe.rs` |
//! | the way out of an unknown outcome | [`record::transitions::release_by_hand`], `admin/records.rs`, `cli/records/` |
//! | whether a request left | `proxy/upstream/send_error.rs`, which makes a [`guard::SendOutcome`] |
//!
//! # What to change
//!
//! | to add | begin with | then |
//! |---|---|---|
//! | a selector | [`rule::Selector`] | `config/file/selector.rs` reads it, `key/select.rs` finds it in a request |
//! | a status policy | [`rule::Policy`], in `rule/policy.rs`: the table by status | `config/file/route.rs`: its `on_unknown`; `guard/policy.rs` only applies it |
//! | a store | [`store::Store`], `store/conformance.rs` | `config::StoreLocation`, `config/file/store_url.rs`, `store/mod.rs` |
//! | a metric | `metrics.rs`; of a route, `metrics/exposition.rs` | the place where the decision is made |
//! | what the form guard does in a page | `form_guard/form.js` | [`form_guard`] serves it, `proxy/script_request.rs` answers it |
//! | a case of `onlyonce verify` | [`verify::VerifyCase`]: what is sent, and the rule | `verify/judge/`: the verdict |
//! | a key of the configuration | `config/file/`, `config/onlyonce.toml` | the schema and `docs/configuration.md` follow |
//! | an answer of our own | [`problem`], `problem/code.rs` | `proxy/refusal.rs` says when; `docs/clients.md` |
//!
//! `CONTRIBUTING.md` has each of them step by step.
//!
//! # Which way dependencies point
//!
//! From the edge inwards. The core ([`record`], [`key`], [`guard`]) knows neither sockets nor Redis; decisions are pure
//! functions that return enums, and I/O happens around them. `tests/rooms` holds these arrows.
//!
//! ```text
//! main → cli ─┬→ verify
//!             ├→ demo ─┐
//!             └────────┴→ run ─┬→ admin ───────────────┐
//!                              └→ server → proxy ─┬────┴→ guard → store → record, key
//!                                                 └→ form_guard
//!
//! leaves: advice, clock, config, excerpt, fail_point, list, metrics, problem, random, rule, schema, telemetry, text,
//!         tick, timestamp, tls, trace, units, uri
//! ```
//!
//! Of the leaves, [`rule`] is data only, [`config`] reads a file into it, [`advice`] and [`schema`] are about
//! [`config`], and `fail_point` is empty outside of test builds. The command line also uses the shapes of the JSON of
//! [`admin`].
//!
//! # The protocol in short
//!
//! A request claims its operation with one atomic step at the store. The claim stays as evidence for the whole
//! retention, also when its owner is gone: nothing is freed by expiry. An owner shows that it is alive by renewing; a
//! reader judges by the record's remaining time to live, on the store's clock, so that no sidecar's clock decides
//! anything. What the attempt brings is recorded before its client sees it, or, with `response = "stream"`, before its
//! client sees the end of it. An attempt that certainly did not run frees the key; one whose outcome cannot be told holds
//! it, or is taken over under another attempt number, as the route says.

// What clippy.toml forbids is for the program.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod admin;
pub mod advice;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
mod excerpt;
mod fail_point;
pub mod form_guard;
pub mod guard;
pub mod key;
pub mod list;
pub mod metrics;
pub mod problem;
pub mod proxy;
pub mod random;
pub mod record;
pub mod rule;
pub mod run;
pub mod schema;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod text;
pub mod tick;
pub mod timestamp;
pub mod tls;
pub mod trace;
pub mod units;
pub mod uri;
pub mod verify;
