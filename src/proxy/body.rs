//! Bodies on their way: read with a cap, sent from memory, or passed on.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::budget::{Budget, Reservation};
use super::head::{self, Framing};
use super::incoming::IncomingBody;
use super::observe::EndNotifier;
use super::replay_body::ReplayBody;
use super::stream::RelayedBody;
use super::tee::Tee;
use super::upstream::UpstreamBody;
use crate::tick::{self, Sleep};

/// Why a body could not be read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyReadError {
    /// More than the cap.
    TooLarge,
    /// Not there in time.
    TimedOut,
    /// No room in memory.
    NoRoom,
    /// The client broke off.
    Broken,
}

/// Reads a request body of at most `cap` bytes into one piece of memory.
///
/// A body that announces itself as too large is refused before it is asked for (`100 Continue`).
pub(super) async fn read(
    mut body: IncomingBody,
    cap: u64,
    budget: &Budget,
    timeout: Duration,
) -> Result<Bytes, BodyReadError> {
    if body.size_hint().lower() > cap {
        return Err(BodyReadError::TooLarge);
    }
    let mut buffer = BodyBuffer::new(cap, budget.reserve());
    let reading = pin!(async {
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|_| BodyReadError::Broken)?.into_data() else { continue };
            buffer.add(piece)?;
        }
        Ok(())
    });
    tick::timeout(timeout, reading).await.map_err(|_| BodyReadError::TimedOut)??;
    Ok(buffer.into_bytes())
}

/// A body in the making: one piece of memory, of at most `cap` bytes.
pub(super) struct BodyBuffer {
    cap: u64,
    length: u64,
    /// One frame is taken as it is; of several, one piece is made.
    first: Bytes,
    whole: BytesMut,
    reservation: Reservation,
}

impl BodyBuffer {
    pub(super) fn new(cap: u64, reservation: Reservation) -> Self {
        Self { cap, length: 0, first: Bytes::new(), whole: BytesMut::new(), reservation }
    }

    /// Whether a body of so many bytes may be held.
    pub(super) fn fits(&self, length: u64) -> bool {
        length <= self.cap
    }

    pub(super) fn add(&mut self, piece: Bytes) -> Result<(), BodyReadError> {
        self.length += piece.len() as u64;
        if !self.fits(self.length) {
            return Err(BodyReadError::TooLarge);
        }
        // What was only announced takes no room from others.
        if !self.reservation.grow(piece.len()) {
            return Err(BodyReadError::NoRoom);
        }
        if self.length == piece.len() as u64 {
            self.first = piece;
            return Ok(());
        }
        if self.whole.is_empty() {
            self.whole.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.whole.extend_from_slice(&piece);
        Ok(())
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.reservation.hold(if self.whole.is_empty() { self.first } else { self.whole.freeze() })
    }
}

/// Reads and drops what is left of a short body, so that the answer that refuses it is not lost with the connection.
pub(super) async fn drain(mut body: IncomingBody) {
    const AT_MOST: u64 = 64 * 1024;
    const WITHIN: Duration = Duration::from_secs(1);
    if body.size_hint().lower() > AT_MOST {
        return;
    }
    let draining = pin!(async {
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len) as u64;
            if length > AT_MOST {
                return;
            }
        }
    });
    // A client that is slower than this loses its connection, as it would have without the draining.
    let _ = tick::timeout(WITHIN, draining).await;
}

/// The body of a request to the upstream.
pub(super) enum RequestBody {
    /// Held in memory.
    Buffered(Option<Bytes>),
    /// Passed on as it comes.
    Streaming(IdleTimeoutBody),
    /// Passed on as it comes, while a copy is made.
    Teed(Box<Tee>),
}

impl Default for RequestBody {
    /// None.
    fn default() -> Self {
        Self::Buffered(None)
    }
}

impl RequestBody {
    /// A body that is held in memory.
    pub(super) fn buffered(bytes: Bytes) -> Self {
        Self::Buffered((!bytes.is_empty()).then_some(bytes))
    }

    /// The same once more, where none of it is still to come.
    pub(super) fn try_clone(&self) -> Option<Self> {
        match self {
            Self::Buffered(bytes) => Some(Self::Buffered(bytes.clone())),
            Self::Streaming(_) | Self::Teed(_) => {
                self.streaming_body()?.is_end_stream().then_some(Self::Buffered(None))
            }
        }
    }

