//! Decodes a stored response for a client that does not accept its content coding.
//!
//! The bytes come from a backend and may be expensive to decode. So decoders are strict, their time, memory and number
//! are limited, and they run on threads that serve no requests. A body that could not be decoded once is replayed as it
//! is stored from then on.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::Bytes;
use flate2::bufread::{GzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING};
use tokio::sync::Semaphore;

use super::budget::Budget;
use crate::clock;
use crate::list;
use crate::record::{RecordName, Reply};

/// The most bodies that are decoded at once; others wait.
const AT_ONCE: usize = 2;

/// The most processor time for one body.
const WORK: Duration = Duration::from_millis(250);

/// The most members of a gzip body (RFC 1952, 2.2). Each needs a new decoder, even if it is short.
const MEMBERS: usize = 16;

/// Input between two checks of the clock; output between two checks of the budget.
const STEP: usize = 4 * 1024;
const PIECE: usize = 64 * 1024;

/// The number of remembered bodies that cannot be decoded.
const REMEMBERED: usize = 1024;

/// A content coding that can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// The zlib format (RFC 1950), which `deflate` means in HTTP (RFC 9110, 8.4.1.2).
    Deflate,
    Brotli,
}

/// The result of decoding.
pub(super) enum DecodeOutcome {
    /// The decoded body, with its reservation.
    Plain(Vec<Bytes>),
    /// The body is replayed as it is stored.
    AsStored,
    /// The budget has no room for it.
    NoRoom,
}

/// Decodes bodies, a few at once.
pub struct Decoders {
    turns: Arc<Semaphore>,
    undecodable: Arc<UndecodableBodies>,
}

/// Bodies that could not be decoded, the latest last.
#[derive(Default)]
struct UndecodableBodies(Mutex<VecDeque<BodyId>>);

/// Identifies a body. If two are confused, one of them is replayed as it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
struct BodyId {
    record: [u8; 16],
    length: u64,
    /// In gzip: the checksum and the length of the decoded body.
    end: [u8; 8],
}

/// Why a body is not decoded.
enum DecodeError {
    /// It is malformed, or too expensive.
    Undecodable,
    NoRoom,
}

impl From<io::Error> for DecodeError {
    fn from(_: io::Error) -> Self {
        Self::Undecodable
    }
}

impl Coding {
    /// The only coding of a stored body, and its name. `None` if it is not decoded: there is no coding, there are
    /// several, it is unknown, or `no-transform` is set (RFC 9111, 5.2.2.6).
    pub(super) fn of(headers: &HeaderMap) -> Option<(Self, &str)> {
        let mut lines = headers.get_all(CONTENT_ENCODING).iter();
        let name = lines.next()?.to_str().ok()?.trim();
        let coding = [("gzip", Self::Gzip), ("x-gzip", Self::Gzip), ("deflate", Self::Deflate), ("br", Self::Brotli)];
        let (_, coding) = coding.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known))?;
        (lines.next().is_none() && !forbids_transformation(headers)).then_some((coding, name))
    }

    /// The memory that a decoder needs in addition to its output.
    fn memory(self, body: &[Bytes]) -> usize {
        const TABLES: usize = 512 * 1024;
        match self {
            Self::Gzip | Self::Deflate => 64 * 1024,
            Self::Brotli => TABLES + (1 << window_bits(body.first().and_then(|piece| piece.first()).copied())),
        }
    }
}

fn forbids_transformation(headers: &HeaderMap) -> bool {
    list::names(headers, &CACHE_CONTROL, "no-transform")
}

/// The size of the window that a brotli stream announces (RFC 7932, 9.1).
fn window_bits(first: Option<u8>) -> u32 {
    let first = u32::from(first.unwrap_or_default());
    match (first & 1, first >> 1 & 7, first >> 4 & 7) {
        (0, ..) => 16,
        (_, 0, 0) => 17,
        (_, 0, bits) => 8 + bits,
        (_, bits, _) => 17 + bits,
    }
}

impl Default for Decoders {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), undecodable: Arc::default() }
    }
}

