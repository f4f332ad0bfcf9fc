//! `store.fsync_acks`: a claim counts once it is on disk.

use super::*;
use crate::store::redis::write_acks::RequiredAcks;

const TIMEOUT: Duration = Duration::from_secs(4);

fn on_disk(replica_acks: u64) -> config::StoreConfig {
    config::StoreConfig { fsync_acks: true, replica_acks, timeout: TIMEOUT, ..config() }
}

/// Opens a store in front of Redis 7.0, whose `WAITAOF` has this reply: its own disk, and those of replicas.
async fn with_reply(server: &RedisServer, reply: &'static str, replica_acks: u64) -> Redis {
    let wanted = replica_acks.to_string().into_bytes();
    let proxy = Rewriting::before(server.port(), move |words: &[Vec<u8>]| match words {
        [command, disks, replicas, milliseconds] if command == b"WAITAOF" => {
            // The first one only finds out whether there is the command.
            let is_probe = replicas == b"0" && milliseconds == b"1";
            let is_right = disks == b"1" && (is_probe || *replicas == wanted);
            let says = if is_right { reply } else { "redis.error_reply('ERR other acknowledgements are asked for')" };
            Some(format!("EVAL|return {says}|0"))
        }
        _ => None,
    });
    open_with(proxy.await.port, &on_disk(replica_acks), NO_PING).await
}

/// The claim stays for its owner to delete, as it does if replicas are missing.
async fn falls_short(store: &Redis, why: &str) {
    let (name, mine) = (name(), claim(1, RETRY));
    for _ in 0..2 {
        let begun = Instant::now();
        let short = store.claim(&name, &mine).await.expect_err("it is not acknowledged");
        assert!(matches!(short, StoreError::Unacknowledged(_)), "{short:?}");
        assert!(crate::store::causes(&short).contains(why), "{short:?}");
        assert!(begun.elapsed() < TIMEOUT * 4, "{:?}", begun.elapsed());
        assert_eq!(store.find(&name).await.expect("an answer").expect("a record").record.claim, mine);
    }
    assert_eq!(store.release(&name, mine.token).await.expect("an answer"), Released::Deleted);
    // Outcomes and new claims of a renewal wait, too.
    let (settled, renewed) = (super::name(), super::name());
    let short = store.settle(&settled, &completed(&mine, b"{}")).await;
    assert!(matches!(short, Err(StoreError::Unacknowledged(_))), "{short:?}");
    let short = store.renew(&renewed, &mine).await;
    assert!(matches!(short, Err(StoreError::Unacknowledged(_))), "{short:?}");
    // A replay and a refusal wait for nothing.
    let replayed = store.claim(&settled, &claim(2, RETRY)).await.expect("an answer");
    assert!(matches!(replayed, Claimed::Refused(_)));
}

#[tokio::test]
async fn a_claim_counts_once_the_server_and_so_many_replicas_have_it_on_disk() {
    let server = RedisServer::start();
    for (reply, replica_acks) in [("{1, 0}", 0), ("{1, 1}", 1), ("{1, 2}", 1)] {
        let store = with_reply(&server, reply, replica_acks).await;
        let (name, mine) = (name(), claim(1, RETRY));
        assert_eq!(store.claim(&name, &mine).await.expect("an answer"), Claimed::Granted(mine.clone()), "{reply}");
        assert_eq!(store.settle(&name, &completed(&mine, b"{}")).await.expect("an answer"), Settled::Written);
    }
    for (reply, replica_acks, why) in [
        ("{0, 0}", 0, "Redis does not have it on disk yet"),
        ("{0, 1}", 1, "Redis does not have it on disk yet"),
        ("{1, 0}", 1, "only 0 replicas have it on disk"),
        ("{1, 1}", 2, "only 1 replicas have it on disk"),
    ] {
        falls_short(&with_reply(&server, reply, replica_acks).await, why).await;
    }
}

/// What a server that cannot be used says of itself at a start.
async fn refused_at_start(server: &RedisServer) -> String {
    let config = config::StoreConfig { location: StoreLocation::Redis(address(server.port())), ..on_disk(0) };
    let refused = crate::store::open(&config, SURVIVES).await.err().expect("refused");
    crate::store::causes(&refused)
}

#[tokio::test]
async fn a_server_without_waitaof_is_refused_at_start() {
    let server = RedisServer::start_with(&["--appendonly", "yes"]);
    let refused = refused_at_start(&server).await;
    assert!(refused.contains("Redis has no WAITAOF") && refused.contains("store.fsync_acks"), "{refused}");
    // Without the option, the same server will do.
    open(server.port(), NO_PING).await;
}

