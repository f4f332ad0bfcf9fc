//! A server that sentinels name.

use super::*;
use crate::config::RedisServers;
use crate::store::redis_topologies::Sentinels;

/// The sentinels do not know yet that the primary is a replica now. It takes no writes, and what it has can be read.
#[tokio::test]
async fn a_replay_is_served_by_a_primary_that_takes_no_writes_any_more() {
    let redis = Sentinels::start();
    let sentinels = redis.sentinels.iter().map(|sentinel| ("127.0.0.1".to_owned(), sentinel.port())).collect();
    let servers = RedisServers::Sentinel { sentinels, master: Sentinels::MASTER.to_owned() };
    let of_scripts = ConnectionOptions { scripts_only: true, ..NO_PING };
    for habits in [NO_PING, of_scripts] {
        let store = Redis::open_with(&RedisAddress { servers: servers.clone(), ..address(0) }, &config(), habits);
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
