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

mod driver;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use redis::{ErrorKind, RedisError};
use slab::Slab;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use driver::{DriverSignals, PipelineDriver};

use super::command_error::CommandError;

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
/// The limit for the bytes that wait for a slow connection.
const MOST_WAITING: usize = 16 * 1024 * 1024;

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
        let driver = PipelineDriver::new(stream, state.clone(), DriverSignals { closed, lost, timeouts });
        #[expect(clippy::disallowed_methods, reason = "ends with the last handle")]
        tokio::spawn(driver);
        Self(Arc::new(Handle { state, instead }))
    }

    /// Sends the command that `encode` writes. The reply may take `timeout` from the time of the write. If
    /// `is_importing`, `ASKING` is sent first: the command is for a slot that is being moved to the server.
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

#[cfg(test)]
mod tests;
