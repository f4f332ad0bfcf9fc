//! Connections of cores beside those that are shared.

use super::*;

/// A handle for another core, on a runtime of its own.
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
    let [first] = &of_core().await[..] else { panic!("one connection for hot commands: {:?}", of_core().await) };

    // One that is closed while nothing is awaited on it is opened anew, and nothing else is.
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

    // The core's runtime ends before those who use its store: the shared connection serves, and is not lost.
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
    // Whoever is connected stays so.
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
    let store = open(server.port(), MANY_PINGS).await;
    order(&server, "CONFIG SET timeout 3").await;
    let (local, core) = core(&store);
    until_local(&local).await;
    let own = own(&local).expect("a connection");
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
    let shared = link(&store).connected().expect("a connection");
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
