//! Claims that arrive late, twice or never.

use super::*;
use crate::tick::TICK;

#[tokio::test(start_paused = true)]
async fn a_claim_of_unknown_arrival_is_not_run_and_cleaned_up() {
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let (scene, operation) = (Scene::new(), operation(1, HOLD));
        scene.store.claims.next([fault; 2]);
        // The first clean-up does not get through either.
        scene.store.releases.next([Fault::RequestLost]);
        let refused = scene.guard.claim(&scene.rule, &operation).await.err().expect("no certain reply");
        assert!(matches!(refused, ClaimError::Store(StoreError::Uncertain(_))));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(scene.held(&operation).await, None);
        scene.own(&operation).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_arrives_late_is_cleaned_up_too() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    scene.store.claims.next([Fault::RequestLost; 2]);
    assert!(scene.guard.claim(&scene.rule, &operation).await.is_err());
    let late = scene.last_claim();
    // Another request comes and goes meanwhile.
    run(scene.own(&operation).await, SendOutcome::NotSent).await.expect("an end");
    // Both tries arrive, one after the other.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        scene.arrives(&operation, &late).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(scene.held(&operation).await, None);
    }
}

/// Such a claim is at the store, and nothing of it is under way. So one release is enough.
#[tokio::test(start_paused = true)]
async fn claims_that_too_few_replicas_have_are_deleted_once_however_many_there_are() {
    let scene = Scene::new();
    let mut refused = 0;
    for key in 0..=u8::MAX {
        for time in 1..=40 {
            scene.store.claims.next([Fault::Unacknowledged; 2]);
            let short = scene.guard.claim(&scene.rule, &operation(key, HOLD)).await;
            let Err(ClaimError::Store(short)) = short else { panic!("{key} is held by an earlier one") };
            assert!(matches!(short, StoreError::Unacknowledged(_)), "{short:?}");
            refused += 1;
            // The clean-up may take longer than the next claim, but not for ever.
            while scene.store.released.load(Ordering::SeqCst) < refused {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(scene.held(&operation(key, HOLD)).await, None, "{key}, {time}");
        }
    }
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(scene.store.released.load(Ordering::SeqCst), refused);
    // If one try had no answer, it may still arrive.
    for first in [Fault::RequestLost, Fault::Unacknowledged] {
        let (scene, operation) = (Scene::new(), operation(1, HOLD));
        let second = if first == Fault::RequestLost { Fault::Unacknowledged } else { Fault::RequestLost };
        scene.store.claims.next([first, second]);
        assert!(scene.guard.claim(&scene.rule, &operation).await.is_err());
        tokio::time::sleep(Duration::from_secs(5)).await;
        scene.arrives(&operation, &scene.last_claim()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(scene.held(&operation).await, None, "{first:?}");
    }
}

/// A release may take long, and many others are waiting.
#[tokio::test(start_paused = true)]
async fn slow_releases_of_earlier_claims_do_not_delay_that_of_a_new_one() {
    let scene = Scene::new();
    for key in 0..20 {
        scene.store.claims.next([Fault::RequestLost; 2]);
        assert!(scene.guard.claim(&scene.rule, &operation(key, HOLD)).await.is_err());
    }
    scene.store.releases.next([Fault::Slow(Duration::from_secs(2)); 20]);
    tokio::time::sleep(TICK * 2).await;
    scene.store.claims.next([Fault::AnswerLost; 2]);
    assert!(scene.guard.claim(&scene.rule, &operation(20, HOLD)).await.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.held(&operation(20, HOLD)).await, None);
}

/// Its key is blocked until then. Claims that were given up before are looked for once a second only.
#[tokio::test(start_paused = true)]
async fn a_claim_that_was_just_given_up_is_looked_for_at_once() {
    let scene = Scene::new();
    scene.store.claims.next([Fault::RequestLost; 2]);
    assert!(scene.guard.claim(&scene.rule, &operation(0, HOLD)).await.is_err());
    for key in 1..20 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let operation = operation(key, HOLD);
        scene.store.claims.next([Fault::AnswerLost; 2]);
        assert!(scene.guard.claim(&scene.rule, &operation).await.is_err());
        tokio::time::sleep(TICK * 2).await;
        assert_eq!(scene.held(&operation).await, None, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_given_up_is_looked_for_as_soon_as_the_store_is_back() {
    for key in 1..20 {
        let (scene, operation) = (Scene::new(), operation(key, HOLD));
        scene.store.claims.next([Fault::AnswerLost; 2]);
        // So many that the pause between two looks has grown to a second.
        scene.store.releases.next([Fault::Refused; 20]);
        scene.store.is_down.store(true, Ordering::SeqCst);
        assert!(scene.guard.claim(&scene.rule, &operation).await.is_err());
        let begun = tokio::time::Instant::now();
        while scene.store.releases.left() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        scene.store.is_down.store(false, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(scene.held(&operation).await, None, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_an_answer_is_made_again() {
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let (scene, operation) = (Scene::new(), operation(1, HOLD));
        scene.store.claims.next([fault]);
        run(scene.own(&operation).await, created()).await.expect("an end");
        assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(..)), "{fault:?}");
    }
    // Refused the second time, it may still have been granted the first time.
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    scene.store.claims.next([Fault::AnswerLost, Fault::Refused]);
    let refused = scene.guard.claim(&scene.rule, &operation).await.err().expect("no certain reply");
    assert!(matches!(refused, ClaimError::Store(StoreError::Uncertain(_))));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_arrives_after_its_owner_has_freed_the_key_is_undone() {
    let (claims, renewals) = ([Fault::RequestLost], [Fault::RequestLost]);
    for (claims, renewals) in [(claims.as_slice(), [].as_slice()), (&[], &renewals)] {
        let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
        scene.store.claims.next(claims.iter().copied());
        scene.store.renewals.next(renewals.iter().copied());
        let ended = run_until(scene.own(&operation).await, &end, SendOutcome::NotSent);
        let late = scene.last_claim();
        tokio::time::sleep(LEASE / 2).await;
        end.notify_one();
        ended.await.expect("an end");
        assert_eq!(scene.held(&operation).await, None);
        // A late renewal does the same.
        scene.arrives(&operation, &late).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(scene.held(&operation).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_claim_that_may_arrive_once_more_is_cleaned_up_too() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let first = run_until(scene.own(&operation).await, &end, SendOutcome::NotSent);
    scene.store.claims.next([Fault::RequestLost]);
    assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
    let late = scene.last_claim();
    end.notify_one();
    first.await.expect("an end");
    scene.arrives(&operation, &late).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(scene.held(&operation).await, None);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_was_told_of_another_never_sends() {
    let (scene, operation, go) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let gone = Arc::clone(&go);
    let ended = scene.own(&operation).await.run(trace::Parent::default(), move |fence| async move {
        gone.notified().await;
        sent(fence, created()).await
    });
    let ended = ended.detach();
    // An operator frees the key, and another sidecar claims it; the first owner's renewal is told so.
    let token = scene.held(&operation).await.expect("a record").record.claim.token;
    scene.store.store.release(&operation.name, token).await.expect("the store answers");
    let other = scene.own_elsewhere(&operation).await;
    tokio::time::sleep(LEASE / 3 + Duration::from_secs(1)).await;
    go.notify_one();
    assert!(matches!(ended.await.expect("an end"), AttemptResult::Replaced));
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn the_clean_up_touches_nobody_elses_record() {
    let (scene, operation, never) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    scene.store.claims.next([Fault::RequestLost; 2]);
    assert!(scene.guard.claim(&scene.rule, &operation).await.is_err());
    drop(run_until(scene.own(&operation).await, &never, created()));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(scene.held(&operation).await.expect("a record").owner(), OwnerState::Alive);
}
