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

use super::arriving::Arriving;
use super::budget::{Budget, Share};
use super::head::{self, Framing};
use super::observe::Ending;
use super::stream::Streamed;
use super::tee::Tee;
use super::upstream::UpstreamBody;
use crate::tick::{self, Sleep};

/// Why a body could not be read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadError {
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
pub(super) async fn read(mut body: Arriving, cap: u64, budget: &Budget, timeout: Duration) -> Result<Bytes, ReadError> {
    if body.size_hint().lower() > cap {
        return Err(ReadError::TooLarge);
    }
    let mut gathered = Gathered::new(cap, budget.share());
    let reading = pin!(async {
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|_| ReadError::Broken)?.into_data() else { continue };
            gathered.add(piece)?;
        }
        Ok(())
    });
    tick::timeout(timeout, reading).await.map_err(|_| ReadError::TimedOut)??;
    Ok(gathered.whole())
}

/// A body in the making: one piece of memory, of at most `cap` bytes.
pub(super) struct Gathered {
    cap: u64,
    length: u64,
    /// One frame is taken as it is; of several, one piece is made.
    first: Bytes,
    whole: BytesMut,
    share: Share,
}

impl Gathered {
    pub(super) fn new(cap: u64, share: Share) -> Self {
        Self { cap, length: 0, first: Bytes::new(), whole: BytesMut::new(), share }
    }

    /// Whether a body of so many bytes may be held.
    pub(super) fn may_be(&self, length: u64) -> bool {
        length <= self.cap
    }

