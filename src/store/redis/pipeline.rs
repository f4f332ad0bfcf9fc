//! One connection for the hot commands of a request: claim, settle, renew, release.
//!
//! A call encodes its command straight into the buffer that leaves next, and waits at a slot of its own: no message to
//! another task, no boxed future, no timer. One task drives the connection, on the runtime that it was started on. It
//! reads answers first and lets those who waited for them run before it writes, so that what answers cause leaves in one
//! write with all else of the same turn.
//!
//! The time of a command begins when it has been written; the task looks at the age of those that wait once in a while,
//! and only while there are any. Nothing is sent twice here, and a call that is dropped leaves its place to its answer.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use redis::{ErrorKind, RedisError};
use slab::Slab;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;
use tokio_util::sync::CancellationToken;

use super::command_error::CommandError;
use super::resp::{RespValue, take_reply};
use super::timing::TIMEOUTS;

/// A handle to the connection. It is closed with the last one.
#[derive(Clone)]
pub(super) struct Pipeline(Arc<Handle>);

struct Handle {
    state: Arc<Mutex<PipelineState>>,
    /// Takes the commands that come when this one is closed.
    instead: Option<Pipeline>,
}

/// What callers and the driver share.
#[derive(Default)]
struct PipelineState {
    /// Commands that leave with the next write.
    out: Vec<u8>,
    /// What callers wait at.
    slots: Slab<ReplySlot>,
    /// Commands without an answer, in the order in which they were sent: answers come in the same.
    awaited: VecDeque<AwaitedReply>,
    /// How many commands have left `awaited` at its front.
    answered: u64,
    /// Wakes the driver; taken by whoever did.
    driver: Option<Waker>,
    /// Nothing is sent any more.
    is_closed: bool,
}

enum ReplySlot {
    /// Of the command with this number.
    Waiting(u64, Option<Waker>),
    Answered(Result<Option<Bytes>, CommandError>),
}

/// A command without an answer.
struct AwaitedReply {
    /// `None`: its caller has left, or was told that it is late. The answer that comes is nobody's.
    slot: Option<usize>,
    /// How long the answer may take.
    timeout: Duration,
    /// When all of it was handed to the operating system.
    written: Option<Instant>,
    /// It is [`ASKING`], which another command follows.
    is_asking: bool,
}

/// Says that the next command may be carried out in a slot that is being moved to this node.
pub(super) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";
/// How often the ages of commands are looked at: so much later may an answer be found late. A claim that is tried twice
/// has 50 ms more for it in all.
const TICK: Duration = Duration::from_millis(25);
/// More than this is not kept for a connection that takes it too slowly.
const MOST_WAITING: usize = 16 * 1024 * 1024;
/// Read at once; a value that an answer keeps keeps so much memory at most, unless it is larger itself.
const READ: usize = 16 * 1024;
const LEAST_READ: usize = 4 * 1024;
/// A buffer that one large record made larger is given back.
const KEPT: usize = 64 * 1024;

impl Pipeline {
    /// Drives `stream` on this runtime until the last handle is dropped, or the stream breaks. Then, or when several
    /// answers in a row are late, `lost` is cancelled. So it is when as many are on all connections that share `timeouts`: a
    /// server that hangs does so for every core.
    pub(super) fn start<S>(stream: S, lost: CancellationToken, timeouts: Arc<AtomicU32>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::drive(stream, None, lost, timeouts, None)
    }

    /// The same, beside another one that serves `instead` where this one is closed. One that the server closes while
    /// nothing is awaited on it, as it does where nothing happens for long, loses nothing: `closed` is cancelled, and no
    /// more.
    pub(super) fn start_beside<S>(
        instead: Self,
        stream: S,
        closed: CancellationToken,
        lost: CancellationToken,
        timeouts: Arc<AtomicU32>,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::drive(stream, Some(closed), lost, timeouts, Some(instead))
    }

    fn drive<S>(
        stream: S,
        closed: Option<CancellationToken>,
        lost: CancellationToken,
        timeouts: Arc<AtomicU32>,
        instead: Option<Self>,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let state = Arc::<Mutex<PipelineState>>::default();
        let driver = PipelineDriver {
            stream,
            state: state.clone(),
            closed,
            lost,
            timeouts,
            read: BytesMut::with_capacity(READ),
            writing: Vec::new(),
            sent: 0,
            unflushed: false,
            taken: 0,
            written: 0,
            progress: Instant::now(),
            has_yielded: false,
            tick: Box::pin(tokio::time::sleep(TICK)),
            ticks: false,
            woken: Vec::new(),
            late: 0,
        };
        #[expect(clippy::disallowed_methods, reason = "ends with the last handle")]
        tokio::spawn(driver);
        Self(Arc::new(Handle { state, instead }))
    }

