//! What this process knows by itself, when the store cannot tell.

use super::super::decide::Difference;
use super::*;

const OUT_OF_REACH: [Fault; 1] = [Fault::Refused];
const SLOW: [Fault; 2] = [Fault::RequestLost; 2];

/// The verdict on a repeat whose claim goes wrong like this, or the error.
async fn repeat(scene: &Scene, operation: &Operation, faults: &[Fault]) -> Result<Verdict, StoreError> {
    scene.store.claims.next(faults.iter().copied());
    match scene.guard.claim(&scene.rule, operation).await {
        Ok(Admission::Owner(_)) => panic!("the store does not answer"),
        Ok(Admission::Repeat(verdict)) => Ok(verdict),
        Err(ClaimError::Store(error)) => Err(error),
        Err(ClaimError::Overloaded) => panic!("there is room"),
    }
}

fn other(operation: &Operation) -> Operation {
    let mut other = operation.clone();
    other.fingerprint.body = [9; 16];
    other
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_runs_here_is_in_flight_whatever_the_store_says() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, created());
    for faults in [&OUT_OF_REACH[..], &SLOW] {
        assert_eq!(repeat(&scene, &operation, faults).await.expect("from memory"), Verdict::InFlight);
        assert_eq!(
            repeat(&scene, &other(&operation), faults).await.expect("from memory"),
            Verdict::KeyReused(Difference::Body)
        );
    }
    end.notify_one();
    ended.await.expect("an end");
    // It is written: from now on the store is the one who knows.
    scene.guard.recorded().await;
    assert!(matches!(repeat(&scene, &operation, &OUT_OF_REACH).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_granted_and_does_not_run_yet_is_in_flight_too() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    let ownership = scene.own(&operation).await;
    assert_eq!(repeat(&scene, &operation, &OUT_OF_REACH).await.expect("from memory"), Verdict::InFlight);
    drop(ownership);
    assert!(matches!(repeat(&scene, &operation, &OUT_OF_REACH).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn while_a_claim_is_on_its_way_nothing_is_certain() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    scene.store.claims.next([Fault::Slow(Duration::from_secs(5))]);
    let (guard, rule, first) = (Arc::clone(&scene.guard), Arc::clone(&scene.rule), operation.clone());
    let claiming = tokio::spawn(async move { guard.claim(&rule, &first).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    // It may be granted already, and its owner does not know it yet.
    assert!(matches!(repeat(&scene, &operation, &OUT_OF_REACH).await, Err(StoreError::Uncertain(_))));
    assert!(matches!(claiming.await.expect("no panic"), Ok(Admission::Owner(_))));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_still_to_be_written_is_told() {
    let reset = || SendOutcome::Unknown(LostReason::Broken);
    let broken = || {
        let SendOutcome::Answered(answer) = created() else { panic!("an answer") };
        SendOutcome::Answered(ReceivedResponse { rest: BodyRemainder::Broken(LostReason::Broken), ..answer })
    };
    let original = OriginalAnswer { status: StatusCode::CREATED, location: None };
    for (outcome, expected) in [
        (created(), None),
        (reset(), Some(Verdict::OutcomeUnknown)),
        (broken(), Some(Verdict::AlreadyCompleted(Sealed(original)))),
    ] {
        let (scene, operation) = (Scene::new(), operation(1, HOLD));
        scene.store.settlements.next([Fault::Refused; 50]);
        run(scene.own(&operation).await, outcome).await.expect("an end");
        for faults in [&OUT_OF_REACH[..], &SLOW] {
            let verdict = repeat(&scene, &operation, faults).await.expect("from memory");
            match &expected {
                Some(expected) => assert_eq!(verdict, *expected),
                None => {
                    assert!(
                        matches!(verdict, Verdict::Replay(reply, _) if reply.0.body.pieces().concat() == b"order 1")
                    );
                }
            }
            assert_eq!(
                repeat(&scene, &other(&operation), faults).await.expect("from memory"),
                Verdict::KeyReused(Difference::Body)
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_still_to_be_written_leaves_it_to_the_configuration() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    scene.store.releases.next([Fault::Refused; 50]);
    run(scene.own(&operation).await, SendOutcome::NotSent).await.expect("an end");
    assert!(matches!(repeat(&scene, &operation, &OUT_OF_REACH).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(repeat(&scene, &operation, &SLOW).await, Err(StoreError::Uncertain(_))));
}

#[tokio::test(start_paused = true)]
async fn once_the_lease_was_lost_others_know_better() {
    let (scene, operation, never) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let _ended = run_until(scene.own(&operation).await, &never, created());
    // An operator frees the key, and another sidecar claims it.
    let token = scene.held(&operation).await.expect("a record").record.claim.token;
    scene.store.store.release(&operation.name, token).await.expect("the store answers");
    let Ok(Admission::Owner(_other)) = scene.sibling().claim(&scene.rule, &operation).await else { panic!("free") };
    tokio::time::sleep(LEASE / 2).await;
    assert!(matches!(repeat(&scene, &operation, &OUT_OF_REACH).await, Err(StoreError::Uncertain(_))));
}

#[tokio::test]
async fn under_retry_a_lease_that_is_over_may_be_another_s_by_now() {
    // On the machine's own clock: a lease counts through suspend.
    const SHORT: Duration = Duration::from_millis(300);
    let (scene, never) = (Scene::new(), Arc::new(Notify::new()));
    for (key, on_unknown) in [(1, HOLD), (2, UnknownPolicy::Retry)] {
        let mut operation = operation(key, on_unknown);
        operation.terms.lease = SHORT;
        scene.store.renewals.next([Fault::Refused; 50]);
        let _ended = run_until(scene.own(&operation).await, &never, created());
        tokio::time::sleep(SHORT * 2).await;
        let told = repeat(&scene, &operation, &OUT_OF_REACH).await;
        match on_unknown {
            UnknownPolicy::Hold(_) => assert_eq!(told.expect("from memory"), Verdict::InFlight),
            UnknownPolicy::Retry => assert!(matches!(told, Err(StoreError::Uncertain(_))), "{told:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_for_a_takeover_is_in_flight_until_one_may_come() {
    let (scene, operation) = (Scene::new(), operation(1, UnknownPolicy::Retry));
    run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    assert_eq!(repeat(&scene, &operation, &OUT_OF_REACH).await.expect("from memory"), Verdict::InFlight);
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    assert!(matches!(repeat(&scene, &operation, &OUT_OF_REACH).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_told_from_memory_when_the_store_stays_away() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    scene.store.settlements.next([Fault::Refused; 50]);
    let ended = run_until(scene.own(&operation).await, &end, SendOutcome::Unknown(LostReason::Broken));
    scene.store.finds.next([Fault::Refused; 50]);
    end.notify_one();
    let begun = tokio::time::Instant::now();
    let verdict = scene.guard.wait(&scene.rule, &operation, LEASE).await;
    assert_eq!(verdict, Some(Verdict::OutcomeUnknown));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    ended.await.expect("an end");
}
