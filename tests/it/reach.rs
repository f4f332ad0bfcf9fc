//! How the backend is reached: over TLS, and on a Unix socket.

use crate::support::*;

/// A sidecar in front of `url` that trusts its authority.
fn believing(authority: &Authority, url: &str) -> Setup {
    Setup::new(url).with("upstream", &format!("ca = {:?}", authority.file()))
}

#[tokio::test]
async fn requests_go_over_tls_and_connections_are_kept() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let front = Front::tls(&backend.url(), authority.server("localhost", false, &[b"h2", b"http/1.1"])).await;
    let sidecar = believing(&authority, &front.url)
        .with("upstream", "preserve_host = false")
        .with("server", "threads = 1")
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(sidecar.ask(&request("GET", "/")).await.status, 201);
    }
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    assert!(sidecar.ask(&order("k")).await.is_replay());
    assert_eq!((backend.count(), backend.connections()), (4, 1));
    let own = front.url.trim_start_matches("https://");
    assert!(backend.seen().iter().all(|seen| seen.value("host") == Some(own)));
}

#[tokio::test]
async fn a_backend_that_cannot_be_believed_gets_nothing() {
    let (authority, other, backend) = (Authority::new(), Authority::new(), Backend::start().await);
    // A certificate of another authority, one for another name, and an unknown one.
    let stranger = Front::tls(&backend.url(), other.server("localhost", false, &[])).await;
    let misnamed = Front::tls(&backend.url(), authority.server("elsewhere.test", false, &[])).await;
    for sidecar in [
        believing(&authority, &stranger.url).start().await,
        believing(&authority, &misnamed.url).start().await,
        Setup::new(&stranger.url).start().await,
        // It does not speak TLS at all.
        believing(&authority, &backend.url().replace("http://", "https://")).start().await,
    ] {
        sidecar.ask(&request("GET", "/")).await.refuses(502, "upstream-unreachable");
        for _ in 0..2 {
            sidecar.ask(&order("k")).await.refuses(502, "upstream-unreachable");
        }
        let released = "onlyonce_records_total{route=\"orders\",state=\"released\"}";
        assert_eq!(sidecar.metric(released).await, 2.0, "the key is free");
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_within_the_connect_timeout() {
    let (authority, silent) = (Authority::new(), ByHand::start().await);
    let setup = believing(&authority, &silent.url().replace("http://", "https://"));
    let sidecar = setup.with("upstream", "connect_timeout = \"200ms\"").start().await;
    let asking = sidecar.asking(&order("k"));
    let _connection = silent.accept().await;
    asking.await.expect("an answer").refuses(502, "upstream-unreachable");
    let released = "onlyonce_records_total{route=\"orders\",state=\"released\"}";
    assert_eq!(sidecar.metric(released).await, 1.0, "the key is free");
}

#[tokio::test]
async fn a_backend_that_asks_gets_the_sidecar_s_certificate() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let front = Front::tls(&backend.url(), authority.server("localhost", true, &[])).await;
    let own = authority.issue("onlyonce.test");
    let (cert, key) = (authority.write("cert.pem", &own.certificate), authority.write("key.pem", &own.key));
    let shown = format!("client_cert = {cert:?}\nclient_key = {key:?}");
    let sidecar = believing(&authority, &front.url).with("upstream", &shown).start().await;
    assert_eq!(sidecar.ask(&request("GET", "/")).await.status, 201);
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    assert_eq!(backend.count(), 2);
}

/// In TLS 1.3 the server verifies the client's certificate when the client may have sent data already.
#[tokio::test]
async fn a_backend_that_does_not_accept_the_sidecar_has_run_nothing() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let front = Front::tls(&backend.url(), authority.server("localhost", true, &[])).await;
    let own = Authority::new().issue("onlyonce.test");
    let (cert, key) = (authority.write("cert.pem", &own.certificate), authority.write("key.pem", &own.key));
    let stranger = format!("client_cert = {cert:?}\nclient_key = {key:?}");
    for setup in [believing(&authority, &front.url), believing(&authority, &front.url).with("upstream", &stranger)] {
        let sidecar = setup.start().await;
        let before = front.refused();
        for tried in 1..=3 {
            sidecar.ask(&order("k")).await.refuses(502, "upstream-unreachable");
            assert_eq!(front.refused(), before + tried);
        }
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_backend_may_be_on_a_unix_socket() {
    let backend = Backend::start().await;
    let front = Front::unix(&backend.url()).await;
    for (preserve, host) in [("true", "api.test"), ("false", "localhost")] {
        let setup = Setup::new(&front.url).with("upstream", &format!("preserve_host = {preserve}"));
        let sidecar = setup.start().await;
        assert_eq!(sidecar.ask(&order(preserve)).await.status, 201);
        assert!(sidecar.ask(&order(preserve)).await.is_replay());
        assert_eq!(backend.seen().pop().expect("it came").value("host"), Some(host));
    }
    assert_eq!((backend.count(), backend.connections()), (2, 2));
}

#[tokio::test]
async fn where_there_is_no_socket_the_key_is_free_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sidecar = Setup::new(&format!("unix:{}", folder.path().join("no.sock").display())).start().await;
    for _ in 0..2 {
        sidecar.ask(&order("k")).await.refuses(502, "upstream-unreachable");
    }
}
