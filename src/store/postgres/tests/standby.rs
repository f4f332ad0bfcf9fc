//! Calls while a server waits for a standby that is away: no commit ends.

use super::tables::large;
use super::*;
use crate::record::transitions::OwnerState;
use crate::store::StoredBody;

/// From now on, commits wait.
async fn standby_goes(server: &PostgresServer) {
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.reload();
    until("commits wait", async || server.sql("SHOW synchronous_standby_names") == "nobody").await;
}

fn standby_comes_back(server: &PostgresServer) {
    server.sql("ALTER SYSTEM RESET synchronous_standby_names");
    server.reload();
}

fn count_of(server: &PostgresServer, sessions: &str) -> usize {
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '{sessions}'");
    server.sql(&count).parse().expect("a number")
}

/// A cancel, or a shutdown, that meets the wait for a standby ends it with a success and a warning: the transaction is
/// committed there, and on no standby.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_wait_for_a_standby_was_ended_is_uncertain_until_a_standby_has_it() {
    let server = PostgresServer::start();
    let store = open(&server).await;
    let (mine, wanted) = (claim(1, RETRY), name());
    until("claims may be made", async || store.claim(&name(), &mine).await.is_ok()).await;
    standby_goes(&server).await;

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

    standby_comes_back(&server);
    until("the claim is granted", async || matches!(store.claim(&wanted, &mine).await, Ok(Claimed::Granted(_)))).await;
}

/// Each process of the server that waits for a standby stays, though nobody waits for it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_standby_is_away_repeats_are_answered_and_new_keys_are_refused() {
    let server = PostgresServer::start();
    let store = open_with(&address(&server, "postgres"), &with_timeout(Duration::from_secs(1))).await;
    let (done, held, mine) = (name(), name(), claim(1, RETRY));
    until("claims may be made", async || store.claim(&done, &mine).await.is_ok()).await;
    let body = large(&mine, 100_000);
    until("it is settled", async || {
        matches!(store.settle(&done, &body).await, Ok(Settled::Written | Settled::Kept(_)))
    })
    .await;
    until("it is held", async || store.claim(&held, &mine).await.is_ok()).await;
    server.sql("SELECT onlyonce.make_partition(clock_timestamp() - interval '1 day')");
    standby_goes(&server).await;

    // Attempts at work try to renew, until every session that commits has its process at the server that waits.
    let mut uncertain = 0;
    until("all places are taken", async || match store.renew(&held, &mine).await {
        Err(StoreError::Uncertain(_)) => {
            uncertain += 1;
            false
        }
        Err(StoreError::Refused(_)) => store.shared.link.state().expect("it is there").committing.is_jammed(),
        // The server has not seen yet that the standby is away.
        Ok(Renewed::Extended) => false,
        other => panic!("{other:?}"),
    })
    .await;
    assert!(uncertain >= pool::COMMITTING.least, "{uncertain}");
    let sessions = count_of(&server, "onlyonce calls");
    assert!(sessions <= pool::MOST, "{sessions}");
    assert_eq!(count_of(&server, "onlyonce commits"), 1);

    for _ in 0..3 {
        until("one is found", async || store.find(&held).await.is_ok_and(|found| found.is_some())).await;
        until("a repeat is refused", async || match store.claim(&held, &claim(2, RETRY)).await {
            Ok(Claimed::Refused(seen)) => seen.record.claim == mine && seen.owner() == OwnerState::Alive,
            Ok(granted) => panic!("{granted:?}"),
            Err(_) => false,
        })
        .await;
        until("a repeat is replayed", async || {
            let Ok(Claimed::Refused(seen)) = store.claim(&done, &claim(2, RETRY)).await else { return false };
            let crate::record::State::Completed { reply, .. } = &seen.record.state else { panic!("{seen:?}") };
            let Ok(Some(body)) = StoredBody::of(&store, &done, &reply.body).await else { return false };
            body.rest().await.is_ok_and(|rest| rest.concat().len() == 100_000)
        })
        .await;
        until("a new key is refused", async || {
            let claimed = store.claim(&name(), &claim(1, RETRY)).await;
            assert!(claimed.is_err(), "{claimed:?}");
            matches!(claimed, Err(StoreError::Refused(_)))
        })
        .await;
    }
    // A new sidecar can answer as well.
    let other = open(&server).await;
    assert!(matches!(other.claim(&held, &claim(2, RETRY)).await, Ok(Claimed::Refused(_))));
    // Bodies are not locked by who throws old ones away.
    let dropped = server.sql_within("SELECT onlyonce.drop_partition()", PATIENCE);
    assert_eq!(dropped.as_deref(), Some("t"));
    assert_eq!(store.health(), Health::Up);
    let sessions = count_of(&server, "onlyonce calls");
    assert!(sessions <= 2 * pool::MOST, "{sessions}");

    standby_comes_back(&server);
    until("claims are made again", async || store.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
    until("it is renewed", async || matches!(store.renew(&held, &mine).await, Ok(Renewed::Extended))).await;
}

