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
         ALTER ROLE careless SET standard_conforming_strings = off; ALTER ROLE careless SET escape_string_warning = off;
         ALTER ROLE careless SET search_path = 'nowhere'; ALTER DATABASE postgres SET idle_session_timeout = '100ms'",
    );
    let store = open_with(&address(&server, "careless"), &config()).await;
    let told: Vec<String> = store.findings().into_iter().map(|finding| finding.found).collect();
    assert!(told.iter().any(|found| found.starts_with("on in the sessions of onlyonce")), "{told:?}");
    let primary = store.shared.link.state().expect("a primary");
    let session = primary.to_commit().expect("a session");
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
    // The statements mean what they mean.
    let (name, mine) = (name(), claim(1, RETRY));
    store.claim(&name, &mine).await.expect("an answer");
    assert_eq!(store.renew(&name, &mine).await.expect("an answer"), Renewed::Extended);
    assert_eq!(store.settle(&name, &completed(&mine, b"{}")).await.expect("an answer"), Settled::Written);
    server.sql("SELECT onlyonce.make_partition(clock_timestamp() - interval '1 day')");
    let drop_one = "SET standard_conforming_strings = off; SELECT onlyonce.drop_partition()";
    assert_eq!(server.sql(drop_one), "t");
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

/// A sidecar that is connected learns of it, too: the old primary may live on, and not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connected_sidecar_leaves_a_primary_whose_place_another_one_has_taken() {
    let server = PostgresServer::start();
    // A name that leads to another server later, as an address that moves does.
    let name = MovingName::start(server.port()).await;
    let standby = server.start_standby(&["fsync=off"]);
    let mut both = address(&server, "postgres");
    both.servers.extend(address(&standby, "postgres").servers);
    let moving =
        PostgresAddress { servers: vec![StoreEndpoint::Tcp("127.0.0.1".to_owned(), name.port)], ..both.clone() };
    let often =
        PostgresOptions { ping_every: Duration::from_millis(100), body_survives: HOUR, ..PostgresOptions::default() };
    let [listed, named] = [&both, &moving].map(|address| Postgres::open_with(address, &config(), often));
    for store in [&listed, &named] {
        store.ready(PATIENCE).await.unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(store.shared.link.state().expect("a primary").timeline, 1);
    }
    standby.promote();
    name.to.store(standby.port(), std::sync::atomic::Ordering::Relaxed);
    for store in [&listed, &named] {
        until("the later one is used", async || store.shared.link.state().is_ok_and(|primary| primary.timeline == 2))
            .await;
        until("claims are made there", async || store.claim(&self::name(), &claim(1, RETRY)).await.is_ok()).await;
    }
    assert_eq!(server.sql("SELECT count(*) FROM onlyonce.records"), "0");
    assert_ne!(standby.sql("SELECT count(*) FROM onlyonce.records"), "0");
}

/// Passes connections on to a port, which may change for later ones.
struct MovingName {
    port: u16,
    to: Arc<std::sync::atomic::AtomicU16>,
    _task: AbortOnDropHandle<()>,
}

