use super::*;

fn collector(log: &LogQueue) -> LineCollector<'_> {
    LineCollector { log, spare: Lines::default(), late: Vec::new() }
}

fn taken(collector: &mut LineCollector<'_>) -> String {
    let mut out = Vec::new();
    collector.take(&mut out);
    String::from_utf8(out).expect("text")
}

fn put(log: &LogQueue, buffer: &LineBuffer, line: &str) {
    log.put(buffer, Level::INFO, |bytes, _| bytes.extend_from_slice(line.as_bytes()));
}

#[test]
fn what_finds_no_room_is_dropped_and_what_was_there_stays() {
    let log = LogQueue::new();
    let (one, other, mut collector) = (log.buffer(), log.buffer(), collector(&log));
    let line = "x".repeat(offset(ROOM) / 4);
    for buffer in [&one, &other, &one, &other, &one, &other] {
        put(&log, buffer, &line);
    }
    assert_eq!(log.dropped.load(Ordering::Relaxed), 2);
    assert_eq!(taken(&mut collector).len(), offset(ROOM));
    put(&log, &one, "another\n");
    assert_eq!(collector.written(), 2, "told once there is room");
    assert_eq!(taken(&mut collector), "another\n");
    assert_eq!(collector.written(), 0);
}

#[test]
fn warnings_have_room_where_other_lines_have_none() {
    let log = LogQueue::new();
    let (one, other, mut collector) = (log.buffer(), log.buffer(), collector(&log));
    put(&log, &one, &"x".repeat(offset(ROOM)));
    let warning = "w".repeat(offset(URGENT_ROOM) / 2);
    for (buffer, level, dropped) in [
        (&one, Level::INFO, 1),
        (&one, Level::WARN, 1),
        (&other, Level::INFO, 2),
        (&other, Level::ERROR, 2),
        (&one, Level::WARN, 3),
        (&other, Level::ERROR, 4),
    ] {
        log.put(buffer, level, |bytes, _| bytes.extend_from_slice(warning.as_bytes()));
        assert_eq!(log.dropped.load(Ordering::Relaxed), dropped, "{level}");
    }
    assert_eq!(taken(&mut collector).len(), offset(ROOM + URGENT_ROOM));
}

#[test]
fn what_a_line_is_made_of_may_log_or_panic() {
    let log = LogQueue::new();
    let (buffer, mut collector) = (log.buffer(), collector(&log));
    log.put(&buffer, Level::INFO, |bytes, _| {
        bytes.extend_from_slice(b"outer ");
        put(&log, &buffer, "inner\n");
        bytes.extend_from_slice(b"line\n");
    });
    assert_eq!(taken(&mut collector), "inner\nouter line\n");
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        log.put(&buffer, Level::INFO, |bytes, _| {
            bytes.extend_from_slice(b"half a li");
            put(&log, &buffer, "of the panic\n");
            panic!("what is formatted panics");
        });
    }));
    assert!(panic.is_err());
    put(&log, &buffer, "the next\n");
    assert_eq!(taken(&mut collector), "of the panic\nthe next\n");
}

#[test]
fn lines_of_several_threads_come_in_the_order_in_which_they_were_put() {
    let log = LogQueue::new();
    let (one, other, mut collector) = (log.buffer(), log.buffer(), collector(&log));
    for (buffer, line) in [(&one, "a"), (&other, "bcd"), (&other, "e"), (&one, "fg"), (&one, "h"), (&other, "i")] {
        put(&log, buffer, line);
    }
    assert_eq!(taken(&mut collector), "abcdefghi");
    put(&log, &other, "j");
    assert_eq!(taken(&mut collector), "j");
    assert_eq!(taken(&mut collector), "");
}

#[test]
fn no_line_is_lost_or_torn_while_many_threads_put_and_one_takes() {
    const THREADS: u64 = 4;
    const LINES: u64 = 5_000;
    let log = LogQueue::new();
    let mut all = String::new();
    let mut collector = collector(&log);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &log;
            scope.spawn(move || {
                let buffer = log.buffer();
                for line in 0..LINES {
                    // Nothing is dropped here.
                    while log.waiting() > ROOM / 2 {
                        thread::yield_now();
                    }
                    put(log, &buffer, &format!("{thread} {line}\n"));
                }
            });
        }
        while all.lines().count() < offset(THREADS * LINES) {
            all.push_str(&taken(&mut collector));
            thread::yield_now();
        }
    });
    for thread in 0..THREADS {
        let of_one = all.lines().filter_map(|line| line.strip_prefix(&format!("{thread} ")));
        assert!(of_one.eq((0..LINES).map(|line| line.to_string())), "those of one thread are in order");
    }
    let _ = taken(&mut collector);
    assert!(lock(&log.buffers).is_empty(), "buffers go with their threads");
}

/// A log with a writer, which writes into memory.
fn with_writer(log: &LogQueue, test: impl FnOnce(&dyn Fn() -> String)) {
    let (out, stop) = (Mutex::new(String::new()), std::sync::atomic::AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut collector = collector(log);
            collector.wait(true);
            while !stop.load(Ordering::SeqCst) {
                let lines = taken(&mut collector);
                lock(&out).push_str(&lines);
                collector.written();
                collector.wait(false);
            }
        });
        log.writer.set(writer.thread().clone()).expect("the first");
        test(&|| lock(&out).clone());
        stop.store(true, Ordering::SeqCst);
        // It waits for lines.
        put(log, &log.buffer(), "the end");
        log.wanted.store(u64::MAX, Ordering::SeqCst);
        log.state.store(IDLE, Ordering::SeqCst);
        log.wake();
    });
}

fn until(what: &str, is_true: impl Fn() -> bool) {
    for _ in 0..3000 {
        if is_true() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}");
}

#[test]
fn a_line_waits_for_no_other() {
    let log = LogQueue::new();
    let buffer = log.buffer();
    with_writer(&log, |written| {
        for line in ["a", "b", "c"] {
            put(&log, &buffer, line);
            until("it is written by itself", || written().ends_with(line));
        }
        // Not when the writer gathers, either.
        for line in ["d", "e", "f"] {
            put(&log, &buffer, line);
        }
        until("all are written", || written() == "abcdef");
    });
}

#[test]
fn a_flush_waits_for_the_writer_but_not_for_ever() {
    let log = LogQueue::new();
    let buffer = log.buffer();
    log.flush(Duration::from_secs(60));
    put(&log, &buffer, "a line\n");
    log.flush(Duration::from_millis(1));
    with_writer(&log, |written| {
        log.flush(Duration::from_secs(60));
        assert_eq!(written(), "a line\n");
        for round in 0..100 {
            put(&log, &buffer, &format!("{round}\n"));
            log.flush(Duration::from_secs(60));
            assert!(written().ends_with(&format!("\n{round}\n")));
        }
    });
}

#[test]
fn a_warning_does_not_wait_for_more_lines() {
    let log = LogQueue::new();
    let buffer = log.buffer();
    with_writer(&log, |written| {
        put(&log, &buffer, "a line\n");
        until("the writer gathers", || log.state.load(Ordering::SeqCst) == GATHERING || !written().is_empty());
        log.put(&buffer, Level::WARN, |bytes, _| bytes.extend_from_slice(b"a warning\n"));
        assert!(
            log.state.load(Ordering::SeqCst) != GATHERING
                || log.wanted.load(Ordering::SeqCst) <= log.taken.load(Ordering::SeqCst),
            "the writer rests beside a warning"
        );
        until("it is written", || written().ends_with("a warning\n"));
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
