//! Authorization servers that are asked over TLS.

use super::*;
use crate::support::process::onlyonce;

/// A backend behind TLS: its file names the authority, and the sidecar's own certificate.
async fn front(authority: &Authority, backend: &Backend) -> (Front, Setup) {
    let front = Front::tls(&backend.url(), authority.server("localhost", false, &[])).await;
    let own = authority.issue("onlyonce.test");
    let (cert, key) = (authority.write("cert.pem", &own.certificate), authority.write("key.pem", &own.key));
    let keys = format!("ca = {:?}\nclient_cert = {cert:?}\nclient_key = {key:?}", authority.file());
    let setup = Setup::new(&front.url).with("server", "threads = 1").with("upstream", &keys);
    (front, setup)
}

fn asks(setup: &Setup, server: &str) -> Setup {
    setup.clone().route(&format!("replay_auth = \"{server}/verify?of=orders\""))
}

#[tokio::test]
async fn a_server_that_an_authority_of_the_backend_vouches_for_is_asked_over_tls() {
    let (authority, backend, auth) = (Authority::new(), Backend::start().await, Backend::start().await);
    let (_front, setup) = front(&authority, &backend).await;
    let server = Front::tls(&auth.url(), authority.server("localhost", false, &[b"h2", b"http/1.1"])).await;
    let sidecar = asks(&setup, &server.url).start().await;
    let first = sidecar.ask(&order("k")).await;
    for _ in 0..2 {
        let repeat = sidecar.ask(&order("k")).await;
        assert!(repeat.is_replay() && repeat.body == first.body, "{repeat:?}");
    }
    auth.then(vec![answer("403 Forbidden", "closed")]);
    let denied = sidecar.ask(&order("k")).await;
    assert_eq!((denied.status, denied.text()), (403, "closed"));
    assert_eq!((backend.count(), auth.count(), auth.connections()), (1, 3, 1), "its connection is kept");
    let host = server.url.replace("https://", "");
    for seen in auth.seen() {
        assert_eq!((&*seen.first, seen.value("host")), ("GET /verify?of=orders HTTP/1.1", Some(&*host)));
        assert_eq!(seen.value("authorization"), Some("Bearer alice"));
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_believed_is_told_nothing_and_shows_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let (_front, setup) = front(&authority, &backend).await;
    let stranger = Front::tls(&auth.url(), other.server("localhost", false, &[])).await;
    let misnamed = Front::tls(&auth.url(), authority.server("elsewhere.test", false, &[])).await;
    // The sidecar's own certificate is for the backend alone.
    let curious = Front::tls(&auth.url(), authority.server("localhost", true, &[])).await;
    let clear = auth.url().replace("http://", "https://");
    for (number, server) in [&stranger.url, &misnamed.url, &curious.url, &clear].into_iter().enumerate() {
        let sidecar = asks(&setup, server).start().await;
        let first = sidecar.ask(&order("k")).await;
        judge(server, Means::Nothing, &sidecar.ask(&order("k")).await, first.text());
        assert_eq!(results(&sidecar).await, [0.0, 0.0, 0.0, 1.0], "{server}");
        assert_eq!((backend.count(), auth.count()), (number + 1, 0), "{server}");
    }
}

#[tokio::test]
async fn authorities_of_the_system_vouch_for_it_where_the_backend_is_in_clear_text() {
    let (authority, backend, auth) = (Authority::new(), Backend::start().await, Backend::start().await);
    let server = Front::tls(&auth.url(), authority.server("localhost", false, &[])).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("onlyonce.toml");
    std::fs::write(&file, asking(&backend, &format!("{}/verify", server.url)).toml()).expect("a writable folder");
    let mut command = onlyonce(&["serve", "--log-format", "json"]);
    command.arg("--config").arg(&file).env("SSL_CERT_FILE", authority.file()).env_remove("SSL_CERT_DIR");
    let sidecar = Process::of(command).await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    assert!(sidecar.ask(&order("k")).await.is_replay());
    assert_eq!((backend.count(), auth.count()), (1, 1));
}
