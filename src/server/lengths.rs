//! The two body lengths that hyper reserves: `18446744073709551614` and `…15`.
//!
//! hyper answers a head with one of them by 431, as a head that is too large, and gives nobody else the chance to
//! answer. But it is the body that is too large: 413 (RFC 9110, 15.5.14).

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// What was found of such a length in the head that is being received.
#[derive(Default)]
pub(super) struct Largest {
    seen: bool,
    /// How many digits of it were at the end of the last piece.
    begun: usize,
}

/// The common digits of both.
const DIGITS: &[u8] = b"1844674407370955161";
static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(DIGITS));

const TOO_LARGE_HEAD: &[u8] = b"431 Request Header Fields Too Large";
/// The other one, of the same length.
const TOO_LARGE_BODY: &[u8; TOO_LARGE_HEAD.len()] = b"413 Content-Length Is Far Too Large";

impl Largest {
    /// Looks at more bytes of the head.
    pub(super) fn look(&mut self, piece: &[u8]) {
        if self.begun > 0 || piece.last().is_some_and(u8::is_ascii_digit) {
            // The number may be split between two pieces.
            let (start, end) = (piece.len().min(DIGITS.len()), piece.len().saturating_sub(DIGITS.len()));
            self.step(&piece[..start]);
            if end > 0 {
                self.begun = 0;
                self.step(&piece[end..]);
            }
        }
        self.seen |= FINDER.find(piece).is_some();
    }

    fn step(&mut self, piece: &[u8]) {
        for byte in piece {
            self.begun = if *byte == DIGITS[self.begun] { self.begun + 1 } else { usize::from(*byte == DIGITS[0]) };
            if self.begun == DIGITS.len() {
                *self = Self { seen: true, begun: 0 };
            }
        }
    }

    /// The corrected beginning of a response of hyper's own.
    pub(super) fn correct(&self, answer: &[u8]) -> Option<Vec<u8>> {
        let status = "HTTP/1.1 ".len()..;
        if !self.seen || !answer.get(status.clone())?.starts_with(TOO_LARGE_HEAD) {
            return None;
        }
        let mut answer = answer.to_vec();
        answer[status][..TOO_LARGE_BODY.len()].copy_from_slice(TOO_LARGE_BODY);
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n";

    fn is_seen(head: &[u8], piece: usize) -> bool {
        let mut largest = Largest::default();
        head.chunks(piece).for_each(|piece| largest.look(piece));
        largest.correct(b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n").is_some()
    }

    #[test]
    fn such_a_length_is_seen_in_whatever_pieces_it_comes() {
        for piece in 1..=HEAD.len() {
            assert!(is_seen(HEAD, piece), "{piece}");
            assert!(!is_seen(b"Content-Length: 1844674407370955\r\nX-1: 1844674407\r\nX: 161", piece), "{piece}");
        }
    }

    #[test]
    fn only_the_answer_to_a_head_that_is_too_large_becomes_another() {
        let seen = Largest { seen: true, begun: 0 };
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let answer = format!("{version} 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n");
            let corrected = format!("{version} 413 Content-Length Is Far Too Large\r\nconnection: close\r\n\r\n");
            assert_eq!(seen.correct(answer.as_bytes()), Some(corrected.into_bytes()));
            assert_eq!(Largest::default().correct(answer.as_bytes()), None);
        }
        for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1 431", ""] {
            assert_eq!(seen.correct(answer.as_bytes()), None);
        }
    }
}
