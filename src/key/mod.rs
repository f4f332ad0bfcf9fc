//! From a request's facts to the operation that it asks for. Pure: no I/O.

mod cookie;
mod decimal;
mod digest;
mod error;
mod form;
mod header;
mod json;
mod target;

pub use digest::{Digest, DigestKey};
pub use error::{BodyFault, KeyError, KeyFault};
pub use target::{normalise_host, normalise_path};
