//! A Redis Cluster: slots that move, nodes that fail, and other differences from one server.

use bytes::Bytes;

use super::round_trips::Monitor;
use super::*;
use crate::config::RedisServers;
use crate::store::redis_topologies::{self, Cluster, Node};

fn cluster_address(cluster: &Cluster, seeds: usize) -> RedisAddress {
    let seeds = cluster.nodes.iter().take(seeds).map(|node| ("127.0.0.1".to_owned(), node.port())).collect();
    RedisAddress { servers: RedisServers::Cluster(seeds), ..address(0) }
}

async fn open_cluster(cluster: &Cluster, options: ConnectionOptions) -> Redis {
    open_cluster_with(cluster, &config(), options).await
}

/// Opens a store that may claim. A sidecar that founds a store waits a little.
async fn open_cluster_with(cluster: &Cluster, config: &config::StoreConfig, options: ConnectionOptions) -> Redis {
    let store = Redis::open_with(&cluster_address(cluster, 1), config, options);
    store.ready(PATIENCE).await.expect("connections to all nodes");
    until(&store, Health::Up).await;
    store
}

fn slot(name: &RecordName) -> u16 {
    slot_of(&[format!("onlyonce:{name}").as_bytes()])
}

/// A new name in a slot of this node.
fn name_at(cluster: &Cluster, node: usize) -> RecordName {
    std::iter::repeat_with(name).find(|name| cluster.owner(slot(name)) == node).expect("there are many")
}

/// A slot of the first node, and names in it.
fn names_in_a_slot(cluster: &Cluster) -> (u16, Vec<RecordName>) {
    let first = name_at(cluster, 0);
    let of_slot = slot(&first);
    let others = std::iter::repeat_with(name).filter(|name| slot(name) == of_slot);
    (of_slot, std::iter::once(first).chain(others.take(7)).collect())
}

async fn at_node<T: FromRedisValue>(node: &Node, words: &[&str]) -> T {
    let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
    admin(&format!("redis://127.0.0.1:{}", node.port()), &words).await
}

