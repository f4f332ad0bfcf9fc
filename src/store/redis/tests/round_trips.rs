//! The cost of a request: round trips, commands, memory.

use super::*;
use crate::config::RedisServers;
use crate::store::certificates::Authority;
use crate::store::redis_server::ReservedPort;
use crate::store::redis_topologies::{self, Cluster, Node};

/// What each operation takes, however the server is reached.
async fn are_few(store: &Redis, turns: impl Fn() -> usize) {
    let (first, again) = (claim(1, RETRY), claim(2, RETRY));
    turns();

    let settled = name();
    store.claim(&settled, &first).await.expect("granted");
    assert_eq!(turns(), 1, "a claim");
    store.settle(&settled, &completed(&first, b"{}")).await.expect("settled");
    assert_eq!(turns(), 1, "a settling");
    store.claim(&settled, &again).await.expect("refused");
    assert_eq!(turns(), 1, "a replay");

    let flying = name();
    store.claim(&flying, &first).await.expect("granted");
    turns();
    store.claim(&flying, &again).await.expect("refused");
    assert_eq!(turns(), 2, "in flight");
    let mut other = again.clone();
    other.fingerprint.target = [9; 16];
    store.claim(&flying, &other).await.expect("refused");
    assert_eq!(turns(), 1, "another request under the same key");
    store.renew(&flying, &first).await.expect("extended");
    store.find(&flying).await.expect("found");
    store.release(&flying, first.token).await.expect("released");
    assert_eq!(turns(), 3, "a renewal, a look-up and a release");

    let apart = name();
    store.claim(&apart, &first).await.expect("granted");
    store.settle(&apart, &large(&first)).await.expect("settled");
    // The chunks are one pipeline. The server replies to it while the rest is being sent.
    turns();
    let body = apart_body(store, &apart).await;
    assert_eq!(turns(), 1, "whoever needs no body");
    let chunks = body.cut.count();
    let body = StoredBody::open(store, &apart, body).await.expect("a body");
    assert_eq!(turns(), 0, "nothing is asked for that is not wanted yet");
    body.rest().await.expect("all of it");
    assert_eq!(turns() as u64, chunks, "a large replay");

    let lost = name();
    store.claim(&lost, &claim(1, LOST)).await.expect("granted");
    turns();
    store.claim(&lost, &again).await.expect("granted");
    assert_eq!(turns(), 3, "a takeover");
}

#[tokio::test]
async fn round_trips_are_few() {
    let server = RedisServer::start();
    let turns = Turns::before(server.port()).await;
    for options in [NO_PING, ConnectionOptions { scripts_only: true, ..NO_PING }] {
        are_few(&open(turns.port, options).await, || turns.taken()).await;
    }
}

#[tokio::test]
async fn round_trips_are_as_few_over_tls() {
    let (authority, tls_port) = (Authority::new(), ReservedPort::new());
    let issued = authority.issue("127.0.0.1");
    let shown = |path: std::path::PathBuf| path.display().to_string();
    let _server = RedisServer::start_with(&[
        "--tls-port",
        &tls_port.number().to_string(),
        "--tls-cert-file",
        &shown(authority.write("server.pem", &issued.certificate)),
        "--tls-key-file",
        &shown(authority.write("server-key.pem", &issued.key)),
        "--tls-ca-cert-file",
        &shown(authority.file()),
        "--tls-auth-clients",
        "no",
    ]);
    let turns = Turns::before(tls_port.number()).await;
    let authorities = std::fs::read(authority.file()).expect("a file");
    let authorities = crate::tls::Authorities::read(&authorities).expect("an authority");
    let tls = Some(crate::tls::TlsClient { authorities, identity: None });
    let store = Redis::open_with(&RedisAddress { tls, ..address(turns.port) }, &config(), NO_PING);
    store.ready(PATIENCE).await.expect("a connection");
    are_few(&store, || turns.taken()).await;
}

