//! The ways to a Redis: TCP, TLS with and without a client certificate, a Unix socket; users and passwords.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::*;

/// A Redis that speaks TLS on one port and clear text on another.
struct TlsRedis {
    server: RedisServer,
    tls_port: redis_server::ReservedPort,
    authority: Authority,
}

impl TlsRedis {
    /// For this name. Where it `asks`, clients must show a certificate.
    fn start(name: &str, asks: bool) -> Self {
        let (authority, tls_port) = (Authority::new(), redis_server::ReservedPort::new());
        let issued = authority.issue(name);
        let cert = authority.write("server.pem", &issued.certificate);
        let key = authority.write("server-key.pem", &issued.key);
        let shown = |path: &Path| path.display().to_string();
        let options = [
            "--tls-port".to_owned(),
            tls_port.number().to_string(),
            "--tls-cert-file".to_owned(),
            shown(&cert),
            "--tls-key-file".to_owned(),
            shown(&key),
            "--tls-ca-cert-file".to_owned(),
            shown(&authority.file()),
            "--tls-auth-clients".to_owned(),
            if asks { "yes" } else { "no" }.to_owned(),
        ];
        let server = RedisServer::start_with(&options.each_ref().map(String::as_str));
        Self { server, tls_port, authority }
    }

    fn url(&self, scheme: &str, host: &str) -> String {
        format!("url = \"{scheme}://{host}:{}\"", self.tls_port.number())
    }

    fn ca(&self) -> String {
        format!("ca = \"{}\"", self.authority.file().display())
    }
}

async fn sidecar(backend: &Backend, store: &str) -> Sidecar {
    Setup::new(&backend.url()).with("store", store).start().await
}

async fn works(backend: &Backend, store: &str, key: &str) {
    let sidecar = sidecar(backend, store).await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    let first = sidecar.ask(&order(key)).await;
    assert_eq!(first.status, 201, "{}", first.text());
    let again = sidecar.ask(&order(key)).await;
    assert!(again.is_replay(), "{}", again.text());
    assert_eq!(again.body, first.body);
    sidecar.stop().await;
}