    /// Sends the command that `encode` writes. The answer may take `timeout`, from when it is written. The server is told
    /// before whether the command is for a slot that is being moved to it.
    pub(super) fn send(
        &self,
        timeout: Duration,
        is_importing: bool,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> ReplyFuture<'_> {
        let mut state = lock(&self.0.state);
        if state.is_closed
            && let Some(instead) = &self.0.instead
        {
            drop(state);
            return instead.send(timeout, is_importing, encode);
        }
        let failed = match () {
            () if state.is_closed => Some(closed()),
            () if state.out.len() > MOST_WAITING => Some(CommandError::Full),
            () => None,
        };
        if failed.is_some() {
            return ReplyFuture { pipeline: self, slot: None, failed };
        }
        if is_importing {
            state.out.extend_from_slice(ASKING);
            state.awaited.push_back(AwaitedReply { slot: None, timeout, written: None, is_asking: true });
        }
        encode(&mut state.out);
        let number = state.answered + state.awaited.len() as u64;
        let slot = state.slots.insert(ReplySlot::Waiting(number, None));
        state.awaited.push_back(AwaitedReply { slot: Some(slot), timeout, written: None, is_asking: false });
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        ReplyFuture { pipeline: self, slot: Some(slot), failed: None }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        if let Some(driver) = state.driver.take() {
            driver.wake();
        }
    }
}

/// The answer to one command: its value, or nil.
pub(super) struct ReplyFuture<'a> {
    pipeline: &'a Pipeline,
    /// Where it waits.
    slot: Option<usize>,
    /// Why it was not sent.
    failed: Option<CommandError>,
}

impl Future for ReplyFuture<'_> {
    type Output = Result<Option<Bytes>, CommandError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(slot) = self.slot else { return Poll::Ready(Err(self.failed.take().unwrap_or_else(closed))) };
        let mut state = lock(&self.pipeline.0.state);
        match state.slots.get_mut(slot) {
            Some(ReplySlot::Waiting(_, waker)) => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            Some(ReplySlot::Answered(_)) | None => {}
        }
        let answer = match state.slots.try_remove(slot) {
            Some(ReplySlot::Answered(answer)) => answer,
            Some(ReplySlot::Waiting(..)) | None => Err(closed()),
        };
        drop(state);
        self.slot = None;
        Poll::Ready(answer)
    }
}

impl Drop for ReplyFuture<'_> {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut state = lock(&self.pipeline.0.state);
        if let Some(ReplySlot::Waiting(number, _)) = state.slots.try_remove(slot) {
            let place = number.checked_sub(state.answered).and_then(|place| usize::try_from(place).ok());
            if let Some(awaited) = place.and_then(|place| state.awaited.get_mut(place)) {
                awaited.slot = None;
            }
        }
    }
}

fn lock(state: &Mutex<PipelineState>) -> MutexGuard<'_, PipelineState> {
    // Every step leaves the state whole.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> CommandError {
    CommandError::Lost(RedisError::from((ErrorKind::Io, "the connection is closed")))
}

/// The task of a connection.
struct PipelineDriver<S> {
    stream: S,
    state: Arc<Mutex<PipelineState>>,
    /// Of a connection that others can do without.
    closed: Option<CancellationToken>,
    lost: CancellationToken,
    /// Answers in a row that were late, on all connections to the server.
    timeouts: Arc<AtomicU32>,
    read: BytesMut,
    /// What is being written: all but the first `sent` bytes of it are left.
    writing: Vec<u8>,
    sent: usize,
    /// What is written may still be on its way through TLS.
    unflushed: bool,
    /// How many commands were ever taken for writing, and how many of them were written whole.
    taken: u64,
    written: u64,
    /// When the operating system last took something, or was first offered what is being written.
    progress: Instant,
    /// Those whose answers came have had their turn.
    has_yielded: bool,
    tick: Pin<Box<Sleep>>,
    /// Whether the tick is set.
    ticks: bool,
    /// Those to wake when the state is free again. Kept for its memory.
    woken: Vec<Waker>,
    /// Those of this connection alone: the others may work.
    late: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for PipelineDriver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.turn(cx) {
            // Dropping it tells those who wait.
            Err(DriverEnd::Unused) => Poll::Ready(()),
            Err(DriverEnd::Closed(closed)) => {
                closed.cancel();
                Poll::Ready(())
            }
            Err(DriverEnd::Broken(error)) => {
                self.lost.cancel();
                self.close(&error);
                Poll::Ready(())
            }
            Ok(()) => Poll::Pending,
        }
    }
}

