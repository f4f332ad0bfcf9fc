//! A store that has lost the record of an attempt which this process knows.

use super::super::decide::Difference;
use super::*;

/// The store forgets it.
async fn lose(scene: &Scene, operation: &Operation) {
    let token = scene.held(operation).await.expect("a record").record.claim.token;
    assert_eq!(scene.store.store.release(&operation.name, token).await.expect("the store answers"), Released::Deleted);
}

fn other(operation: &Operation) -> Operation {
    let mut other = operation.clone();
    other.fingerprint.body = [9; 16];
    other
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_the_record_of_a_running_attempt_starts_no_second_one() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, created());
    for _ in 0..3 {
        tokio::task::yield_now().await;
        lose(&scene, &operation).await;
        for _ in 0..3 {
            assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
            assert_eq!(scene.held(&operation).await, None, "the claim is given back");
            assert_eq!(scene.repeat(&other(&operation)).await, Verdict::KeyReused(Difference::Body));
        }
        // The next renewal claims the key again.
        tokio::time::sleep(LEASE / 3 + Duration::from_secs(1)).await;
        assert_eq!(scene.held(&operation).await.expect("a record").record.state, State::InFlight);
    }
    end.notify_one();
    assert_eq!(body(&ended.await.expect("an end")), b"order 1");
    assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(..)));
    assert!(!scene.counts("onlyonce_lease_lost_total{route=\"orders\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_still_to_be_written_is_told_by_a_store_that_lost_its_record_too() {
    for (outcome, expected) in
        [(created(), None), (SendOutcome::Unknown(LostReason::Broken), Some(Verdict::OutcomeUnknown))]
    {
        let (scene, operation) = (Scene::new(), operation(1, HOLD));
        scene.store.settlements.next([Fault::Refused; 3]);
        run(scene.own(&operation).await, outcome).await.expect("an end");
        lose(&scene, &operation).await;
        match (scene.repeat(&operation).await, expected) {
            (Verdict::Replay(reply, _), None) => assert_eq!(reply.0.body.pieces().concat(), b"order 1"),
            (verdict, expected) => assert_eq!(Some(verdict), expected),
        }
        // The outcome is written over the claim that was given back, or after it.
        scene.guard.recorded().await;
        assert!(!matches!(scene.held(&operation).await.expect("a record").record.state, State::InFlight));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_given_back_and_not_deleted_yet_is_not_in_the_way_of_the_outcome() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, created());
    tokio::task::yield_now().await;
    lose(&scene, &operation).await;
    scene.store.releases.next([Fault::Refused; 6]);
    assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let claim = scene.last_claim();
    assert_eq!(scene.held(&operation).await.expect("a record").record.claim, claim, "it is there still");
    // Not lost either: this renewal is its own process's doing.
    tokio::time::sleep(LEASE / 3).await;
    end.notify_one();
    assert_eq!(body(&ended.await.expect("an end")), b"order 1");
    scene.guard.recorded().await;
    assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(..)));
    assert!(!scene.counts("onlyonce_lease_lost_total{route=\"orders\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_its_attempt_has_freed_is_free_before_its_client_knows_of_it() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    // The release is carried out, and its answer takes long.
    scene.store.releases.next([Fault::Slow(Duration::from_secs(5))]);
    let ended = run(scene.own(&operation).await, answer(StatusCode::INTERNAL_SERVER_ERROR, "no")).detach();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(scene.own(&operation).await);
    ended.await.expect("an end");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_an_operator_freed_is_free_although_its_attempt_runs_here() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, created());
    tokio::task::yield_now().await;
    lose(&scene, &operation).await;
    scene.guard.freed(&operation.name);
    // It stays free: the renewals of the first attempt do not claim it again.
    tokio::time::sleep(LEASE).await;
    assert_eq!(scene.held(&operation).await, None);
    let second = run(scene.own(&operation).await, answer(StatusCode::CREATED, "order 2"));
    assert_eq!(body(&second.await.expect("an end")), b"order 2");
    end.notify_one();
    // The first one's client gets what was recorded, as all others do.
    assert_eq!(body(&ended.await.expect("an end")), b"order 2");
    assert!(scene.counts("onlyonce_lease_lost_total{route=\"orders\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_key_an_operator_freed_does_not_begin() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    let ownership = scene.own(&operation).await;
    lose(&scene, &operation).await;
    scene.guard.freed(&operation.name);
    assert!(matches!(run(ownership, created()).await.expect("an end"), AttemptResult::Replaced));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_of_a_freed_key_that_comes_before_another_request_is_kept() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, created());
    tokio::task::yield_now().await;
    lose(&scene, &operation).await;
    scene.guard.freed(&operation.name);
    end.notify_one();
    ended.await.expect("an end");
    assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(..)));
}