/// What `check --connect` says of it.
fn refusal(store: &str) -> String {
    let (is_success, said) = check(store, None);
    assert!(!is_success, "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    on_one_line(&said)
}

/// Lines are as long as the terminal is wide.
fn on_one_line(said: &str) -> String {
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `check --connect` on a system that trusts the authorities of this file, or of this machine. Whether it found a server
/// that can be used, and what it printed.
fn check(store: &str, authorities: Option<&Path>) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("onlyonce.toml");
    let text = format!(
        "[upstream]\nurl = \"http://127.0.0.1:1\"\n[store]\n{store}\n[[route]]\nname = \"a\"\npath = \"/\"\nscope = []\n"
    );
    std::fs::write(&file, text).expect("a writable folder");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_onlyonce"));
    command.args(["check", "--connect"]).arg(&file);
    if let Some(authorities) = authorities {
        command.env("SSL_CERT_FILE", authorities).env_remove("SSL_CERT_DIR");
    }
    let output = command.output().expect("the program");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).expect("text")).concat();
    (output.status.success(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_store_ca_the_authorities_of_the_system_are_trusted_and_with_it_only_that_one() {
    let redis = TlsRedis::start("localhost", false);
    let (by_system, other) = (redis.url("rediss", "localhost"), Authority::new());
    let check = |store: &str, authority: &Authority| {
        let (is_success, said) = check(store, Some(&authority.file()));
        (is_success, on_one_line(&said))
    };
    let (is_success, said) = check(&by_system, &redis.authority);
    assert!(is_success && said.contains("SET NX GET"), "{said}");
    let (is_success, said) = check(&by_system, &other);
    assert!(!is_success && said.contains("certificate is not valid"), "{said}");
    let by_ca = format!("{by_system}\nca = \"{}\"", other.file().display());
    let (is_success, said) = check(&by_ca, &redis.authority);
    assert!(!is_success && said.contains("cannot be used"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_over_tls_is_used_and_its_certificate_is_verified() {
    let redis = TlsRedis::start("localhost", false);
    let backend = Backend::start().await;
    works(&backend, &format!("{}\n{}", redis.url("rediss", "localhost"), redis.ca()), "one").await;
    works(&backend, &format!("{}\n{}", redis.url("valkeys", "localhost"), redis.ca()), "two").await;
    assert_eq!(backend.count(), 2);

    let by_whom = refusal(&redis.url("rediss", "localhost"));
    assert!(by_whom.contains("signed by nobody that is believed here") && by_whom.contains("store.ca"), "{by_whom}");
    let which = refusal(&format!("{}\n{}", redis.url("rediss", "127.0.0.1"), redis.ca()));
    assert!(which.contains("write the host in store.url as the certificate has it"), "{which}");
    let plain = refusal(&redis.url("redis", "localhost"));
    assert!(plain.contains("write rediss://"), "{plain}");
    let no_tls = format!("url = \"rediss://localhost:{}\"\n{}", redis.server.port(), redis.ca());
    let no_tls = refusal(&no_tls);
    assert!(no_tls.contains("the port does not speak TLS"), "{no_tls}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_asks_for_a_client_certificate_gets_one() {
    let redis = TlsRedis::start("127.0.0.1", true);
    let backend = Backend::start().await;
    let base = format!("{}\n{}", redis.url("rediss", "127.0.0.1"), redis.ca());
    let issued = redis.authority.issue("sidecar");
    let cert = redis.authority.write("client.pem", &issued.certificate);
    let key = redis.authority.write("client-key.pem", &issued.key);
    let own = format!("client_cert = \"{}\"\nclient_key = \"{}\"", cert.display(), key.display());
    works(&backend, &format!("{base}\n{own}"), "one").await;

    let without = refusal(&base);
    assert!(without.contains("store.client_cert"), "{without}");
    let stranger = Authority::new();
    let issued = stranger.issue("sidecar");
    let cert = stranger.write("client.pem", &issued.certificate);
    let key = stranger.write("client-key.pem", &issued.key);
    let strange = format!("{base}\nclient_cert = \"{}\"\nclient_key = \"{}\"", cert.display(), key.display());
    let strange = refusal(&strange);
    assert!(strange.contains("store.client_cert"), "{strange}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_comes_back_whole_over_tls() {
    let redis = TlsRedis::start("localhost", false);
    let body: Vec<u8> = (0..900_000_u32).map(|index| (index * 7 % 251) as u8).collect();
    let answer = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    let backend = Backend::scripted([vec![Step::Say([answer, body.clone()].concat())]]).await;
    let store = format!("{}\n{}", redis.url("rediss", "localhost"), redis.ca());
    let sidecar = sidecar(&backend, &store).await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    assert!(sidecar.ask(&order("large")).await.body == body);
    let again = sidecar.ask(&order("large")).await;
    assert!(again.is_replay() && again.body == body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_behind_a_unix_socket_is_used() {
    let folder = TempDir::new().expect("a folder");
    let socket = folder.path().join("redis.sock");
    let _redis = RedisServer::start_with(&["--unixsocket", &socket.display().to_string()]);
    let backend = Backend::start().await;
    works(&backend, &format!("url = \"redis+unix://{}\"", socket.display()), "one").await;
    works(&backend, &format!("url = \"unix://{}?db=3\"", socket.display()), "one").await;
    assert_eq!(backend.count(), 2, "another database is another store");
    let nowhere = refusal(&format!("url = \"redis+unix://{}.not\"", socket.display()));
    assert!(nowhere.contains("redis.sock.not"), "{nowhere}");
}

/// Makes the user `app`, with this password only.
fn give_password(redis: &RedisServer, password: &str) {
    let client = redis::Client::open(redis.url()).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    let rule = format!("reset on ~onlyonce:* ~{{onlyonce:* &onlyonce:* +@all >{password}");
    let mut command = redis::cmd("ACL");
    command.arg(&["SETUSER", "app"]).arg(rule.split(' ').collect::<Vec<_>>());
    let () = command.query(&mut connection).expect("a user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_in_a_file_is_read_again_at_each_connect() {
    let mut redis = RedisServer::start();
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("password");
    give_password(&redis, "first");
    std::fs::write(&file, "first\n").expect("a writable folder");
    let backend = Backend::start().await;
    let store = format!(
        "url = \"redis://app@127.0.0.1:{}\"\npassword = \"file:{}\"\ntimeout = \"500ms\"",
        redis.port(),
        file.display()
    );
    let sidecar = sidecar(&backend, &store).await;
    let is_up = async || sidecar.admin("/readyz?store=1").await.status == 200;
    until("the store is there", is_up).await;

    redis.kill();
    until("it is gone", async || !is_up().await).await;
    redis.restart();
    give_password(&redis, "second");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!is_up().await, "the former password is wrong");
    std::fs::write(&file, "second\n").expect("a writable folder");
    until("it logs in with the new password", is_up).await;
    assert_eq!(sidecar.ask(&order("one")).await.status, 201);

    let wrong = store.replace("app@", "app:hunter2@").replace("password =", "#");
    let wrong = refusal(&wrong);
    assert!(wrong.contains("does not accept the user and password") && !wrong.contains("hunter2"), "{wrong}");
    let missing = refusal(&store.replace("/password", "/no-password"));
    assert!(missing.contains("store.password") && missing.contains("no-password"), "{missing}");
}