/// Why a driver ends.
enum DriverEnd {
    /// Nobody can send any more.
    Unused,
    /// The server closed it while nothing was awaited.
    Closed(CancellationToken),
    Broken(RedisError),
}

impl From<io::Error> for DriverEnd {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.into())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> PipelineDriver<S> {
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), DriverEnd> {
        let has_answers = self.read(cx)?;
        self.look_at_ages(cx);
        {
            let mut state = lock(&self.state);
            if state.is_closed {
                return Err(DriverEnd::Unused);
            }
            let writes = self.sent < self.writing.len() || !state.out.is_empty();
            if has_answers && writes && !self.has_yielded {
                self.has_yielded = true;
                drop(state);
                // What the answers cause comes in time to leave with the rest.
                cx.waker().wake_by_ref();
                return Ok(());
            }
            match &mut state.driver {
                Some(driver) => driver.clone_from(cx.waker()),
                None => state.driver = Some(cx.waker().clone()),
            }
        }
        self.has_yielded = false;
        self.write(cx)?;
        self.set_tick(cx);
        Ok(())
    }

    /// Hands out the answers that have come. Whether there were any.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, DriverEnd> {
        let mut has_answers = false;
        loop {
            // Nothing is set aside for a value before it comes, however large the server says that it is. The rest of a
            // buffer is used first: values that are still in use keep it.
            if self.read.capacity() - self.read.len() < LEAST_READ {
                self.read.reserve(READ);
            }
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.read) {
                Poll::Pending => return Ok(has_answers),
                Poll::Ready(Ok(0)) => return Err(self.end(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(self.end(error)),
            }
            has_answers |= self.hand_out()?;
        }
    }

    /// Nothing more comes.
    fn end(&self, error: io::Error) -> DriverEnd {
        let mut state = lock(&self.state);
        match &self.closed {
            Some(closed) if state.awaited.is_empty() && self.read.is_empty() => {
                // In the same step: whoever comes from now on is served elsewhere.
                state.is_closed = true;
                DriverEnd::Closed(closed.clone())
            }
            _ => error.into(),
        }
    }

    fn hand_out(&mut self) -> Result<bool, DriverEnd> {
        let nonsense =
            |what: &'static str| DriverEnd::Broken(RedisError::from((ErrorKind::UnexpectedReturnType, what)));
        let mut has_answers = false;
        let mut state = lock(&self.state);
        loop {
            let reply = match take_reply(&mut self.read) {
                Ok(Some(reply)) => reply,
                Ok(None) => break,
                Err(_) => return Err(nonsense("Redis sent what is no reply to any of the commands")),
            };
            has_answers = true;
            let is_asking = state.awaited.front().is_some_and(|awaited| awaited.is_asking);
            let answer = answer(reply, is_asking).ok_or_else(|| nonsense("unexpected answer"))?;
            let Some(awaited) = state.awaited.pop_front() else {
                return Err(nonsense("Redis answered without being asked"));
            };
            state.answered += 1;
            if let Some(slot) = awaited.slot
                && let Some(place) = state.slots.get_mut(slot)
                && let ReplySlot::Waiting(_, Some(waker)) = std::mem::replace(place, ReplySlot::Answered(answer))
            {
                self.woken.push(waker);
            }
        }
        drop(state);
        if has_answers {
            self.late = 0;
            if self.timeouts.load(Ordering::Relaxed) != 0 {
                self.timeouts.store(0, Ordering::Relaxed);
            }
        }
        self.woken.drain(..).for_each(Waker::wake);
        Ok(has_answers)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), DriverEnd> {
        loop {
            if self.unflushed {
                match Pin::new(&mut self.stream).poll_flush(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(result) => result?,
                }
                self.unflushed = false;
                self.note_written();
            }
            if self.sent == self.writing.len() {
                self.sent = 0;
                self.writing.clear();
                self.writing.shrink_to(KEPT);
                let mut state = lock(&self.state);
                if state.out.is_empty() {
                    return Ok(());
                }
                std::mem::swap(&mut state.out, &mut self.writing);
                self.taken = state.answered + state.awaited.len() as u64;
                drop(state);
                self.progress = Instant::now();
            }
            let left = &self.writing[self.sent..];
            match Pin::new(&mut self.stream).poll_write(cx, left) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(length)) => {
                    // Of what is taken and written at once, which is nearly all, the clock was read a moment ago.
                    if self.sent > 0 || length < self.writing.len() {
                        self.progress = Instant::now();
                    }
                    self.sent += length;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
            self.unflushed = self.sent == self.writing.len();
        }
    }

    /// All that was taken is written: its time begins.
    fn note_written(&mut self) {
        let mut state = lock(&self.state);
        let (answered, now) = (state.answered, self.progress);
        for number in self.written.max(answered)..self.taken {
            if let Some(awaited) =
                usize::try_from(number - answered).ok().and_then(|place| state.awaited.get_mut(place))
            {
                awaited.written = Some(now);
            }
        }
        self.written = self.taken;
    }

    /// Sets the tick, if there is anything to look at.
    fn set_tick(&mut self, cx: &mut Context<'_>) {
        if self.ticks || lock(&self.state).awaited.is_empty() {
            return;
        }
        self.ticks = true;
        self.tick.as_mut().reset(Instant::now() + TICK);
        self.look_at_ages(cx);
    }

    /// When the tick has come, tells those whose answers are late.
    fn look_at_ages(&mut self, cx: &mut Context<'_>) {
        if !self.ticks || self.tick.as_mut().poll(cx).is_pending() {
            return;
        }
        self.ticks = false;
        let (now, mut late_of_all) = (Instant::now(), 0);
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        for awaited in &mut state.awaited {
            // What could not be written yet waits for as long as the connection takes anything at all.
            let since = match awaited.written {
                Some(written) => written,
                None if self.unflushed || self.sent < self.writing.len() => self.progress,
                None => continue,
            };
            if now.saturating_duration_since(since) < awaited.timeout {
                continue;
            }
            let Some(slot) = awaited.slot.take() else { continue };
            self.late += 1;
            late_of_all = self.timeouts.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(place) = state.slots.get_mut(slot)
                && let ReplySlot::Waiting(_, Some(waker)) =
                    std::mem::replace(place, ReplySlot::Answered(Err(CommandError::Late)))
            {
                self.woken.push(waker);
            }
        }
        drop(guard);
        if self.late.max(late_of_all) >= TIMEOUTS {
            self.lost.cancel();
        }
        self.woken.drain(..).for_each(Waker::wake);
    }
}

