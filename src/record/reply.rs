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
#[derive(Debug, Clone)]
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

impl PartialEq for ReplyBody {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Held(own), Self::Held(other)) => own == other || are_same(own, other),
            (Self::Compressed(own), Self::Compressed(other)) => own == other,
            (Self::Apart(own), Self::Apart(other)) => own == other,
            (Self::Held(_) | Self::Compressed(_) | Self::Apart(_), _) => false,
        }
    }
}

impl Eq for ReplyBody {}

/// Whether the concatenations of these pieces are the same.
fn are_same(one: &[Bytes], other: &[Bytes]) -> bool {
    let [mut one, mut other] = [one, other].map(|pieces| pieces.iter().filter(|piece| !piece.is_empty()));
    let (mut left, mut right): (&[u8], &[u8]) = (&[], &[]);
    loop {
        if left.is_empty() {
            left = one.next().map_or(&[], |piece| piece);
        }
        if right.is_empty() {
            right = other.next().map_or(&[], |piece| piece);
        }
        let length = left.len().min(right.len());
        if length == 0 {
            return left.is_empty() && right.is_empty();
        }
        if left[..length] != right[..length] {
            return false;
        }
        (left, right) = (&left[length..], &right[length..]);
    }
}

impl From<Vec<Bytes>> for ReplyBody {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self::Held(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(pieces: &[&'static str]) -> ReplyBody {
        pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect::<Vec<_>>().into()
    }

    #[test]
    fn a_body_is_the_same_in_whatever_pieces_it_comes() {
        for (one, other) in [
            (&["abc"][..], &["a", "bc"][..]),
            (&["ab", "c", ""], &["", "a", "", "bc"]),
            (&[], &["", ""]),
            (&["abc", "d"], &["ab", "cd"]),
        ] {
            assert_eq!(held(one), held(other));
            assert_eq!(held(other), held(one));
        }
        for (one, other) in [
            (&["abc"][..], &["a", "bd"][..]),
            (&["abc"], &["ab"]),
            (&["ab", "c"], &["ab"]),
            (&["a"], &[]),
            (&["ab", "cd"], &["abc", "e"]),
        ] {
            assert_ne!(held(one), held(other));
            assert_ne!(held(other), held(one));
        }
    }
}
