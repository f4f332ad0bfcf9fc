use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// A stored response.
///
/// It has end-to-end fields only: whoever makes one removes hop-by-hop fields and, if the body is complete, its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The header fields, in their order within each name.
    pub headers: HeaderMap,
    /// The body, in the pieces in which it arrived. Only their concatenation has a meaning.
    pub body: Vec<Bytes>,
    /// The trailer fields (RFC 9110, 6.5).
    pub trailers: HeaderMap,
}

impl Reply {
    /// Length of the body in bytes.
    pub fn body_len(&self) -> u64 {
        self.body.iter().map(|piece| piece.len() as u64).sum()
    }
}