    fn streaming_body(&self) -> Option<&IdleTimeoutBody> {
        match self {
            Self::Buffered(_) => None,
            Self::Streaming(paced) => Some(paced),
            Self::Teed(tee) => Some(&tee.body),
        }
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> BodyProgress {
        match self {
            Self::Buffered(_) => BodyProgress::at(BodyStage::Whole),
            Self::Streaming(paced) => paced.progress.clone(),
            Self::Teed(tee) => tee.body.progress.clone(),
        }
    }

    /// The same, where some of it is still to come.
    pub(super) fn pending_upload(&self) -> Option<BodyProgress> {
        let paced = self.streaming_body()?;
        (!paced.is_end_stream()).then(|| paced.progress.clone())
    }

    /// How the backend is to find its end.
    pub(super) fn framing(&self) -> Framing {
        match (self, self.size_hint().exact()) {
            (Self::Buffered(_), Some(length)) => Framing::Length(length),
            (Self::Streaming(_) | Self::Teed(_), Some(_)) => Framing::AsItCame,
            (_, None) => Framing::Chunks,
        }
    }
}

/// A client's body that must not pause for longer than the timeout.
pub(super) struct IdleTimeoutBody {
    body: IncomingBody,
    timeout: Duration,
    progress: BodyProgress,
    /// Made when the body first pauses; most never do.
    alarm: Option<Sleep>,
}

impl IdleTimeoutBody {
    /// Lets `body` pause for at most `timeout`.
    pub(super) fn new(body: IncomingBody, timeout: Duration) -> Self {
        let progress = BodyProgress::at(if body.is_end_stream() { BodyStage::Whole } else { BodyStage::Coming });
        Self { body, timeout, progress, alarm: None }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.alarm = None;
            self.progress.reached(match &frame {
                Some(Ok(_)) if !self.body.is_end_stream() => BodyStage::Coming,
                Some(Ok(_)) | None => BodyStage::Whole,
                Some(Err(_)) => BodyStage::Broken,
            });
            return Poll::Ready(frame.map(|frame| frame.map(sanitize_trailers)));
        }
        let timeout = self.timeout;
        ready!(Pin::new(self.alarm.get_or_insert_with(|| tick::sleep(timeout))).poll(cx));
        self.progress.reached(BodyStage::Paused);
        Poll::Ready(Some(Err(BodyError::Paused)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How much of a body was passed on, and when the last of it.
#[derive(Clone)]
pub(super) struct BodyProgress(Arc<Mutex<(BodyStage, Instant)>>);

/// How much of a body has come from its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyStage {
    /// Not all of it.
    Coming,
    /// All of it.
    Whole,
    /// It cannot be read, or its client has left.
    Broken,
    /// Nothing, for too long.
    Paused,
}

impl BodyProgress {
    /// From now on.
    pub(super) fn at(stage: BodyStage) -> Self {
        Self(Arc::new(Mutex::new((stage, Instant::now()))))
    }

    /// Some of it was passed on, or nothing more will be.
    pub(super) fn reached(&self, stage: BodyStage) {
        *self.last() = (stage, Instant::now());
    }

    /// How much of it has come.
    pub(super) fn stage(&self) -> BodyStage {
        self.last().0
    }

    /// When the last of it was passed on.
    pub(super) fn since(&self) -> Instant {
        self.last().1
    }

    fn last(&self) -> MutexGuard<'_, (BodyStage, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing was passed on for so long.
    pub(super) async fn stalled(&self, timeout: Duration) {
        let mut due = self.since() + timeout;
        loop {
            tick::sleep_until(due).await;
            let next = self.since() + timeout;
            if next == due {
                return;
            }
            due = next;
        }
    }
}

/// Why a body that was passed on broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The other side broke off.
    #[error("the body broke off")]
    Broken(#[from] hyper::Error),
    /// It paused for too long.
    #[error("the body paused for too long")]
    Paused,
    /// It ended before it was whole.
    #[error("the body is cut short")]
    CutShort,
}

/// A frame that is passed on.
pub(super) fn sanitize_trailers(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        head::cross_trailers(trailers);
    }
    frame
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Buffered(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streaming(paced) => paced.poll_frame(cx),
            Self::Teed(tee) => tee.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Buffered(bytes) => bytes.is_none(),
            Self::Streaming(paced) => paced.is_end_stream(),
            Self::Teed(tee) => tee.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Buffered(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streaming(paced) => paced.size_hint(),
            Self::Teed(tee) => tee.body.size_hint(),
        }
    }
}

/// The body of a response to the client.
pub enum ResponseBody {
    /// Held in memory.
    Buffered(BufferedChunks),
    /// Passed on as it comes, behind what was held of it.
    Streaming(BufferedChunks, UpstreamBody),
    /// Passed on while it is captured.
    Relayed(Box<RelayedBody>),
    /// Passed on as it is read from the store.
    Replayed(Box<ReplayBody>),
    /// One of them, and who is to know when it has ended.
    Observed(Box<ResponseBody>, EndNotifier),
}

/// What is still to be sent of a body in memory.
#[derive(Default)]
pub struct BufferedChunks {
    left: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl ResponseBody {
    /// A short answer of our own.
    pub fn from_bytes(bytes: Bytes) -> Self {
        let left = if bytes.is_empty() { VecDeque::new() } else { VecDeque::from([bytes]) };
        Self::Buffered(BufferedChunks { left, trailers: None })
    }

    /// A body without trailers, in pieces that are counted already.
    pub(super) fn from_chunks(pieces: Vec<Bytes>) -> Self {
        Self::Buffered(BufferedChunks { left: pieces.into(), trailers: None })
    }

    /// All of a response that is held.
    pub(super) fn buffered(body: Vec<Bytes>, trailers: HeaderMap) -> Self {
        Self::Buffered(BufferedChunks::new(body, trailers))
    }

    /// The same, its bytes counted; `None` where the budget cannot take them.
    pub(super) fn counted(mut body: Vec<Bytes>, trailers: HeaderMap, budget: &Budget) -> Option<Self> {
        for piece in &mut body {
            *piece = budget.hold(std::mem::take(piece))?;
        }
        Some(Self::buffered(body, trailers))
    }

    /// The beginning of a response, and the rest that is still to come.
    pub(super) fn buffered_then(body: Vec<Bytes>, trailers: HeaderMap, rest: UpstreamBody) -> Self {
        Self::Streaming(BufferedChunks::new(body, trailers), rest)
    }

    /// A response as it comes.
    pub fn streaming(body: UpstreamBody) -> Self {
        Self::Streaming(BufferedChunks::default(), body)
    }
}

impl BufferedChunks {
    fn new(body: Vec<Bytes>, trailers: HeaderMap) -> Self {
        Self { left: body.into(), trailers: Some(trailers).filter(|trailers| !trailers.is_empty()) }
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        let data = self.left.pop_front().map(Frame::data);
        data.or_else(|| self.trailers.take().map(Frame::trailers))
    }

