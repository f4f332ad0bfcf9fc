//! Standard error, written by a separate thread.
//!
//! The reader of the log may stall, and a disk may be full. Neither may block a request. Each thread puts its lines into a
//! buffer of its own, which only the writer reads, and the writer empties all buffers a few times per second, so that no
//! line costs a system call. The memory for lines has a fixed size. A line that does not fit is dropped and counted.
//!
//! A line gets its position when it is put into its buffer: the number of bytes that all threads have put before it. The
//! writer copies each line to its position, so that the log is in the order of the calls.

use std::cell::Cell;
use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::line::CachedSecond;
use crate::metrics;

/// The number of bytes that may wait, and that may be on their way to standard error in addition.
const ROOM: u64 = 256 * 1024;

/// Additional room for warnings and errors, because the lines of requests fill the other room when the reader stalls.
const URGENT_ROOM: u64 = 64 * 1024;

/// How long the writer waits for more lines when it has written some.
const PAUSE: Duration = Duration::from_millis(50);

/// A buffer that has grown larger than this is freed.
const MODEST: usize = 64 * 1024;

/// The lines of a process.
pub(super) struct LogQueue {
    /// One for each live thread that has written a line.
    buffers: Mutex<Vec<Arc<LineBuffer>>>,
    /// Bytes of all lines so far: the position of the next line.
    put: AtomicU64,
    /// Lines before this place have left their buffers.
    taken: AtomicU64,
    /// Lines before this place are to be written now.
    wanted: AtomicU64,
    /// The state of the writer: `WRITING`, `GATHERING` or `IDLE`.
    state: AtomicU8,
    writer: OnceLock<Thread>,
    /// Dropped lines that are not reported yet.
    dropped: AtomicU64,
    /// Lines before this place have been written.
    written: Mutex<u64>,
    progress: Condvar,
}

/// It looks for more lines before it waits.
const WRITING: u8 = 0;
/// It waits for a while. Only urgent lines wake it.
const GATHERING: u8 = 1;
/// It has nothing to write. Any line wakes it.
const IDLE: u8 = 2;

/// The lines of one thread.
#[derive(Default)]
pub(super) struct LineBuffer(Mutex<Lines>);

/// A line that is being formatted.
#[derive(Default)]
struct LineDraft {
    line: Vec<u8>,
    second: CachedSecond,
}

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// The place of each line among those of all threads, and where it ends in `bytes`.
    ends: Vec<(u64, usize)>,
}

/// The lines of this process.
pub(super) static LOG: LogQueue = LogQueue::new();

thread_local! {
    static BUFFER: Arc<LineBuffer> = LOG.buffer();
    /// Reused for its memory and its formatted second.
    static DRAFT: Cell<LineDraft> = Cell::default();
}

/// Puts a line of this thread.
pub(super) fn put(level: Level, format: impl FnOnce(&mut Vec<u8>, &mut CachedSecond)) {
    let mut format = Some(format);
    let mut put = |buffer: &LineBuffer| {
        if let Some(format) = format.take() {
            LOG.put(buffer, level, format);
        }
    };
    if BUFFER.try_with(|buffer| put(buffer)).is_err() {
        // A thread that is ending has no buffer.
        put(&LOG.buffer());
    }
}

impl LogQueue {
    const fn new() -> Self {
        Self {
            buffers: Mutex::new(Vec::new()),
            put: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            state: AtomicU8::new(WRITING),
            writer: OnceLock::new(),
            dropped: AtomicU64::new(0),
            written: Mutex::new(0),
            progress: Condvar::new(),
        }
    }

    fn buffer(&self) -> Arc<LineBuffer> {
        let buffer = Arc::<LineBuffer>::default();
        lock(&self.buffers).push(Arc::clone(&buffer));
        buffer
    }

    /// Blocks only while the writer takes the lines of this buffer.
    fn put(&self, buffer: &LineBuffer, level: Level, format: impl FnOnce(&mut Vec<u8>, &mut CachedSecond)) {
        let is_urgent = level <= Level::WARN;
        if self.waiting() >= if is_urgent { ROOM + URGENT_ROOM } else { ROOM } {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::count_dropped_log_lines(1);
            return;
        }
        // Before the buffer is locked: formatting may log too, and a panic in it does.
        let mut draft = DRAFT.try_with(Cell::take).unwrap_or_default();
        format(&mut draft.line, &mut draft.second);
        let length = draft.line.len() as u64;
        let mut lines = lock(&buffer.0);
        lines.bytes.extend_from_slice(&draft.line);
        // While the buffer is locked: the position is visible only when the line is in the buffer.
        let place = self.put.fetch_add(length, Ordering::SeqCst);
        let end = lines.bytes.len();
        lines.ends.push((place, end));
        drop(lines);
        draft.line.clear();
        if draft.line.capacity() <= MODEST {
            // A thread that is ending keeps no buffer.
            let _ = DRAFT.try_with(|kept| kept.set(draft));
        }
        if is_urgent {
            self.wanted.fetch_max(place + length, Ordering::SeqCst);
        }
        match self.state.load(Ordering::SeqCst) {
            IDLE => self.wake(),
            GATHERING if is_urgent || self.waiting() > ROOM / 2 => self.wake(),
            _ => {}
        }
    }

