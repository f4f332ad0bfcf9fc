//! Unix sockets, and sockets that a service manager listens on.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use onlyonce::config;
use onlyonce::run;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::UnixStream;

use crate::support::*;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("onlyonce.sock")
    }

    fn setup(&self, backend: &Backend) -> Setup {
        Setup::new(&backend.url()).with("server", &format!("listen = \"unix:{}\"", self.path().display()))
    }
}

async fn connect(path: &Path) -> Wire {
    Wire::over(within("connecting", UnixStream::connect(path)).await.expect("it listens"))
}

/// Returns the error of a failed start.
async fn refused(setup: &Setup) -> String {
    let config = config::parse("test.toml", &setup.toml(), &|_| None).expect("a configuration");
    let Err(error) = run::Sidecar::start(config).await else { panic!("it starts") };
    error.to_string()
}

#[tokio::test]
async fn requests_come_over_a_unix_socket() {
    let (backend, place) = (Backend::start().await, Place::new());
    let sidecar = place.setup(&backend).start().await;
    let mut client = connect(&place.path()).await;
    assert!(!client.ask(&order("k")).await.is_replay());
    assert!(client.ask(&order("k")).await.is_replay());
    let seen = backend.only();
    assert!(!seen.has("x-forwarded-for"), "nobody has an address there: {seen:?}");
    assert_eq!(seen.value("x-forwarded-host"), Some("api.test"));
    assert_eq!(sidecar.metric("onlyonce_connections").await, 1.0);
}

#[tokio::test]
async fn all_places_are_for_whichever_listener_is_connected_to() {
    let (backend, place) = (Backend::start().await, Place::new());
    let path = |number: usize| place.folder.path().join(format!("{number}.sock"));
    let listen: Vec<_> = (0..4).map(|number| format!("unix:{}", path(number).display())).collect();
    let server = format!("listen = {listen:?}\nmax_connections = 3");
    let sidecar = Setup::new(&backend.url()).with("server", &server).start().await;
    // Over each of them, one after the other.
    for number in [0, 1, 2, 3, 0, 3] {
        let mut client = connect(&path(number)).await;
        assert_eq!(client.ask(&order("k")).await.status, 201);
    }
    until("all are gone", async || sidecar.metric("onlyonce_connections").await == 0.0).await;
    // All at once over one of them; then every listener is at the limit.
    for busy in [0, 3] {
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut client = connect(&path(busy)).await;
            assert_eq!(client.ask(&order("k")).await.status, 201);
            held.push(client);
        }
        let mut fourth = connect(&path(1)).await;
        fourth.send(order("k").bytes()).await;
        assert_eq!(held[0].ask(&order("k")).await.status, 201);
        assert_eq!(sidecar.metric("onlyonce_connections").await, 3.0);
        held.pop();
        assert_eq!(fourth.response().await.status, 201);
        drop((held, fourth));
        until("all are gone", async || sidecar.metric("onlyonce_connections").await == 0.0).await;
    }
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_unix_socket_may_stand_beside_an_address() {
    let (backend, place) = (Backend::start().await, Place::new());
    let both = format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]", place.path().display());
    let sidecar = Setup::new(&backend.url()).with("server", &both).start().await;
    assert!(!sidecar.ask(&order("k")).await.is_replay());
    assert!(connect(&place.path()).await.ask(&order("k")).await.is_replay());
}

#[tokio::test]
async fn a_waiting_client_that_leaves_a_unix_socket_is_noticed() {
    let (backend, gate) = Backend::gated().await;
    let place = Place::new();
    let sidecar = place.setup(&backend).route("on_concurrent = \"wait\"\nmax_waiters = 1").start().await;
    let mut first = connect(&place.path()).await;
    first.send(order("k").bytes()).await;
    backend.has_seen(1).await;
    let mut second = connect(&place.path()).await;
    second.send(order("k").bytes()).await;
    let waiting = async || sidecar.metric("onlyonce_waiting{route=\"orders\"}").await;
    until("it waits", async || waiting().await == 1.0).await;
    drop(second);
    until("its place is free", async || waiting().await == 0.0).await;
    gate.open();
    assert_eq!(first.response().await.status, 201);
}

