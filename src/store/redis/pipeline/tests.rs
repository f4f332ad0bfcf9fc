use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::resp::CommandWriter;
use super::driver::TICK;
use super::*;

const TIMEOUT: Duration = Duration::from_millis(500);

/// Counts the writes.
struct Counted(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct Wire {
    pipeline: Pipeline,
    server: DuplexStream,
    lost: CancellationToken,
    writes: Arc<AtomicUsize>,
}

fn wire(room: usize) -> Wire {
    let (client, server) = duplex(room);
    let (lost, writes) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
    let pipeline = Pipeline::start(Counted(client, writes.clone()), lost.clone(), Arc::default());
    Wire { pipeline, server, lost, writes }
}

fn get<'a>(pipeline: &'a Pipeline, key: &'static [u8]) -> ReplyFuture<'a> {
    pipeline.send(TIMEOUT, false, |out| drop(CommandWriter::begin(out, 2).word(b"GET").word(key)))
}

async fn asked(server: &mut DuplexStream, keys: &[&str]) {
    let expected: String = keys.iter().map(|key| format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len())).collect();
    let mut bytes = vec![0; expected.len()];
    server.read_exact(&mut bytes).await.expect("commands");
    assert_eq!(String::from_utf8_lossy(&bytes), expected);
}

fn value(answer: Result<Option<Bytes>, CommandError>) -> String {
    String::from_utf8_lossy(&answer.expect("an answer").unwrap_or_default()).into_owned()
}

#[tokio::test]
async fn commands_of_one_turn_leave_in_one_write_and_get_their_own_answers() {
    let Wire { pipeline, mut server, writes, .. } = wire(4096);
    let (first, second, third) = (get(&pipeline, b"first"), get(&pipeline, b"second"), get(&pipeline, b"third"));
    asked(&mut server, &["first", "second", "third"]).await;
    assert_eq!(writes.load(Ordering::SeqCst), 1);
    server.write_all(b"$1\r\n1\r\n$-1\r\n-OOM command not allowed\r\n").await.expect("answers");
    assert_eq!(value(first.await), "1");
    assert_eq!(second.await.expect("an answer"), None);
    assert!(matches!(third.await, Err(CommandError::Refused(code, _)) if code == "OOM"));
}

