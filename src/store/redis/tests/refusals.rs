//! Servers and users that cannot be used, and the messages about them.

use super::*;

#[tokio::test]
async fn a_server_without_hello_will_do() {
    let server = RedisServer::start_with(&["--rename-command", "HELLO", ""]);
    let store = open(server.port(), MANY_PINGS).await;
    store.claim(&name(), &claim(1, RETRY)).await.expect("granted");
    drop(server);
    // No message reports a closed connection here. The ping detects it.
    until(&store, Health::Down).await;
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    let server = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let store = Redis::open(&address(server.port()), &config(), SURVIVES);
    let refused = store.ready(PATIENCE).await.expect_err("refused");
    assert!(matches!(&*refused, ConnectError::Evicting { policy } if policy == "allkeys-lru"), "{refused:?}");
    assert!(refused.is_final());
    assert!(matches!(store.claim(&name(), &claim(1, RETRY)).await, Err(StoreError::Refused(_))));

    let accepting =
        Redis::open(&address(server.port()), &config::StoreConfig { accept_eviction: true, ..config() }, SURVIVES);
    accepting.ready(PATIENCE).await.expect("accepted");
}

#[tokio::test]
async fn only_what_no_waiting_cures_prevents_a_start() {
    let mut server = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let config = config::StoreConfig { location: StoreLocation::Redis(address(server.port())), ..config() };
    let refused = crate::store::open(&config, SURVIVES).await.err().expect("refused");
    let refused = crate::store::causes(&refused);
    assert!(refused.contains("maxmemory-policy to noeviction"), "{refused}");
    assert_eq!(refused.matches("127.0.0.1").count(), 1, "{refused}");
    server.kill();
    let store = crate::store::open(&config, SURVIVES).await.expect("it may come back");
    assert_eq!(store.health(), Health::Down);
}

#[tokio::test]
async fn wrong_credentials_are_said_to_be_wrong() {
    let server = RedisServer::start_with(&["--requirepass", "right"]);
    let with = |password: Option<&str>| {
        let address = RedisAddress {
            password: password.map(|password| StorePassword::Fixed(Secret::new(password))),
            ..address(server.port())
        };
        Redis::open(&address, &config(), SURVIVES)
    };
    with(Some("right")).ready(PATIENCE).await.expect("accepted");
    for password in [None, Some("wr0ng")] {
        let store = with(password);
        let refused = loop {
            let refused = store.ready(Duration::from_millis(50)).await.expect_err("refused");
            if !matches!(*refused, ConnectError::NotYet) {
                break refused;
            }
        };
        assert!(matches!(*refused, ConnectError::Credentials(_)), "{refused:?}");
        assert!(!refused.is_final());
        assert!(!crate::store::causes(&refused).contains("wr0ng"));
    }
}

#[tokio::test]
async fn the_rights_that_are_printed_suffice() {
    let server = RedisServer::start();
    order(&server, &format!("ACL SETUSER sidecar on >pw {}", AclRule::of(&config()))).await;
    let store = as_user(&server, "sidecar").await;
    store.ready(PATIENCE).await.expect("accepted");
    let (name, mine) = (name(), claim(1, LOST));
    store.claim(&name, &mine).await.expect("granted");
    let mut changes = store.subscribe(&name, HOUR).expect("Redis notifies");
    told(&mut changes).await;
    store.renew(&name, &mine).await.expect("extended");
    store.claim(&name, &claim(2, RETRY)).await.expect("taken over");
    store.settle(&name, &large(&claim(2, RETRY))).await.expect("settled");
    told(&mut changes).await;
    store.find(&name).await.expect("found");
    store.release(&name, mine.token).await.expect("kept");
    let listing = ListQuery { route: None, after: None, limit: 10 };
    assert_eq!(store.list(&listing).await.expect("listed").records.len(), 1);
    let seen = store.find(&name).await.expect("found").expect("a record").seen();
    let release = transitions::release_by_hand(seen, false).expect("completed");
    assert_eq!(store.compare_and_swap(&name, &release).await.expect("an answer"), SwapResult::Done);
    store.claim(&name, &mine).await.expect("granted");
    let log: Vec<::redis::Value> = admin(&server.url(), &[b"ACL", b"LOG"]).await;
    // Settings are read once, at the start. `INFO` reports the same values.
    let log = format!("{log:?}");
    assert_eq!((log.matches("reason").count(), log.matches("config|get").count() > 0), (1, true), "{log}");
    // Without the permissions for lists, everything else works.
    for lacking in ["getrange", "scan"] {
        order(&server, &format!("ACL SETUSER sidecar -{lacking}")).await;
        let refused = crate::store::causes(&store.list(&listing).await.expect_err("no permission"));
        assert!(refused.contains("it needs SCAN and GETRANGE"), "{refused}");
    }
    assert_eq!(as_user(&server, "sidecar").await.ready(PATIENCE).await.map_err(|why| why.to_string()), Ok(()));
}

