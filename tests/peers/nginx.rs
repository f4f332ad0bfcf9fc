//! nginx as the backend: it closes its connections after a number of requests.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::curl::{body, curl};
use super::peer::printed;
use super::support::{Setup, Sidecar, order, request, until};

/// Killed when dropped.
struct Nginx {
    child: Child,
    folder: TempDir,
    url: String,
}

impl Nginx {
    /// Answers every request with the number of its connection. `listen` has the parameters after the port.
    async fn start(on: On) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (listen, url) = match on {
            On::Unix => (format!("unix:{}", at("nginx.sock")), format!("unix:{}", at("nginx.sock"))),
            On::Tcp(protocol) => {
                let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
                let address = free.expect("a port on loopback");
                (format!("{address} {protocol}"), format!("http://{address}"))
            }
        };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};\n", at(kind)))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {pid};\nerror_log stderr;\nevents {{ }}\nhttp {{\n{temporary}\
             log_format short '$request_method $uri';\naccess_log {log} short;\n\
             server {{ listen {listen}; keepalive_requests 5; location / {{ return 201 '$connection'; }}\n\
             location /files/ {{ root {root}; gzip on; gzip_types *; gzip_proxied any; }} }}\n}}\n",
            root = at(""),
            pid = at("nginx.pid"),
            log = at("access.log"),
        );
        let file = at("nginx.conf");
        std::fs::write(&file, config).expect("a writable folder");
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-p", &at(""), "-c", &file]).stdin(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("nginx: {error}; run tests/run, which installs it"));
        Self { child, folder, url }
    }

    /// A sidecar in front of it, once it answers.
    async fn behind(&self, upstream: &str) -> Sidecar {
        let keep = "idle_timeout = \"60s\"\nguarded_idle = \"60s\"\n";
        let sidecar = Setup::new(&self.url).with("upstream", &format!("{keep}{upstream}")).start().await;
        until("nginx answers", async || sidecar.ask(&request("GET", "/ready")).await.status == 201).await;
        sidecar
    }

    /// How often it has answered this path.
    fn count(&self, line: &str) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("access.log")).expect("a log");
        log.lines().filter(|logged| *logged == line).count()
    }
}

enum On {
    Unix,
    /// The parameters after the port.
    Tcp(&'static str),
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// While it closes its connections, nothing is lost, and nothing runs twice.
async fn all_goes_well(nginx: &Nginx, sidecar: &Sidecar) {
    const ROUNDS: usize = 30;
    let mut connections = std::collections::BTreeSet::new();
    for round in 0..ROUNDS {
        let (get, created) = (sidecar.ask(&request("GET", "/x")).await, sidecar.ask(&order(&round.to_string())).await);
        assert_eq!((get.status, created.status), (201, 201), "{get:?}, {created:?}");
        connections.extend([get.text().to_owned(), created.text().to_owned()]);
        let repeat = sidecar.ask(&order(&round.to_string())).await;
        assert_eq!((repeat.is_replay(), &repeat.body), (true, &created.body));
    }
    // A log line is written after the response was sent.
    let is_written = async || nginx.count("GET /x") >= ROUNDS && nginx.count("POST /orders") >= ROUNDS;
    until("the log is written", is_written).await;
    assert_eq!(nginx.count("POST /orders"), ROUNDS);
    assert!((2 * ROUNDS / 5..2 * ROUNDS).contains(&connections.len()), "{connections:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_ends_connections_and_nothing_is_lost() {
    let nginx = Nginx::start(On::Tcp("")).await;
    all_goes_well(&nginx, &nginx.behind("").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_on_a_unix_socket() {
    let nginx = Nginx::start(On::Unix).await;
    all_goes_well(&nginx, &nginx.behind("").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_in_http2() {
    let nginx = Nginx::start(On::Tcp("http2")).await;
    all_goes_well(&nginx, &nginx.behind("http2 = true").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_nginx_come_whole_in_part_and_compressed() {
    let nginx = Nginx::start(On::Tcp("")).await;
    let sidecar = nginx.behind("").await;
    let text: String = (0..400_000).map(|number| format!("{number}\n")).collect();
    std::fs::create_dir(nginx.folder.path().join("files")).expect("a writable folder");
    std::fs::write(nginx.folder.path().join("files/numbers"), &text).expect("a writable folder");
    let url = format!("http://{}/files/numbers", sidecar.address);

    let whole = printed(curl(&[&url])).await;
    assert!(whole.starts_with("HTTP/1.1 200") && body(&whole) == text);
    let part = printed(curl(&["--range", "100-119", &url])).await;
    assert!(part.starts_with("HTTP/1.1 206") && body(&part) == &text[100..120], "{part}");
    assert!(part.contains(&format!("content-range: bytes 100-119/{}", text.len())), "{part}");
    let compressed = printed(curl(&["--compressed", &url])).await;
    assert!(compressed.contains("content-encoding: gzip") && body(&compressed) == text);
    let head = printed(curl(&["--head", &url])).await;
    assert!(head.contains(&format!("content-length: {}", text.len())), "{head}");
}
