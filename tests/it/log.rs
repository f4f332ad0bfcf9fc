//! The log if it is not read or cannot be written.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::{onlyonce, value};
use crate::support::*;

/// A sidecar whose log cannot be read. Killed when dropped.
struct Unread {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    _folder: TempDir,
}

impl Unread {
    async fn start(backend: &Backend, stderr: Stdio, arguments: &[&str]) -> Self {
        // Its ports cannot be read from its log.
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

    /// Sends this number of requests, each with a log line.
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

/// No line is lost if the log is read; a late reader gets the number of lost lines.
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

/// A failed write causes no other exit status, and no panic.
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

/// The events of a log in JSON that have this message.
fn events(log: &str, message: &str) -> Vec<Value> {
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}")));
    events.filter(|event| event["message"] == message).collect()
}

async fn started(setup: &Setup, arguments: &[&str]) -> (Process, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("onlyonce.toml");
    std::fs::write(&file, setup.toml()).expect("a writable folder");
    let mut command = onlyonce(&["serve", "--log-format", "json", "--config"]);
    command.arg(&file).args(arguments);
    (Process::of(command).await, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_why_a_request_is_not_guarded() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url())
        .another_route("name = \"off\"\npath = \"/off\"\nscope = []\nmode = \"off\"")
        .another_route("name = \"elsewhere\"\npath = \"/elsewhere\"\nscope = []\nhost = \"api.example.com\"");
    let (process, _folder) = started(&setup, &["--log-level", "debug"]).await;
    for (request, method, path, reason) in [
        (post("/order").json("{}"), "POST", "/order", "no route has this path"),
        (request("PUT", "/orders").json("{}"), "PUT", "/orders", "the route orders is for POST only"),
        (post("/off").json("{}"), "POST", "/off", "the route off is off"),
        (
            post("/elsewhere").json("{}"),
            "POST",
            "/elsewhere",
            "the route elsewhere is for the host api.example.com only",
        ),
        (post("/a?token=secret").json("{}"), "POST", "/a", "no route has this path"),
    ] {
        process.ask(&request).await;
        let is_told = |event: &Value| event["path"] == path && event["method"] == method && event["reason"] == reason;
        until(reason, async || events(&process.log(), "a request is not guarded").iter().any(is_told)).await;
    }
    process.ask(&post("/orders").json("{}")).await;
    let is_told = |event: &Value| {
        event["outcome"] == "unguarded" && event["reason"] == "no key: header:idempotency-key is missing"
    };
    until("no key", async || events(&process.log(), "request").iter().any(is_told)).await;
    assert!(!process.log().contains("secret"), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn at_info_the_log_says_nothing_of_requests_without_a_route() {
    let backend = Backend::start().await;
    let (process, _folder) = started(&Setup::new(&backend.url()), &[]).await;
    process.ask(&post("/order").json("{}")).await;
    process.ask(&order("k")).await;
    process.logs("\"request\"").await;
    assert!(!process.log().contains("not guarded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_of_a_request_says_what_became_of_its_record() {
    for (script, status, became, level) in [
        (vec![answer("201 Created", "{}")], 201, "stored", "INFO"),
        (vec![answer("422 No", "{}")], 422, "released", "INFO"),
        (vec![answer("504 Late", "{}")], 504, "unknown", "WARN"),
        (vec![say("HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{}"), Step::Close], 502, "unreplayable", "INFO"),
    ] {
        let backend = Backend::scripted([script]).await;
        let (process, _folder) = started(&Setup::new(&backend.url()), &[]).await;
        assert_eq!(process.ask(&order("k")).await.status, status);
        process.logs("\"request\"").await;
        let told = events(&process.log(), "request").remove(0);
        assert_eq!((told["became"].as_str(), told["level"].as_str()), (Some(became), Some(level)), "{told}");
        assert!(told["record"].as_str().is_some_and(|record| record.starts_with("orders:")), "{told}");
    }
}

/// Request lines are written by another path than other lines, and keep their order.
#[tokio::test(flavor = "multi_thread")]
async fn lines_of_requests_and_others_are_in_the_order_of_their_times() {
    let backend = Backend::start().await;
    let (process, _folder) = started(&Setup::new(&backend.url()), &["--log-level", "debug"]).await;
    for round in 0..20 {
        process.ask(&post("/elsewhere").json("{}")).await;
        process.ask(&order(&format!("k{round}"))).await;
    }
    // The last line is written without waiting for another one.
    until("all lines", async || events(&process.log(), "request").len() == 20).await;
    let log = process.log();
    let told = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let told = told.filter(|event| event["message"] == "request" || event["message"] == "a request is not guarded");
    let told: Vec<_> =
        told.map(|event| (event["timestamp"].as_str().map(ToOwned::to_owned), event["message"].clone())).collect();
    assert_eq!(told.len(), 40, "{log}");
    for (turn, (_, message)) in told.iter().enumerate() {
        assert_eq!(*message, ["a request is not guarded", "request"][turn % 2], "{log}");
    }
    assert!(told.is_sorted_by(|(one, _), (other, _)| one <= other), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_line_says_what_is_served_and_nothing_in_it_is_code() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url()).with("store", "url = \"embedded:data\"");
    let (process, folder) = started(&setup, &[]).await;
    let told = events(&process.log(), "serving").remove(0);
    let folder = folder.path().display().to_string();
    assert_eq!(told["config"], format!("{folder}/onlyonce.toml"));
    assert_eq!(told["store"], format!("embedded:{folder}/data"));
    assert_eq!(told["upstream"], backend.url());
    assert_eq!((told["routes"].as_u64(), told["listen"].as_str()), (Some(1), Some(&*process.address.to_string())));
    assert_eq!(told["admin"], process.admin.to_string());
    assert!(told["version"].as_str().is_some_and(|version| version.starts_with(env!("CARGO_PKG_VERSION"))));
    assert!(!process.log().contains("Some("), "{}", process.log());
}

/// The record folder is relative to the file, not to the working directory.
#[tokio::test(flavor = "multi_thread")]
async fn paths_in_the_file_are_relative_to_its_folder() {
    let backend = Backend::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("onlyonce.toml");
    let setup = Setup::new(&backend.url()).with("store", "url = \"embedded:data\"");
    std::fs::write(&file, setup.toml()).expect("a writable folder");
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    for (place, config) in [(folder.path(), "onlyonce.toml"), (elsewhere.path(), file.to_str().expect("UTF-8"))] {
        let mut command = onlyonce(&["serve", "--log-format", "json", "--config", config]);
        command.current_dir(place);
        let mut process = Process::of(command).await;
        assert_eq!(process.ask(&order("k")).await.status, 201);
        process.signal(Signal::TERM);
        assert_eq!(process.exit().await, Some(0));
    }
    assert_eq!(backend.count(), 1, "the second run finds the record of the first");
    assert!(folder.path().join("data").is_dir());
    assert_eq!(std::fs::read_dir(elsewhere.path()).expect("a folder").count(), 0);
    // Certificates too.
    std::fs::write(folder.path().join("issuer.pem"), "nothing").expect("a writable folder");
    let setup = Setup::new(&backend.url()).with("jwt", "public_key = \"issuer.pem\"\nalgorithms = [\"RS256\"]");
    std::fs::write(&file, setup.toml()).expect("a writable folder");
    let output = onlyonce(&["check", "--config", file.to_str().expect("UTF-8")])
        .current_dir(elsewhere.path())
        .output()
        .expect("the program");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("holds no public key"), "{told}");
}

#[test]
fn a_fatal_error_is_json_where_the_log_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    let setup = Setup::new("http://127.0.0.1:9");
    let busy = setup.clone().with("server", &format!("listen = \"{address}\""));
    let wrong = setup.with("log", "format = \"json\"\nlevel = \"loud\"");
    for (setup, arguments, status, said) in [
        (&busy, &["--log-format", "json"][..], 1, "cannot listen on"),
        (&busy.clone().with("log", "format = \"json\""), &[], 1, "cannot listen on"),
        (&wrong, &[], 2, "loud"),
    ] {
        std::fs::write(folder.path().join("onlyonce.toml"), setup.toml()).expect("a writable folder");
        let mut command = onlyonce(&["serve"]);
        let output = command.args(arguments).current_dir(folder.path()).output().expect("the program");
        assert_eq!(output.status.code(), Some(status));
        let lines: Vec<Value> = String::from_utf8_lossy(&output.stderr)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect();
        let last = lines.last().expect("a line");
        assert_eq!(last["level"], "ERROR");
        assert!(last["message"].as_str().is_some_and(|message| message.contains(said)), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_observed_has_a_name_that_records_know() {
    let backend = Backend::start().await;
    let (process, _folder) = started(&Setup::new(&backend.url()).route("mode = \"observe\""), &[]).await;
    process.ask(&order("k")).await;
    process.logs("\"observed\"").await;
    let told = events(&process.log(), "observed").remove(0);
    let record = told["record"].as_str().expect("a name").to_owned();
    let admin = format!("http://{}", process.admin);
    let shown = onlyonce(&["records", "--admin", &admin, "show", &record]).output().expect("the program");
    assert_eq!(shown.status.code(), Some(0), "{}", String::from_utf8_lossy(&shown.stderr));
}

/// All warnings at a start; at a reload, only new ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_warning_is_told_once_for_all_its_routes_and_a_reload_tells_what_is_new() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url())
        .another_route("name = \"bills\"\npath = \"/bills\"\nscope = [\"header:Authorization\"]");
    let process = Process::start(&setup).await;
    let warned = |name: &str| {
        let log = process.log();
        let all = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        all.filter(|event| event["warning"] == name).collect::<Vec<_>>()
    };
    let told = warned("authorization-as-caller");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["routes"], "orders, bills");

    process.rewrite(&setup.clone().route("scope = []"));
    process.logs("reloaded").await;
    assert_eq!(warned("authorization-as-caller").len(), 1);
    assert_eq!(warned("no-caller").len(), 1);
    let forgotten = "scope was [header:authorization], and is []: keys that were used before are forgotten, and their \
                     requests run again when they are repeated";
    assert_eq!(events(&process.log(), forgotten)[0]["route"], "orders");

    process.rewrite(&setup.route("scope = []\naccept = [\"no-caller\"]\nlease = \"40s\""));
    until("reloaded again", async || events(&process.log(), "reloaded: the configuration is in force").len() == 2)
        .await;
    assert_eq!(warned("no-caller").len(), 1);
    assert_eq!(events(&process.log(), forgotten).len(), 1);
}
