//! From a request's facts to the operation that it asks for. Pure: no I/O.

mod digest;

pub use digest::{Digest, DigestKey};

/// What one request asks for.
pub struct Operation {
    /// Name of its record.
    pub name: crate::record::RecordName,
    /// What the key is used for.
    pub fingerprint: crate::record::Fingerprint,
    /// What its claim is made under.
    pub terms: crate::record::Terms,
}