/// The same test on Redis 7.0 and, with `tests/run --all`, on other servers. The store has a thread of its own: tests ask
/// nodes, and look for names, on theirs, and it must confirm its digest key meanwhile.
macro_rules! on_each_server {
    ($($story:ident),+ $(,)?) => { $(
        mod $story {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn redis_7_0() {
                super::$story(REDIS).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            #[ignore = "tests/run --all"]
            async fn redis_6_2() {
                super::$story(REDIS_6_2).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            #[ignore = "tests/run --all"]
            async fn valkey_9() {
                super::$story(VALKEY_9).await;
            }
        }
    )+ };
}

on_each_server! {
    a_request_is_as_many_commands_as_at_one_server,
    a_slot_that_moves_takes_its_records_along_at_each_step,
    changes_by_others_are_heard_of_at_any_node,
    a_replica_that_takes_over_is_used_and_takes_nothing_over_itself_for_a_lease,
    the_rights_that_are_printed_suffice_for_a_cluster,
}

mod suite {
    use super::*;

    async fn on_cluster(cluster: &Arc<Cluster>) -> Subject {
        // The digest key is kept, because a sidecar that founds a store waits.
        for node in &cluster.nodes {
            for key in at_node::<Vec<String>>(node, &["KEYS", "*:*:*"]).await {
                let () = at_node(node, &["DEL", &key]).await;
            }
        }
        let store = open_cluster(cluster, ConnectionOptions::default()).await;
        let (planted, kept) = (cluster.clone(), cluster.clone());
        Subject::new(Arc::new(store), kept).with_plant(move |name, bytes| {
            let url = format!("redis://127.0.0.1:{}", planted.nodes[planted.owner(slot(&name))].port());
            async move { admin(&url, &[b"SET", format!("onlyonce:{name}").as_bytes(), &bytes]).await }
        })
    }

    conformance::suite!(on_one Arc::new(Cluster::start(3, false)), on_cluster);

    mod on_redis_6_2 {
        use super::*;

        conformance::suite!(
            #[ignore = "tests/run --all"]
            on_one Arc::new(Cluster::start_other(REDIS_6_2, 3, false)), on_cluster
        );
    }

    mod on_valkey_9 {
        use super::*;

        conformance::suite!(
            #[ignore = "tests/run --all"]
            on_one Arc::new(Cluster::start_other(VALKEY_9, 3, false)), on_cluster
        );
    }
}

/// The names of the commands that each node was asked to execute.
async fn commands(monitors: &mut [Monitor], cluster: &Cluster) -> Vec<String> {
    let mut commands = Vec::new();
    for (monitor, node) in monitors.iter_mut().zip(&cluster.nodes) {
        commands.extend(monitor.commands(node.port()).await);
    }
    commands
}

async fn a_request_is_as_many_commands_as_at_one_server(program: &'static str) {
    let cluster = Cluster::start_other(program, 3, false);
    let store = open_cluster(&cluster, ConnectionOptions { ping_every: Duration::from_secs(600), ..NO_PING }).await;
    let mut monitors = Vec::new();
    for node in &cluster.nodes {
        monitors.push(Monitor::start(node.port()).await);
    }
    // Without `SET NX GET`, a script claims.
    let claims = if program == REDIS_6_2 { "EVALSHA" } else { "SET" };
    for node in 0..3 {
        let (settled, flying, mine) = (name_at(&cluster, node), name_at(&cluster, node), claim(1, RETRY));
        store.claim(&settled, &mine).await.expect("granted");
        store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
        assert_eq!(commands(&mut monitors, &cluster).await, [claims, "EVALSHA"], "a first request");
        store.claim(&settled, &claim(2, RETRY)).await.expect("refused");
        assert_eq!(commands(&mut monitors, &cluster).await, [claims], "a replay");
        store.claim(&flying, &mine).await.expect("granted");
        commands(&mut monitors, &cluster).await;
        store.claim(&flying, &claim(2, RETRY)).await.expect("refused");
        assert_eq!(commands(&mut monitors, &cluster).await, [claims, "EVALSHA"], "in flight");
        let mut other = claim(2, RETRY);
        other.fingerprint.target = [9; 16];
        store.claim(&flying, &other).await.expect("refused");
        assert_eq!(commands(&mut monitors, &cluster).await, [claims], "another request under the same key");
    }
}

/// All operations on records whose slot is moving from one node to another.
async fn a_slot_that_moves_takes_its_records_along_at_each_step(program: &'static str) {
    let cluster = Cluster::start_other(program, 3, false);
    let store = open_cluster(&cluster, ConnectionOptions::default()).await;
    for scripts_only in [false, true] {
        let options = ConnectionOptions { scripts_only, ..ConnectionOptions::default() };
        let store = if scripts_only { open_cluster(&cluster, options).await } else { store.clone() };
        let (slot, names) = names_in_a_slot(&cluster);
        let mut names = names.into_iter();
        let mut next = || names.next().expect("enough");
        let (mine, again) = (claim(1, RETRY), claim(2, RETRY));
        let (settled, flying, apart, moved) = (next(), next(), next(), next());
        for name in [&settled, &flying, &apart, &moved] {
            store.claim(name, &mine).await.expect("granted");
        }
        store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");

        cluster.begin_to_move(slot, 0, 1);
        // A record that is still on the old node is used there.
        assert_eq!(store.renew(&flying, &mine).await.expect("an answer"), Renewed::Extended);
        assert!(
            matches!(store.claim(&settled, &again).await, Ok(Claimed::Refused(held)) if held.record == completed(&mine, b"{}"))
        );
        assert_eq!(store.settle(&moved, &completed(&mine, b"{}")).await.expect("an answer"), Settled::Written);
        // Chunks are new names and go to the other node. The record stays where it is.
        assert_eq!(store.settle(&apart, &large(&mine)).await.expect("an answer"), Settled::Written);
        let body = apart_body(&store, &apart).await;
        let body = StoredBody::open(&store, &apart, body).await.expect("a body");
        assert_eq!(body.rest().await.expect("all of it").iter().map(Bytes::len).sum::<usize>(), 1 << 20);
        // A new record is made on the other node, once.
        let new = next();
        assert_eq!(store.claim(&new, &mine).await.expect("an answer"), Claimed::Granted(mine.clone()));
        assert!(matches!(store.claim(&new, &again).await, Ok(Claimed::Refused(held)) if held.record.claim == mine));
        assert_eq!(store.renew(&new, &mine).await.expect("an answer"), Renewed::Extended);
        assert_eq!(store.find(&new).await.expect("an answer").expect("a record").record.claim, mine);
        assert_eq!(store.release(&new, mine.token).await.expect("an answer"), Released::Deleted);
        assert_eq!(store.release(&new, mine.token).await.expect("an answer"), Released::Absent);
        let new = next();
        assert_eq!(store.claim(&new, &claim(1, LOST)).await.expect("an answer"), Claimed::Granted(claim(1, LOST)));
        assert_eq!(store.settle(&next(), &large(&mine)).await.expect("an answer"), Settled::Written);

        cluster.move_keys(slot, 0, 1);
        assert_eq!(store.renew(&flying, &mine).await.expect("an answer"), Renewed::Extended);
        assert!(
            matches!(store.claim(&moved, &again).await, Ok(Claimed::Refused(held)) if held.record == completed(&mine, b"{}"))
        );

        cluster.end_to_move(slot, 1);
        assert!(
            matches!(store.claim(&settled, &again).await, Ok(Claimed::Refused(held)) if held.record == completed(&mine, b"{}"))
        );
        assert_eq!(store.settle(&flying, &completed(&mine, b"{}")).await.expect("an answer"), Settled::Written);
        let seen = store.find(&settled).await.expect("an answer").expect("a record").seen();
        let release = transitions::release_by_hand(seen, false).expect("completed");
        assert_eq!(store.compare_and_swap(&settled, &release).await.expect("an answer"), SwapResult::Done);

        // The slot moves back.
        cluster.begin_to_move(slot, 1, 0);
        cluster.move_keys(slot, 1, 0);
        cluster.end_to_move(slot, 0);
        assert!(
            matches!(store.claim(&flying, &again).await, Ok(Claimed::Refused(held)) if held.record == completed(&mine, b"{}"))
        );
    }
    assert_eq!((store.health(), store.losses()), (Health::Up, 0));
}

/// The digest key is on one node like any other name, and must be confirmed all the time.
#[tokio::test]
async fn the_digest_key_is_confirmed_while_its_own_slot_moves() {
    let cluster = Cluster::start(3, false);
    let store = open_cluster(&cluster, ConnectionOptions::default()).await;
    let slot = slot_of(&[b"onlyonce:digest-key"]);
    let from = cluster.owner(slot);
    let to = (from + 1) % 3;
    cluster.begin_to_move(slot, from, to);
    cluster.move_keys(slot, from, to);
    let begun = Instant::now();
    // This is longer than a confirmation stays valid.
    while begun.elapsed() < Duration::from_secs(5) {
        store.claim(&name(), &claim(1, RETRY)).await.expect("granted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.end_to_move(slot, to);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        store.claim(&name(), &claim(1, RETRY)).await.expect("granted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(store.losses(), 0);
}

/// A replica that took over may lack the chunks that were written a moment before. Deleting them has the same effect.
#[tokio::test]
async fn a_body_is_written_again_at_the_node_that_has_taken_over_its_slot() {
    let cluster = Cluster::start(3, false);
    let store = open_cluster(&cluster, ConnectionOptions::default()).await;
    let (name, mine) = (name_at(&cluster, 0), claim(1, RETRY));
    let (slot, record) = (slot(&name), large(&mine));
    let State::Completed { reply, .. } = &record.state else { panic!("a reply") };
    let call = store.call(&name, PATIENCE).expect("a connection");
    call.write_apart(&record, reply.body.stored()).await.expect("written");
    for index in 0..16 {
        assert_eq!(at_node::<u64>(&cluster.nodes[0], &["DEL", &chunk_key(&name, mine.token, index)]).await, 1);
    }
    cluster.begin_to_move(slot, 0, 1);
    cluster.end_to_move(slot, 1);
    let both: (&Record, &Record) = (&record, &record);
    let settled = call.settle(both).await;
    assert!(settled.is_err(), "the node names another: {settled:?}");
    let settled = call.or_elsewhere(settled, &both, |call, both| Box::pin(call.settle(*both))).await;
    assert_eq!(settled.expect("an answer"), Settled::Written);
    let body = StoredBody::open(&store, &name, apart_body(&store, &name).await).await.expect("a body");
    assert_eq!(body.rest().await.expect("all of it").iter().map(Bytes::len).sum::<usize>(), 1 << 20);
}

/// The slots of a node.
async fn slots_of(cluster: &Cluster, node: usize) -> Vec<u16> {
    let text: String = at_node(&cluster.nodes[node], &["CLUSTER", "NODES"]).await;
    let own = text.lines().find(|line| line.contains("myself")).expect("itself");
    let range = own.split(' ').nth(8).and_then(|range| range.split_once('-')).expect("one range");
    (range.0.parse().expect("a slot")..=range.1.parse().expect("a slot")).collect()
}

/// Has the store connect to the node anew, and waits until it has lost the former connection.
async fn reconnect(store: &Redis, node: &Node) -> Arc<crate::store::redis::cluster::ClusterNode> {
    let Servers::Cluster(watched) = &store.shared.servers else { panic!("a cluster") };
    let endpoint = StoreEndpoint::Tcp("127.0.0.1".to_owned(), node.port());
    let of_store = watched.cluster.nodes().into_iter().find(|node| *node.endpoint() == endpoint).expect("known");
    let before = of_store.server().link.connected().expect("a connection");
    let _: u64 = at_node(node, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    tokio::time::timeout(PATIENCE, before.until_lost()).await.expect("it is lost");
    of_store
}

#[tokio::test]
async fn a_node_is_connected_to_while_the_slot_moves_in_which_it_is_tried() {
    let cluster = Cluster::start(2, false);
    let node = &cluster.nodes[0];
    for words in [["CONFIG", "SET", "slowlog-max-len", "10000"], ["CONFIG", "SET", "slowlog-log-slower-than", "0"]] {
        let () = at_node(node, &words).await;
    }
    let store = open_cluster(&cluster, ConnectionOptions::default()).await;
    type Entry = (i64, i64, i64, Vec<Bytes>, Bytes, Bytes);
    let commands: Vec<Entry> = at_node(node, &["SLOWLOG", "GET", "-1"]).await;
    let names = commands.iter().filter(|entry| entry.3[0] == "SET").map(|entry| &entry.3[1]);
    // Each connection to this node tries the same name first.
    let tried = names.clone().find(|name| name.starts_with(b"onlyonce:probe:")).expect("it was tried");
    cluster.begin_to_move(slot_of(&[tried]), 0, 1);
    let of_store = reconnect(&store, node).await;
    tokio::time::timeout(PATIENCE, of_store.server().link.next()).await.expect("a connection");
    until(&store, Health::Up).await;
}

/// `on_error = "forward"` lets requests through if the store is out of reach. This node is not: it has its records.
#[tokio::test]
async fn a_node_that_gives_away_all_of_its_slots_is_not_out_of_reach() {
    let cluster = Cluster::start(2, false);
    let node = &cluster.nodes[0];
    let store = open_cluster(&cluster, ConnectionOptions::default()).await;
    let target: String = at_node(&cluster.nodes[1], &["CLUSTER", "MYID"]).await;
    let mut moves = ::redis::pipe();
    for slot in slots_of(&cluster, 0).await {
        moves.cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("MIGRATING").arg(&target).ignore();
    }
    let client = ::redis::Client::open(format!("redis://127.0.0.1:{}", node.port())).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let () = moves.query_async(&mut connection).await.expect("begun");
    let of_store = reconnect(&store, node).await;
    let begun = Instant::now();
    let why = loop {
        match of_store.server().link.state() {
            Err(why) if matches!(*why, ConnectError::NotYet | ConnectError::Lost) => {}
            Err(why) => break why,
            Ok(_) => panic!("all of its slots are moving"),
        }
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(matches!(*why, ConnectError::SlotsMoving { .. }), "{why:?}");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        let refused = store.claim(&name_at(&cluster, 0), &claim(1, RETRY)).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A node without slots is in no list of who serves what. While its first slot is on its way, only redirects name it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_new_key_in_the_first_slot_that_moves_to_a_new_node_is_claimed_there() {
    let cluster = Cluster::start_with_newcomer(2);
    for scripts_only in [false, true] {
        let store = open_cluster(&cluster, ConnectionOptions { scripts_only, ..ConnectionOptions::default() }).await;
        let (mine, again) = (claim(1, RETRY), claim(2, RETRY));
        let (slot, names) = names_in_a_slot(&cluster);
        let [old, new, apart] = [0, 1, 2].map(|index| names[index].clone());
        store.claim(&old, &mine).await.expect("granted");
        cluster.begin_to_move(slot, 0, 2);
        // A record that is still at the old node is used there, and a new one is made at the new node, once.
        assert!(matches!(store.claim(&old, &again).await, Ok(Claimed::Refused(_))));
        assert_eq!(store.claim(&new, &mine).await.expect("an answer"), Claimed::Granted(mine.clone()));
        assert!(matches!(store.claim(&new, &again).await, Ok(Claimed::Refused(held)) if held.record.claim == mine));
        assert_eq!(store.settle(&new, &completed(&mine, b"{}")).await.expect("an answer"), Settled::Written);
        assert_eq!(store.settle(&apart, &large(&mine)).await.expect("an answer"), Settled::Written);
        let body = apart_body(&store, &apart).await;
        let body = StoredBody::open(&store, &apart, body).await.expect("a body");
        assert_eq!(body.rest().await.expect("all of it").iter().map(Bytes::len).sum::<usize>(), 1 << 20);
        // No other slot is affected.
        store.claim(&name_at(&cluster, 1), &mine).await.expect("granted");
        assert_eq!((store.health(), store.losses()), (Health::Up, 0));

        cluster.move_keys(slot, 0, 2);
        cluster.end_to_move(slot, 2);
        for name in [&old, &new, &apart] {
            let held = store.claim(name, &again).await;
            assert!(matches!(held, Ok(Claimed::Refused(_))), "{held:?}");
        }
        // The slot goes back, so that the node has none again.
        cluster.begin_to_move(slot, 2, 0);
        cluster.move_keys(slot, 2, 0);
        cluster.end_to_move(slot, 0);
        let held = store.claim(&new, &again).await;
        assert!(matches!(held, Ok(Claimed::Refused(held)) if held.record == completed(&mine, b"{}")));
    }
}

async fn changes_by_others_are_heard_of_at_any_node(program: &'static str) {
    let cluster = Cluster::start_other(program, 3, false);
    let ours = open_cluster(&cluster, ConnectionOptions::default()).await;
    let theirs = open_cluster(&cluster, ConnectionOptions::default()).await;
    // The examination of each connect executes all commands once.
    for node in &cluster.nodes {
        let () = at_node(node, &["CONFIG", "RESETSTAT"]).await;
    }
    for node in 0..3 {
        let (awaited, owner) = (name_at(&cluster, node), claim(1, RETRY));
        theirs.claim(&awaited, &owner).await.expect("granted");
        let mut changes = ours.subscribe(&awaited, HOUR).expect("Redis notifies");
        told(&mut changes).await;
        theirs.settle(&awaited, &completed(&owner, b"{}")).await.expect("settled");
        told(&mut changes).await;
        // No other node gets the message.
        for other in 0..3 {
            let stats: String = at_node(&cluster.nodes[other], &["INFO", "commandstats"]).await;
            // Redis 6.2 has no channels of slots.
            assert!(!stats.contains("cmdstat_publish") || program == REDIS_6_2, "{stats}");
        }
    }
}

#[tokio::test]
async fn records_of_all_nodes_are_listed() {
    let cluster = Cluster::start(3, false);
    let store = open_cluster(&cluster, ConnectionOptions::default()).await;
    let mut expected = Vec::new();
    for _ in 0..60 {
        let name = name();
        store.settle(&name, &completed(&claim(1, RETRY), b"{}")).await.expect("settled");
        expected.push(name.to_string());
    }
    let (mut listing, mut found) = (ListQuery { route: None, after: None, limit: 5 }, Vec::new());
    loop {
        let page = store.list(&listing).await.expect("an answer");
        found.extend(page.records.into_iter().map(|record| record.name.to_string()));
        listing.after = page.next;
        if listing.after.is_none() {
            break;
        }
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, expected);
    listing.after = Some(Cursor("7@10.0.0.1:6379".to_owned()));
    assert!(matches!(store.list(&listing).await, Err(ListError::Store(StoreError::Refused(_)))));
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

async fn the_rights_that_are_printed_suffice_for_a_cluster(program: &'static str) {
    let cluster = Cluster::start_other(program, 2, false);
    for node in &cluster.nodes {
        let rule = AclRule { is_node: true, ..AclRule::of(&config()) }.to_string();
        // Redis 6.2 has no channels of slots, and refuses their commands.
        let is_known =
            |rule: &&str| program != REDIS_6_2 || !["+spublish", "+ssubscribe", "+sunsubscribe"].contains(rule);
        let words: Vec<_> =
            ["ACL", "SETUSER", "sidecar", "on", ">pw"].into_iter().chain(rule.split(' ').filter(is_known)).collect();
        let () = at_node(node, &words).await;
    }
    let mut address = cluster_address(&cluster, 2);
    (address.username, address.password) = (Some("sidecar".to_owned()), Some(StorePassword::Fixed(Secret::new("pw"))));
    let store = Redis::open_with(&address, &config(), ConnectionOptions::default());
    store.ready(PATIENCE).await.expect("connections to all nodes");
    until(&store, Health::Up).await;
    let (awaited, owner) = (name_at(&cluster, 1), claim(1, RETRY));
    let mut changes = store.subscribe(&awaited, HOUR).expect("Redis notifies");
    told(&mut changes).await;
    store.claim(&awaited, &owner).await.expect("granted");
    store.settle(&awaited, &large(&owner)).await.expect("settled");
    told(&mut changes).await;
    let listed = store.list(&ListQuery { route: None, after: None, limit: 5 }).await;
    listed.expect("a page");
    let slot = slot(&awaited);
    cluster.begin_to_move(slot, 1, 0);
    cluster.move_keys(slot, 1, 0);
    assert!(matches!(store.claim(&awaited, &claim(2, RETRY)).await, Ok(Claimed::Refused(_))), "with ASKING");
    assert!(store.findings().iter().any(|finding| finding.found == "2 primaries serve all slots"));
    let of_nodes = store.nodes();
    assert!(of_nodes.len() == 2 && of_nodes.iter().all(|node| node.found.is_ok()), "{of_nodes:?}");
}

#[tokio::test]
async fn a_server_and_a_cluster_that_are_taken_for_each_other_say_so() {
    let cluster = Cluster::start(2, false);
    let server = RedisServer::start();
    let alone =
        RedisAddress { servers: RedisServers::Cluster(vec![("127.0.0.1".to_owned(), server.port())]), ..address(0) };
    let store = Redis::open_with(&alone, &config(), NO_PING);
    let why = store.tried().await.expect_err("no cluster");
    assert!(matches!(*why, ConnectError::NoCluster { .. }), "{why:?}");
    // The probe's name is random, and may be in a slot of the node that is asked. So several connects are tried.
    let mut seen = Vec::new();
    for node in cluster.nodes.iter().cycle().take(8) {
        let store = Redis::open_with(&address(node.port()), &config(), NO_PING);
        seen.push(store.tried().await);
    }
    assert!(
        seen.iter().any(|seen| matches!(seen, Err(why) if matches!(**why, ConnectError::Elsewhere(_)))),
        "{seen:?}"
    );
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