impl Decoders {
    /// Decodes the body of `reply`, which lies under `record`, to at most `cap` bytes.
    pub(super) async fn decode(
        &self,
        coding: Coding,
        record: &RecordName,
        reply: &Arc<Reply>,
        cap: u64,
        budget: &Budget,
    ) -> DecodeOutcome {
        let id = BodyId::of(record, reply);
        if self.undecodable.contains(&id) {
            return DecodeOutcome::AsStored;
        }
        // The semaphore is never closed.
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else { return DecodeOutcome::AsStored };
        let (reply, budget, undecodable) = (Arc::clone(reply), budget.clone(), Arc::clone(&self.undecodable));
        let decoded = tokio::task::spawn_blocking(move || {
            // The work continues when the client leaves, and keeps its permit until it ends.
            let _turn = turn;
            let decoded = decode(coding, reply.body.pieces(), cap, &budget);
            if let Err(DecodeError::Undecodable) = decoded {
                undecodable.remember(id);
            }
            decoded
        });
        match decoded.await {
            Ok(Ok(pieces)) => DecodeOutcome::Plain(pieces),
            Ok(Err(DecodeError::NoRoom)) => DecodeOutcome::NoRoom,
            Ok(Err(DecodeError::Undecodable)) => {
                tracing::info!(%record, "a stored body cannot be decoded within its bounds; it is replayed as it is");
                DecodeOutcome::AsStored
            }
            // A panic in a decoder.
            Err(_) => {
                self.undecodable.remember(id);
                DecodeOutcome::AsStored
            }
        }
    }
}

impl UndecodableBodies {
    fn contains(&self, id: &BodyId) -> bool {
        self.ids().contains(id)
    }

    fn remember(&self, id: BodyId) {
        let mut marks = self.ids();
        if marks.len() == REMEMBERED {
            marks.pop_front();
        }
        marks.push_back(id);
    }

    fn ids(&self) -> MutexGuard<'_, VecDeque<BodyId>> {
        // A panic cannot leave the list in an invalid state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BodyId {
    fn of(record: &RecordName, reply: &Reply) -> Self {
        let mut end = [0; 8];
        let last = reply.body.pieces().iter().rev().flat_map(|piece| piece.iter().rev());
        end.iter_mut().zip(last).for_each(|(to, from)| *to = *from);
        Self { record: record.digest, length: reply.body_len(), end }
    }
}

fn decode(coding: Coding, body: &[Bytes], cap: u64, budget: &Budget) -> Result<Vec<Bytes>, DecodeError> {
    let mut decoder = budget.reserve();
    if !decoder.grow(coding.memory(body)) {
        return Err(DecodeError::NoRoom);
    }
    let mut input = EncodedInput { pieces: body.iter(), left: &[], until: clock::of_this_thread() + WORK };
    let mut output = DecodedOutput { budget, left: cap, pieces: Vec::new() };
    match coding {
        Coding::Gzip => {
            for _ in 0..MEMBERS {
                output.take(GzDecoder::new(&mut input))?;
                if input.is_at_end()? {
                    return Ok(output.pieces);
                }
            }
            return Err(DecodeError::Undecodable);
        }
        Coding::Deflate => output.take(ZlibDecoder::new(&mut input))?,
        Coding::Brotli => output.take(Brotli::new(&mut input))?,
    }
    if input.is_at_end()? { Ok(output.pieces) } else { Err(DecodeError::Undecodable) }
}

/// The stored body, read in steps. It fails when decoding takes too long.
struct EncodedInput<'a> {
    pieces: std::slice::Iter<'a, Bytes>,
    left: &'a [u8],
    /// Processor time of the thread: a busy machine makes no body undecodable.
    until: Duration,
}

impl EncodedInput<'_> {
    fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.fill_buf()?.is_empty())
    }
}

impl BufRead for EncodedInput<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if clock::of_this_thread() > self.until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        while self.left.is_empty() {
            match self.pieces.next() {
                Some(piece) => self.left = piece,
                None => break,
            }
        }
        Ok(&self.left[..self.left.len().min(STEP)])
    }

    fn consume(&mut self, amount: usize) {
        self.left = &self.left[amount..];
    }
}

impl Read for EncodedInput<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.fill_buf()?.read(buffer)?;
        self.consume(taken);
        Ok(taken)
    }
}

/// The output, in pieces with their reservation.
struct DecodedOutput<'a> {
    budget: &'a Budget,
    left: u64,
    pieces: Vec<Bytes>,
}

impl DecodedOutput<'_> {
    /// Reads all output of the decoder.
    fn take(&mut self, mut decoder: impl Read) -> Result<(), DecodeError> {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = decoder.by_ref().take(PIECE as u64).read_to_end(&mut piece)? as u64;
            self.left = self.left.checked_sub(read).ok_or(DecodeError::Undecodable)?;
            if read == 0 {
                return Ok(());
            }
            self.pieces.push(self.budget.hold(piece.into()).ok_or(DecodeError::NoRoom)?);
        }
    }
}

/// A decoder of brotli as RFC 7932 has it. Its windows are of 16 MiB at most; the crate's own reader takes larger ones
/// (up to 1 GiB), which are an extension of the format.
struct Brotli<R> {
    input: R,
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    written: usize,
    is_done: bool,
}

