//! A real redis-server of one's own, for one test.

// Several crates of tests include this file, and none uses all of it.
#![allow(dead_code, unreachable_pub)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// Killed, and its folder deleted, when dropped.
pub struct RedisServer {
    child: Child,
    port: ReservedPort,
    options: Vec<String>,
    folder: TempDir,
}

impl RedisServer {
    /// Starts a server that persists nothing, and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with more command line options.
    pub fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let port = ReservedPort::new();
        let child = spawn(port.number(), &options, &folder);
        let child = child.expect("redis-server does not start: see its output above");
        Self { child, port, options, folder }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `redis://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Stops it as a pulled plug would; what it kept in memory is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server was running");
        self.child.wait().expect("it is our child");
    }

    /// Starts it again on the same port, after [`kill`](Self::kill).
    pub fn restart(&mut self) {
        let child = spawn(self.port(), &self.options, &self.folder);
        self.child = child.expect("redis-server does not start again: see its output above");
    }

    /// Stops it in its tracks: connections stay open, and nobody answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the server is running");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port on 127.0.0.1 that a server of ours may listen on, and listen on again after a restart.
///
/// A socket that is bound and never listens keeps the operating system from giving the port to anybody else. A server
/// that reuses addresses, as most do, may bind to it all the same.
pub struct ReservedPort {
    _socket: TcpSocket,
    address: SocketAddr,
}

impl ReservedPort {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a new socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port on loopback");
        let address = socket.local_addr().expect("a bound socket has an address");
        Self { _socket: socket, address }
    }

    pub fn number(&self) -> u16 {
        self.address.port()
    }
}

/// `None` if it ended at once.
fn spawn(port: u16, options: &[String], folder: &TempDir) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
        .args(options)
        .arg("--dir")
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => panic!(
                "redis-server is not on the PATH: run tests/run, which installs it, or apt-get install redis-server"
            ),
            _ => panic!("redis-server does not start: {error}"),
        });
    let patience = Instant::now() + Duration::from_secs(20);
    while Instant::now() < patience {
        if child.try_wait().expect("it is our child").is_some() {
            return None;
        }
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Some(child);
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