#[tokio::test]
async fn a_user_without_the_right_to_waitaof_is_told() {
    let server = RedisServer::start();
    let proxy = Rewriting::before(server.port(), |words: &[Vec<u8>]| match &words[0][..] {
        b"WAITAOF" => Some("EVAL|return redis.error_reply('NOPERM this user has no permissions')|0".to_owned()),
        _ => None,
    });
    let store = Redis::open_with(&address(proxy.await.port), &on_disk(0), NO_PING);
    let refused = refusal(&store).await;
    assert!(matches!(*refused, ConnectError::Permission { .. }) && !refused.is_final(), "{refused:?}");
    let text = refused.with_advice();
    assert!(text.contains("lacks WAITAOF") && text.contains(" +waitaof"), "{text}");
    assert!(!AclRule::of(&config()).to_string().contains("waitaof"), "servers that do not have it refuse the rule");
}

/// The disk, or the connection, is slow once or twice.
#[tokio::test]
async fn late_waits_cost_the_connections_only_if_there_are_several_in_a_row() {
    let server = RedisServer::start();
    let (hangs, waits) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (is_slow, seen) = (hangs.clone(), waits.clone());
    let proxy = Rewriting::before(server.port(), move |words: &[Vec<u8>]| {
        if words[0] != b"WAITAOF" {
            return None;
        }
        seen.fetch_add(1, Ordering::SeqCst);
        // Either is the reply of a disk that has it. The second one waits until there is an element.
        let answers = if is_slow.load(Ordering::SeqCst) { "BLPOP|1|0" } else { "EVAL|return {1, 0}|0" };
        Some(answers.to_owned())
    });
    let config = config::StoreConfig { timeout: Duration::from_secs(2), ..on_disk(0) };
    let store = open_with(proxy.await.port, &config, NO_PING).await;
    let shared = link(&store).connected().expect("a connection");
    let hang_up_to = async |count: usize| {
        waits.store(0, Ordering::SeqCst);
        hangs.store(true, Ordering::SeqCst);
        while waits.load(Ordering::SeqCst) < count {
            let late = store.claim(&name(), &claim(1, RETRY)).await;
            assert!(matches!(late, Err(StoreError::Uncertain(_))), "{late:?}");
        }
    };
    for _ in 0..2 {
        hang_up_to(2).await;
        assert!(!shared.is_lost(), "each call has been told by now");
        hangs.store(false, Ordering::SeqCst);
        order(&server, "RPUSH 1 0 0").await;
        let granted = store.claim(&name(), &claim(1, RETRY)).await;
        assert!(matches!(granted, Ok(Claimed::Granted(_))), "{granted:?}");
        assert!(!shared.is_lost());
    }
    hang_up_to(3).await;
    tokio::time::timeout(PATIENCE, shared.until_lost()).await.expect("a new connection may be better");
}

#[tokio::test]
async fn a_user_without_the_right_to_wait_is_told() {
    let server = RedisServer::start();
    let wanted = config::StoreConfig { replica_acks: 1, ..config() };
    order(&server, &format!("ACL SETUSER sidecar on >pw {} -wait", AclRule::of(&wanted))).await;
    let (username, password) = (Some("sidecar".to_owned()), Some(StorePassword::Fixed(Secret::new("pw"))));
    let sidecar = RedisAddress { username, password, ..address(server.port()) };
    let store = Redis::open(&sidecar, &wanted, SURVIVES);
    let refused = refusal(&store).await;
    assert!(matches!(*refused, ConnectError::Permission { .. }) && !refused.is_final(), "{refused:?}");
    assert!(refused.to_string().contains("lacks WAIT,"), "{refused}");
    // It is used as soon as the user has the right, and without it where nothing waits.
    Redis::open(&sidecar, &config(), SURVIVES).ready(PATIENCE).await.expect("a connection");
    order(&server, "ACL SETUSER sidecar +wait").await;
    store.ready(PATIENCE).await.expect("a connection");
}

mod on_valkey_9 {
    use super::*;

    fn start(options: &[&str]) -> RedisServer {
        RedisServer::start_other_with(VALKEY_9, options)
    }

    async fn finding(store: &Redis) -> String {
        let findings = store.findings();
        findings.iter().find(|finding| finding.what == "fsync").expect("a finding").found.clone()
    }