impl<S> PipelineDriver<S> {
    /// Tells everybody who waits that nobody knows.
    fn close(&mut self, error: &RedisError) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        state.is_closed = true;
        for awaited in std::mem::take(&mut state.awaited) {
            state.answered += 1;
            if let Some(slot) = awaited.slot
                && let Some(place) = state.slots.get_mut(slot)
                && let ReplySlot::Waiting(_, Some(waker)) =
                    std::mem::replace(place, ReplySlot::Answered(Err(CommandError::Lost(error.clone()))))
            {
                self.woken.push(waker);
            }
        }
        drop(guard);
        self.woken.drain(..).for_each(Waker::wake);
    }
}

impl<S> Drop for PipelineDriver<S> {
    /// Its runtime may end before those who wait do. That says nothing of the server.
    fn drop(&mut self) {
        self.close(&RedisError::from((ErrorKind::Io, "the connection is closed")));
    }
}

/// What a hot command may be answered with, or [`ASKING`].
fn answer(reply: RespValue, is_asking: bool) -> Option<Result<Option<Bytes>, CommandError>> {
    match reply {
        RespValue::Nil => Some(Ok(None)),
        RespValue::Bulk(value) => Some(Ok(Some(value))),
        RespValue::Error(line) => Some(Err(CommandError::of_line(&line))),
        RespValue::Status(_) if is_asking => Some(Ok(None)),
        RespValue::Status(_) | RespValue::Integer(_) => None,
    }
}

#[cfg(test)]
mod tests;