impl<R: BufRead> Brotli<R> {
    fn new(input: R) -> Self {
        let alloc = StandardAlloc::default;
        Self { input, state: BrotliState::new_strict(alloc(), alloc(), alloc()), written: 0, is_done: false }
    }
}

impl<R: BufRead> Read for Brotli<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled == 0 && !self.is_done && !buffer.is_empty() {
            let input = self.input.fill_buf()?;
            let (mut available, mut taken, mut room) = (input.len(), 0, buffer.len());
            let is_at_end = available == 0;
            let result = BrotliDecompressStream(
                &mut available,
                &mut taken,
                input,
                &mut room,
                &mut filled,
                buffer,
                &mut self.written,
                &mut self.state,
            );
            self.input.consume(taken);
            match result {
                BrotliResult::ResultSuccess => self.is_done = true,
                BrotliResult::NeedsMoreInput if is_at_end => return Err(io::ErrorKind::UnexpectedEof.into()),
                BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                BrotliResult::ResultFailure => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_brotli_are_read_as_the_format_has_them() {
        // Appendix A of RFC 7932 begins with these.
        for (first, bits) in [(0x00, 16), (0x01, 17), (0x21, 10), (0x71, 15), (0x03, 18), (0x0f, 24), (0x0b, 22)] {
            assert_eq!(window_bits(Some(first)), bits, "{first:#x}");
        }
    }

    fn stored(body: Vec<u8>) -> (RecordName, Arc<Reply>) {
        let name = RecordName { route: "orders".into(), digest: [7; 16] };
        let (headers, trailers) = (HeaderMap::new(), HeaderMap::new());
        (name, Arc::new(Reply { status: http::StatusCode::OK, headers, body: vec![body.into()].into(), trailers }))
    }

    fn budget(bytes: u64) -> Budget {
        Budget::new(bytes, Arc::new(crate::metrics::Metrics::new().expect("metrics")))
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, plain).expect("memory");
        encoder.finish().expect("memory")
    }

    #[tokio::test]
    async fn the_decoder_and_what_it_gives_are_counted_in_the_memory_of_all_bodies() {
        let (name, reply) = stored(gzip(&[b'x'; 512 * 1024]));
        let decoders = Decoders::default();
        for (bytes, fits) in [(1 << 20, true), (512 * 1024, false), (1024, false)] {
            let budget = budget(bytes);
            let decoded = decoders.decode(Coding::Gzip, &name, &reply, 1 << 20, &budget).await;
            match decoded {
                DecodeOutcome::Plain(pieces) => assert!(fits && pieces.concat() == [b'x'; 512 * 1024], "{bytes}"),
                DecodeOutcome::NoRoom => assert!(!fits, "{bytes}"),
                DecodeOutcome::AsStored => panic!("it is what it says"),
            }
            // All of it is given back.
            assert!(budget.hold(vec![0; usize::try_from(bytes).expect("small")].into()).is_some(), "{bytes}");
        }
    }

    #[tokio::test]
    async fn what_could_not_be_decoded_is_not_tried_again() {
        let decoders = Decoders::default();
        for (coding, body) in [
            (Coding::Gzip, b"no gzip".to_vec()),
            // The end is missing.
            (Coding::Gzip, gzip(b"order 1")[..20].to_vec()),
            // One member too many.
            (Coding::Gzip, gzip(b"").repeat(MEMBERS + 1)),
            // A window of 1 GiB, which RFC 7932 does not have.
            (Coding::Brotli, vec![0x11, 0x1e, 0, 0, 0]),
        ] {
            let (name, reply) = stored(body);
            let first = decoders.decode(coding, &name, &reply, 1 << 20, &budget(64 << 20)).await;
            assert!(matches!(first, DecodeOutcome::AsStored), "{coding:?}");
            // A try would find no room for its decoder.
            let second = decoders.decode(coding, &name, &reply, 1 << 20, &budget(0)).await;
            assert!(matches!(second, DecodeOutcome::AsStored), "{coding:?}");
        }
        let (name, reply) = stored(gzip(b"order 1"));
        let other = decoders.decode(Coding::Gzip, &name, &reply, 1 << 20, &budget(0)).await;
        assert!(matches!(other, DecodeOutcome::NoRoom), "another body is tried");
    }

    #[test]
    fn no_transform_is_found_among_other_directives() {
        let headers = |value: &'static str| {
            let coding = (CONTENT_ENCODING, http::HeaderValue::from_static("GZIP"));
            HeaderMap::from_iter([coding, (CACHE_CONTROL, http::HeaderValue::from_static(value))])
        };
        assert_eq!(Coding::of(&headers("private, max-age=0")), Some((Coding::Gzip, "GZIP")));
        assert_eq!(Coding::of(&headers("private, No-Transform")), None);
    }
}
