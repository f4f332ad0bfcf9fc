//! Derives a request's operation from its facts. Pure: no I/O.
//!
//! [`read_head`] reads the head, so that a missing or invalid key is refused before the body is read.
//! [`PartialOperation::with_body`] adds the body and returns the [`Operation`]: its name, from scope and key,
//! and its fingerprint, from target and payload. [`read`] does both. The body is parsed at most once, and only
//! where a selector or the fingerprint needs it.

mod age;
mod body;
mod calendar;
mod cookie;
mod decimal;
mod described;
mod digest;
mod error;
mod fingerprint;
mod form;
mod format;
#[cfg(test)]
mod golden;
mod header;
mod json;
mod jwt;
mod lookalike;
mod member;
mod multipart;
mod name;
mod operation;
mod origin;
mod parameters;
mod probe;
mod query;
mod readings;
mod respelled;
mod select;
mod signature;
mod target;
mod text;

pub use described::DescribedRequest;
pub use digest::{Digest, DigestKey, DigestKind};
pub use error::{BodyFault, KeyError, KeyFault};
pub use fingerprint::FingerprintedBody;
pub use format::is_uuid;
pub use member::{JsonAnswer, JsonMember, NotJson};
pub use operation::{HeadOutcome, KeyOutcome, Operation, OperationProbe, PartialOperation, Request, read, read_head};
pub use origin::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, client as client_address, forwarded_host_and_scheme};
pub use probe::{NoProbe, ProbeValues, ValueFault};
pub use readings::{Readings, SelectorReading, readings};
pub use respelled::{names_of, respelled};
pub use target::{RequestedTarget, is_override, overriding_methods};
pub use text::KeyText;
