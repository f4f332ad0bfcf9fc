//! The examples in `deploy/` for reverse proxies: each with the real program and a guarded request through it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::*;

/// Killed when dropped.
struct Edge {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Edge {
    /// Starts a program with an example configuration for this sidecar. `arguments` may hold `FILE` and `FOLDER`.
    async fn start(program: &str, example: &str, arguments: &[&str], sidecar: &Sidecar) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a port on loopback");
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(example));
        let mut text = text.expect("the example");
        let (port, admin) = (sidecar.address.port(), sidecar.admin.port());
        let run = folder.path().display().to_string();
        for (example, here) in [
            ("127.0.0.1:8000", address.to_string()),
            ("http://:8000", format!("http://:{}", address.port())),
            ("127.0.0.1:8080", format!("127.0.0.1:{port}")),
            ("check port 9464", format!("check port {admin}")),
            ("port_value: 8000", format!("port_value: {}", address.port())),
            ("port_value: 8080", format!("port_value: {port}")),
            ("/run/", format!("{run}/")),
        ] {
            text = text.replace(example, &here);
        }
        let file = folder.path().join(Path::new(example).file_name().expect("a name"));
        std::fs::write(&file, text).expect("a writable folder");
        let fill = |argument: &&str| argument.replace("FILE", &file.display().to_string()).replace("FOLDER", &run);
        let child = Command::new(program)
            .args(arguments.iter().map(fill))
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; run tests/run, which installs it"));
        let mut edge = Self { child, address, _folder: folder };
        until(&format!("{program} listens"), async || {
            assert!(edge.child.try_wait().expect("our child").is_none(), "{program} ended");
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        edge
    }

    async fn ask(&self, request: &Request) -> Response {
        Wire::connect(self.address).await.ask(request).await
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A double click through the edge runs once, and the backend gets the client's address.
async fn guards_through(program: &str, example: &str, arguments: &[&str]) {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url()).with("server", "trusted_proxies = [\"127.0.0.1\"]");
    let sidecar = setup.route("on_concurrent = \"wait\"").start().await;
    let edge = Edge::start(program, example, arguments, &sidecar).await;
    // An edge with health checks may need a moment to find its backend.
    until("the edge passes requests", async || edge.ask(&request("GET", "/ready")).await.status == 201).await;
    let order = order("k").line("X-Forwarded-For: 192.0.2.9").body("{}");
    let before = backend.count();
    let (first, second) = tokio::join!(edge.ask(&order), edge.ask(&order));
    assert_eq!((first.status, second.status, first.text()), (201, 201, second.text()), "{program}");
    assert_eq!(usize::from(first.is_replay()) + usize::from(second.is_replay()), 1, "{program}");
    assert_eq!(backend.count(), before + 1, "{program}");
    let seen = backend.seen().pop().expect("a request");
    assert!(seen.value("x-forwarded-for").is_some_and(|chain| chain.contains("127.0.0.1")), "{program}: {seen:?}");
    edge.ask(&crate::support::order("k").body("[]")).await.refuses(422, "key-reused");
}

#[tokio::test]
async fn nginx_as_in_the_example_passes_guarded_requests() {
    guards_through("nginx", "nginx.conf", &["-e", "stderr", "-p", "FOLDER", "-c", "FILE", "-g", "daemon off;"]).await;
}

#[tokio::test]
async fn haproxy_as_in_the_example_passes_guarded_requests() {
    guards_through("haproxy", "haproxy.cfg", &["-db", "-f", "FILE"]).await;
}

#[tokio::test]
async fn caddy_as_in_the_example_passes_guarded_requests() {
    guards_through("caddy", "caddy/Caddyfile", &["run", "--adapter", "caddyfile", "--config", "FILE"]).await;
}

#[tokio::test]
async fn envoy_as_in_the_example_passes_guarded_requests() {
    // Test programs are two folders below that of all builds.
    let own = std::env::current_exe().expect("a path");
    let program = own.ancestors().nth(3).expect("the folder of builds").join("peers-envoy/bin/envoy");
    let options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "--config-path", "FILE"];
    guards_through(program.to_str().expect("UTF-8"), "envoy.yaml", &options).await;
}
