//! A Redis Cluster: what is different from one server.

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

mod nodes;
mod slots;

on_each_server! {
    a_request_is_as_many_commands_as_at_one_server,
    changes_by_others_are_heard_of_at_any_node,
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
