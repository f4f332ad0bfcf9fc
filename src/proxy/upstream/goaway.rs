//! The last stream that a backend processed, as it says in GOAWAY (RFC 9113, 6.8).
//!
//! A connection that ends with GOAWAY names the last request that its backend may have worked on. Later requests did
//! not run, whatever error they end with. hyper does not expose that number, so it is read from the incoming frames.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::write_through::write_through;

/// The last stream that the backend may have processed.
#[derive(Clone)]
pub(super) struct LastStream(Arc<AtomicU32>);

impl LastStream {
    fn unknown() -> Self {
        Self(Arc::new(AtomicU32::new(u32::MAX)))
    }

    /// Whether the backend has said that it processed none. The first stream of a client is 1 (RFC 9113, 5.1.1).
    pub(super) fn is_none(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// An HTTP/2 connection whose incoming frames are watched.
pub(super) struct GoAwayReader<S> {
    stream: S,
    reading: FrameReader,
    last: LastStream,
}

/// The position within the frames.
#[derive(Default)]
struct FrameReader {
    /// In the header of a frame; for GOAWAY, with the number after it.
    head: [u8; HEAD + NUMBER],
    have: usize,
    /// In the payload of another frame.
    skip: usize,
}

const HEAD: usize = 9;
const NUMBER: usize = 4;
const GOAWAY: u8 = 7;

impl<S> GoAwayReader<S> {
    pub(super) fn new(stream: S) -> (Self, LastStream) {
        let last = LastStream::unknown();
        (Self { stream, reading: FrameReader::default(), last: last.clone() }, last)
    }
}

impl FrameReader {
    /// Reads more bytes, and calls `last` with the number of each GOAWAY.
    fn read(&mut self, mut bytes: &[u8], mut last: impl FnMut(u32)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];

            let wanted = if self.have < HEAD { HEAD } else { HEAD + NUMBER };
            let taken = bytes.len().min(wanted - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];

            let [a, b, c, kind, _, _, _, _, _, number @ ..] = self.head;
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let is_goaway = kind == GOAWAY && length >= NUMBER;
            if self.have == HEAD + NUMBER {
                // The highest bit is reserved.
                last(u32::from_be_bytes(number) & (u32::MAX >> 1));
                (self.have, self.skip) = (0, length - NUMBER);
            } else if self.have == HEAD && !is_goaway {
                (self.have, self.skip) = (0, length);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GoAwayReader<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let this = &mut *self;
        // It may be sent more than once; the number never increases.
        this.reading.read(&buf.filled()[before..], |last| {
            this.last.0.fetch_min(last, Ordering::AcqRel);
        });
        Poll::Ready(Ok(()))
    }
}

write_through!(GoAwayReader, stream);

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    }

    /// The numbers that are read, for every way to split the bytes.
    fn read(bytes: &[u8]) -> Vec<u32> {
        let in_pieces = |size: usize| {
            let (mut reading, mut numbers) = (FrameReader::default(), Vec::new());
            bytes.chunks(size).for_each(|piece| reading.read(piece, |last| numbers.push(last)));
            numbers
        };
        let whole = in_pieces(bytes.len());
        for size in 1..bytes.len() {
            assert_eq!(in_pieces(size), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn the_numbers_are_found_among_other_frames() {
        let first = frame(GOAWAY, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        let second = frame(GOAWAY, &[0x80, 0, 0, 3, 0, 0, 0, 0, b'b', b'y', b'e']);
        let frames = [frame(4, &[]), frame(0, &[7; 30]), first, frame(6, &[7; 8]), second, frame(8, &[0; 4])];
        assert_eq!(read(&frames.concat()), [u32::MAX >> 1, 3]);
    }

    #[test]
    fn what_is_none_says_nothing() {
        assert!(read(&frame(GOAWAY, &[0, 0, 0])).is_empty());
        assert!(read(&frame(0, &frame(GOAWAY, &[0; 8]))).is_empty());
        assert!(read(b"HTTP/1.1 400 Bad Request\r\n\r\n").is_empty());
    }
}