    pub(super) fn add(&mut self, piece: Bytes) -> Result<(), ReadError> {
        self.length += piece.len() as u64;
        if !self.may_be(self.length) {
            return Err(ReadError::TooLarge);
        }
        // What was only announced takes no room from others.
        if !self.share.grow(piece.len()) {
            return Err(ReadError::NoRoom);
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

    pub(super) fn whole(self) -> Bytes {
        self.share.hold(if self.whole.is_empty() { self.first } else { self.whole.freeze() })
    }
}

/// Reads and drops what is left of a short body, so that the answer that refuses it is not lost with the connection.
pub(super) async fn drain(mut body: Arriving) {
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
    Held(Option<Bytes>),
    /// Passed on as it comes.
    Passing(Paced),
    /// Passed on as it comes, while a copy is made.
    Copied(Box<Tee>),
}

impl Default for RequestBody {
    /// None.
    fn default() -> Self {
        Self::Held(None)
    }
}

impl RequestBody {
    /// A body that is held in memory.
    pub(super) fn held(bytes: Bytes) -> Self {
        Self::Held((!bytes.is_empty()).then_some(bytes))
    }

    /// The same once more, where none of it is still to come.
    pub(super) fn again(&self) -> Option<Self> {
        match self {
            Self::Held(bytes) => Some(Self::Held(bytes.clone())),
            Self::Passing(_) | Self::Copied(_) => self.paced()?.is_end_stream().then_some(Self::Held(None)),
        }
    }

    fn paced(&self) -> Option<&Paced> {
        match self {
            Self::Held(_) => None,
            Self::Passing(paced) => Some(paced),
            Self::Copied(tee) => Some(&tee.paced),
        }
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> Progress {
        match self {
            Self::Held(_) => Progress::at(Stage::Whole),
            Self::Passing(paced) => paced.progress.clone(),
            Self::Copied(tee) => tee.paced.progress.clone(),
        }
    }

    /// The same, where some of it is still to come.
    pub(super) fn upload(&self) -> Option<Progress> {
        let paced = self.paced()?;
        (!paced.is_end_stream()).then(|| paced.progress.clone())
    }

    /// How the backend is to find its end.
    pub(super) fn framing(&self) -> Framing {
        match (self, self.size_hint().exact()) {
            (Self::Held(_), Some(length)) => Framing::Length(length),
            (Self::Passing(_) | Self::Copied(_), Some(_)) => Framing::AsItCame,
            (_, None) => Framing::Chunks,
        }
    }
}

/// A client's body that must not pause for longer than the timeout.
pub(super) struct Paced {
    body: Arriving,
    timeout: Duration,
    progress: Progress,
    /// Made when the body first pauses; most never do.
    alarm: Option<Sleep>,
}

impl Paced {
    /// Lets `body` pause for at most `timeout`.
    pub(super) fn new(body: Arriving, timeout: Duration) -> Self {
        let progress = Progress::at(if body.is_end_stream() { Stage::Whole } else { Stage::Coming });
        Self { body, timeout, progress, alarm: None }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PassingError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.alarm = None;
            self.progress.reached(match &frame {
                Some(Ok(_)) if !self.body.is_end_stream() => Stage::Coming,
                Some(Ok(_)) | None => Stage::Whole,
                Some(Err(_)) => Stage::Broken,
            });
            return Poll::Ready(frame.map(|frame| frame.map(of_its_own)));
        }
        let timeout = self.timeout;
        ready!(Pin::new(self.alarm.get_or_insert_with(|| tick::sleep(timeout))).poll(cx));
        self.progress.reached(Stage::Paused);
        Poll::Ready(Some(Err(PassingError::Paused)))
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
pub(super) struct Progress(Arc<Mutex<(Stage, Instant)>>);

/// How much of a body has come from its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not all of it.
    Coming,
    /// All of it.
    Whole,
    /// It cannot be read, or its client has left.
    Broken,
    /// Nothing, for too long.
    Paused,
}

impl Progress {
    /// From now on.
    pub(super) fn at(stage: Stage) -> Self {
        Self(Arc::new(Mutex::new((stage, Instant::now()))))
    }

    /// Some of it was passed on, or nothing more will be.
    pub(super) fn reached(&self, stage: Stage) {
        *self.last() = (stage, Instant::now());
    }

    /// How much of it has come.
    pub(super) fn stage(&self) -> Stage {
        self.last().0
    }

    /// When the last of it was passed on.
    pub(super) fn since(&self) -> Instant {
        self.last().1
    }

    fn last(&self) -> MutexGuard<'_, (Stage, Instant)> {
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
pub enum PassingError {
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
pub(super) fn of_its_own(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        head::cross_trailers(trailers);
    }
    frame
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = PassingError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PassingError>>> {
        match self.get_mut() {
            Self::Held(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passing(paced) => paced.poll_frame(cx),
            Self::Copied(tee) => tee.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Held(bytes) => bytes.is_none(),
            Self::Passing(paced) => paced.is_end_stream(),
            Self::Copied(tee) => tee.paced.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Passing(paced) => paced.size_hint(),
            Self::Copied(tee) => tee.paced.size_hint(),
        }
    }
}

/// The body of a response to the client.
pub enum ResponseBody {
    /// Held in memory.
    Held(Pieces),
    /// Passed on as it comes, behind what was held of it.
    Passing(Pieces, UpstreamBody),
    /// Passed on while it is captured.
    Streamed(Box<Streamed>),
    /// One of them, and who is to know when it has ended.
    Watched(Box<ResponseBody>, Ending),
}

/// What is still to be sent of a body in memory.
#[derive(Default)]
pub struct Pieces {
    left: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl ResponseBody {
    /// A short answer of our own.
    pub fn from_bytes(bytes: Bytes) -> Self {
        let left = if bytes.is_empty() { VecDeque::new() } else { VecDeque::from([bytes]) };
        Self::Held(Pieces { left, trailers: None })
    }

    /// A body without trailers, in pieces that are counted already.
    pub(super) fn from_pieces(pieces: Vec<Bytes>) -> Self {
        Self::Held(Pieces { left: pieces.into(), trailers: None })
    }

    /// All of a response that is held.
    pub(super) fn held(body: Vec<Bytes>, trailers: HeaderMap) -> Self {
        Self::Held(Pieces::new(body, trailers))
    }

    /// The same, its bytes counted; `None` where the budget cannot take them.
    pub(super) fn counted(mut body: Vec<Bytes>, trailers: HeaderMap, budget: &Budget) -> Option<Self> {
        for piece in &mut body {
            *piece = budget.hold(std::mem::take(piece))?;
        }
        Some(Self::held(body, trailers))
    }

    /// The beginning of a response, and the rest that is still to come.
    pub(super) fn beginning(body: Vec<Bytes>, trailers: HeaderMap, rest: UpstreamBody) -> Self {
        Self::Passing(Pieces::new(body, trailers), rest)
    }

    /// A response as it comes.
    pub fn passing(body: UpstreamBody) -> Self {
        Self::Passing(Pieces::default(), body)
    }
}

impl Pieces {
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
    type Error = PassingError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PassingError>>> {
        match self.get_mut() {
            Self::Held(pieces) => Poll::Ready(pieces.next().map(Ok)),
            Self::Passing(pieces, rest) => match pieces.next() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => Pin::new(rest).poll_frame(cx).map_ok(of_its_own),
            },
            Self::Streamed(streamed) => Pin::new(streamed.as_mut()).poll_frame(cx),
            Self::Watched(body, ending) => {
                let polled = Pin::new(&mut **body).poll_frame(cx);
                ending.see(&polled, body.is_end_stream());
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Held(pieces) => pieces.left.is_empty() && pieces.trailers.is_none(),
            Self::Passing(pieces, rest) => pieces.left.is_empty() && rest.is_end_stream(),
            Self::Streamed(streamed) => streamed.is_end_stream(),
            Self::Watched(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // An exact size means Content-Length, and that leaves no place for trailers (RFC 9112, 7.1.2).
            Self::Held(pieces) if pieces.trailers.is_some() => SizeHint::default(),
            Self::Held(pieces) => SizeHint::with_exact(pieces.length()),
            Self::Passing(pieces, rest) => {
                let mut hint = rest.size_hint();
                let held = pieces.length();
                if let Some(upper) = hint.upper() {
                    hint.set_upper(upper + held);
                }
                hint.set_lower(hint.lower() + held);
                hint
            }
            Self::Streamed(streamed) => streamed.size_hint(),
            Self::Watched(body, _) => body.size_hint(),
        }
    }
}
