//! From a request's facts to the operation that it asks for. Pure: no I/O.
//!
//! [`read_head`] reads what the head tells: a key that is missing or wrong is known before one byte of
//! the body is read. [`PartialOperation::with_body`] adds the body and gives the [`Operation`]: its name, from
//! scope and key, and its fingerprint, from target and payload. [`read`] does both at once. The body is
//! parsed at most once, and only where a selector or the fingerprint asks for it.

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
mod multipart;
mod name;
mod operation;
mod origin;
mod parameters;
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
pub use operation::{HeadOutcome, KeyOutcome, Operation, PartialOperation, Request, read, read_head};
pub use readings::{Readings, SelectorReading, readings};
pub use respelled::{names_of, respelled};
pub use target::{RequestedTarget, is_override, normalise_method, overriding_methods};
pub use text::KeyText;