#[tokio::test]
async fn what_answers_cause_leaves_with_all_else_of_the_turn() {
    let Wire { pipeline, mut server, writes, .. } = wire(4096);
    let asks = |key: &'static [u8], next: &'static [u8]| {
        let pipeline = pipeline.clone();
        async move {
            get(&pipeline, key).await.expect("an answer");
            get(&pipeline, next).await.expect("an answer");
        }
    };
    let callers = [asks(b"a", b"x"), asks(b"b", b"y"), asks(b"c", b"z")].map(tokio::spawn);
    asked(&mut server, &["a", "b", "c"]).await;
    server.write_all(b"$-1\r\n$-1\r\n$-1\r\n").await.expect("answers");
    asked(&mut server, &["x", "y", "z"]).await;
    assert_eq!(writes.load(Ordering::SeqCst), 2);
    server.write_all(b"$-1\r\n$-1\r\n$-1\r\n").await.expect("answers");
    for caller in callers {
        caller.await.expect("answered");
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_does_not_disturb_its_neighbours() {
    let Wire { pipeline, mut server, lost, .. } = wire(4096);
    let (before, dropped, after) = (get(&pipeline, b"a"), get(&pipeline, b"b"), get(&pipeline, b"c"));
    drop(dropped);
    asked(&mut server, &["a", "b", "c"]).await;
    server.write_all(b"$1\r\n1\r\n").await.expect("an answer");
    assert_eq!(value(before.await), "1");
    let dropped = get(&pipeline, b"d");
    asked(&mut server, &["d"]).await;
    drop(dropped);
    let last = get(&pipeline, b"e");
    server.write_all(b"$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n").await.expect("answers");
    assert_eq!((value(after.await), value(last.await)), ("3".to_owned(), "5".to_owned()));
    assert!(!lost.is_cancelled());
    // No slot is left.
    let state = lock(&pipeline.0.state);
    assert!(state.slots.is_empty() && state.awaited.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_nobody_s_and_three_in_a_row_are_the_connection_s_fault() {
    let Wire { pipeline, mut server, lost, .. } = wire(4096);
    let begun = Instant::now();
    let (late, patient) = (
        get(&pipeline, b"a"),
        pipeline.send(TIMEOUT * 4, false, |out| {
            drop(CommandWriter::begin(out, 2).word(b"GET").word(b"b"));
        }),
    );
    assert!(matches!(late.await, Err(CommandError::Late)));
    let took = begun.elapsed();
    assert!(took >= TIMEOUT && took <= TIMEOUT + TICK + Duration::from_millis(2), "{took:?}");
    asked(&mut server, &["a", "b"]).await;
    server.write_all(b"$1\r\n1\r\n$1\r\n2\r\n").await.expect("answers");
    assert_eq!(value(patient.await), "2");
    for _ in 0..2 {
        assert!(matches!(get(&pipeline, b"c").await, Err(CommandError::Late)));
        assert!(!lost.is_cancelled());
    }
    assert!(matches!(get(&pipeline, b"c").await, Err(CommandError::Late)));
    assert!(lost.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_known_by_late_answers_on_several_connections() {
    let (lost, timeouts) = (CancellationToken::new(), Arc::<AtomicU32>::default());
    let wires: Vec<_> = (0..3).map(|_| duplex(4096)).collect();
    let (clients, _servers): (Vec<_>, Vec<_>) = wires.into_iter().unzip();
    let pipelines: Vec<_> =
        clients.into_iter().map(|client| Pipeline::start(client, lost.clone(), timeouts.clone())).collect();
    for pipeline in &pipelines {
        assert!(!lost.is_cancelled());
        assert!(matches!(get(pipeline, b"a").await, Err(CommandError::Late)));
    }
    assert!(lost.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_command_begins_when_it_is_written() {
    let Wire { pipeline, mut server, lost, .. } = wire(64);
    let large = pipeline.send(TIMEOUT, false, |out| drop(CommandWriter::begin(out, 1).word(&[b'x'; 1024])));
    let behind = get(&pipeline, b"a");
    let slow = async {
        let mut taken = 0;
        while taken < 4 + 7 + 1024 + 2 + 20 {
            tokio::time::sleep(TIMEOUT * 3 / 4).await;
            taken += server.read(&mut [0; 64]).await.expect("a command");
        }
        server.write_all(b"$1\r\n1\r\n$1\r\n2\r\n").await.expect("answers");
    };
    let (large, behind, ()) = tokio::join!(large, behind, slow);
    assert_eq!((value(large), value(behind)), ("1".to_owned(), "2".to_owned()));
    assert!(!lost.is_cancelled());

    // A server that accepts no bytes is late too.
    let begun = Instant::now();
    let stuck = pipeline.send(TIMEOUT, false, |out| drop(CommandWriter::begin(out, 1).word(&[b'x'; 1024])));
    assert!(matches!(stuck.await, Err(CommandError::Late)));
    assert!(begun.elapsed() <= TIMEOUT + TICK + Duration::from_millis(2), "{:?}", begun.elapsed());
    // A later command waits for its own timeout at most.
    assert!(matches!(get(&pipeline, b"b").await, Err(CommandError::Late)));
    assert!(begun.elapsed() <= (TIMEOUT + TICK) * 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pause_between_commands_makes_none_of_them_late() {
    let Wire { pipeline, mut server, .. } = wire(4096);
    for _ in 0..20 {
        let answer = get(&pipeline, b"a");
        tokio::time::sleep(TIMEOUT * 3 / 4).await;
        asked(&mut server, &["a"]).await;
        server.write_all(b"$1\r\n1\r\n").await.expect("an answer");
        assert_eq!(value(answer.await), "1");
        tokio::time::sleep(TIMEOUT * 2 - TICK / 2).await;
    }
}

#[tokio::test]
async fn what_does_not_belong_closes_the_connection() {
    for sent in ["$1\r\n1\r\n$1\r\n2\r\n", "+OK\r\n", ":1\r\n", "HTTP/1.1 400\r\n", "*1\r\n$1\r\n1\r\n", "$-1"] {
        let Wire { pipeline, mut server, lost, .. } = wire(4096);
        let answer = get(&pipeline, b"a");
        asked(&mut server, &["a"]).await;
        server.write_all(sent.as_bytes()).await.expect("sent");
        server.shutdown().await.expect("shut down");
        lost.cancelled().await;
        match sent.starts_with("$1") {
            // The reply to the command came before the extra reply.
            true => assert_eq!(value(answer.await), "1"),
            false => assert!(matches!(answer.await, Err(CommandError::Lost(_))), "{sent}"),
        }
        assert!(matches!(get(&pipeline, b"b").await, Err(CommandError::Lost(_))));
    }
}

#[tokio::test]
async fn one_that_is_closed_while_nothing_is_awaited_loses_nothing_where_another_serves_instead() {
    for is_awaited in [false, true] {
        let Wire { pipeline: instead, server: mut other, lost, .. } = wire(4096);
        let ((client, mut server), closed) = (duplex(4096), lost.child_token());
        let pipeline = Pipeline::start_beside(instead, client, closed.clone(), lost.clone(), Arc::default());
        let answered = get(&pipeline, b"a");
        asked(&mut server, &["a"]).await;
        server.write_all(b"$1\r\n1\r\n").await.expect("an answer");
        assert_eq!(value(answered.await), "1");
        let unanswered = is_awaited.then(|| get(&pipeline, b"b"));
        if is_awaited {
            asked(&mut server, &["b"]).await;
        }
        drop(server);
        closed.cancelled().await;
        assert_eq!(lost.is_cancelled(), is_awaited);
        match unanswered {
            Some(unanswered) => assert!(matches!(unanswered.await, Err(CommandError::Lost(_)))),
            None => {
                let elsewhere = get(&pipeline, b"c");
                asked(&mut other, &["c"]).await;
                other.write_all(b"$1\r\n3\r\n").await.expect("an answer");
                assert_eq!(value(elsewhere.await), "3");
            }
        }
    }
}

#[tokio::test]
async fn the_connection_is_closed_with_its_last_handle_and_nothing_else_is() {
    let Wire { pipeline, mut server, lost, .. } = wire(4096);
    let second = pipeline.clone();
    drop(pipeline);
    let answer = get(&second, b"a");
    asked(&mut server, &["a"]).await;
    drop(answer);
    drop(second);
    assert_eq!(server.read(&mut [0; 1]).await.expect("an end"), 0);
    assert!(!lost.is_cancelled());
}

#[test]
fn whoever_waits_is_told_when_the_runtime_of_the_connection_ends() {
    let core = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let Wire { pipeline, server: _server, lost, .. } = core.block_on(async { wire(4096) });
    let answer = get(&pipeline, b"a");
    drop(core);
    let rest = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    assert!(matches!(rest.block_on(answer), Err(CommandError::Lost(_))));
    assert!(!lost.is_cancelled());
}
