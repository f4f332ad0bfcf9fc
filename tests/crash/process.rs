//! The processes of a test. Each is killed, by its own id, when it is dropped.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::backend::{self, Manner};
use crate::client::{PATIENCE, until};
use crate::redis_server::ReservedPort;

/// A configuration for sidecars of one backend and one Redis, with these keys for the route.
pub fn config(backend: &str, redis: &str, route: &str) -> String {
    // The machine may be busy, so the store gets more time.
    format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        drain_delay = "100ms"
        [admin]
        listen = "127.0.0.1:0"
        [upstream]
        url = "{backend}"
        [store]
        url = "{redis}"
        timeout = "10s"
        [[route]]
        name = "orders"
        path = "/orders"
        scope = ["header:Authorization"]
        {route}
        "#
    )
}

/// Checks that the program is there before anything is started.
pub fn check_program() {
    LazyLock::force(&PROGRAM);
}

struct Process(Child);

impl Process {
    /// Kills it at once, with SIGKILL.
    fn kill(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it is running");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A copy of the program at the start of the test: a build may replace it meanwhile.
static PROGRAM: LazyLock<File> = LazyLock::new(|| {
    let mut program = File::open(env!("CARGO_BIN_EXE_onlyonce")).expect("the program");
    let mut code = Vec::new();
    program.read_to_end(&mut code).expect("a file that can be read");
    let has_fail_points = String::from_utf8_lossy(&code).contains("ONLYONCE_FAIL_POINT");
    assert!(has_fail_points, "another build has put a program without fail points in place of ours: run this again");
    program
});

/// `onlyonce serve`.
pub struct Sidecar {
    process: Process,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Sidecar {
    /// Starts with the configuration `onlyonce.toml` in this folder, and waits until it serves. Its log goes to
    /// `name.log` there.
    pub fn start(folder: &Path, name: &str, stop: Option<&StopAt>) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).expect("a writable folder");
        let mut command = Command::new(format!("/proc/{}/fd/{}", std::process::id(), PROGRAM.as_raw_fd()));
        command.args(["serve", "--log-format", "json", "--config"]).arg(folder.join("onlyonce.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        if let Some(stop) = stop {
            stop.ask(&mut command);
        }
        let mut process = Process(command.spawn().expect("the program"));
        let until = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&log).expect("its log");
            if let Some((address, admin)) = text.lines().find_map(serving) {
                return Self { process, address, admin };
            }
            let ended = process.0.try_wait().expect("it is our child");
            assert!(ended.is_none() && Instant::now() < until, "a sidecar does not start ({ended:?}):\n{text}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Freezes it, with SIGSTOP.
    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Stops it gracefully, with SIGTERM.
    pub fn begin_to_stop(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Its exit status, once it has ended by itself.
    pub fn exit(&mut self) -> Option<i32> {
        until("the end of a sidecar", || self.process.0.try_wait().expect("it is our child")).code()
    }

    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }
}

/// The addresses in the log line of the start.
fn serving(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| {
        let text = event[name].as_str()?;
        text.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok()
    };
    (event["message"] == "serving").then(|| Some((address("listen")?, address("admin")?)))?
}

/// The backend, and its ledger.
pub struct Backend {
    process: Process,
    port: ReservedPort,
    pub ledger: PathBuf,
    manner: Manner,
}

impl Backend {
    pub fn start(folder: &Path, manner: Manner, stop: Option<&StopAt>) -> Self {
        let (ledger, port) = (folder.join("ledger"), ReservedPort::new());
        let process = spawn_backend(&port, &ledger, manner, stop);
        Self { process, port, ledger, manner }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, after [`kill`](Self::kill), on the same port and with the same ledger.
    pub fn restart(&mut self) {
        self.process = spawn_backend(&self.port, &self.ledger, self.manner, None);
    }
}

fn spawn_backend(port: &ReservedPort, ledger: &Path, manner: Manner, stop: Option<&StopAt>) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg(backend::ARGUMENT).arg(port.number().to_string()).arg(ledger).arg(manner.argument());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(stop) = stop {
        stop.ask(&mut command);
    }
    let mut process = Process(command.spawn().expect("this program"));
    let mut line = String::new();
    let stdout = process.0.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("a pipe that works");
    assert_eq!(line, "listening\n", "the backend does not start");
    process
}

/// The fail point at which a process stops, and where it reports that.
pub struct StopAt {
    step: &'static str,
    listener: TcpListener,
}

/// A process that has reached its fail point, and waits there until it continues or is killed.
pub struct Stopped(TcpStream);

impl StopAt {
    pub fn new(step: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
        listener.set_nonblocking(true).expect("a socket");
        Self { step, listener }
    }

    fn ask(&self, command: &mut Command) {
        let address = self.listener.local_addr().expect("a bound listener has an address");
        command.env("ONLYONCE_FAIL_POINT", self.step).env("ONLYONCE_FAIL_POINT_ADDR", address.to_string());
    }

    /// Waits until the process has reached it.
    pub fn wait(&self) -> Stopped {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(stopped) = self.reached() {
                return stopped;
            }
            assert!(Instant::now() < until, "no process has come to {}", self.step);
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The process, if it has reached it by now.
    pub fn reached(&self) -> Option<Stopped> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("a socket");
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).expect("the process says where it is");
                assert_eq!(line.trim_end(), self.step);
                Some(Stopped(stream))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("the socket that listens for {}: {error}", self.step),
        }
    }
}

impl Stopped {
    pub fn go_on(mut self) {
        // It may have been killed meanwhile.
        let _ = self.0.write_all(b"\n");
    }

    /// The task at the fail point panics, and its process continues.
    pub fn panic(mut self) {
        self.0.write_all(b"!").expect("the process waits");
    }
}
