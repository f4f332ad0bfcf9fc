//! Calls while a server is frozen or down.

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
