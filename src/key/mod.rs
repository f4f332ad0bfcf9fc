//! From a request's facts to the operation that it asks for. Pure: no I/O.

mod digest;
mod target;

pub use digest::{Digest, DigestKey};
pub use target::{normalise_host, normalise_path};
