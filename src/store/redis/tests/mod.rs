mod bodies;
mod changes;
mod cluster;
mod cores;
mod digest_key;
mod expiry;
mod faults;
mod fsync;
mod lists;
mod refusals;
mod round_trips;
mod sentinel;
mod suites;

use ::redis::{AsyncCommands, FromRedisValue};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::commands::ReplaceResult;
use super::connected::AcquireMethod;
use super::link::Link;
use super::*;
use crate::config::{Secret, StoreEndpoint, StoreLocation, StorePassword};
use crate::record::codec::encode_claim;
use crate::record::transitions::OwnerState;
use crate::record::{Reply, State, Terms, UnknownPolicy, transitions};
use crate::store::conformance::{self, Subject, claim, completed, name};
use crate::store::redis_rewriting::Rewriting;
use crate::store::redis_server::{REDIS, REDIS_6_2, RedisServer, VALKEY_9};
use crate::store::{Cursor, ListError, ListedRecord, StoredBody};

const HOUR: Duration = Duration::from_secs(3600);

/// How long chunks outlive their record.
const SURVIVES: Duration = Duration::from_secs(120);

const RETRY: Terms = Terms { lease: HOUR, retention: HOUR, on_unknown: UnknownPolicy::Retry };

const HOLD: Terms = Terms { on_unknown: UnknownPolicy::Hold(HOUR), ..RETRY };

const LOST: Terms = Terms { lease: Duration::ZERO, ..RETRY };

/// It is long, so that a slow machine does not fail a test.
const PATIENCE: Duration = Duration::from_secs(20);

const BY_SCRIPT: ConnectionOptions = ConnectionOptions {
    ping_every: Duration::from_secs(3),
    look_every: HOUR,
    slots_every: HOUR,
    scripts_only: true,
    is_read_only: false,
    body_survives: SURVIVES,
};

const NO_PING: ConnectionOptions = ConnectionOptions {
    ping_every: HOUR,
    look_every: HOUR,
    slots_every: HOUR,
    scripts_only: false,
    is_read_only: false,
    body_survives: SURVIVES,
};

const MANY_PINGS: ConnectionOptions =
    ConnectionOptions { ping_every: Duration::from_millis(20), look_every: Duration::from_millis(20), ..NO_PING };

fn address(port: u16) -> RedisAddress {
    RedisAddress::plain(StoreEndpoint::Tcp("127.0.0.1".to_owned(), port))
}

fn config() -> config::StoreConfig {
    config::StoreConfig { location: StoreLocation::Redis(address(0)), timeout: PATIENCE, ..conformance::settings() }
}

async fn open(port: u16, options: ConnectionOptions) -> Redis {
    open_with(port, &config(), options).await
}

async fn open_with(port: u16, config: &config::StoreConfig, options: ConnectionOptions) -> Redis {
    let store = Redis::open_with(&address(port), config, options);
    store.ready(PATIENCE).await.expect("a connection");
    store
}

/// Sends an operator's command on a separate connection.
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
    let reached = async {
        while store.health() != health {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 3, reached).await.unwrap_or_else(|_| panic!("the store is not {health:?}"));
}

fn large(claim: &Claim) -> SettledRecord {
    let mut record = completed(claim, b"").into_record();
    if let State::Completed { reply, .. } = &mut record.state {
        let Reply { body, .. } = Arc::make_mut(reply);
        *body = vec![vec![7; 1 << 20].into()].into();
    }
    SettledRecord::of(record).expect("not in flight")
}

async fn subject(options: ConnectionOptions) -> Subject {
    subject_on(RedisServer::start(), options).await
}

async fn subject_on(server: RedisServer, options: ConnectionOptions) -> Subject {
    subject_with(server, &config(), options).await
}

async fn subject_with(server: RedisServer, config: &config::StoreConfig, options: ConnectionOptions) -> Subject {
    let (store, url) = (open_with(server.port(), config, options).await, server.url());
    Subject::new(Arc::new(store), server).with_plant(move |name, bytes| {
        let url = url.clone();
        async move { admin(&url, &[b"SET", format!("onlyonce:{name}").as_bytes(), &bytes]).await }
    })
}

/// A proxy between the store and the server. It counts round trips.
struct Turns {
    port: u16,
    taken: Arc<AtomicUsize>,
}

impl Turns {
    async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let taken = Arc::new(AtomicUsize::new(0));
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

    /// The round trips since the last call.
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

async fn as_user(server: &RedisServer, name: &str) -> Redis {
    let (username, password) = (Some(name.to_owned()), Some(StorePassword::Fixed(Secret::new("pw"))));
    Redis::open(&RedisAddress { username, password, ..address(server.port()) }, &config(), SURVIVES)
}

/// Why the store cannot be used.
async fn refusal(store: &Redis) -> Arc<ConnectError> {
    loop {
        let refused = store.ready(Duration::from_millis(50)).await.expect_err("refused");
        if !matches!(*refused, ConnectError::NotYet) {
            return refused;
        }
    }
}

/// The stored-apart body of the record that refuses a claim.
async fn apart_body(store: &Redis, name: &RecordName) -> ApartBody {
    match store.claim(name, &claim(2, RETRY)).await {
        Ok(Claimed::Refused(held)) => held.record.apart_body().cloned().expect("a body apart"),
        other => panic!("{other:?}"),
    }
}

fn chunk_key(name: &RecordName, token: Token, index: u64) -> String {
    format!("{{onlyonce:{name}}}:body:{token}:{index}")
}

async fn told(changes: &mut Changes) {
    tokio::time::timeout(PATIENCE, changes.changed()).await.expect("a notification").expect("a listener");
}

/// The connections to the server that holds all records.
fn link(store: &Redis) -> &Link {
    match &store.shared.servers {
        Servers::One(server) => &server.link,
        Servers::Cluster(_) => panic!("a cluster has many"),
    }
}

/// The hot connection of the core that uses this handle.
fn own(store: &Redis) -> Option<Arc<Connected>> {
    match store.local.as_deref() {
        Some(LocalConnections::One(own)) => own.connected(),
        Some(LocalConnections::Cluster(_)) | None => None,
    }
}