#[tokio::test]
async fn round_trips_are_as_few_in_a_cluster() {
    let cluster = Cluster::start(2, false);
    let mut proxies = Vec::new();
    for node in &cluster.nodes {
        let turns = Turns::before(node.port()).await;
        let () = node.ask(&["CONFIG", "SET", "cluster-announce-port", &turns.port.to_string()]).expect("set");
        proxies.push(turns);
    }
    redis_topologies::until("the nodes name the proxies", || {
        let names = |node: &Node| {
            let told: Option<String> = node.ask(&["CLUSTER", "NODES"]);
            told.is_some_and(|told| proxies.iter().all(|proxy| told.contains(&format!(":{}@", proxy.port))))
        };
        cluster.nodes.iter().all(names)
    });
    let servers = RedisServers::Cluster(vec![("127.0.0.1".to_owned(), cluster.nodes[0].port())]);
    let store = Redis::open_with(&RedisAddress { servers, ..address(0) }, &config(), NO_PING);
    store.ready(PATIENCE).await.expect("connections to both");
    until(&store, Health::Up).await;
    let taken = || proxies.iter().map(Turns::taken).sum::<usize>();
    // The slots are looked up once more after the last node is connected to.
    while taken() > 0 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    // Until names were in slots of both nodes, the one with the digest key among them.
    let is_used = |node: &Node| node.ask::<i64>(&["DBSIZE"]).expect("an answer") > 1;
    while !cluster.nodes.iter().all(is_used) {
        are_few(&store, taken).await;
    }
}

/// The commands that clients send to the server, one on each line. Commands of scripts are left out.
pub(super) struct Monitor(BufReader<TcpStream>);

impl Monitor {
    pub(super) async fn start(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
        stream.write_all(b"MONITOR\r\n").await.expect("asked");
        let mut monitor = Self(BufReader::new(stream));
        assert_eq!(monitor.line().await, "+OK");
        monitor
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("a line");
        line.trim_end().to_owned()
    }

    /// The names of the commands since the last call.
    pub(super) async fn commands(&mut self, port: u16) -> Vec<String> {
        // A cluster node may not own this name. The monitor shows the command anyway.
        let _: ::redis::Value = admin(&format!("redis://127.0.0.1:{port}"), &[b"ECHO", b"marker"]).await;
        let mut commands = Vec::new();
        loop {
            let line = self.line().await;
            if line.contains("\"marker\"") {
                return commands;
            }
            let name = line.split('"').nth(1).expect("a command").to_owned();
            if !line.contains(" lua] ") && !["HELLO", "CLIENT", "CLUSTER"].contains(&name.as_str()) {
                commands.push(name);
            }
        }
    }
}

#[tokio::test]
async fn a_first_request_is_two_commands_and_a_replay_is_one() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let mut monitor = Monitor::start(server.port()).await;
    let (settled, released, mine) = (name(), name(), claim(1, RETRY));
    store.claim(&settled, &mine).await.expect("granted");
    store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
    assert_eq!(monitor.commands(server.port()).await, ["SET", "EVALSHA"]);
    store.claim(&settled, &claim(2, RETRY)).await.expect("refused");
    assert_eq!(monitor.commands(server.port()).await, ["SET"]);
    store.claim(&released, &mine).await.expect("granted");
    store.release(&released, mine.token).await.expect("released");
    assert_eq!(monitor.commands(server.port()).await, ["SET", "EVALSHA"]);
}

#[tokio::test]
async fn what_every_request_asks_is_small_while_it_waits() {
    let server = RedisServer::start();
    let store = Arc::new(open(server.port(), NO_PING).await);
    let (any, name, mine) = (crate::store::AnyStore::Redis(store), name(), claim(1, RETRY));
    let record = completed(&mine, b"{}");
    let sizes = [std::mem::size_of_val(&any.claim(&name, &mine)), std::mem::size_of_val(&any.settle(&name, &record))];
    assert!(sizes.iter().all(|size| *size <= 1400), "{sizes:?}");
}
