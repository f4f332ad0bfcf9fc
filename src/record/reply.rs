use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// A stored response: what a replay is made of.
///
/// Only end-to-end fields: whoever makes one has taken out hop-by-hop fields and, where the body is whole, its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The response's status.
    pub status: StatusCode,
    /// Its header fields, in their order within each name.
    pub headers: HeaderMap,
    /// Its body, in the pieces it came in. Only their concatenation means something.
    pub body: Vec<Bytes>,
    /// Its trailer fields (RFC 9110, 6.5).
    pub trailers: HeaderMap,
}

impl Reply {
    /// Bytes of the body.
    pub fn body_len(&self) -> u64 {
        self.body.iter().map(|piece| piece.len() as u64).sum()
    }
}
