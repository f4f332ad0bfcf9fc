//! Servers that must not be used, and what is between.

use super::*;
use crate::store::certificates::Authority;
use crate::store::postgres_server::Pooler;

/// Settings of the role, the database or the server change nothing about what a session needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_sets_what_it_needs_itself() {
    let server = PostgresServer::start();
    server.sql(
        "CREATE ROLE careless SUPERUSER LOGIN;
         ALTER ROLE careless SET synchronous_commit = off; ALTER ROLE careless SET statement_timeout = '1ms';
         ALTER ROLE careless SET lock_timeout = '1ms'; ALTER ROLE careless SET client_min_messages = 'error';
         ALTER ROLE careless SET default_transaction_isolation = 'serializable';
         ALTER ROLE careless SET search_path = 'nowhere'; ALTER DATABASE postgres SET idle_session_timeout = '100ms'",
    );
    let store = open_with(&address(&server, "careless"), &config()).await;
    let told: Vec<String> = store.findings().into_iter().map(|finding| finding.found).collect();
    assert!(told.iter().any(|found| found.starts_with("on in the sessions of onlyonce")), "{told:?}");
    let primary = store.shared.link.state().expect("a primary");
    let session = primary.session().expect("a session");
    for (setting, wanted) in [
        ("synchronous_commit", "on"),
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_session_timeout", "0"),
        ("client_min_messages", "warning"),
        ("default_transaction_isolation", "read committed"),
    ] {
        let row = session.client().query_one("SELECT current_setting($1)", &[&setting]).await.expect("a setting");
        assert_eq!(row.get::<_, String>(0), wanted, "{setting}");
    }
    store.claim(&name(), &claim(1, RETRY)).await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_decides_about_nothing_and_the_primary_is_found_among_the_hosts() {
    let server = PostgresServer::start();
    open(&server).await;
    let standby = server.start_standby(&["fsync=off"]);
    let store = Postgres::open(&address(&standby, "postgres"), &config(), HOUR);
    let why = store.tried().await.expect_err("a standby");
    assert!(matches!(*why, PostgresError::NoPrimary(_)), "{why}");
    assert!(matches!(store.claim(&name(), &claim(1, RETRY)).await, Err(StoreError::Unavailable(_))));

    let mut both = address(&standby, "postgres");
    both.servers.extend(address(&server, "postgres").servers);
    let store = open_with(&both, &config()).await;
    assert_eq!(store.shared.link.state().expect("a primary").endpoint, both.servers[1]);

    // The standby becomes a primary while the old one lives: the later timeline counts, and never the older one again.
    standby.promote();
    let store = open_with(&both, &config()).await;
    assert_eq!(store.shared.link.state().expect("a primary").endpoint, both.servers[0]);
    let why = examine::primary(&PostgresDialer::new(&address(&server, "postgres")), 2).await.err().expect("an old one");
    assert!(matches!(why, PostgresError::OldTimeline { found: 1, seen: 2, .. }), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_and_the_certificate_is_checked() {
    let authority = Authority::new();
    let issued = authority.issue("127.0.0.1");
    let server = PostgresServer::start_over_tls(&issued.certificate, &issued.key);
    server.sql("CREATE ROLE secret LOGIN SUPERUSER PASSWORD 'open sesame'");
    server.let_in(&["hostssl all secret 127.0.0.1/32 scram-sha-256", "hostnossl all secret 127.0.0.1/32 reject"]);
    let plain = address(&server, "secret");
    let why = Postgres::open(&plain, &config(), HOUR).tried().await.expect_err("it wants TLS");
    assert!(matches!(&*why, PostgresError::Credentials(told) if told.contains("no encryption")), "{why}");

    let client = |authority: &Authority| {
        let certificate = std::fs::read(authority.file()).expect("a file");
        let authorities = crate::tls::Authorities::read(&certificate).expect("a certificate");
        Some(crate::tls::TlsClient { authorities, identity: None })
    };
    let password = |password: &str| Some(config::StorePassword::Fixed(config::Secret::new(password)));
    let right = PostgresAddress { tls: client(&authority), password: password("open sesame"), ..plain.clone() };
    let store = open_with(&right, &config()).await;
    let primary = store.shared.link.state().expect("a primary");
    let is_encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row = primary.control.client().query_one(is_encrypted, &[]).await.expect("a row");
    assert!(row.get::<_, bool>(0));

    let wrong = PostgresAddress { password: password("guess"), ..right.clone() };
    let why = Postgres::open(&wrong, &config(), HOUR).tried().await.expect_err("a wrong password");
    assert!(matches!(&*why, PostgresError::Credentials(_)) && !why.to_string().contains("guess"), "{why}");

    let untrusting = PostgresAddress { tls: client(&Authority::new()), ..right };
    let why = Postgres::open(&untrusting, &config(), HOUR).tried().await.expect_err("a certificate of a stranger");
    assert!(matches!(&*why, PostgresError::Tls(_)), "{why}");

    // A server without TLS.
    let server = PostgresServer::start();
    let asked = PostgresAddress { tls: client(&authority), ..address(&server, "postgres") };
    let why = Postgres::open(&asked, &config(), HOUR).tried().await.expect_err("no TLS there");
    assert!(matches!(&*why, PostgresError::Tls(told) if told.contains("sslmode=disable")), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_shares_connections_is_refused_and_one_that_does_not_is_used() {
    let server = PostgresServer::start();
    open(&server).await;
    let through = |pooler: &Pooler| PostgresAddress {
        servers: vec![StoreEndpoint::Tcp("127.0.0.1".to_owned(), pooler.port())],
        ..address(&server, "postgres")
    };
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::start(&server, mode);
        let store = Postgres::open(&through(&pooler), &config(), HOUR);
        let why = store.tried().await.expect_err("a pooler");
        assert!(!matches!(*why, PostgresError::NotYet), "{why}");
        assert!(mode == "statement" || matches!(*why, PostgresError::Pooler) && why.is_final(), "{mode}: {why}");
        assert!(store.claim(&name(), &claim(1, RETRY)).await.is_err());
    }
    let pooler = Pooler::start(&server, "session");
    let store = open_with(&through(&pooler), &config()).await;
    store.claim(&name(), &claim(1, RETRY)).await.expect("an answer");
}