    #[tokio::test]
    #[ignore = "tests/run --all"]
    async fn claims_wait_for_the_disk() {
        for (policy, timeout, found) in [("always", TIMEOUT, "at once"), ("everysec", PATIENCE, "up to a second")] {
            let server = start(&["--appendonly", "yes", "--appendfsync", policy]);
            let config = config::StoreConfig { timeout, ..on_disk(0) };
            let store = open_with(server.port(), &config, NO_PING).await;
            let begun = Instant::now();
            for _ in 0..5 {
                let (name, mine) = (name(), claim(1, RETRY));
                assert!(matches!(store.claim(&name, &mine).await.expect("in time"), Claimed::Granted(_)));
                assert_eq!(store.settle(&name, &completed(&mine, b"{}")).await.expect("in time"), Settled::Written);
            }
            println!("{policy}: ten writes took {:?}", begun.elapsed());
            let told = finding(&store).await;
            assert!(told.contains(found) && told.contains(policy), "{told}");
        }
    }

    #[tokio::test]
    #[ignore = "tests/run --all"]
    async fn an_fsync_that_never_comes_grants_no_claim() {
        let server = start(&["--appendonly", "yes", "--appendfsync", "no"]);
        let store = open_with(server.port(), &on_disk(0), NO_PING).await;
        falls_short(&store, "Redis does not have it on disk yet").await;
        let told = finding(&store).await;
        assert!(told.contains("never") && told.contains("appendfsync is no"), "{told}");
        // With seconds that are too short, it says so.
        order(&server, "CONFIG SET appendfsync everysec").await;
        let store = open_with(server.port(), &on_disk(0), NO_PING).await;
        let told = finding(&store).await;
        assert!(told.contains("store.timeout to 8s or more"), "{told}");
    }

    #[tokio::test]
    #[ignore = "tests/run --all"]
    async fn a_server_without_an_append_only_file_is_refused_at_start_and_later() {
        let server = start(&["--appendfsync", "always"]);
        let refused = refused_at_start(&server).await;
        assert!(refused.contains("Redis has no append-only file"), "{refused}");
        // No restart of the server is necessary, and the file may be taken away again.
        order(&server, "CONFIG SET appendonly yes").await;
        let store = open_with(server.port(), &on_disk(0), MANY_PINGS).await;
        store.claim(&name(), &claim(1, RETRY)).await.expect("granted");
        order(&server, "CONFIG SET appendonly no").await;
        let refused = store.claim(&name(), &claim(1, RETRY)).await;
        assert!(matches!(refused, Err(StoreError::Uncertain(_))), "{refused:?}");
    }

    #[tokio::test]
    #[ignore = "tests/run --all"]
    async fn a_replica_without_an_append_only_file_acknowledges_nothing() {
        let primary = start(&["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"]);
        let port = primary.port().to_string();
        let replica = start(&["--replicaof", "127.0.0.1", &port, "--appendfsync", "always"]);
        while !admin::<String>(&primary.url(), &[b"INFO", b"replication"]).await.contains("state=online") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let store = open_with(primary.port(), &on_disk(1), NO_PING).await;
        falls_short(&store, "only 0 replicas have it on disk").await;
        // The replica has the writes, which is enough without `fsync_acks`.
        let without = config::StoreConfig { fsync_acks: false, ..on_disk(1) };
        let without = open_with(primary.port(), &without, NO_PING).await;
        without.claim(&name(), &claim(1, RETRY)).await.expect("granted");
        order(&replica, "CONFIG SET appendonly yes").await;
        let begun = Instant::now();
        while store.claim(&name(), &claim(1, RETRY)).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "the replica writes its file by now");
        }
    }

    #[tokio::test]
    #[ignore = "tests/run --all"]
    async fn the_rights_that_are_printed_suffice_with_fsync_acks() {
        let server = start(&["--appendonly", "yes", "--appendfsync", "always"]);
        order(&server, &format!("ACL SETUSER sidecar on >pw {}", AclRule::of(&on_disk(0)))).await;
        let (username, password) = (Some("sidecar".to_owned()), Some(StorePassword::Fixed(Secret::new("pw"))));
        let store = Redis::open(&RedisAddress { username, password, ..address(server.port()) }, &on_disk(0), SURVIVES);
        store.ready(PATIENCE).await.expect("accepted");
        store.claim(&name(), &claim(1, RETRY)).await.expect("granted");
        // The rule is not enough without the option.
        order(&server, &format!("ACL SETUSER sidecar {}", AclRule::of(&config()))).await;
        let (username, password) = (Some("sidecar".to_owned()), Some(StorePassword::Fixed(Secret::new("pw"))));
        let address = RedisAddress { username, password, ..address(server.port()) };
        let refused = refusal(&Redis::open(&address, &on_disk(0), SURVIVES)).await;
        assert!(refused.to_string().contains("lacks WAITAOF"), "{refused:?}");
    }
}

#[test]
fn nothing_is_waited_for_unless_it_is_asked_for() {
    assert_eq!(RequiredAcks::of(&config()), None);
    assert_eq!(RequiredAcks::of(&on_disk(0)), Some(RequiredAcks { replicas: 0, on_disk: true }));
}