#[tokio::test]
async fn its_file_is_for_owner_and_group_and_goes_with_the_program() {
    let (backend, place) = (Backend::start().await, Place::new());
    let mut process = Process::after(&place.setup(&backend), "umask 000;", Stdio::null(), Stdio::null()).await;
    let file = std::fs::metadata(place.path()).expect("a file");
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o660);
    assert_eq!(connect(&place.path()).await.ask(&order("k")).await.status, 201);
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await, Some(0), "{}", process.log());
    assert!(!place.path().exists());
}

#[tokio::test]
async fn a_file_that_a_crash_left_is_replaced() {
    let (backend, place) = (Backend::start().await, Place::new());
    let mut process = Process::after(&place.setup(&backend), "", Stdio::null(), Stdio::null()).await;
    process.kill();
    assert!(place.path().exists(), "nobody took it away");
    let _sidecar = place.setup(&backend).start().await;
    assert_eq!(connect(&place.path()).await.ask(&order("k")).await.status, 201);
}

#[tokio::test]
async fn what_is_there_already_is_left_alone() {
    let (backend, place) = (Backend::start().await, Place::new());
    let sidecar = place.setup(&backend).start().await;
    let taken = refused(&place.setup(&backend)).await;
    assert!(taken.ends_with("(server.listen): another program listens there; stop it, or choose another path"));
    assert_eq!(connect(&place.path()).await.ask(&order("k")).await.status, 201);
    sidecar.stop().await;
    std::fs::write(place.path(), "notes").expect("a file");
    let not_ours = refused(&place.setup(&backend)).await;
    assert!(not_ours.ends_with("a file that is no socket is there; remove it, or choose another path"), "{not_ours}");
    assert_eq!(std::fs::read_to_string(place.path()).expect("the file"), "notes");
}

#[tokio::test]
async fn a_file_that_took_its_place_is_not_taken_away() {
    let (backend, place) = (Backend::start().await, Place::new());
    let sidecar = place.setup(&backend).start().await;
    std::fs::remove_file(place.path()).expect("a file");
    let _successor = place.setup(&backend).start().await;
    sidecar.stop().await;
    assert_eq!(connect(&place.path()).await.ask(&order("k")).await.status, 201);
}

#[tokio::test]
async fn a_folder_that_is_missing_is_named() {
    let (backend, place) = (Backend::start().await, Place::new());
    let path = place.folder.path().join("no/such.sock");
    let setup = Setup::new(&backend.url()).with("server", &format!("listen = \"unix:{}\"", path.display()));
    let error = refused(&setup).await;
    let expected = "its folder is not there; make it, or choose another path";
    assert_eq!(error, format!("cannot listen on unix:{} (server.listen): {expected}", path.display()));
}

/// As systemd does: the sockets are file descriptors 3 and 4, announced in the environment.
const PASS: &str = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=2;";

#[tokio::test]
async fn sockets_that_are_passed_take_the_place_of_those_configured() {
    let (backend, place) = (Backend::start().await, Place::new());
    let address = std::net::TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let socket = std::os::unix::net::UnixListener::bind(place.path()).expect("a socket");
    let reached = address.local_addr().expect("an address");
    // This address cannot be bound: it is in use.
    let setup = Setup::new(&backend.url()).with("server", &format!("listen = \"{reached}\""));
    let stdio = |socket: OwnedFd| Stdio::from(socket);
    let mut process = Process::after(&setup, PASS, stdio(address.into()), stdio(socket.into())).await;
    assert!(process.log().contains("they take the place of server.listen"), "{}", process.log());
    assert!(!Wire::connect(reached).await.ask(&order("k")).await.is_replay());
    assert!(connect(&place.path()).await.ask(&order("k")).await.is_replay());
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await, Some(0), "{}", process.log());
    assert!(place.path().exists(), "it belongs to whoever made it");
}

#[tokio::test]
async fn sockets_that_are_meant_for_another_process_are_left_alone() {
    let backend = Backend::start().await;
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let passed = socket.local_addr().expect("an address");
    let for_another = "exec 3<&0 </dev/null; export LISTEN_PID=1 LISTEN_FDS=1;";
    let socket = Stdio::from(OwnedFd::from(socket));
    let process = Process::after(&Setup::new(&backend.url()), for_another, socket, Stdio::null()).await;
    assert_ne!(process.address, passed);
    assert_eq!(process.ask(&order("k")).await.status, 201);
}
