//! From a request's facts to the operation that it asks for. Pure: no I/O.

mod digest;

pub use digest::{Digest, DigestKey};
