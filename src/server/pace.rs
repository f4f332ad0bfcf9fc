//! The timeouts of a connection: idle, receiving a head, and sending a response.
//!
//! No timer is set for a request. A connection notes what it does and when, and a watcher looks at the notes from time
//! to time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::phase::{ConnectionPhase, OptionalTime, PhaseClock};
use crate::proxy::DisconnectSignal;
use crate::tick;

/// The notes of a connection.
pub(super) struct ConnectionTimers {
    begun: Instant,
    header_timeout: Duration,
    idle_timeout: Duration,
    disconnect: Arc<DisconnectSignal>,
    phase: PhaseClock,
    /// Since when the client accepts nothing of what is written.
    blocked: OptionalTime,
    /// When the client last accepted something, in milliseconds since `begun`.
    taken: AtomicU64,
    /// When the head of the current response was ready.
    answered: OptionalTime,
    /// Since when no further request is accepted.
    closing: OptionalTime,
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// It had no request for too long.
    Idle,
    /// A head took too long, or the connection did not end when it was told to.
    Head,
    /// The client accepts nothing of its response, or has closed its side and gets nothing.
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

    /// Whether a part of a head has come in that is not a request yet.
    pub(super) fn is_in_head(&self) -> bool {
        self.phase.phase() == ConnectionPhase::Head
    }

    /// No request is being answered.
    pub(super) fn idle(&self) {
        self.set(ConnectionPhase::Idle);
    }

    /// Requests are being answered.
    pub(super) fn at_work(&self) {
        self.set(ConnectionPhase::Busy);
    }

    /// No further request is accepted. After its last response, the connection has `header_timeout` to end.
    pub(super) fn close(&self) {
        self.closing.set(self.elapsed());
    }

    /// Notes the result of a flush.
    pub(super) fn flush<T>(&self, polled: Poll<T>) -> Poll<T> {
        let is_blocked = self.blocked.get().is_some();
        // A flush of nothing succeeds too, and says nothing about the client.
        if polled.is_ready() && !is_blocked { polled } else { self.write(polled) }
    }

    /// Notes the result of a write.
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

    /// A head is complete. The connection is busy until the guard is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> BusyGuard {
        self.disconnect.watch(false);
        self.answered.clear();
        self.at_work();
        BusyGuard(Arc::clone(self))
    }

    /// The head of the response is ready.
    pub(super) fn answered(&self) {
        self.answered.set(self.elapsed());
    }

    /// Waits until the connection is overdue. This is noticed up to half a `header_timeout` and a tick late. `untaken`
    /// returns since when a stream's client accepts nothing of its response.
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
                // A client that has closed its side still waits for its response.
                (None, ConnectionPhase::Busy, _) => match self.answered.get() {
                    // It gets the response, but does not keep a silent stream open for ever.
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

/// A request is being answered until this is dropped.
pub(super) struct BusyGuard(Arc<ConnectionTimers>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.idle();
    }
}
