//! Standard error, written by a thread of its own.
//!
//! Whoever reads the log may stall (a pipe that nobody empties), and a disk may be full: neither may hold a request up.
//! Lines wait in memory of a fixed size; one that finds no room is dropped and counted.

use std::io::{self, Write};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::metrics;

/// As many bytes of lines may wait, and as many again be on their way to standard error.
const ROOM: usize = 256 * 1024;

/// Lines that wait to be written.
pub(super) struct Lines {
    waiting: Mutex<Waiting>,
    /// There is something to write.
    filled: Condvar,
    /// There is nothing left.
    emptied: Condvar,
}

struct Waiting {
    bytes: Vec<u8>,
    is_writing: bool,
    /// Lines that were dropped since the last were told of.
    dropped: u64,
}

/// Those of this process.
pub(super) static LINES: Lines = Lines::new();

impl Lines {
    const fn new() -> Self {
        let waiting = Waiting { bytes: Vec::new(), is_writing: false, dropped: 0 };
        Self { waiting: Mutex::new(waiting), filled: Condvar::new(), emptied: Condvar::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every step leaves it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits.
    fn put(&self, lines: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.bytes.len() + lines.len() > ROOM {
            waiting.dropped += 1;
            metrics::count_dropped_log_lines(1);
            return;
        }
        waiting.bytes.extend_from_slice(lines);
        drop(waiting);
        self.filled.notify_one();
    }

    /// What is there by now, once there is something.
    fn take(&self, empty: Vec<u8>) -> Vec<u8> {
        let waiting = self.waiting();
        let mut waiting =
            self.filled.wait_while(waiting, |waiting| waiting.bytes.is_empty()).unwrap_or_else(PoisonError::into_inner);
        waiting.is_writing = true;
        mem::replace(&mut waiting.bytes, empty)
    }

    /// How many lines were dropped, where that is to be told now: there is room again.
    fn written(&self) -> u64 {
        let mut waiting = self.waiting();
        waiting.is_writing = false;
        if waiting.bytes.is_empty() {
            self.emptied.notify_all();
        }
        if waiting.bytes.len() < ROOM / 2 { mem::take(&mut waiting.dropped) } else { 0 }
    }

    /// Waits until all is written, but not for longer than this.
    pub(super) fn flush(&self, patience: Duration) {
        let waiting = self.waiting();
        let left = |waiting: &mut Waiting| waiting.is_writing || !waiting.bytes.is_empty();
        drop(self.emptied.wait_timeout_while(waiting, patience, left));
    }
}

/// Starts the thread that writes. It ends with the process.
pub(super) fn start() -> io::Result<()> {
    let write = || {
        let mut lines = Vec::new();
        loop {
            lines.clear();
            lines = LINES.take(lines);
            if let Err(dropped) = write(&mut io::stderr(), &lines) {
                metrics::count_dropped_log_lines(dropped);
            }
            let dropped = LINES.written();
            if dropped > 0 {
                tracing::warn!(dropped, "log lines were dropped: whoever reads the log did not keep up");
            }
        }
    };
    thread::Builder::new().name("log".into()).spawn(write).map(drop)
}

/// Writes all of it. `Err`: how many lines were lost.
fn write(out: &mut impl Write, mut bytes: &[u8]) -> Result<(), u64> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(written) if written > 0 => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else has made the pipe non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(10)),
            // A full disk, or nobody at the other end.
            Ok(_) | Err(_) => return Err(bytes.iter().filter(|byte| **byte == b'\n').count() as u64),
        }
    }
    Ok(())
}

/// Takes log lines, each in one write.
#[derive(Clone, Copy)]
pub(super) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_dropped_and_what_was_there_stays() {
        let lines = Lines::new();
        let line = vec![b'x'; ROOM / 4];
        for _ in 0..6 {
            lines.put(&line);
        }
        assert_eq!(lines.waiting().dropped, 2);
        assert_eq!(lines.take(Vec::new()).len(), ROOM);
        lines.put(b"another\n");
        assert_eq!(lines.written(), 2, "told once there is room");
        assert_eq!(lines.take(Vec::new()), b"another\n");
        assert_eq!(lines.written(), 0);
    }

    #[test]
    fn a_flush_waits_for_the_writer_but_not_for_ever() {
        let lines = Lines::new();
        lines.flush(Duration::from_secs(60));
        lines.put(b"a line\n");
        lines.flush(Duration::from_millis(1));
        thread::scope(|scope| {
            scope.spawn(|| {
                lines.take(Vec::new());
                thread::sleep(Duration::from_millis(20));
                lines.written();
            });
            lines.flush(Duration::from_secs(60));
            let waiting = lines.waiting();
            assert!(waiting.bytes.is_empty() && !waiting.is_writing);
        });
    }

    #[test]
    fn a_writer_that_fails_costs_the_lines_that_are_left() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.0 == 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let written = bytes.len().min(self.0);
                self.0 -= written;
                Ok(written)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(write(&mut Full(100), b"one\ntwo\nthree\n"), Ok(()));
        assert_eq!(write(&mut Full(5), b"one\ntwo\nthree\n"), Err(2));
        assert_eq!(write(&mut Full(0), b"one\ntwo\nthree\n"), Err(3));
    }
}
