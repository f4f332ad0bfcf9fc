//! Calls while a server is frozen, down, full, behind, or replaced.

use super::*;

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
    // After more late replies, no caller waits for this connection any more.
    while store.health() == Health::Up {
        assert!(store.find(&name).await.is_err());
    }
    // The connection was dropped because of late replies. This says nothing about the server until an attempt to
    // connect has failed.
    assert!(matches!(store.claim(&name, &mine).await, Err(StoreError::Refused(_))));
    while !matches!(store.claim(&name, &mine).await, Err(StoreError::Unavailable(_))) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.thaw();

    // The command that was sent was executed, and its claim is recognised.
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
    // The server lost the key with all other data. A sidecar that knew it has written it again.
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
    // A server that restarts with all its data counts as unchanged.
    server.kill();
    until(&store, Health::Down).await;
    server.restart();
    until(&store, Health::Up).await;
    assert_eq!(store.losses(), 0);
    while store.losses() == 0 {
        // This looks like a replica that lagged when it was promoted.
        let _: () = admin(&server.url(), &[b"SET", canary.as_bytes(), b"0"]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_full_server_still_replays() {
    for options in [MANY_PINGS, ConnectionOptions { scripts_only: true, ..MANY_PINGS }] {
        let server = RedisServer::start();
        let store = open(server.port(), options).await;
        let (settled, flying, mine) = (name(), name(), claim(1, RETRY));
        store.claim(&settled, &mine).await.expect("granted");
        store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
        store.claim(&flying, &mine).await.expect("granted");

        order(&server, "CONFIG SET maxmemory 1").await;
        let replayed = store.claim(&settled, &claim(2, RETRY)).await.expect("an answer");
        assert!(matches!(replayed, Claimed::Refused(held) if held.record == completed(&mine, b"{}")));
        let held = store.claim(&flying, &claim(2, RETRY)).await.expect("an answer");
        assert!(matches!(held, Claimed::Refused(held) if held.owner() == OwnerState::Alive));
        assert_eq!(store.claim(&flying, &mine).await.expect("an answer"), Claimed::Granted(mine.clone()));
        let refused = store.claim(&name(), &mine).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        let refused = store.settle(&flying, &completed(&mine, b"{}")).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        // A full server accepts new connections, and keeps them.
        open(server.port(), options).await.find(&settled).await.expect("an answer").expect("a record");
        assert_eq!(store.health(), Health::Up);

        order(&server, "CONFIG SET maxmemory 0").await;
        store.claim(&name(), &mine).await.expect("granted");
    }
}

/// A server refuses writes if it has too few replicas or cannot write to its disk.
#[tokio::test]
async fn a_server_that_takes_no_writes_still_replays() {
    for (code, breaks, mends) in [
        ("NOREPLICAS", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
        ("MISCONF", "BGSAVE", "CONFIG SET stop-writes-on-bgsave-error no"),
    ] {
        // Its snapshots always fail, because the file name is that of a folder.
        let server = RedisServer::start_with(&["--save", "3600 1", "--dbfilename", "taken.rdb"]);
        let store = open(server.port(), MANY_PINGS).await;
        let (settled, flying, mine) = (name(), name(), claim(1, RETRY));
        store.claim(&settled, &mine).await.expect("granted");
        store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
        store.claim(&flying, &mine).await.expect("granted");
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
        let again = store.claim(&flying, &mine).await;
        match code {
            // A primary without its replicas may be cut off, and another one may have taken its place.
            "NOREPLICAS" => assert!(matches!(again, Err(StoreError::Uncertain(_))), "{again:?}"),
            _ => assert_eq!(again.expect("an answer"), Claimed::Granted(mine.clone())),
        }
        // The server accepts new connections, and keeps them.
        open(server.port(), MANY_PINGS).await.find(&settled).await.expect("an answer").expect("a record");
        assert_eq!(store.health(), Health::Up);
        order(&server, mends).await;
        store.claim(&name(), &mine).await.expect("granted");
    }
}

/// Two owners that do not renew: one under `retry`, one under `hold`.
struct SilentOwners {
    retried: RecordName,
    held: RecordName,
    lease: Duration,
}

impl SilentOwners {
    /// Claims for them, and waits until both have been silent for the lease.
    async fn of(store: &Redis, lease: Duration) -> Self {
        let owners = Self::claimed(store, lease).await;
        tokio::time::sleep(lease).await;
        owners
    }

    async fn claimed(store: &Redis, lease: Duration) -> Self {
        let (retried, held) = (name(), name());
        store.claim(&retried, &claim(1, Terms { lease, ..RETRY })).await.expect("granted");
        store.claim(&held, &claim(1, Terms { lease, ..HOLD })).await.expect("granted");
        Self { retried, held, lease }
    }

    /// Claims, look-ups, lists and operators all treat both as alive.
    async fn are_alive(&self, store: &Redis) {
        for (name, terms) in [(&self.retried, RETRY), (&self.held, HOLD)] {
            let refused = store.claim(name, &claim(2, terms)).await.expect("an answer");
            assert!(matches!(refused, Claimed::Refused(held) if held.owner() == OwnerState::Alive));
            assert_eq!(store.find(name).await.expect("an answer").expect("a record").owner(), OwnerState::Alive);
        }
        for listed in self.listed(store).await {
            assert_eq!(listed.owner(), OwnerState::Alive);
            assert!(transitions::release_by_hand(listed, false).is_err(), "only by force");
        }
    }

    /// A lease after the break, one is taken over, and the other one is lost. `before`: a time before the end of the break.
    async fn are_lost_after_a_lease(&self, store: &Redis, before: Instant) {
        let begun = Instant::now();
        while !matches!(store.claim(&self.retried, &claim(2, RETRY)).await, Ok(Claimed::Granted(_))) {
            assert!(begun.elapsed() < PATIENCE, "it is taken over at last");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(before.elapsed() > self.lease / 2, "{:?}", before.elapsed());
        let refused = store.claim(&self.held, &claim(2, HOLD)).await.expect("an answer");
        assert!(matches!(refused, Claimed::Refused(held) if held.owner() == OwnerState::Lost));
        assert!(self.listed(store).await.iter().any(|listed| listed.owner() == OwnerState::Lost));
    }

    async fn listed(&self, store: &Redis) -> Vec<transitions::RecordSnapshot> {
        let page = store.list(&ListQuery { route: None, after: None, limit: 100 }).await.expect("a page");
        let ours = page.records.into_iter().filter(|listed| [&self.retried, &self.held].contains(&&listed.name));
        let seen: Vec<_> = ours.map(|listed| listed.seen.expect("readable")).collect();
        assert_eq!(seen.len(), 2);
        seen
    }
}

/// Longer than a busy machine may stop a test.
const LEASE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_silent_owner_is_not_lost_for_a_lease_after_the_server_was_restarted() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = open(server.port(), NO_PING).await;
    let owners = SilentOwners::of(&store, LEASE).await;
    server.kill();
    until(&store, Health::Down).await;
    let before = Instant::now();
    server.restart();
    until(&store, Health::Up).await;
    owners.are_alive(&store).await;
    owners.are_lost_after_a_lease(&store, before).await;
}

#[tokio::test]
async fn a_silent_owner_is_not_lost_for_a_lease_after_connections_to_the_same_server_were_lost() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let owners = SilentOwners::of(&store, LEASE).await;
    let before = Instant::now();
    order(&server, "CLIENT KILL TYPE normal").await;
    until(&store, Health::Down).await;
    until(&store, Health::Up).await;
    owners.are_alive(&store).await;
    owners.are_lost_after_a_lease(&store, before).await;
}

/// The server does not answer for a while, and keeps all connections.
#[tokio::test]
async fn a_silent_owner_is_not_lost_for_a_lease_after_the_server_has_hung() {
    let server = RedisServer::start();
    let store = open(server.port(), MANY_PINGS).await;
    let owners = SilentOwners::claimed(&store, LEASE).await;
    server.freeze();
    tokio::time::sleep(LEASE * 2).await;
    let before = Instant::now();
    server.thaw();
    // The connections were not lost. What they answer first must not take the owners for lost.
    let found = store.find(&owners.held).await.expect("an answer").expect("a record");
    assert_eq!(found.owner(), OwnerState::Alive);
    until(&store, Health::Up).await;
    owners.are_alive(&store).await;
    owners.are_lost_after_a_lease(&store, before).await;
}

/// A primary without its replicas, or without its disk, takes no renewals.
#[tokio::test]
async fn a_silent_owner_is_not_lost_for_a_lease_after_the_server_has_refused_writes() {
    let server = RedisServer::start();
    let store = open(server.port(), MANY_PINGS).await;
    let owners = SilentOwners::of(&store, LEASE).await;
    order(&server, "CONFIG SET min-replicas-to-write 1").await;
    let refused = async {
        while store.find(&owners.held).await.expect("an answer").expect("a record").owner() != OwnerState::Alive {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the next ping is refused");
    tokio::time::sleep(LEASE).await;
    let before = Instant::now();
    order(&server, "CONFIG SET min-replicas-to-write 0").await;
    owners.are_alive(&store).await;
    owners.are_lost_after_a_lease(&store, before).await;
}

/// A node of a Cluster that is down answers, and takes no renewals. Here it is one server that says so.
#[tokio::test]
async fn a_silent_owner_is_not_lost_for_a_lease_after_a_cluster_was_down() {
    let server = RedisServer::start();
    let is_down = Arc::<AtomicBool>::default();
    let says_so = Arc::clone(&is_down);
    let proxy = Rewriting::before(server.port(), move |words: &[Vec<u8>]| {
        let writes = says_so.load(Ordering::SeqCst) && words[0] == b"SET";
        writes.then(|| "EVAL|return redis.error_reply('CLUSTERDOWN The cluster is down')|0".to_owned())
    });
    let store = open(proxy.await.port, MANY_PINGS).await;
    let owners = SilentOwners::of(&store, LEASE).await;
    is_down.store(true, Ordering::SeqCst);
    let refused = async {
        while store.find(&owners.held).await.expect("an answer").expect("a record").owner() != OwnerState::Alive {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the next ping is refused");
    tokio::time::sleep(LEASE).await;
    let before = Instant::now();
    is_down.store(false, Ordering::SeqCst);
    owners.are_alive(&store).await;
    owners.are_lost_after_a_lease(&store, before).await;
}

/// What can be read needs no silence, and an operator's look changes nothing.
#[tokio::test]
async fn settled_records_are_as_old_as_they_look_whatever_happened_to_the_server() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (settled, mine) = (name(), claim(1, HOLD));
    store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
    tokio::time::sleep(Duration::from_millis(500)).await;
    order(&server, "CLIENT KILL TYPE normal").await;
    until(&store, Health::Down).await;
    until(&store, Health::Up).await;
    let found = store.find(&settled).await.expect("an answer").expect("a record");
    assert!(found.silent_for >= Duration::from_millis(500), "{:?}", found.silent_for);
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
    // By script, a replay writes nothing and detects nothing yet. Natively, the connection is lost by now.
    let refused = store.claim(&name(), &mine).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    until(&store, Health::Down).await;
    order(&server, "REPLICAOF NO ONE").await;
    until(&store, Health::Up).await;
    store.claim(&name(), &mine).await.expect("granted");
}

/// The first try of the claim was executed, and its reply was lost. Another server may be the primary by now, and lack it.
#[tokio::test]
async fn a_claim_of_its_own_on_a_replica_is_not_granted() {
    let server = RedisServer::start();
    for options in [NO_PING, BY_SCRIPT] {
        let (name, mine, store) = (name(), claim(1, RETRY), open(server.port(), options).await);
        store.claim(&name, &mine).await.expect("granted");
        assert_eq!(store.claim(&name, &mine).await.expect("an answer"), Claimed::Granted(mine.clone()));
        order(&server, "REPLICAOF 127.0.0.1 1").await;
        let uncertain = store.claim(&name, &mine).await;
        assert!(matches!(uncertain, Err(StoreError::Uncertain(_))), "{uncertain:?}");
        order(&server, "REPLICAOF NO ONE").await;
        until(&store, Health::Up).await;
        assert_eq!(store.claim(&name, &mine).await.expect("an answer"), Claimed::Granted(mine));
    }
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

/// The server has no replica, and one is required. No other client is connected, so claims need not wait.
#[tokio::test]
async fn what_too_few_replicas_have_is_uncertain_and_stays_for_its_owner_to_delete() {
    let server = RedisServer::start();
    let wanted = config::StoreConfig { replica_acks: 1, timeout: Duration::from_secs(4), ..config() };
    let store = Redis::open_with(&address(server.port()), &wanted, ConnectionOptions::default());
    store.ready(PATIENCE).await.expect("a connection");
    let (claimed, renewed, mine) = (name(), name(), claim(1, RETRY));
    for _ in 0..2 {
        let begun = Instant::now();
        let short = store.claim(&claimed, &mine).await.expect_err("no replica has it");
        assert!(matches!(short, StoreError::Unacknowledged(_)), "{short:?}");
        assert!(begun.elapsed() < wanted.timeout, "{:?}", begun.elapsed());
        assert_eq!(store.find(&claimed).await.expect("an answer").expect("a record").record.claim, mine);
    }
    assert_eq!(store.release(&claimed, mine.token).await.expect("an answer"), Released::Deleted);
    assert_eq!(store.find(&claimed).await.expect("an answer"), None);
    // The first renewal makes a new claim. The second one finds it, and it is still not acknowledged.
    for _ in 0..2 {
        let short = store.renew(&renewed, &mine).await.expect_err("no replica has it");
        assert!(matches!(short, StoreError::Unacknowledged(_)), "{short:?}");
    }
    // The record of another owner needs no acknowledgement.
    let lost = store.renew(&renewed, &claim(2, RETRY)).await;
    assert_eq!(lost.expect("an answer"), Renewed::Lost);
}
