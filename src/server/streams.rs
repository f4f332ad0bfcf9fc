//! The streams of a connection in HTTP/2, and what their clients have not accepted yet.
//!
//! A client that opens no window for a response keeps it in memory, and the socket does not show that: h2 holds what it
//! may not send. So each piece of a response tells when a part of it was sent, and when it is dropped.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};

use super::cores::{CoreLoad, LoadGuard};
use super::pace::ConnectionTimers;

/// The open streams.
pub(super) struct OpenStreams {
    pace: Arc<ConnectionTimers>,
    load: Arc<CoreLoad>,
    open: Mutex<StreamTable>,
}

#[derive(Default)]
struct StreamTable {
    streams: HashMap<u64, Arc<StreamProgress>>,
    next: u64,
}

/// What was handed to h2 for a stream and is still there.
#[derive(Default)]
struct StreamProgress {
    pieces: AtomicUsize,
    /// When the client last accepted something, or a piece was handed over: milliseconds of the [`ConnectionTimers`].
    progress: AtomicU64,
}

/// A request and its response, until the last byte was accepted.
pub(super) struct Http2Stream {
    number: u64,
    untaken: Arc<StreamProgress>,
    streams: Arc<OpenStreams>,
    _counted: LoadGuard,
}

impl OpenStreams {
    pub(super) fn new(pace: &Arc<ConnectionTimers>, load: &Arc<CoreLoad>) -> Arc<Self> {
        Arc::new(Self { pace: Arc::clone(pace), load: Arc::clone(load), open: Mutex::default() })
    }

    /// A new request. The connection is busy until the last one is dropped.
    pub(super) fn open(self: &Arc<Self>) -> Arc<Http2Stream> {
        let untaken = Arc::<StreamProgress>::default();
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        open.streams.insert(number, Arc::clone(&untaken));
        self.pace.at_work();
        drop(open);
        Arc::new(Http2Stream { number, untaken, streams: Arc::clone(self), _counted: self.load.count() })
    }

    /// Since when the client accepts nothing of a stream that has data for it: the earliest of all streams.
    pub(super) fn untaken(&self) -> Option<u64> {
        let open = self.lock();
        let waiting = open.streams.values().filter(|untaken| untaken.pieces.load(Ordering::Relaxed) > 0);
        waiting.map(|untaken| untaken.progress.load(Ordering::Relaxed)).min()
    }

    fn lock(&self) -> MutexGuard<'_, StreamTable> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Http2Stream {
    fn progress(&self) {
        self.untaken.progress.store(self.streams.pace.elapsed(), Ordering::Relaxed);
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        open.streams.remove(&self.number);
        if open.streams.is_empty() {
            // Under the lock, so that a request that comes now does not count as idle.
            self.streams.pace.idle();
        }
    }
}

/// A piece of a response that notes how much of it was sent.
pub(super) struct TrackedBytes {
    bytes: Bytes,
    stream: Arc<Http2Stream>,
}

impl TrackedBytes {
    pub(super) fn new(bytes: Bytes, stream: &Arc<Http2Stream>) -> Self {
        stream.progress();
        stream.untaken.pieces.fetch_add(1, Ordering::Relaxed);
        Self { bytes, stream: Arc::clone(stream) }
    }
}

impl Drop for TrackedBytes {
    fn drop(&mut self) {
        self.stream.progress();
        self.stream.untaken.pieces.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Buf for TrackedBytes {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(dst)
    }

    fn advance(&mut self, count: usize) {
        self.stream.progress();
        self.bytes.advance(count);
    }
}
