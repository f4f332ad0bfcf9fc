//! The log, when nobody reads it and when it cannot be written.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::process::{onlyonce, value};
use crate::support::*;

/// A sidecar whose log goes nowhere that it could be read from. Killed when dropped.
struct Unread {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    _folder: TempDir,
}

impl Unread {
    async fn start(backend: &Backend, stderr: Stdio, arguments: &[&str]) -> Self {
        // Its log cannot tell which ports it got.
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [address, admin] = ports.map(|port| port.local_addr().expect("an address"));
        let setup = Setup::new(&backend.url())
            .with("server", &format!("listen = \"{address}\""))
            .with("admin", &format!("listen = \"{admin}\""));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("onlyonce.toml");
        std::fs::write(&file, setup.toml()).expect("a writable folder");
        let mut command = onlyonce(&["serve", "--config"]);
        let child = command.arg(&file).args(arguments).stderr(stderr).spawn().expect("the program");
        let this = Self { child, address, admin, _folder: folder };
        until("it serves", async || tokio::net::TcpStream::connect(admin).await.is_ok()).await;
        this
    }

    async fn admin(&self, target: &str) -> Response {
        Wire::connect(self.admin).await.ask(&request("GET", target)).await
    }

    async fn dropped(&self) -> f64 {
        value(&self.admin("/metrics").await, "onlyonce_log_dropped_total")
    }

    /// So many requests, each with its line in the log.
    async fn ask(&self, count: usize) {
        let clients = (0..4).map(|client| {
            let address = self.address;
            tokio::spawn(async move {
                let mut wire = Wire::connect(address).await;
                for request in 0..count / 4 {
                    assert_eq!(wire.ask(&order(&format!("{client}-{request}"))).await.status, 201);
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("every request is answered");
        }
    }

    async fn stops(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it is running");
        let mut status = None;
        until("it ends", async || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        })
        .await;
        assert_eq!(status.expect("it has ended").code(), Some(0));
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    let backend = Backend::start().await;
    for format in ["text", "json"] {
        let mut sidecar = Unread::start(&backend, Stdio::piped(), &["--log-format", format]).await;
        sidecar.ask(2_000).await;
        assert_eq!(sidecar.admin("/healthz").await.status, 200);
        assert!(sidecar.dropped().await > 100.0);
        sidecar.stops().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_holds_nothing_up() {
    let backend = Backend::start().await;
    let full = File::options().write(true).open("/dev/full").expect("Linux");
    let mut sidecar = Unread::start(&backend, full.into(), &[]).await;
    sidecar.ask(40).await;
    assert_eq!(sidecar.admin("/healthz").await.status, 200);
    until("its lines are counted", async || sidecar.dropped().await >= 40.0).await;
    sidecar.stops().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_has_gone_holds_nothing_up() {
    let backend = Backend::start().await;
    let mut sidecar = Unread::start(&backend, Stdio::piped(), &[]).await;
    drop(sidecar.child.stderr.take());
    sidecar.ask(40).await;
    until("its lines are counted", async || sidecar.dropped().await >= 30.0).await;
    sidecar.stops().await;
}

/// Nothing is lost where somebody reads, and a reader that was late is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_was_late_is_told_how_many_lines_it_missed() {
    let backend = Backend::start().await;
    let mut sidecar = Unread::start(&backend, Stdio::piped(), &["--log-format", "json"]).await;
    sidecar.ask(40).await;
    assert_eq!(sidecar.dropped().await, 0.0);
    sidecar.ask(2_000).await;
    let stderr = sidecar.child.stderr.take().expect("a pipe");
    let reader = std::thread::spawn(move || std::io::read_to_string(stderr).expect("text"));
    until("there is room", async || {
        sidecar.ask(4).await;
        let before = sidecar.dropped().await;
        sidecar.ask(4).await;
        sidecar.dropped().await <= before
    })
    .await;
    let dropped = sidecar.dropped().await;
    sidecar.stops().await;
    let lines = reader.join().expect("no panic");
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: f64 = lines.iter().filter_map(|line| line["dropped"].as_f64()).sum();
    assert_eq!(told, dropped);
    assert!(lines.iter().any(|line| line["message"] == "stopped: everything in flight is finished"));
}

/// What cannot be said is no reason for another exit status, and no panic.
#[test]
fn an_error_that_cannot_be_printed_changes_no_exit_status() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (arguments, status) in [
        (&["check", "--config", "missing.toml"][..], 2),
        (&["serve", "--config", "missing.toml"], 2),
        (&["records", "--admin", "nonsense", "list"], 2),
        (&["records", "--admin", "http://127.0.0.1:9", "list"], 1),
    ] {
        let full = File::options().write(true).open("/dev/full").expect("Linux");
        let mut command = onlyonce(arguments);
        let ended = command.current_dir(folder.path()).stderr(full).status().expect("the program");
        assert_eq!(ended.code(), Some(status), "{arguments:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("onlyonce.toml"), Setup::new("http://127.0.0.1:9").toml()).expect("to write");
    for arguments in [&["check"][..], &["check", "--format", "json"], &["explain", "POST", "/orders"], &["schema"]] {
        let full = File::options().write(true).open("/dev/full").expect("Linux");
        let mut command = onlyonce(arguments);
        let output = command.current_dir(folder.path()).stdout(full).output().expect("the program");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.starts_with("error: standard output cannot be written to: No space left on device"), "{told}");
    }
}
