//! Traces: spans in the format of OpenTelemetry, sent to a collector by OTLP over HTTP.
//!
//! They exist only in a build with the feature `otlp`, and only if the environment names a collector
//! (`OTEL_EXPORTER_OTLP_ENDPOINT`). Otherwise nothing is measured, and `traceparent` passes unchanged.
//!
//! | span | kind | from, to |
//! |---|---|---|
//! | `POST /orders` (method and pattern of the route), or the method alone | server | the request's head, response |
//! | `claim` | internal | the command to the store, its reply |
//! | `POST` | client | the request to the backend, its response |
//! | `GET` | client | the question to `replay_auth`, its answer |
//! | `settle` | internal | the response has arrived, the record is settled |
//!
//! A request with a valid `traceparent` continues that trace (W3C Trace Context), and its `tracestate` passes unchanged.
//! Any other request starts a new one, without a `tracestate`. The backend gets the ID of the client span. A record keeps the context of the request
//! that made it, and the server span of a replay links to that context. Spans contain no path, query, key or header:
//! only the names of routes and records.

#[cfg(feature = "otlp")]
mod collector;
#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(not(feature = "otlp"))]
pub use off::{Parent, Span, Traces, start};
#[cfg(feature = "otlp")]
pub use otlp::{Parent, Span, Traces, start};

/// A span's context in a record: trace ID, span ID, flags (W3C Trace Context, 3.2).
pub const CONTEXT: usize = 16 + 8 + 1;
