//! Connections that arrive while the sidecar stops: each is answered or refused, and none is reset.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use crate::support::*;

/// The result of a connect.
#[derive(Debug, PartialEq, Eq)]
enum Connect {
    Answered,
    Refused,
    Broken(String),
}

/// One request on a connection of its own.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(connected: std::io::Result<S>) -> Connect {
    let mut stream = match connected {
        Ok(stream) => stream,
        // The file of the Unix socket is removed.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
            return Connect::Refused;
        }
        Err(error) => return Connect::Broken(format!("connecting: {error}")),
    };
    if let Err(error) = stream.write_all(b"GET /things HTTP/1.1\r\nHost: api.test\r\n\r\n").await {
        return Connect::Broken(format!("writing: {error}"));
    }
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 1024];
        match stream.read(&mut piece).await {
            Ok(0) => return Connect::Broken(format!("an end after {:?}", String::from_utf8_lossy(&answer))),
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) => return Connect::Broken(format!("reading: {error}")),
        }
        if answer.starts_with(b"HTTP/1.1 201") && answer.ends_with(b"}") {
            return Connect::Answered;
        }
    }
}

/// Connects `count` times, many at once, and stops the process meanwhile.
async fn across_a_drain<S, F>(mut process: Process, count: usize, connect: impl Fn() -> F + Clone + Send + 'static)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Future<Output = std::io::Result<S>> + Send,
{
    const AT_ONCE: usize = 200;
    let (begun, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (begun, answered, connect) = (Arc::clone(&begun), Arc::clone(&answered), connect.clone());
        clients.spawn(async move {
            let (mut refused, mut broken) = (0, Vec::new());
            while begun.fetch_add(1, Ordering::Relaxed) < count {
                match ask(connect().await).await {
                    Connect::Answered => drop(answered.fetch_add(1, Ordering::Relaxed)),
                    Connect::Refused => refused += 1,
                    Connect::Broken(why) => broken.push(why),
                }
            }
            (refused, broken)
        });
    }
    until("half of them are answered", async || answered.load(Ordering::Relaxed) >= count / 2).await;
    process.signal(Signal::TERM);
    let (mut refused, mut broken) = (0, Vec::new());
    while let Some(client) = within("all clients", clients.join_next()).await {
        let (more_refused, more_broken) = client.expect("no panic");
        refused += more_refused;
        broken.extend(more_broken);
    }
    assert_eq!(broken, Vec::<String>::new());
    assert_eq!(answered.load(Ordering::Relaxed) + refused, count);
    assert!(refused > 0, "it stopped in the middle");
    assert_eq!(process.exit().await, Some(0), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_connects_across_a_drain_none_is_reset() {
    let backend = Backend::start().await;
    for threads in ["1", "4"] {
        let setup = Setup::new(&backend.url()).with("server", &format!("threads = {threads}\nidle_timeout = \"60s\""));
        let process = Process::start(&setup).await;
        let address = process.address;
        across_a_drain(process, 10_000, move || TcpStream::connect(address)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_who_connect_over_unix_sockets_none_is_reset() {
    for count in [1, 3] {
        let (backend, folder) = (Backend::start().await, tempfile::tempdir().expect("a folder"));
        let paths: Vec<_> = (0..count).map(|number| folder.path().join(format!("{number}.sock"))).collect();
        let listen: Vec<_> = paths.iter().map(|path| format!("\"unix:{}\"", path.display())).collect();
        let setup = Setup::new(&backend.url()).with("server", &format!("listen = [{}]", listen.join(", ")));
        let process = Process::after(&setup, "", Stdio::null(), Stdio::null()).await;
        let turn = Arc::new(AtomicUsize::new(0));
        across_a_drain(process, 4_000, move || {
            let path = paths[turn.fetch_add(1, Ordering::Relaxed) % paths.len()].clone();
            async move { UnixStream::connect(path).await }
        })
        .await;
    }
}

#[tokio::test]
async fn who_has_connected_and_says_nothing_yet_is_heard_while_it_stops() {
    let gate = Gate::new();
    // No response before it stops: that would lack `Connection: close`.
    let backend = Backend::scripted((0..21).map(|_| vec![Step::Wait(gate.clone()), Step::Answer])).await;
    let mut process = Process::start(&Setup::new(&backend.url())).await;
    let mut first = process.begin(&order("first")).await;
    backend.has_seen(1).await;
    let mut newcomers = Vec::new();
    for _ in 0..20 {
        newcomers.push(process.connect().await);
    }
    process.signal(Signal::TERM);
    // These connections may have been accepted or not.
    for (number, newcomer) in newcomers.iter_mut().enumerate() {
        newcomer.send(order(&format!("{number}")).bytes()).await;
    }
    let address = process.address;
    until("nobody is let in any more", async || TcpStream::connect(address).await.is_err()).await;
    gate.open();
    for newcomer in &mut newcomers {
        let answer = newcomer.response().await;
        assert_eq!((answer.status, answer.value("connection")), (201, Some("close")));
        newcomer.ends().await;
    }
    assert_eq!(first.response().await.status, 201);
    assert_eq!(process.exit().await, Some(0), "{}", process.log());
}

#[tokio::test]
async fn who_waits_at_a_socket_of_the_service_manager_is_served_by_the_next() {
    const PASS: &str = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1;";
    let backend = Backend::start().await;
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let address = socket.local_addr().expect("an address");
    let start = async || {
        let passed = Stdio::from(OwnedFd::from(socket.try_clone().expect("a file")));
        Process::after(&Setup::new(&backend.url()), PASS, passed, Stdio::null()).await
    };
    let mut process = start().await;
    assert_eq!(ask(TcpStream::connect(address).await).await, Connect::Answered);
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await, Some(0), "{}", process.log());
    let mut waiting = JoinSet::new();
    for _ in 0..20 {
        waiting.spawn(async move { ask(TcpStream::connect(address).await).await });
    }
    let _next = start().await;
    while let Some(client) = within("all clients", waiting.join_next()).await {
        assert_eq!(client.expect("no panic"), Connect::Answered);
    }
}

#[tokio::test]
async fn a_second_process_on_the_address_is_refused_however_many_threads_there_are() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url()).with("server", "threads = 4");
    let process = Process::start(&setup).await;
    assert!(process.log().contains("\"threads\":4"), "{}", process.log());
    let folder = tempfile::tempdir().expect("a folder");
    for threads in ["1", "4", "\"auto\""] {
        let again = format!("listen = \"{}\"\nthreads = {threads}", process.address);
        let file = folder.path().join("onlyonce.toml");
        std::fs::write(&file, setup.clone().with("server", &again).toml()).expect("a writable folder");
        let output = process::run(folder.path(), &["serve"]);
        // Lines are broken at 80 columns.
        let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = format!("cannot listen on {} (server.listen): another program listens there", process.address);
        assert!(output.status.code() == Some(1) && said.contains(&expected), "{said}");
    }
}