    /// Bytes that no writer has taken.
    fn waiting(&self) -> u64 {
        self.put.load(Ordering::SeqCst).saturating_sub(self.taken.load(Ordering::SeqCst))
    }

    fn wake(&self) {
        // One thread is enough.
        if self.state.swap(WRITING, Ordering::SeqCst) != WRITING
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }

    /// Waits until all is written, but not for longer than this.
    pub(super) fn flush(&self, patience: Duration) {
        let all = self.put.load(Ordering::SeqCst);
        self.wanted.fetch_max(all, Ordering::SeqCst);
        self.wake();
        let is_left = |written: &mut u64| *written < all;
        drop(self.progress.wait_timeout_while(lock(&self.written), patience, is_left));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each step leaves it consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes lines out of the buffers.
struct LineCollector<'a> {
    log: &'a LogQueue,
    /// An empty buffer to exchange for the next one.
    spare: Lines,
    /// Lines that were put while others were taken, with their positions. They come next.
    late: Vec<(u64, Vec<u8>)>,
}

impl LineCollector<'_> {
    /// Takes all lines in order.
    fn take(&mut self, out: &mut Vec<u8>) {
        let log = self.log;
        let (from, to) = (log.taken.load(Ordering::SeqCst), log.put.load(Ordering::SeqCst));
        out.clear();
        out.resize(offset(to - from), 0);
        // Every line before `to` is in a buffer or among the late ones.
        let mut place = |place: u64, line: &[u8]| {
            if place >= to {
                return false;
            }
            let start = offset(place - from);
            out[start..start + line.len()].copy_from_slice(line);
            true
        };
        self.late.retain(|(at, line)| !place(*at, line));
        lock(&log.buffers).retain_mut(|buffer| {
            // Checked before its lines are taken: it adds no more.
            let has_ended = Arc::get_mut(buffer).is_some();
            mem::swap(&mut *lock(&buffer.0), &mut self.spare);
            let mut start = 0;
            for (at, end) in self.spare.ends.drain(..) {
                let line = &self.spare.bytes[start..end];
                if !place(at, line) {
                    self.late.push((at, line.to_vec()));
                }
                start = end;
            }
            self.spare.bytes.clear();
            if self.spare.bytes.capacity() > MODEST {
                self.spare = Lines::default();
            }
            !has_ended
        });
        log.taken.store(to, Ordering::SeqCst);
    }

    /// Waits until there are lines. `rested`: the writer has waited for more of them already.
    fn wait(&self, rested: bool) {
        let log = self.log;
        if !rested {
            log.state.store(GATHERING, Ordering::SeqCst);
            let is_wanted = log.wanted.load(Ordering::SeqCst) > log.taken.load(Ordering::SeqCst);
            if !is_wanted && log.waiting() <= ROOM / 2 {
                thread::park_timeout(PAUSE);
            }
            log.state.store(WRITING, Ordering::SeqCst);
            if log.waiting() > 0 {
                return;
            }
        }
        loop {
            log.state.store(IDLE, Ordering::SeqCst);
            if log.waiting() > 0 {
                break;
            }
            thread::park();
        }
        log.state.store(WRITING, Ordering::SeqCst);
    }

    /// `bytes` have been written. Returns the number of dropped lines if it is to be reported now, as there is room again.
    fn written(&self) -> u64 {
        let log = self.log;
        *lock(&log.written) = log.taken.load(Ordering::SeqCst);
        log.progress.notify_all();
        if log.waiting() < ROOM / 2 { log.dropped.swap(0, Ordering::Relaxed) } else { 0 }
    }
}

/// The waiting lines fit into memory.
fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Starts the thread that writes. It ends with the process.
pub(super) fn start() -> io::Result<()> {
    let write = || {
        let mut collector = LineCollector { log: &LOG, spare: Lines::default(), late: Vec::new() };
        let mut lines = Vec::new();
        collector.wait(true);
        loop {
            collector.take(&mut lines);
            if let Err(dropped) = write(&mut io::stderr(), &lines) {
                metrics::count_dropped_log_lines(dropped);
            }
            let dropped = collector.written();
            if dropped > 0 {
                tracing::warn!(dropped, "log lines were dropped: whoever reads the log did not keep up");
            }
            collector.wait(false);
        }
    };
    if LOG.writer.get().is_some() {
        return Ok(());
    }
    let writer = thread::Builder::new().name("log".into()).spawn(write)?;
    // An earlier line has no writer to wake; the writer looks for it at its start.
    let _ = LOG.writer.set(writer.thread().clone());
    writer.thread().unpark();
    Ok(())
}

/// Writes all of it. `Err`: how many lines were lost.
fn write(out: &mut impl Write, mut bytes: &[u8]) -> Result<(), u64> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(written) if written > 0 => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process has made the pipe non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(10)),
            // A full disk, or a closed pipe.
            Ok(_) | Err(_) => return Err(bytes.iter().filter(|byte| **byte == b'\n').count() as u64),
        }
    }
    Ok(())
}

/// Takes the lines of `tracing`, each in one write.
pub(super) struct LogWriter(Level);

/// Makes one for each line.
#[derive(Clone, Copy)]
pub(super) struct MakeLogWriter;

impl<'a> MakeWriter<'a> for MakeLogWriter {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        LogWriter(Level::INFO)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LogWriter {
        LogWriter(*metadata.level())
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        put(self.0, |bytes, _| bytes.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
