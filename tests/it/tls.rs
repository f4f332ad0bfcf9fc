//! Clients that use TLS.

use std::path::Path;
use std::sync::Arc;

use onlyonce::run::Stopped;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::*;

/// A certificate for `api.test`, its key, and a client that trusts it.
struct Identity {
    folder: TempDir,
    certificate: CertificateDer<'static>,
}

impl Identity {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let certificate = make(folder.path());
        Self { folder, certificate }
    }

    fn renew(&mut self) {
        self.certificate = make(self.folder.path());
    }

    fn table(&self) -> String {
        let path = |name| self.folder.path().join(name).display().to_string();
        format!("tls = {{ cert = \"{}\", key = \"{}\" }}", path("cert.pem"), path("key.pem"))
    }

    async fn connect(&self, address: std::net::SocketAddr, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut settings = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        settings.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(address).await.expect("it listens");
        let name = ServerName::try_from("api.test").expect("a name");
        within("a handshake", TlsConnector::from(Arc::new(settings)).connect(name, stream)).await
    }

    async fn wire(&self, address: std::net::SocketAddr) -> Wire {
        Wire::over(self.connect(address, "http/1.1").await.expect("a handshake"))
    }
}

fn make(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["api.test".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("a file");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    made.cert.der().clone()
}

fn setup(backend: &Backend, identity: &Identity) -> Setup {
    Setup::new(&backend.url()).with("server", &identity.table())
}

#[tokio::test]
async fn a_repeat_over_tls_is_replayed() {
    let (backend, identity) = (Backend::start().await, Identity::new());
    let sidecar = setup(&backend, &identity).start().await;
    let mut client = identity.wire(sidecar.address).await;
    assert!(!client.ask(&order("k")).await.is_replay());
    assert!(client.ask(&order("k")).await.is_replay());
    assert_eq!(backend.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_reaches_a_client_that_writes_before_it_reads() {
    let (backend, identity) = (Backend::start().await, Identity::new());
    let sidecar = setup(&backend, &identity).start().await;
    for size in [2 << 20, 30 << 20] {
        let request = order("k").body(vec![b'x'; size]);
        for request in [request.clone(), request.chunked()] {
            let mut client = identity.wire(sidecar.address).await;
            client.send(request.bytes()).await;
            client.response().await.refuses(413, "request-too-large");
            client.ends().await;
        }
    }
}

/// The end of TLS (close_notify), after which TCP ends too.
#[tokio::test]
async fn a_repeat_that_has_said_all_it_has_to_say_waits_as_any_other() {
    let ((backend, gate), identity) = (Backend::gated().await, Identity::new());
    let sidecar = setup(&backend, &identity).route("on_concurrent = \"wait\"\nwait_timeout = \"15s\"").start().await;
    let mut first = identity.wire(sidecar.address).await;
    first.send(order("k").bytes()).await;
    backend.has_seen(1).await;
    let mut waiting = identity.wire(sidecar.address).await;
    waiting.send(order("k").bytes()).await;
    waiting.finish().await;
    until("it waits", async || sidecar.metric("onlyonce_waiting{route=\"orders\"}").await == 1.0).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(sidecar.metric("onlyonce_waiting{route=\"orders\"}").await, 1.0);
    gate.open();
    assert!(waiting.response().await.is_replay());
    assert_eq!(first.response().await.status, 201);
}

#[tokio::test]
async fn http_2_is_agreed_upon() {
    let (backend, identity) = (Backend::start().await, Identity::new());
    let sidecar = setup(&backend, &identity).start().await;
    let stream = identity.connect(sidecar.address, "h2").await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut send, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::post("https://api.test/orders").header("idempotency-key", "k").body(());
    let (response, _) = send.send_request(request.expect("a request"), true).expect("an open connection");
    assert_eq!(within("a response", response).await.expect("a response").status(), 201);
}

#[tokio::test]
async fn whoever_does_not_finish_the_handshake_is_cut_off() {
    let (backend, identity) = (Backend::start().await, Identity::new());
    let times = "header_timeout = \"200ms\"\nmax_connections = 1";
    let sidecar = setup(&backend, &identity).with("server", times).start().await;
    let mut silent = sidecar.connect().await;
    until("it counts", async || sidecar.metric("onlyonce_connections").await == 1.0).await;
    silent.ends().await;
    let mut slow = sidecar.connect().await;
    // The beginning of a handshake.
    slow.send([0x16, 0x03, 0x01, 0x02]).await;
    slow.rest().await;
    // They used the only place.
    assert_eq!(identity.wire(sidecar.address).await.ask(&order("k")).await.status, 201);
}

#[tokio::test]
async fn whoever_speaks_no_tls_gets_nothing() {
    let (backend, identity) = (Backend::start().await, Identity::new());
    let sidecar = setup(&backend, &identity).start().await;
    let mut client = sidecar.begin(&order("k")).await;
    let said = client.rest().await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_client_that_has_said_all_over_tls_gets_its_answer() {
    let (backend, gate) = Backend::gated().await;
    let identity = Identity::new();
    let sidecar = setup(&backend, &identity).start().await;
    let mut client = identity.wire(sidecar.address).await;
    client.send(order("k").bytes()).await;
    client.finish().await;
    backend.has_seen(1).await;
    gate.open();
    assert_eq!(client.response().await.status, 201);
}

#[tokio::test]
async fn a_client_that_takes_nothing_over_tls_is_cut_off() {
    let backend = Backend::scripted([vec![answer("200 OK", "x".repeat(8 << 20))]]).await;
    let identity = Identity::new();
    let times = "idle_timeout = \"1s\"\nheader_timeout = \"1s\"";
    let sidecar = setup(&backend, &identity).with("server", times).start().await;
    let mut client = identity.wire(sidecar.address).await;
    client.send(post("/elsewhere").bytes()).await;
    backend.has_seen(1).await;
    until("it is cut off", async || sidecar.metric("onlyonce_connections").await == 0.0).await;
    drop(client);
}

#[tokio::test]
async fn stopping_ends_connections_as_tls_should_end() {
    let (backend, gate) = Backend::gated().await;
    let identity = Identity::new();
    let sidecar = setup(&backend, &identity).start().await;
    let mut busy = identity.wire(sidecar.address).await;
    busy.send(order("k").bytes()).await;
    backend.has_seen(1).await;
    let mut idle = identity.connect(sidecar.address, "http/1.1").await.expect("a handshake");
    let stopping = sidecar.begin_to_stop();
    // A close without the alert would be an error here.
    let mut rest = Vec::new();
    within("its end", idle.read_to_end(&mut rest)).await.expect("an end in peace");
    gate.open();
    assert_eq!(busy.response().await.status, 201);
    busy.ends().await;
    assert_eq!(within("stopping", stopping).await.expect("no panic"), Stopped::Clean);
}

#[tokio::test]
async fn a_renewed_certificate_is_noticed_and_one_without_its_key_is_not_taken() {
    let (backend, mut identity) = (Backend::start().await, Identity::new());
    let process = Process::start(&setup(&backend, &identity)).await;
    let old = std::fs::read(identity.folder.path().join("key.pem")).expect("the key");
    let shown = identity.certificate.clone();
    identity.renew();
    let renewed = std::mem::replace(&mut identity.certificate, shown);
    let key = identity.folder.path().join("key.pem");
    let new = std::fs::read(&key).expect("the key");
    std::fs::write(&key, old).expect("a file");
    let refused = "onlyonce_config_reloads_total{result=\"refused\"}";
    until("refused", async || process.metric(refused).await == 1.0).await;
    // It is counted before its line is written.
    until("the refusal is in the log", async || process.log().contains("server.tls.key is not")).await;
    identity.wire(process.address).await;
    std::fs::write(&key, new).expect("a file");
    identity.certificate = renewed;
    until("the new one is shown", async || identity.connect(process.address, "http/1.1").await.is_ok()).await;
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_at_sighup_and_connections_stay() {
    let (backend, mut identity) = (Backend::start().await, Identity::new());
    let process = Process::start(&setup(&backend, &identity)).await;
    let mut before = identity.wire(process.address).await;
    assert_eq!(before.ask(&order("one")).await.status, 201);
    identity.renew();
    process.signal(Signal::HUP);
    until("the new one is shown", async || identity.connect(process.address, "http/1.1").await.is_ok()).await;
    assert!(before.ask(&order("one")).await.is_replay());
}

#[tokio::test]
async fn the_log_says_once_that_clear_text_came_where_tls_is_spoken_and_tls_where_it_is_not() {
    let (backend, identity) = (Backend::start().await, Identity::new());
    let with_tls = Process::start(&setup(&backend, &identity)).await;
    let clear = "a client speaks clear text to a port with TLS (server.tls): have it use https://";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for spoken in [&order("k").bytes()[..], preface, b"x", b"GET / HTTP/1.1\r\n"] {
        let mut client = Wire::connect(with_tls.address).await;
        client.send(spoken).await;
        client.finish().await;
        client.rest().await;
        if spoken.len() > 4 {
            with_tls.logs(clear).await;
        }
    }
    assert_eq!(with_tls.log().matches(clear).count(), 1, "{}", with_tls.log());
    assert!(!with_tls.log().contains("speaks TLS"), "{}", with_tls.log());

    let without = Process::start(&Setup::new(&backend.url())).await;
    let no_tls = "a client speaks TLS to a port without it: have it use http://, or set server.tls";
    let none_of_operators = "a client speaks TLS to the admin listener, which has none: have it use http://";
    for (address, said) in [(without.address, no_tls), (without.admin, none_of_operators)] {
        for _ in 0..2 {
            assert!(identity.connect(address, "h2").await.is_err(), "{said}");
        }
        without.logs(said).await;
        assert_eq!(without.log().matches(said).count(), 1, "{}", without.log());
    }
    // What is neither is no mistake that could be named.
    let mut client = Wire::connect(without.address).await;
    client.send(b"\x00\x01\x02\r\n\r\n").await;
    client.rest().await;
    assert_eq!(without.log().matches("a client speaks").count(), 2, "{}", without.log());
    assert_eq!(backend.count(), 0);
}