    fn length(&self) -> u64 {
        self.left.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Buffered(pieces) => Poll::Ready(pieces.next().map(Ok)),
            Self::Streaming(pieces, rest) => match pieces.next() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => Pin::new(rest).poll_frame(cx).map_ok(sanitize_trailers),
            },
            Self::Relayed(streamed) => Pin::new(streamed.as_mut()).poll_frame(cx),
            Self::Replayed(replayed) => Pin::new(replayed.as_mut()).poll_frame(cx),
            Self::Observed(body, ending) => {
                let polled = Pin::new(&mut **body).poll_frame(cx);
                ending.see(&polled, body.is_end_stream());
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Buffered(pieces) => pieces.left.is_empty() && pieces.trailers.is_none(),
            Self::Streaming(pieces, rest) => pieces.left.is_empty() && rest.is_end_stream(),
            Self::Relayed(streamed) => streamed.is_end_stream(),
            Self::Replayed(replayed) => replayed.is_end_stream(),
            Self::Observed(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // An exact size means Content-Length, and that leaves no place for trailers (RFC 9112, 7.1.2).
            Self::Buffered(pieces) if pieces.trailers.is_some() => SizeHint::default(),
            Self::Buffered(pieces) => SizeHint::with_exact(pieces.length()),
            Self::Streaming(pieces, rest) => {
                let mut hint = rest.size_hint();
                let held = pieces.length();
                if let Some(upper) = hint.upper() {
                    hint.set_upper(upper + held);
                }
                hint.set_lower(hint.lower() + held);
                hint
            }
            Self::Relayed(streamed) => streamed.size_hint(),
            Self::Replayed(replayed) => replayed.size_hint(),
            Self::Observed(body, _) => body.size_hint(),
        }
    }
}
