//! Calls while a server is frozen, down, or waits for a standby.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_leaves_it_uncertain() {
    let server = PostgresServer::start();
    let store = open_with(&address(&server, "postgres"), &with_timeout(Duration::from_millis(600))).await;
    let (wanted, mine) = (name(), claim(1, RETRY));
    until("claims may be made", async || store.claim(&name(), &mine).await.is_ok()).await;

    server.freeze();
    let claimed = tokio::time::timeout(PATIENCE, store.claim(&wanted, &mine)).await.expect("an end");
    assert!(matches!(claimed, Err(StoreError::Uncertain(_))), "{claimed:?}");
    // Its connection is dropped. When all of them are, nothing is sent; and when a connect has failed, that is known, too.
    until("calls are refused", async || matches!(store.find(&wanted).await, Err(StoreError::Refused(_)))).await;
    until("it is out of reach", async || matches!(store.find(&wanted).await, Err(StoreError::Unavailable(_)))).await;
    assert_eq!(store.health(), Health::Down);
    server.thaw();

    // Whether the statement that was sent was executed or not: it is known again.
    until(
        "the claim is granted",
        async || matches!(store.claim(&wanted, &mine).await, Ok(Claimed::Granted(granted)) if granted == mine),
    )
    .await;
    assert!(matches!(store.claim(&wanted, &claim(2, RETRY)).await, Ok(Claimed::Refused(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_and_comes_back_has_every_claim() {
    let mut server = PostgresServer::start_with(&["fsync=on"]);
    let store = open(&server).await;
    let digest_key = store.digest_key().expect("a key");
    let mine = claim(1, RETRY);
    until("claims may be made", async || store.claim(&name(), &mine).await.is_ok()).await;
    let names: Vec<_> = (0..20).map(|_| name()).collect();
    for name in &names {
        assert_eq!(store.claim(name, &mine).await.expect("an answer"), Claimed::Granted(mine.clone()));
    }
    server.kill();
    until("it is out of reach", async || matches!(store.find(&names[0]).await, Err(StoreError::Unavailable(_)))).await;
    assert_eq!(store.digest_key().expect("still known"), digest_key);
    server.restart();
    until("it is there again", async || store.find(&names[0]).await.is_ok()).await;
    for name in &names {
        assert_eq!(store.find(name).await.expect("an answer").expect("a record").record.claim, mine);
    }
    assert_eq!(store.losses(), 0);
}

/// A cancel, or a shutdown, that meets the wait for a standby ends it with a success and a warning: the transaction is
/// committed there, and on no standby.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_wait_for_a_standby_was_ended_is_uncertain_until_a_standby_has_it() {
    let server = PostgresServer::start();
    let store = open(&server).await;
    let (mine, wanted) = (claim(1, RETRY), name());
    until("claims may be made", async || store.claim(&name(), &mine).await.is_ok()).await;
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.reload();
    until("commits wait", async || server.sql("SHOW synchronous_standby_names") == "nobody").await;

    const CANCEL: &str = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let cancelled = async |call: StoreFuture<'_, Claimed>| {
        tokio::select! {
            claimed = call => claimed,
            () = async { loop { server.sql(CANCEL); tokio::time::sleep(Duration::from_millis(20)).await; } } => unreachable!(),
        }
    };
    let claimed = cancelled(Store::claim(&store, &wanted, &mine)).await;
    assert!(matches!(claimed, Err(StoreError::Uncertain(_))), "{claimed:?}");
    // The record is there for everybody who looks, and its owner is still not told that it has it.
    until("the record is seen", async || matches!(store.find(&wanted).await, Ok(Some(_)))).await;
    let again = cancelled(Store::claim(&store, &wanted, &mine)).await;
    assert!(matches!(again, Err(StoreError::Uncertain(_))), "{again:?}");
    until("another claim is refused", async || match store.claim(&wanted, &claim(2, RETRY)).await {
        Ok(Claimed::Refused(held)) => held.record.claim == mine,
        // Its connections are being opened again.
        Err(StoreError::Refused(_)) => false,
        other => panic!("{other:?}"),
    })
    .await;

    server.sql("ALTER SYSTEM RESET synchronous_standby_names");
    server.reload();
    until("the claim is granted", async || matches!(store.claim(&wanted, &mine).await, Ok(Claimed::Granted(_)))).await;
}

/// Each process of the server that waits for a standby stays, though nobody waits for it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_away_does_not_use_up_the_connections_of_the_server() {
    let server = PostgresServer::start();
    let store = open_with(&address(&server, "postgres"), &with_timeout(Duration::from_millis(200))).await;
    until("claims may be made", async || store.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.reload();
    until("commits wait", async || server.sql("SHOW synchronous_standby_names") == "nobody").await;

    let end = Instant::now() + Duration::from_secs(6);
    let (mut uncertain, mut refused) = (0, 0);
    while Instant::now() < end {
        match store.claim(&name(), &claim(1, RETRY)).await {
            Err(StoreError::Uncertain(_)) => uncertain += 1,
            Err(StoreError::Refused(_)) => refused += 1,
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'onlyonce calls'";
    let sessions: usize = server.sql(sessions).parse().expect("a number");
    // How many are late depends on the machine; how many are left behind does not.
    assert!(sessions <= pool::MOST && uncertain >= pool::LEAST && refused > 0, "{sessions} {uncertain} {refused}");
    // It is there all the same: who only reads may read.
    assert_eq!(store.health(), Health::Up);

    server.sql("ALTER SYSTEM RESET synchronous_standby_names");
    server.reload();
    until("claims are made again", async || store.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
}

/// A machine has room for some thousand segments, and a container for less.
#[test]
fn a_server_of_a_test_leaves_no_shared_memory() {
    for is_killed in [false, true] {
        let mut server = PostgresServer::start();
        assert_eq!(server.sql("SHOW dynamic_shared_memory_type"), "mmap");
        let segment = server.segment().expect("a segment");
        assert!(is_shared(segment));
        if is_killed {
            server.kill();
        } else {
            server.freeze();
        }
        drop(server);
        assert!(!is_shared(segment), "{segment}");
    }
}
