//! Connections of cores beside the shared ones.

use super::*;

/// A handle for another core, with its own runtime.
fn core(store: &Redis) -> (Redis, tokio::runtime::Runtime) {
    let core = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _entered = core.enter();
    (store.on_core(), core)
}

async fn until_local(store: &Redis) {
    while own(store).is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_core_has_a_connection_of_its_own_and_the_shared_one_without_it() {
    let server = RedisServer::start();
    let store = open(server.port(), MANY_PINGS).await;
    let (local, core) = core(&store);
    // This waits for no connection, as at the start.
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
    let [first] = &of_core().await[..] else { panic!("one connection for hot commands: {:?}", of_core().await) };

    // If a connection is closed while no reply is awaited, only that connection is reopened.
    let shared = link(&store).connected().expect("a connection");
    let id = first.strip_prefix("id=").expect("an id").to_owned();
    let _: i64 = admin(&server.url(), &[b"CLIENT", b"KILL", b"ID", id.as_bytes()]).await;
    while own(&local).is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let local = of_all(local).await;
    assert_eq!((local.health(), shared.is_lost()), (Health::Up, false));
    until_local(&local).await;
    let local = of_all(local).await;
    assert_ne!(of_core().await, std::slice::from_ref(first));

    // The core's runtime ends before the users of its store. The shared connection serves, and is not lost.
    core.shutdown_background();
    while own(&local).is_some() {
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
    // Existing connections stay open.
    order(&server, "CONFIG SET maxclients 1").await;
    let (name, mine) = (name(), claim(1, RETRY));
    for _ in 0..2 {
        local.claim(&name, &mine).await.expect("granted");
        assert_eq!(local.settle(&name, &large(&mine)).await.expect("an answer"), Settled::Written);
        let found = local.find(&name).await.expect("an answer").expect("a record");
        let State::Completed { reply, .. } = &found.record.state else { panic!("{:?}", found.record.claim) };
        assert_eq!(reply.body_len(), 1 << 20);
        let shared = link(&store).connected().expect("a connection");
        assert!(shared.control.handle().del::<_, ()>(format!("onlyonce:{name}")).await.is_ok());
    }
    core.shutdown_background();
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_disturbs_nobody() {
    let server = RedisServer::start();
    disturbs_nobody(&server, open(server.port(), MANY_PINGS).await).await;
}

/// The connection for acknowledgements is idle while there are only replays.
#[tokio::test]
async fn a_server_that_closes_idle_connections_disturbs_nobody_who_waits_for_acknowledgements() {
    let server = RedisServer::start();
    let proxy = Rewriting::before(server.port(), |words: &[Vec<u8>]| match &words[0][..] {
        b"WAIT" => Some("EVAL|return 1|0".to_owned()),
        _ => None,
    });
    let config = config::StoreConfig { replica_acks: 1, ..config() };
    let store = open_with(proxy.await.port, &config, MANY_PINGS).await;
    disturbs_nobody(&server, store).await;
}

async fn disturbs_nobody(server: &RedisServer, store: Redis) {
    order(server, "CONFIG SET timeout 3").await;
    let (local, core) = core(&store);
    until_local(&local).await;
    let own = own(&local).expect("a connection");
    // The keep-alive uses both shared connections, for hot commands and for large bodies, because they may be idle for
    // as long.
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
    let shared = link(&store).connected().expect("a connection");
    while !own.is_lost() {
        assert_eq!(store.health(), Health::Up);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // First over the shared connection, then over a new one of the core.
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

/// Leads each new connection to one of several servers, like a shared host name.
struct OneName {
    port: u16,
    next: Arc<std::sync::Mutex<Box<dyn FnMut() -> u16 + Send>>>,
}

impl OneName {
    async fn start(next: impl FnMut() -> u16 + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let next: Arc<std::sync::Mutex<Box<dyn FnMut() -> u16 + Send>>> =
            Arc::new(std::sync::Mutex::new(Box::new(next)));
        let to = next.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let port = (to.lock().expect("no panic"))();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { port, next }
    }

    /// From now on, new connections lead to this server.
    fn lead_to(&self, server: &RedisServer) {
        let port = server.port();
        *self.next.lock().expect("no panic") = Box::new(move || port);
    }
}

#[tokio::test]
async fn a_connection_that_reaches_another_server_behind_the_same_name_is_not_used() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let first = server.port();
    let one_name = OneName::start(move || first).await;
    let store = open(one_name.port, NO_PING).await;
    one_name.lead_to(&other);
    let (local, core) = core(&store);
    let (small, apart, mine) = (name(), name(), claim(1, RETRY));
    let stats = async || admin::<String>(&other.url(), &[b"INFO", b"commandstats"]).await;
    while !stats().await.contains("cmdstat_pttl") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..3 {
        local.claim(&small, &mine).await.expect("granted");
        assert_eq!(local.settle(&apart, &large(&mine)).await.map(|_| ()).expect("an answer"), ());
        assert!(own(&local).is_none());
        // A second transfer needs its own connection for bodies.
        let both = [name(), name()];
        let record = large(&mine);
        let (one, two) = tokio::join!(local.settle(&both[0], &record), local.settle(&both[1], &record));
        assert!(one.is_ok() || two.is_ok());
    }
    assert_eq!(admin::<i64>(&other.url(), &[b"DBSIZE"]).await, 0, "nothing went to the other");
    assert_eq!(store.health(), Health::Up);
    one_name.lead_to(&server);
    until_local(&local).await;
    core.shutdown_background();
}

#[tokio::test]
async fn several_servers_behind_one_name_are_refused() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let ports = servers.each_ref().map(RedisServer::port);
    let mut count = 0;
    let one_name = OneName::start(move || {
        count += 1;
        ports[count % 2]
    });
    let store = Redis::open_with(&address(one_name.await.port), &config(), NO_PING);
    let why = store.tried().await.expect_err("two servers");
    assert!(matches!(*why, ConnectError::SeveralServers { .. }), "{why:?}");
    assert!(matches!(store.claim(&name(), &claim(1, RETRY)).await, Err(StoreError::Refused(_))));
}