/// What waits there is seen by nobody until it ends: that it is not seen proves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_given_up_while_a_standby_was_away_is_deleted_when_it_shows_up() {
    let server = PostgresServer::start();
    let store = open_with(&address(&server, "postgres"), &with_timeout(Duration::from_secs(2))).await;
    until("claims may be made", async || store.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
    standby_goes(&server).await;
    let (mut wanted, token) = (name(), claim(1, RETRY).token);
    until("a claim waits", async || match store.claim(&wanted, &claim(1, RETRY)).await {
        Err(StoreError::Uncertain(_)) => true,
        // The server has not seen yet that the standby is away.
        Ok(Claimed::Granted(_)) => {
            wanted = name();
            false
        }
        other => panic!("{other:?}"),
    })
    .await;

    let is_not_known = async || {
        let mut looked = 0;
        until("it is looked for", async || {
            match store.release(&wanted, token).await {
                Err(StoreError::Uncertain(_)) => looked += 1,
                Err(_) => {}
                Ok(known) => panic!("{known:?}"),
            }
            looked == 5
        })
        .await;
    };
    is_not_known().await;
    // Another connection knows it as well.
    let before = store.shared.link.state().expect("it is there").control.process.clone();
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'onlyonce'");
    until("it is connected again", async || {
        store.shared.link.state().is_ok_and(|primary| primary.control.process != before)
    })
    .await;
    is_not_known().await;

    standby_comes_back(&server);
    let mut has_come = false;
    until("it is deleted, and nothing else can come", async || match store.release(&wanted, token).await {
        Ok(Released::Deleted) => {
            has_come = true;
            false
        }
        Ok(Released::Absent) => true,
        Ok(Released::Kept) => panic!("another's"),
        Err(_) => false,
    })
    .await;
    assert!(has_come);
    assert_eq!(store.find(&wanted).await.expect("an answer"), None);
}