#[tokio::test]
async fn what_a_user_may_not_do_is_named_and_nothing_is_claimed() {
    let server = RedisServer::start();
    for (rights, missing) in [
        ("+@all -evalsha ~*", "lacks EVALSHA,"),
        ("+@all -get ~*", "lacks GET, a command that its scripts call,"),
        ("+@all -pexpire ~*", "lacks PEXPIRE, a command that its scripts call,"),
        ("+@all -script ~*", "lacks SCRIPT LOAD,"),
        ("+@all ~elsewhere:*", "lacks access to its names,"),
        ("+@all ~onlyonce:*", "lacks access to its names,"),
        ("+get ~*", "lacks SCRIPT LOAD, SET, PTTL, PEXPIRE, DEL, EVALSHA,"),
    ] {
        order(&server, "ACL DELUSER somebody").await;
        order(&server, &format!("ACL SETUSER somebody on >pw {rights}")).await;
        let store = as_user(&server, "somebody").await;
        let refused = refusal(&store).await;
        assert!(matches!(*refused, ConnectError::Permission { .. }), "{refused:?}");
        let (text, rule) = (refused.with_advice(), AclRule::of(&config()).to_string());
        assert!(text.contains(missing) && text.ends_with(&rule), "{rights}: {text}");
        assert!(!crate::store::causes(&*refused).contains(&rule), "{rights}: {refused}");
        let claimed = store.claim(&name(), &claim(1, RETRY)).await;
        assert!(matches!(claimed, Err(StoreError::Refused(_))), "{claimed:?}");
        // No restart is necessary after the permission is granted.
        order(&server, "ACL SETUSER somebody +@all ~*").await;
        until(&store, Health::Up).await;
    }
    // A body of the probe lives a millisecond longer.
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let left: Vec<String> = admin(&server.url(), &[b"KEYS", b"*probe*"]).await;
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < patience, "{left:?}");
    }
}

#[tokio::test]
async fn a_command_that_was_renamed_is_named() {
    for command in ["EVALSHA", "PEXPIRE", "GET"] {
        let server = RedisServer::start_with(&["--rename-command", command, ""]);
        let store = Redis::open(&address(server.port()), &config(), SURVIVES);
        let refused = refusal(&store).await.to_string();
        assert!(refused.contains(&format!("lacks {command}")), "{refused}");
    }
}