impl MovingName {
    async fn start(to: u16) -> Self {
        let to = Arc::new(std::sync::atomic::AtomicU16::new(to));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (port, target) = (listener.local_addr().expect("an address").port(), to.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let to = target.load(std::sync::atomic::Ordering::Relaxed);
                tokio::spawn(async move {
                    let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", to)).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { port, to, _task: AbortOnDropHandle::new(task) }
    }
}

/// An administrator, or a firewall, ends connections that nobody uses at the moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_lost_are_opened_again_before_the_next_call() {
    let server = PostgresServer::start();
    let store = open(&server).await;
    let primary = store.shared.link.state().expect("a primary");
    for kind in ["onlyonce calls", "onlyonce commits", "onlyonce calls"] {
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{kind}'");
        let usual = if kind == "onlyonce calls" { pool::COMMITTING.least + pool::READING.least } else { 1 };
        let is_usual = async || server.sql(&count).parse::<usize>().is_ok_and(|count| count >= usual);
        until("they are there", is_usual).await;
        server.sql(&format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = '{kind}'"
        ));
        until("they are there again", is_usual).await;
    }
    until("claims are made", async || store.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
    assert!(Arc::ptr_eq(&primary, &store.shared.link.state().expect("the same")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_reached_over_its_socket_over_ipv6_and_with_a_password_that_changes() {
    let server = PostgresServer::start_with(&["fsync=off", "listen_addresses=127.0.0.1,::1"]);
    let tcp = address(&server, "postgres");
    let at = |endpoint| PostgresAddress { servers: vec![endpoint], ..tcp.clone() };
    let socket = server.folder().join(format!(".s.PGSQL.{}", server.port()));
    let mut ways = vec![StoreEndpoint::Unix(socket)];
    // Not every machine has it.
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        ways.push(StoreEndpoint::Tcp("::1".to_owned(), server.port()));
    }
    for way in ways {
        let store = open_with(&at(way.clone()), &config()).await;
        until("claims are made", async || store.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
        assert_eq!(store.shared.link.state().expect("a primary").endpoint, way);
    }

    server.sql("CREATE ROLE changing LOGIN SUPERUSER PASSWORD 'one'");
    server.let_in(&["host all changing 127.0.0.1/32 scram-sha-256"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "one\n").expect("a writable folder");
    let password = Some(config::StorePassword::File(file.clone()));
    let store = open_with(&PostgresAddress { password, ..address(&server, "changing") }, &config()).await;
    server.sql("ALTER ROLE changing PASSWORD 'two'");
    server.sql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'changing'");
    until("the old one is refused", async || match store.shared.link.state() {
        Err(why) => matches!(&*why, PostgresError::Credentials(told) if !told.contains("one")),
        Ok(_) => false,
    })
    .await;
    std::fs::write(&file, "two\n").expect("a writable folder");
    until("claims are made", async || store.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
}

/// Without the connection that commits are checked on, nobody knows whether an owner is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_with_too_few_connections_is_told_how_many_are_needed() {
    let server = PostgresServer::start();
    server.sql(&format!("CREATE ROLE sidecar LOGIN CONNECTION LIMIT 5; {SCHEMA}{}", grants("sidecar")));
    let store = Postgres::open(&address(&server, "sidecar"), &config(), HOUR);
    // The server lets a session go some time after it was closed.
    until("it says so", async || match store.shared.link.state() {
        Err(why) => {
            let told = why.to_string();
            matches!(*why, PostgresError::TooManyConnections(_)) && told.contains("needs 6 to start, and up to 12")
        }
        Ok(_) => panic!("it is used"),
    })
    .await;
    assert!(matches!(store.claim(&name(), &claim(1, RETRY)).await, Err(StoreError::Unavailable(_))));

    server.sql("ALTER ROLE sidecar CONNECTION LIMIT 6");
    until("claims are made", async || store.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
    let primary = store.shared.link.state().expect("a primary");
    until("a commit ends", async || primary.commits.first_has_ended(Instant::now() + PATIENCE).await).await;
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
    for (mode, size) in [("transaction", 30), ("transaction", 1), ("statement", 30), ("statement", 1)] {
        let pooler = Pooler::start_with(&server, mode, size);
        let store = Postgres::open(&through(&pooler), &config(), HOUR);
        let why = store.tried().await.expect_err("a pooler");
        assert!(matches!(*why, PostgresError::Pooler) && why.is_final(), "{mode} {size}: {why}");
        assert!(store.claim(&name(), &claim(1, RETRY)).await.is_err());
    }
    let pooler = Pooler::start(&server, "session");
    let store = open_with(&through(&pooler), &config()).await;
    store.claim(&name(), &claim(1, RETRY)).await.expect("an answer");
}
