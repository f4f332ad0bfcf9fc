//! The task that drives a connection: it reads replies, writes commands, and tells callers whose replies are late.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use redis::{ErrorKind, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;
use tokio_util::sync::CancellationToken;

use super::{PipelineState, ReplySlot, lock};
use crate::store::redis::command_error::CommandError;
use crate::store::redis::resp::{RespValue, take_reply};
use crate::store::redis::timing::TIMEOUTS;

/// The task that drives a connection.
pub(super) struct PipelineDriver<S> {
    stream: S,
    state: Arc<Mutex<PipelineState>>,
    signals: DriverSignals,
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

/// How a driver tells others of the state of its connection.
pub(super) struct DriverSignals {
    /// Set for a connection that has another one to serve instead.
    pub(super) closed: Option<CancellationToken>,
    pub(super) lost: CancellationToken,
    /// The number of late replies in a row, on all connections to the server.
    pub(super) timeouts: Arc<AtomicU32>,
}

/// The interval between checks of the age of commands. A late reply is detected up to this much later. A claim that is
/// tried twice has 50 ms of extra time in all for this.
pub(super) const TICK: Duration = Duration::from_millis(25);
/// The capacity of one read buffer. A value keeps at most this much memory in use, unless it is larger itself.
const READ: usize = 16 * 1024;
const LEAST_READ: usize = 4 * 1024;
/// A buffer that grew because of a large record is shrunk to this size.
const KEPT: usize = 64 * 1024;

impl<S> PipelineDriver<S> {
    pub(super) fn new(stream: S, state: Arc<Mutex<PipelineState>>, signals: DriverSignals) -> Self {
        Self {
            stream,
            state,
            signals,
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
        }
    }
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
                self.signals.lost.cancel();
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
        match &self.signals.closed {
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
            if self.signals.timeouts.load(Ordering::Relaxed) != 0 {
                self.signals.timeouts.store(0, Ordering::Relaxed);
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
            late_of_all = self.signals.timeouts.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(place) = state.slots.get_mut(slot)
                && let ReplySlot::Waiting(_, Some(waker)) =
                    std::mem::replace(place, ReplySlot::Answered(Err(CommandError::Late)))
            {
                self.woken.push(waker);
            }
        }
        drop(guard);
        if self.late.max(late_of_all) >= TIMEOUTS {
            self.signals.lost.cancel();
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