#[tokio::test]
async fn an_eviction_policy_that_changes_is_noticed_and_what_is_evicted_is_counted() {
    let server = RedisServer::start();
    let store = open(server.port(), MANY_PINGS).await;
    assert!(!store.may_evict() && store.used_ratio().is_none());
    order(&server, "CONFIG SET maxmemory 100mb").await;
    while store.used_ratio().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!store.may_evict());
    order(&server, "CONFIG SET maxmemory-policy allkeys-lru").await;
    while !store.may_evict() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The change is only reported first. Existing connections go on.
    assert_eq!((store.health(), store.losses()), (Health::Up, 0));
    store.claim(&name(), &claim(1, RETRY)).await.expect("granted");
    // A new connection is refused, unless the configuration accepts eviction.
    assert!(matches!(
        *refusal(&Redis::open(&address(server.port()), &config(), SURVIVES)).await,
        ConnectError::Evicting { .. }
    ));
    let content = config::StoreConfig { accept_eviction: true, ..config() };
    let content = Redis::open_with(&address(server.port()), &content, MANY_PINGS);
    content.ready(PATIENCE).await.expect("accepted");
    order(&server, "CONFIG SET maxmemory 4mb").await;
    let fill = "for i = 1, 5000 do redis.call('SET', 'session:' .. i, string.rep('x', 1000)) end";
    let () = admin(&server.url(), &[b"EVAL", fill.as_bytes(), b"0"]).await;
    while content.losses() == 0 {
        // A key that a script wrote is evicted at the next command.
        order(&server, "SET another key").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The finding on this subject, once it has this text.
async fn until_found(store: &Redis, what: &str, text: &str) {
    let found = || store.findings().into_iter().find(|finding| finding.what == what);
    let is_so = async {
        while !found().is_some_and(|finding| finding.found.contains(text)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_so).await.unwrap_or_else(|_| panic!("{:?}, not {text}", found()));
}

#[tokio::test]
async fn a_server_that_stops_persisting_is_noticed() {
    let server = RedisServer::start_with(&["--appendonly", "yes"]);
    let store = open(server.port(), MANY_PINGS).await;
    until_found(&store, "on disk", "an append-only file").await;
    for (setting, value, found) in [
        ("appendonly", "no", "nothing: a restart forgets"),
        ("save", "3600 1", "an append-only file, or snapshots"),
        ("save", "", "nothing: a restart forgets"),
    ] {
        let words = [&b"CONFIG"[..], b"SET", setting.as_bytes(), value.as_bytes()];
        let _: ::redis::Value = admin(&server.url(), &words).await;
        until_found(&store, "on disk", found).await;
    }
}

/// Whoever reads the server's log of refusals must not find an entry every ten seconds.
#[tokio::test]
async fn what_a_user_may_not_ask_is_asked_at_the_connect_only() {
    let server = RedisServer::start();
    order(&server, "ACL SETUSER plain on >pw ~* &* +@all -config").await;
    let (username, password) = (Some("plain".to_owned()), Some(StorePassword::Fixed(Secret::new("pw"))));
    let address = RedisAddress { username, password, ..address(server.port()) };
    let store = Redis::open_with(&address, &config(), MANY_PINGS);
    store.ready(PATIENCE).await.expect("a connection");
    order(&server, "ACL LOG RESET").await;
    let infos = async || {
        let stats: String = admin(&server.url(), &[b"INFO", b"commandstats"]).await;
        let info = stats.lines().find_map(|line| line.strip_prefix("cmdstat_info:calls=")?.split(',').next());
        info.map_or(0, |calls| calls.parse::<u32>().expect("a number"))
    };
    let before = infos().await;
    while infos().await < before + 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused: Vec<::redis::Value> = admin(&server.url(), &[b"ACL", b"LOG"]).await;
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn acknowledgements_are_waited_for_also_where_the_user_may_not_ask_which_server_it_is() {
    let server = RedisServer::start();
    order(&server, "ACL SETUSER plain on >pw ~* &* +@all -info -config").await;
    let (username, password) = (Some("plain".to_owned()), Some(StorePassword::Fixed(Secret::new("pw"))));
    let address = RedisAddress { username, password, ..address(server.port()) };
    let wanted = config::StoreConfig { replica_acks: 1, timeout: Duration::from_secs(4), ..config() };
    let store = Redis::open_with(&address, &wanted, ConnectionOptions::default());
    store.ready(PATIENCE).await.expect("a connection");
    until(&store, Health::Up).await;
    let short = store.claim(&name(), &claim(1, RETRY)).await.expect_err("no replica has it");
    assert!(matches!(short, StoreError::Unacknowledged(_)), "{short:?}");
    until_found(&store, "memory", "not told to this user").await;
}
