use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::chunks::ApartBody;
use super::compression::CompressedBody;

/// A stored response.
///
/// It has end-to-end fields only: whoever makes one removes hop-by-hop fields and, if the body is complete, its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The header fields, in their order within each name.
    pub headers: HeaderMap,
    /// The body.
    pub body: ReplyBody,
    /// The trailer fields (RFC 9110, 6.5).
    pub trailers: HeaderMap,
}

/// The body of a stored response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// Here, in the pieces it came in. Only their concatenation means something.
    Held(Vec<Bytes>),
    /// Here, compressed.
    Compressed(CompressedBody),
    /// In the store, apart from its record.
    Apart(ApartBody),
}

impl Reply {
    /// Length of the body in bytes.
    pub fn body_len(&self) -> u64 {
        match &self.body {
            ReplyBody::Held(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
            ReplyBody::Compressed(body) => body.length,
            ReplyBody::Apart(apart) => apart.length(),
        }
    }
}

impl ReplyBody {
    /// What is to be stored of it; nothing of what is stored already.
    pub fn stored(&self) -> &[Bytes] {
        match self {
            Self::Held(pieces) => pieces,
            Self::Compressed(body) => std::slice::from_ref(&body.frame),
            Self::Apart(_) => &[],
        }
    }

    /// Bytes of that.
    pub fn stored_len(&self) -> u64 {
        self.stored().iter().map(|piece| piece.len() as u64).sum()
    }

    /// What is here of it, and needs no more than to be sent.
    pub fn pieces(&self) -> &[Bytes] {
        match self {
            Self::Held(pieces) => pieces,
            Self::Compressed(_) | Self::Apart(_) => &[],
        }
    }
}

impl From<Vec<Bytes>> for ReplyBody {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self::Held(pieces)
    }
}
