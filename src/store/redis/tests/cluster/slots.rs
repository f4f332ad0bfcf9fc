//! Slots that move.

use super::*;

on_each_server! {
    a_slot_that_moves_takes_its_records_along_at_each_step,
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
