//! A server that sentinels name.

use std::sync::Mutex;

use super::*;
use crate::config::RedisServers;
use crate::store::redis_topologies::Sentinels;

/// A sentinel that names what the test says: a server that gets other commands in the place of its own.
struct ScriptedSentinel {
    server: RedisServer,
    proxy: Rewriting,
    /// The port of the primary, and the configuration epoch.
    names: Arc<Mutex<(u16, u64)>>,
}

impl ScriptedSentinel {
    async fn naming(primary: u16, epoch: u64) -> Self {
        let (server, names) = (RedisServer::start(), Arc::new(Mutex::new((primary, epoch))));
        let told = names.clone();
        let proxy = Rewriting::before(server.port(), move |words: &[Vec<u8>]| {
            let (port, epoch) = *told.lock().expect("no panic");
            match words.get(..2)?.concat().to_ascii_uppercase().as_slice() {
                b"SENTINELGET-MASTER-ADDR-BY-NAME" => Some(format!("EVAL|return {{'127.0.0.1', '{port}'}}|0")),
                b"SENTINELMASTER" => Some(format!("EVAL|return {{'config-epoch', '{epoch}'}}|0")),
                _ => None,
            }
        })
        .await;
        Self { server, proxy, names }
    }

    fn name(&self, primary: u16, epoch: u64) {
        *self.names.lock().expect("no panic") = (primary, epoch);
    }
}

async fn open_by(sentinels: &[ScriptedSentinel]) -> Redis {
    let sentinels = sentinels.iter().map(|sentinel| ("127.0.0.1".to_owned(), sentinel.proxy.port)).collect();
    let servers = RedisServers::Sentinel { sentinels, master: Sentinels::MASTER.to_owned() };
    let store = Redis::open_with(&RedisAddress { servers, ..address(0) }, &config(), MANY_PINGS);
    store.ready(PATIENCE).await.expect("a connection");
    until(&store, Health::Up).await;
    store
}

async fn has(server: &RedisServer, name: &RecordName) -> bool {
    admin(&server.url(), &[b"EXISTS", format!("onlyonce:{name}").as_bytes()]).await
}

/// The former primary still runs, one sentinel still names it, and the new one lets this user not in.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_former_primary_is_not_used_while_the_new_one_cannot_be() {
    let (former, new) = (RedisServer::start(), RedisServer::start_with(&["--requirepass", "secret"]));
    let mut sentinels = Vec::new();
    for _ in 0..3 {
        sentinels.push(ScriptedSentinel::naming(former.port(), 1).await);
    }
    let store = open_by(&sentinels).await;
    store.claim(&name(), &claim(1, RETRY)).await.expect("granted");

    for silent in [&[0][..], &[1, 2]] {
        sentinels[1].name(new.port(), 2);
        sentinels[2].name(new.port(), 2);
        until(&store, Health::Down).await;
        silent.iter().for_each(|&index| sentinels[index].server.freeze());
        // A sentinel counts as silent after two seconds without an answer.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            let late = name();
            let refused = store.claim(&late, &claim(1, RETRY)).await;
            assert!(refused.is_err(), "{refused:?}");
            assert!(!has(&former, &late).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        silent.iter().for_each(|&index| sentinels[index].server.thaw());
    }
    let _: () =
        admin(&format!("redis://:secret@127.0.0.1:{}", new.port()), &[b"CONFIG", b"SET", b"requirepass", b""]).await;
    until(&store, Health::Up).await;
    let granted = name();
    store.claim(&granted, &claim(1, RETRY)).await.expect("granted");
    assert!(has(&new, &granted).await && !has(&former, &granted).await);
}

/// The sentinels do not know yet that the primary is a replica now. It takes no writes, and what it has can be read.
#[tokio::test]
async fn a_replay_is_served_by_a_primary_that_takes_no_writes_any_more() {
    let redis = Sentinels::start();
    let sentinels = redis.sentinels.iter().map(|sentinel| ("127.0.0.1".to_owned(), sentinel.port())).collect();
    let servers = RedisServers::Sentinel { sentinels, master: Sentinels::MASTER.to_owned() };
    let of_scripts = ConnectionOptions { scripts_only: true, ..NO_PING };
    for options in [NO_PING, of_scripts] {
        let store = Redis::open_with(&RedisAddress { servers: servers.clone(), ..address(0) }, &config(), options);
        store.ready(PATIENCE).await.expect("a connection");
        until(&store, Health::Up).await;
        let (settled, flying, mine) = (name(), name(), claim(1, RETRY));
        store.claim(&settled, &mine).await.expect("granted");
        store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
        store.claim(&flying, &mine).await.expect("granted");
        for sentinel in &redis.sentinels {
            sentinel.freeze();
        }
        // Nobody is the primary now.
        let () = redis.servers[0].ask(&["REPLICAOF", "127.0.0.1", "1"]).expect("an answer");
        let replayed = store.claim(&settled, &claim(2, RETRY)).await.expect("an answer");
        assert!(matches!(replayed, Claimed::Refused(held) if held.record == completed(&mine, b"{}")));
        // What needs a write is refused, and has the sentinels asked again.
        let refused = store.settle(&flying, &completed(&mine, b"{}")).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        until(&store, Health::Down).await;
        assert!(store.claim(&name(), &mine).await.is_err());

        let () = redis.servers[0].ask(&["REPLICAOF", "NO", "ONE"]).expect("an answer");
        for sentinel in &redis.sentinels {
            sentinel.thaw();
        }
        until(&store, Health::Up).await;
        assert_eq!(store.settle(&flying, &completed(&mine, b"{}")).await.expect("an answer"), Settled::Written);
        assert_eq!(store.losses(), 0);
        redis.wait_until_whole();
    }
}