/// What keeps owners from renewing, while the server answers questions as ever.
#[derive(Debug, Clone, Copy)]
enum Hindrance {
    StandbyAway,
    TableLocked,
    RightRevoked,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_owner_is_lost_because_it_could_not_renew_for_longer_than_its_lease() {
    tokio::join!(
        no_owner_is_lost_by(Hindrance::StandbyAway),
        no_owner_is_lost_by(Hindrance::TableLocked),
        no_owner_is_lost_by(Hindrance::RightRevoked),
    );
}

/// Whoever looks meanwhile, or afterwards, must not take an owner for lost that is as alive as before.
async fn no_owner_is_lost_by(hindrance: Hindrance) {
    const LEASE: Duration = Duration::from_secs(4);
    let server = PostgresServer::start();
    server.sql(&format!("CREATE ROLE sidecar LOGIN; {SCHEMA}{}", grants("sidecar")));
    let of = address(&server, "sidecar");
    let (one, other) = (open_with(&of, &config()).await, open_with(&of, &config()).await);
    let policies = [UnknownPolicy::Retry, UnknownPolicy::Hold(HOUR)];
    let held = policies.map(|on_unknown| (name(), Terms { lease: LEASE, retention: HOUR, on_unknown }));
    until("claims may be made", async || other.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
    for (name, terms) in &held {
        until("it is claimed", async || one.claim(name, &claim(1, *terms)).await.is_ok()).await;
    }

    let locker = examine::primary(&PostgresDialer::new(&address(&server, "postgres")), 0).await.expect("a session");
    match hindrance {
        Hindrance::StandbyAway => standby_goes(&server).await,
        Hindrance::TableLocked => {
            let lock = "BEGIN; LOCK TABLE onlyonce.records IN SHARE MODE";
            locker.session.client().batch_execute(lock).await.expect("a lock");
        }
        Hindrance::RightRevoked => drop(server.sql("REVOKE UPDATE ON onlyonce.records FROM sidecar")),
    }
    let mended = std::sync::OnceLock::<Instant>::new();
    let is_kept = |claimed: Result<Claimed, StoreError>, mine: Claim| match claimed {
        // The machine was so slow that it could have renewed.
        Ok(_) if mended.get().is_some_and(|mended| mended.elapsed() >= LEASE) => true,
        Ok(Claimed::Refused(held)) => {
            assert!(held.silent_for < LEASE && held.record.claim == mine, "{hindrance:?}: {held:?}");
            true
        }
        Ok(Claimed::Granted(claim)) => panic!("{hindrance:?}: {claim:?}"),
        Err(_) => false,
    };
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    for (name, terms) in &held {
        let claimed = other.claim(name, &claim(2, *terms)).await;
        let found = other.find(name).await.expect("an answer").expect("a record");
        assert_eq!(found.owner(), OwnerState::Alive, "{hindrance:?}: {found:?}");
        let is_answered = is_kept(claimed, claim(1, *terms));
        // The server does not even look for a record without the right to write it.
        assert!(is_answered || matches!(hindrance, Hindrance::RightRevoked), "{hindrance:?}");
    }

    let _ = mended.set(Instant::now());
    match hindrance {
        Hindrance::StandbyAway => standby_comes_back(&server),
        Hindrance::TableLocked => locker.session.client().batch_execute("ROLLBACK").await.expect("no lock"),
        Hindrance::RightRevoked => drop(server.sql("GRANT UPDATE ON onlyonce.records TO sidecar")),
    }
    for (name, terms) in &held {
        until("it is answered", async || is_kept(other.claim(name, &claim(2, *terms)).await, claim(1, *terms))).await;
    }
    // The owner goes on, and one that is lost is found lost again.
    until("it is renewed", async || matches!(one.renew(&held[1].0, &claim(1, held[1].1)).await, Ok(Renewed::Extended)))
        .await;
    until("a lost owner is taken over", async || {
        matches!(other.claim(&held[0].0, &claim(2, held[0].1)).await, Ok(Claimed::Granted(_)))
    })
    .await;
}

/// Owners may have been unable to renew until just before it started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_starts_takes_no_owner_for_lost_before_a_lease_is_over() {
    let server = PostgresServer::start();
    let store = open(&server).await;
    let terms = Terms { lease: PATIENCE, retention: HOUR, on_unknown: UnknownPolicy::Retry };
    let (held, mine) = (name(), claim(1, terms));
    until("it is claimed", async || store.claim(&held, &mine).await.is_ok()).await;
    server.sql("UPDATE onlyonce.records SET expires_at = expires_at - interval '10 minutes'");
    let begun = Instant::now();
    let other = open(&server).await;
    let found = other.find(&held).await.expect("an answer").expect("a record");
    assert!(found.silent_for <= begun.elapsed(), "{found:?}");
    assert!(matches!(other.claim(&held, &claim(2, terms)).await, Ok(Claimed::Refused(_))));
    // Whoever only looks shows what is there.
    let look = PostgresOptions { is_read_only: true, ..PostgresOptions::default() };
    let looker = Postgres::open_with(&address(&server, "postgres"), &config(), look);
    looker.ready(PATIENCE).await.unwrap_or_else(|why| panic!("{why}"));
    let found = looker.find(&held).await.expect("an answer").expect("a record");
    assert!(found.silent_for >= Duration::from_secs(600), "{found:?}");
}

/// A first connect writes the digest key. Attempts that cannot commit it must not pile up at the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn attempts_to_connect_that_cannot_commit_do_not_pile_up() {
    let server = PostgresServer::start();
    server.sql(SCHEMA);
    standby_goes(&server).await;
    let configured = StoreConfig { digest_key: None, ..with_timeout(Duration::from_millis(200)) };
    let store = Postgres::open(&address(&server, "postgres"), &configured, HOUR);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(store.shared.link.state().is_err());
    let sessions = count_of(&server, "onlyonce%");
    assert!(sessions <= 2, "{sessions}");
    standby_comes_back(&server);
    store.ready(PATIENCE).await.unwrap_or_else(|why| panic!("{why}"));
}

