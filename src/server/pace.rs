//! How long a connection may be silent, how long a head may take, and how long an answer may go untaken.
//!
//! No timer is set or reset for a request: what a connection does is noted with its time, and the watcher wakes now
//! and then to look at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::phase::{ConnectionPhase, OptionalTime, PhaseClock};
use crate::proxy::DisconnectSignal;
use crate::tick;

/// What a connection is doing, and since when.
pub(super) struct ConnectionTimers {
    begun: Instant,
    header_timeout: Duration,
    idle_timeout: Duration,
    disconnect: Arc<DisconnectSignal>,
    phase: PhaseClock,
    /// Since when the client takes nothing of what is written.
    blocked: OptionalTime,
    /// When the client last took something, in milliseconds since `begun`.
    taken: AtomicU64,
    /// When the head of the current response was ready.
    answered: OptionalTime,
    /// Since when no further request is taken.
    closing: OptionalTime,
}

/// Why a connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// No request for too long.
    Idle,
    /// A head that takes too long, or a connection that does not end when told so.
    Head,
    /// An answer of which the client takes nothing, or which it does not wait for any more.
    WriteStalled,
}

impl ConnectionTimers {
    pub(super) fn new(header_timeout: Duration, idle_timeout: Duration, disconnect: Arc<DisconnectSignal>) -> Self {
        Self {
            begun: Instant::now(),
            header_timeout,
            idle_timeout,
            disconnect,
            phase: PhaseClock::new(),
            blocked: OptionalTime::default(),
            taken: AtomicU64::new(0),
            answered: OptionalTime::default(),
            closing: OptionalTime::default(),
        }
    }

    fn set(&self, phase: ConnectionPhase) {
        self.phase.set(phase, self.elapsed());
    }

    /// Milliseconds since the connection began.
    pub(super) fn elapsed(&self) -> u64 {
        millis(self.begun.elapsed())
    }

    /// Bytes of a head came in.
    pub(super) fn read(&self) {
        match self.phase.phase() {
            ConnectionPhase::Fresh | ConnectionPhase::Idle => self.set(ConnectionPhase::Head),
            ConnectionPhase::Head | ConnectionPhase::Busy => {}
        }
    }

    /// Whether some of a head is here, and no request was made of it.
    pub(super) fn is_in_head(&self) -> bool {
        self.phase.phase() == ConnectionPhase::Head
    }

    /// No request is at hand.
    pub(super) fn idle(&self) {
        self.set(ConnectionPhase::Idle);
    }

    /// Requests are being answered.
    pub(super) fn at_work(&self) {
        self.set(ConnectionPhase::Busy);
    }

    /// No further request is taken: once it has no other to answer, the connection has `header_timeout` to end.
    pub(super) fn close(&self) {
        self.closing.set(self.elapsed());
    }

    /// What was taken for writing was to be sent on.
    pub(super) fn flush<T>(&self, polled: Poll<T>) -> Poll<T> {
        let is_blocked = self.blocked.get().is_some();
        // Flushed is also what was empty, and that says nothing of the client.
        if polled.is_ready() && !is_blocked { polled } else { self.write(polled) }
    }

    /// Something was to be written.
    pub(super) fn write<T>(&self, polled: Poll<T>) -> Poll<T> {
        match polled {
            Poll::Ready(_) => {
                self.taken.store(self.elapsed(), Ordering::Relaxed);
                self.blocked.clear();
            }
            Poll::Pending if self.blocked.get().is_none() => self.blocked.set(self.elapsed()),
            Poll::Pending => {}
        }
        polled
    }

    /// A head is whole; the connection is busy until the guard is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> BusyGuard {
        self.disconnect.watch(false);
        self.answered.clear();
        self.at_work();
        BusyGuard(Arc::clone(self))
    }

    /// The head of the answer is there.
    pub(super) fn answered(&self) {
        self.answered.set(self.elapsed());
    }

    /// Waits until the connection is overdue. It is noticed up to half a `header_timeout`, and a tick, late. `untaken` tells since
    /// when something that was handed over is not taken.
    pub(super) async fn overdue(&self, untaken: impl Fn() -> Option<u64>) -> Expired {
        loop {
            let (phase, since) = self.phase.get();
            let blocked = self.blocked.get().into_iter().chain(untaken()).min();
            let (since, timeout, overdue) = match (blocked, phase, self.closing.get()) {
                (Some(blocked), _, _) => (blocked, self.idle_timeout, Expired::WriteStalled),
                (None, ConnectionPhase::Fresh, _) => (since, self.header_timeout.min(self.idle_timeout), Expired::Head),
                (None, ConnectionPhase::Head, _) => (since, self.header_timeout, Expired::Head),
                (None, ConnectionPhase::Idle, None) => (since, self.idle_timeout, Expired::Idle),
                (None, ConnectionPhase::Idle, Some(closing)) => {
                    (since.max(closing), self.header_timeout, Expired::Head)
                }
                // Until its answer begins, a client has closed its side for all that is known, and waits as any other.
                (None, ConnectionPhase::Busy, _) => match self.answered.get() {
                    // It gets its answer, but not the silence of a stream that never ends.
                    Some(answered) if self.disconnect.is_closed() => {
                        (self.taken.load(Ordering::Relaxed).max(answered), self.idle_timeout, Expired::WriteStalled)
                    }
                    answered => {
                        let silent_for = answered.map(|answered| self.elapsed().saturating_sub(answered));
                        self.disconnect.watch(silent_for.is_some_and(|silence| silence >= millis(self.idle_timeout)));
                        (self.elapsed(), Duration::MAX, Expired::WriteStalled)
                    }
                },
            };
            let left = timeout.checked_sub(Duration::from_millis(self.elapsed().saturating_sub(since)));
            match left {
                None | Some(Duration::ZERO) => return overdue,
                Some(left) => tick::sleep(left.min(self.header_timeout / 2).max(LEAST)).await,
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX >> 2)
}

const LEAST: Duration = Duration::from_millis(5);

/// A request is being answered for as long as this lives.
pub(super) struct BusyGuard(Arc<ConnectionTimers>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.idle();
    }
}
