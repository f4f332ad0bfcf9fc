//! Traces: spans in the format of OpenTelemetry, sent to a collector by OTLP over HTTP.
//!
//! Only in a build with the feature `otlp`, and only where the environment names a collector
//! (`OTEL_EXPORTER_OTLP_ENDPOINT`); everywhere else all of this is nothing, and `traceparent` passes unchanged.
//!
//! | span | kind | from, to |
//! |---|---|---|
//! | `POST /orders` (method and pattern of the route), or the method alone | server | the request's head, its answer |
//! | `claim` | internal | the store is asked, it has answered |
//! | `POST` | client | the request is sent to the backend, its answer is there |
//! | `settle` | internal | the answer is there, the record says so |
//!
//! A request with `traceparent` continues that trace (W3C Trace Context), any other begins one. The backend gets the id of
//! the client span; `tracestate` passes unchanged. A record keeps the context of the request that made it, and the server
//! span of a replay links to that. No span holds a path, a query, a key or a header: routes and records have names.

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

/// A span's context in a record: trace id, span id, flags (W3C Trace Context, 3.2).
pub const CONTEXT: usize = 16 + 8 + 1;
