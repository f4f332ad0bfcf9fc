//! Nodes that fail, and that cannot answer for a while.

use super::*;

on_each_server! {
    a_replica_that_takes_over_is_used_and_takes_nothing_over_itself_for_a_lease,
}

#[tokio::test]
async fn a_node_that_comes_back_without_its_data_is_noticed_and_the_others_go_on() {
    let mut cluster = Cluster::start_with(3, false, &["--cluster-require-full-coverage", "no"]);
    let store = open_cluster(&cluster, ConnectionOptions::default()).await;
    let digest_key = store.digest_key().expect("a key");
    // The node that fails is not the one with the digest key.
    let keeper = cluster.owner(slot_of(&[b"onlyonce:digest-key"]));
    let (dead, alive) = ((keeper + 1) % 3, (keeper + 2) % 3);
    let names: Vec<_> = (0..50).map(|_| (name_at(&cluster, dead), name_at(&cluster, alive))).collect();
    // A canary is written each second. The next write shows whether it is still there.
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.nodes[dead].kill();
    let mut names = names.into_iter();
    loop {
        let (at_dead, at_alive) = names.next().expect("sooner");
        store.claim(&at_alive, &claim(1, RETRY)).await.expect("the others go on");
        match store.claim(&at_dead, &claim(1, RETRY)).await {
            // This comes only after a look-up has confirmed that the node owns the slot.
            Err(StoreError::Unavailable(_)) => break,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            Ok(granted) => panic!("{granted:?}"),
        }
    }
    until(&store, Health::Down).await;
    cluster.nodes[dead].restart();
    until(&store, Health::Up).await;
    while store.losses() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.digest_key().expect("a key"), digest_key);
}

