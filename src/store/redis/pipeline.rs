//! One connection for the hot commands of a request: claim, settle, renew, release.
//!
//! A call encodes its command directly into the buffer of the next write, and waits at its own slot. It needs no
//! message to another task, no boxed future and no timer. One task drives the connection, on the runtime that started
//! it. The task first reads replies. It then lets their callers run before it writes, so their next commands leave in
//! the same write as all other commands of that turn.
//!
//! The time of a command starts when it has been written. The task checks the age of waiting commands periodically, and
//! only while there are any. No command is sent twice here. If a call is dropped, its reply is still read and
//! discarded.

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

/// A handle to the connection. The connection is closed with its last handle.
#[derive(Clone)]
pub(super) struct Pipeline(Arc<Handle>);

struct Handle {
    state: Arc<Mutex<PipelineState>>,
    /// The connection that takes the commands after this one is closed.
    instead: Option<Pipeline>,
}

/// State that is shared by the callers and the driver.
#[derive(Default)]
struct PipelineState {
    /// Commands for the next write.
    out: Vec<u8>,
    /// The slots at which callers wait.
    slots: Slab<ReplySlot>,
    /// Commands without a reply, in the order in which they were sent. Replies arrive in the same order.
    awaited: VecDeque<AwaitedReply>,
    /// The number of commands that were removed from the front of `awaited`.
    answered: u64,
    /// Wakes the driver. The caller that wakes it takes this waker.
    driver: Option<Waker>,
    /// No more commands are sent.
    is_closed: bool,
}

enum ReplySlot {
    /// Waits for the reply to the command with this number.
    Waiting(u64, Option<Waker>),
    Answered(Result<Option<Bytes>, CommandError>),
}

/// A command without a reply.
struct AwaitedReply {
    /// `None`: the caller has left, or was told that the reply is late. The reply is discarded.
    slot: Option<usize>,
    /// The time limit for the reply.
    timeout: Duration,
    /// When the whole command was handed to the operating system.
    written: Option<Instant>,
    /// Whether this is [`ASKING`], which precedes another command.
    is_asking: bool,
}

/// Permits the next command to run in a slot that is being moved to this node.
pub(super) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";
/// The interval between checks of the age of commands. A late reply is detected up to this much later. A claim that is
/// tried twice has 50 ms of extra time in all for this.
const TICK: Duration = Duration::from_millis(25);
/// The limit for the bytes that wait for a slow connection.
const MOST_WAITING: usize = 16 * 1024 * 1024;
/// The capacity of one read buffer. A value keeps at most this much memory in use, unless it is larger itself.
const READ: usize = 16 * 1024;
const LEAST_READ: usize = 4 * 1024;
/// A buffer that grew because of a large record is shrunk to this size.
const KEPT: usize = 64 * 1024;

impl Pipeline {
    /// Drives `stream` on this runtime until the last handle is dropped or the stream breaks. If the stream breaks, or
    /// if several replies in a row are late, `lost` is cancelled. `lost` is also cancelled if that many are late on all
    /// connections that share `timeouts`, because a server that hangs does so for every core.
    pub(super) fn start<S>(stream: S, lost: CancellationToken, timeouts: Arc<AtomicU32>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::drive(stream, None, lost, timeouts, None)
    }

    /// The same, with a connection `instead` that serves when this one is closed. A server may close a connection that
    /// was idle for long. If no reply is awaited then, nothing is lost: only `closed` is cancelled.
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

    /// Sends the command that `encode` writes. The reply may take `timeout` from the time of the write. If
    /// `is_importing`, the server is told first that the command is for a slot that is being moved to it.
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

/// The reply to one command: its value, or nil.
pub(super) struct ReplyFuture<'a> {
    pipeline: &'a Pipeline,
    /// The slot at which it waits.
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
    // Every step leaves the state consistent.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> CommandError {
    CommandError::Lost(RedisError::from((ErrorKind::Io, "the connection is closed")))
}

/// The task that drives a connection.
struct PipelineDriver<S> {
    stream: S,
    state: Arc<Mutex<PipelineState>>,
    /// Set for a connection that has another one to serve instead.
    closed: Option<CancellationToken>,
    lost: CancellationToken,
    /// The number of late replies in a row, on all connections to the server.
    timeouts: Arc<AtomicU32>,
    read: BytesMut,
    /// The bytes that are being written. The first `sent` bytes are written.
    writing: Vec<u8>,
    sent: usize,
    /// Whether written bytes may still be buffered in TLS.
    unflushed: bool,
    /// The number of commands that were ever taken for writing, and the number of them that were fully written.
    taken: u64,
    written: u64,
    /// When the operating system last accepted bytes, or when the current bytes were first offered.
    progress: Instant,
    /// Whether the callers of the last replies have had their turn.
    has_yielded: bool,
    tick: Pin<Box<Sleep>>,
    /// Whether the tick is set.
    ticks: bool,
    /// Callers to wake after the state is unlocked. It is reused for its memory.
    woken: Vec<Waker>,
    /// The number of late replies in a row on this connection alone. The other connections may work.
    late: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for PipelineDriver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.turn(cx) {
            // The drop of the driver informs the waiting callers.
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
    /// There is no handle any more.
    Unused,
    /// The server closed the connection while no reply was awaited.
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
                // The next commands of the callers arrive in time for the same write.
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

    /// Delivers the replies that have arrived. Returns whether there were any.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, DriverEnd> {
        let mut has_answers = false;
        loop {
            // No memory is reserved for a value before it arrives, whatever length the server announces. The rest of a
            // buffer is used first, because values that are still in use keep the buffer alive.
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

    /// Handles the end of the stream.
    fn end(&self, error: io::Error) -> DriverEnd {
        let mut state = lock(&self.state);
        match &self.closed {
            Some(closed) if state.awaited.is_empty() && self.read.is_empty() => {
                // This happens under the same lock, so later callers use the other connection.
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
                    // If all bytes are taken and written at once, as is usual, the clock was read a moment ago.
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

    /// All taken commands are written: their time starts.
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

    /// Sets the tick, if a command waits.
    fn set_tick(&mut self, cx: &mut Context<'_>) {
        if self.ticks || lock(&self.state).awaited.is_empty() {
            return;
        }
        self.ticks = true;
        self.tick.as_mut().reset(Instant::now() + TICK);
        self.look_at_ages(cx);
    }

    /// If the tick is due, informs the callers whose replies are late.
    fn look_at_ages(&mut self, cx: &mut Context<'_>) {
        if !self.ticks || self.tick.as_mut().poll(cx).is_pending() {
            return;
        }
        self.ticks = false;
        let (now, mut late_of_all) = (Instant::now(), 0);
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        for awaited in &mut state.awaited {
            // A command that is not written yet is not late while the connection still accepts bytes.
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
    /// Informs all waiting callers that their result is unknown.
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
    /// The runtime may end before the waiting callers do. This says nothing about the server.
    fn drop(&mut self) {
        self.close(&RedisError::from((ErrorKind::Io, "the connection is closed")));
    }
}

/// Converts the reply to a hot command or to [`ASKING`]. `None` if it is of an unexpected kind.
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
