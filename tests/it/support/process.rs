//! The real program, for signals, exit codes and the command line.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::sidecar::Setup;
use super::wire::{Request, Response, Wire, request, until};

/// Killed when dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Ends with the process.
    reader: Option<thread::JoinHandle<()>>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// The path of its configuration, if it has its own file.
    folder: Option<TempDir>,
}

impl Process {
    /// Starts `onlyonce serve`, and waits until it serves.
    pub async fn start(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join(FILE);
        std::fs::write(&file, setup.toml()).expect("a writable folder");
        let mut process = Self::start_with(&file).await;
        process.folder = Some(folder);
        process
    }

    /// The same with an existing file.
    pub async fn start_with(file: &Path) -> Self {
        let mut command = onlyonce(&["serve", "--log-format", "json"]);
        command.arg("--config").arg(file);
        Self::of(command).await
    }

    /// The same, started by a shell that does this first. `stdin` and `stdout` are the shell's.
    pub async fn after(setup: &Setup, first: &str, stdin: Stdio, stdout: Stdio) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join(FILE);
        std::fs::write(&file, setup.toml()).expect("a writable folder");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{first} exec \"$@\""), "sh", env!("CARGO_BIN_EXE_onlyonce")]);
        command.args(["serve", "--log-format", "json", "--config"]).arg(file).stdin(stdin).stdout(stdout);
        let mut process = Self::of(command).await;
        process.folder = Some(folder);
        process
    }

    /// The same, started by this command.
    pub async fn of(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let reader = thread::spawn({
            let log = Arc::clone(&log);
            move || lines.map_while(Result::ok).for_each(|line| log.lock().expect("no panic").push(line))
        });
        let reader = Some(reader);
        let mut addresses = None;
        until("serving", async || {
            addresses = log.lock().expect("no panic").iter().find_map(|line| serving(line));
            addresses.is_some() || child.try_wait().expect("our child").is_some()
        })
        .await;
        let (address, admin) = addresses.unwrap_or_else(|| panic!("it ended: {:?}", log.lock()));
        Self { child, log, reader, address, admin, folder: None }
    }

    /// Its configuration file.
    pub fn file(&self) -> PathBuf {
        self.folder.as_ref().expect("a file of its own").path().join(FILE)
    }

    /// Writes another configuration into its file.
    pub fn rewrite(&self, setup: &Setup) {
        std::fs::write(self.file(), setup.toml()).expect("a writable file");
    }

    /// Waits until it has logged this.
    pub async fn logs(&self, what: &str) {
        until(what, async || self.log().contains(what)).await;
    }

    /// Its peak memory, in bytes. The kernel counts on each processor, so a later value may be a little smaller.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it is running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is running");
    }

    /// Its exit status, once it has ended by itself.
    pub async fn exit(&mut self) -> Option<i32> {
        let mut status = None;
        until("the process ends", async || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        })
        .await;
        status.expect("it has ended").code()
    }

    /// Kills it at once, with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is running");
        self.child.wait().expect("our child");
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic").join("\n")
    }

    /// The warnings since it began to serve.
    pub fn warnings(&self) -> String {
        let log = self.log.lock().expect("no panic");
        let since = log.iter().skip_while(|line| serving(line).is_none());
        since.filter(|line| line.contains("\"WARN\"")).map(|line| format!("{line}\n")).collect()
    }

    /// The same, once it has ended: all of it.
    pub fn whole_log(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no panic");
        }
        self.log()
    }

    /// Whether it takes new connections.
    pub async fn listens(&self) -> bool {
        tokio::net::TcpStream::connect(self.address).await.is_ok()
    }

    pub async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    pub async fn begin(&self, request: &Request) -> Wire {
        let mut wire = self.connect().await;
        wire.send(request.bytes()).await;
        wire
    }

    pub async fn ask(&self, request: &Request) -> Response {
        self.connect().await.ask(request).await
    }

    pub async fn admin(&self, target: &str) -> Response {
        Wire::connect(self.admin).await.ask(&request("GET", target)).await
    }

    /// The value of one series; 0 when there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        value(&self.admin("/metrics").await, series)
    }
}

/// The value of one series in an exposition; 0 when there is none.
pub fn value(metrics: &Response, series: &str) -> f64 {
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

const FILE: &str = "onlyonce.toml";

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses in the log line of the start; the unspecified address if clients use a Unix socket only.
fn serving(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| {
        let all = event[name].as_str()?.trim_start_matches(['[', 'S', 'o', 'm', 'e', '(']).trim_end_matches([']', ')']);
        all.split(", ").find_map(|one| one.parse().ok())
    };
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    (event["message"] == "serving").then(|| Some((address("listen").unwrap_or(nowhere), address("admin")?)))?
}

/// The program with these arguments, without its variables in the environment.
pub fn onlyonce(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onlyonce"));
    command.args(arguments).env_remove("ONLYONCE_CONFIG").env_remove("COLUMNS").stdin(Stdio::null());
    command
}

/// Runs the program to its end, in this folder.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    onlyonce(arguments).current_dir(folder).output().expect("the program")
}