async fn a_replica_that_takes_over_is_used_and_takes_nothing_over_itself_for_a_lease(program: &'static str) {
    let mut cluster = Cluster::start_other(program, 3, true);
    let store = open_cluster(&cluster, ConnectionOptions::default()).await;
    let (lease, mine) = (Duration::from_secs(3), claim(1, RETRY));
    let (settled, silent, held) = (name_at(&cluster, 1), name_at(&cluster, 1), name_at(&cluster, 1));
    store.claim(&settled, &mine).await.expect("granted");
    store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
    store.claim(&silent, &claim(1, Terms { lease, ..RETRY })).await.expect("granted");
    store.claim(&held, &claim(1, Terms { lease, ..HOLD })).await.expect("granted");
    redis_topologies::until("the replica has it", || {
        cluster.nodes[4].ask::<i64>(&["DBSIZE"]).is_some_and(|size| size >= 3)
    });
    tokio::time::sleep(lease).await;
    cluster.nodes[1].kill();
    let begun = Instant::now();
    loop {
        match store.claim(&settled, &claim(2, RETRY)).await {
            Ok(Claimed::Refused(held)) => break assert_eq!(held.record, completed(&mine, b"{}")),
            Ok(granted) => panic!("{granted:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        assert!(begun.elapsed() < PATIENCE * 3);
    }
    println!("served by its replica {:?} after the kill", begun.elapsed());
    for (name, terms) in [(&silent, RETRY), (&held, HOLD)] {
        let refused = store.claim(name, &claim(2, terms)).await.expect("an answer");
        assert!(matches!(refused, Claimed::Refused(held) if held.owner() == OwnerState::Alive));
    }
    let found = store.find(&held).await.expect("an answer").expect("a record");
    assert!(transitions::release_by_hand(found.seen(), false).is_err(), "only by force");
    cluster.nodes[1].restart();
    until(&store, Health::Up).await;
    let replayed = store.claim(&settled, &claim(2, RETRY)).await.expect("an answer");
    assert!(matches!(replayed, Claimed::Refused(held) if held.record == completed(&mine, b"{}")));
}

/// A cluster whose first node is behind a proxy. While `says` has an error, this node executes no command about a record,
/// and replies with the error.
async fn scripted(cluster: &Cluster, says: &Arc<std::sync::Mutex<Option<&'static str>>>) -> Rewriting {
    let says = says.clone();
    let proxy = Rewriting::before(cluster.nodes[0].port(), move |words: &[Vec<u8>]| {
        let is_of_record = |word: &Vec<u8>| word.starts_with(b"onlyonce:orders:");
        let code = says.lock().expect("no panic").filter(|_| words.iter().any(is_of_record))?;
        Some(format!("EVAL|return redis.error_reply('{code} as it was told')|0"))
    })
    .await;
    let port = proxy.port.to_string();
    let () = at_node(&cluster.nodes[0], &["CONFIG", "SET", "cluster-announce-port", &port]).await;
    // The others hear of it by and by.
    redis_topologies::until("the other nodes name the proxy", || {
        let told = |node: &Node| node.ask::<String>(&["CLUSTER", "NODES"]).is_some_and(|told| told.contains(&port));
        cluster.nodes[1..].iter().all(told)
    });
    proxy
}

/// While keys are on their way, or the cluster is down, a node executes nothing. It is no reason to leave it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_that_says_tryagain_or_clusterdown_has_done_nothing_and_is_asked_again() {
    let cluster = Cluster::start(2, false);
    let names: Vec<_> = (0..16).map(|_| name_at(&cluster, 0)).collect();
    let elsewhere: Vec<_> = (0..16).map(|_| name_at(&cluster, 1)).collect();
    let says = Arc::<std::sync::Mutex<_>>::default();
    let proxy = scripted(&cluster, &says).await;
    for (index, (code, scripts_only)) in
        [("TRYAGAIN", false), ("TRYAGAIN", true), ("CLUSTERDOWN", false), ("CLUSTERDOWN", true)].into_iter().enumerate()
    {
        let address = RedisAddress {
            servers: RedisServers::Cluster(vec![("127.0.0.1".to_owned(), cluster.nodes[1].port())]),
            ..address(0)
        };
        let options = ConnectionOptions { scripts_only, ..ConnectionOptions::default() };
        let store = Redis::open_with(&address, &config(), options);
        store.ready(PATIENCE).await.expect("connections to all nodes");
        until(&store, Health::Up).await;
        let [free, flying, done, apart] = [0, 1, 2, 3].map(|number| &names[index * 4 + number]);
        let mine = claim(1, RETRY);
        for name in [flying, done, apart] {
            store.claim(name, &mine).await.expect("granted");
        }
        store.settle(done, &completed(&mine, b"{}")).await.expect("settled");

        proxy.replaced.store(0, Ordering::SeqCst);
        *says.lock().expect("no panic") = Some(code);
        let refused = |error: Option<StoreError>, what: &str| {
            assert!(matches!(error, Some(StoreError::Refused(_))), "{code}: {what}: {error:?}");
        };
        refused(store.claim(free, &mine).await.err(), "a claim");
        refused(store.claim(done, &claim(2, RETRY)).await.err(), "a replay");
        refused(store.renew(flying, &mine).await.err(), "a renewal");
        refused(store.settle(flying, &completed(&mine, b"{}")).await.err(), "an outcome");
        refused(store.settle(apart, &large(&mine)).await.err(), "a large outcome");
        refused(store.release(flying, mine.token).await.err(), "a release");
        refused(store.find(done).await.err(), "a look");
        assert!(proxy.replaced.load(Ordering::SeqCst) >= 7);
        // The other node goes on.
        store.claim(&elsewhere[index * 4], &mine).await.expect("granted");
        *says.lock().expect("no panic") = None;

        // The connection is still used, and nothing has happened to the records.
        assert_eq!((store.health(), store.losses()), (Health::Up, 0));
        assert_eq!(store.find(free).await.expect("an answer"), None);
        assert_eq!(store.claim(free, &mine).await.expect("an answer"), Claimed::Granted(mine.clone()));
        assert_eq!(store.find(flying).await.expect("an answer").expect("a record").record.claim, mine);
        assert_eq!(store.settle(flying, &completed(&mine, b"{}")).await.expect("an answer"), Settled::Written);
        assert_eq!(store.settle(apart, &large(&mine)).await.expect("an answer"), Settled::Written);
        let replayed = store.claim(done, &claim(2, RETRY)).await.expect("an answer");
        assert!(matches!(replayed, Claimed::Refused(held) if held.record == completed(&mine, b"{}")));
    }
}
