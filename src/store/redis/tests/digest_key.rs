//! The agreement of sidecars on one digest key.

use super::*;

#[tokio::test]
async fn whoever_founds_a_store_alone_waits_for_nobody_and_neither_do_those_who_follow() {
    let server = RedisServer::start();
    for _ in 0..3 {
        let store = Redis::open(&address(server.port()), &config(), SURVIVES);
        store.ready(PATIENCE).await.expect("a connection");
        store.claim(&name(), &claim(1, RETRY)).await.expect("granted at once");
        std::mem::forget(store);
    }
}

#[tokio::test]
async fn after_a_flush_two_sidecars_never_claim_under_different_keys() {
    let server = RedisServer::start();
    let old = Redis::open(&address(server.port()), &config(), SURVIVES);
    old.ready(PATIENCE).await.expect("a connection");
    for _ in 0..3 {
        order(&server, "FLUSHALL").await;
        // It starts before the other sidecar has noticed the loss.
        let new = Redis::open(&address(server.port()), &config(), SURVIVES);
        new.ready(PATIENCE).await.expect("a connection");
        let key = async |store: &Redis| store.digest_key().expect("a key");
        let begun = Instant::now();
        loop {
            let claimed = new.claim(&name(), &claim(1, RETRY)).await;
            if claimed.is_ok() {
                // By now, the other sidecar uses the same key, or claims nothing.
                let agreed = key(&old).await == key(&new).await;
                assert!(agreed || old.claim(&name(), &claim(1, RETRY)).await.is_err());
                break;
            }
            assert!(matches!(claimed, Err(StoreError::Refused(_))), "{claimed:?}");
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while old.claim(&name(), &claim(1, RETRY)).await.is_err() {
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(key(&old).await, key(&new).await);
    }
}

/// A look writes the note that is missing, and then fails. The next look finds the note.
#[tokio::test]
async fn a_loss_that_is_noticed_by_a_look_that_fails_is_counted_by_the_next_one() {
    let server = RedisServer::start();
    let is_lost = Arc::new(AtomicBool::new(false));
    let proxy = {
        let is_lost = is_lost.clone();
        Rewriting::before(server.port(), move |words: &[Vec<u8>]| {
            let is_look = words[0] == b"PTTL" && words[1] == b"onlyonce:digest-key";
            let forever = super::super::commands::nonzero_millis(crate::store::FOREVER);
            let script = format!(
                "redis.call('SET', 'onlyonce:digest-key', redis.call('GET', 'onlyonce:digest-key'), 'PX', '{forever}') \
                 return redis.error_reply('BUSY a script runs')"
            );
            (is_look && is_lost.swap(false, Ordering::SeqCst)).then(|| format!("EVAL|{script}|0"))
        })
        .await
    };
    let options = ConnectionOptions { ping_every: Duration::from_millis(20), ..NO_PING };
    let store = open(proxy.port, options).await;
    // The note must be older than the time between two looks.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((proxy.replaced.load(Ordering::SeqCst), store.losses()), (0, 0));
    is_lost.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    while store.losses() == 0 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(proxy.replaced.load(Ordering::SeqCst), 1);
    until(&store, Health::Up).await;
    assert_eq!(store.losses(), 1, "it is counted once");
}

#[tokio::test]
async fn whoever_only_looks_leaves_the_digest_key_as_it_is() {
    let server = RedisServer::start();
    let look = |secret: Option<&str>| {
        let config = config::StoreConfig { digest_key: secret.map(Secret::new), ..config() };
        Redis::open_to_look(&address(server.port()), &config)
    };
    let looks = look(None);
    looks.tried().await.expect("a connection");
    assert!(looks.digest_key().is_err(), "there is none");
    let store = open(server.port(), MANY_PINGS).await;
    let looks = [look(None), look(Some("another key"))];
    for looks in &looks {
        looks.tried().await.expect("a connection");
    }
    assert_eq!(looks[0].digest_key().expect("a key"), store.digest_key().expect("a key"));
    // If other clients are connected, a sidecar that founds a store waits a little.
    while store.claim(&name(), &claim(1, RETRY)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((store.health(), store.losses()), (Health::Up, 0));
}

#[tokio::test]
async fn a_sidecar_that_finds_another_one_s_configured_key_claims_nothing_more() {
    let server = RedisServer::start();
    let with = |secret: &str| {
        let config = config::StoreConfig { digest_key: Some(Secret::new(secret)), ..config() };
        Redis::open_with(&address(server.port()), &config, ConnectionOptions::default())
    };
    let old = with("the former key");
    old.ready(PATIENCE).await.expect("a connection");
    old.claim(&name(), &claim(1, RETRY)).await.expect("granted");
    let new = with("the new key");
    new.ready(PATIENCE).await.expect("a connection");
    while new.claim(&name(), &claim(1, RETRY)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = old.claim(&name(), &claim(1, RETRY)).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    until(&old, Health::Down).await;
    let why = refusal(&old).await;
    assert!(matches!(*why, ConnectError::DigestKeyReplaced { .. }), "{why:?}");
    // After a restart with the new key, it works at once.
    with("the new key").ready(PATIENCE).await.expect("a connection");
}

/// One of them replaces the note, and the other finds it replaced.
#[tokio::test]
async fn sidecars_that_start_together_with_a_new_key_wait_for_those_with_the_old_one() {
    let server = RedisServer::start();
    let with = |secret: &str| {
        let config = config::StoreConfig { digest_key: Some(Secret::new(secret)), ..config() };
        Redis::open_with(&address(server.port()), &config, ConnectionOptions::default())
    };
    // By the time that one of them claims, `old` claims nothing.
    let claims_beside = async |new: &Redis, old: &Redis| {
        let begun = Instant::now();
        while new.claim(&name(), &claim(1, RETRY)).await.is_err() {
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let claimed = old.claim(&name(), &claim(1, RETRY)).await;
        assert!(claimed.is_err(), "{claimed:?}");
    };
    let old = with("old");
    old.ready(PATIENCE).await.expect("a connection");
    old.claim(&name(), &claim(1, RETRY)).await.expect("granted at once");
    // Each starts before the old one has looked again.
    let first = with("new");
    first.ready(PATIENCE).await.expect("a connection");
    let second = with("new");
    second.ready(PATIENCE).await.expect("a connection");
    tokio::join!(claims_beside(&second, &old), claims_beside(&first, &old));

    // Whoever has the old key once more takes its place again, and nobody claims under both.
    let again = with("old");
    again.ready(PATIENCE).await.expect("a connection");
    tokio::join!(claims_beside(&again, &first), claims_beside(&old, &second));
}

#[tokio::test]
async fn the_digest_key_is_agreed_on() {
    let server = RedisServer::start();
    let made = open(server.port(), NO_PING).await.digest_key().expect("a key");
    assert_eq!(open(server.port(), NO_PING).await.digest_key().expect("a key"), made);
    let with = |secret: Option<&str>| {
        Redis::open(
            &address(server.port()),
            &config::StoreConfig { digest_key: secret.map(Secret::new), ..config() },
            SURVIVES,
        )
    };
    let store = with(Some("chosen"));
    assert_eq!(store.digest_key().expect("without asking"), DigestKey::from_secret("chosen"));
    store.ready(PATIENCE).await.expect("a warning, and no more");

    order(&server, "FLUSHALL").await;
    with(Some("chosen")).ready(PATIENCE).await.expect("a connection");
    let refused = with(None).ready(PATIENCE).await.expect_err("the key is not here");
    assert!(matches!(*refused, ConnectError::DigestKeyWithheld { .. }), "{refused:?}");
    assert!(refused.is_final());
}