/// Who reads an outcome tells it to a client. A failover must not forget it then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_waited_for_a_standby_is_told_after_a_restart_only_when_the_standby_has_it() {
    let mut server = PostgresServer::start();
    let of = address(&server, "postgres");
    let store = open_with(&of, &with_timeout(Duration::from_secs(2))).await;
    let (done, held, mine) = (name(), name(), claim(1, RETRY));
    for name in [&done, &held] {
        until("it is claimed", async || store.claim(name, &mine).await.is_ok()).await;
    }
    let standby = server.start_standby(&["fsync=off"]);
    server.sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
    server.reload();
    const SYNCHRONOUS: &str = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    until("commits wait for the standby", async || server.sql(SYNCHRONOUS) == "1").await;
    let state_of = |server: &PostgresServer, name: &RecordName| {
        server.sql(&format!(
            "SELECT encode(substring(record FROM 2 FOR 1), 'hex') FROM onlyonce.records WHERE name = 'onlyonce:{name}'"
        ))
    };
    const IN_FLIGHT: &str = "01";
    until("the standby has both", async || [&done, &held].iter().all(|name| state_of(&standby, name) == IN_FLIGHT))
        .await;

    standby.freeze();
    let settled = store.settle(&done, &completed(&mine, b"{}")).await;
    assert!(matches!(settled, Err(StoreError::Uncertain(_))), "{settled:?}");
    assert_eq!(state_of(&server, &done), IN_FLIGHT, "nobody sees it while it waits");
    server.kill();
    server.restart();
    let other = open_with(&of, &with_timeout(Duration::from_secs(2))).await;
    for store in [&store, &other] {
        until("what is in flight is told", async || match store.claim(&held, &claim(2, RETRY)).await {
            Ok(Claimed::Refused(seen)) => seen.record.claim == mine,
            Ok(granted) => panic!("{granted:?}"),
            Err(_) => false,
        })
        .await;
        assert_ne!(state_of(&server, &done), IN_FLIGHT, "now it is seen");
        for _ in 0..3 {
            // Nothing is left of it that would have to be looked for.
            let claimed = store.claim(&done, &claim(2, RETRY)).await;
            assert!(matches!(claimed, Err(StoreError::Refused(_))), "{claimed:?}");
            let found = store.find(&done).await;
            assert!(matches!(found, Err(StoreError::Uncertain(_))), "{found:?}");
        }
        // Its owner is not told either that it is written.
        let again = store.settle(&done, &completed(&mine, b"{}")).await;
        assert!(again.is_err(), "{again:?}");
        assert_eq!(store.health(), Health::Up);
    }
    // Whoever only looks shows what is there.
    let options = PostgresOptions { is_read_only: true, ..PostgresOptions::default() };
    let looker = Postgres::open_with(&of, &config(), options);
    looker.ready(PATIENCE).await.unwrap_or_else(|why| panic!("{why}"));
    assert!(looker.find(&done).await.expect("an answer").is_some());

    standby.thaw();
    for store in [&store, &other] {
        until("it is told", async || match store.claim(&done, &claim(2, RETRY)).await {
            Ok(Claimed::Refused(seen)) => seen.record.claim == mine,
            Ok(granted) => panic!("{granted:?}"),
            Err(_) => false,
        })
        .await;
    }
    server.kill();
    standby.promote();
    assert_ne!(state_of(&standby, &done), IN_FLIGHT, "what was told is not forgotten");
}
