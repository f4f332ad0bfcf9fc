//! Repeats that wait.

use super::*;
use crate::guard::Difference;

#[tokio::test(start_paused = true)]
async fn a_waiter_is_woken_when_the_attempt_ends() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, created());
    let wait = async { scene.guard.wait(&scene.rule, &operation, Duration::from_secs(10)).await };
    let later = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        end.notify_one();
    };
    let begun = tokio::time::Instant::now();
    let (verdict, ()) = tokio::join!(wait, later);
    assert!(matches!(verdict, Some(Verdict::Replay(reply, _)) if reply.0.body.pieces().concat() == b"order 1"));
    // Time stands still while anything can go on: so this is "at once".
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
    ended.await.expect("an end");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gets_the_owners_answer_though_it_was_released() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let refusal = answer(StatusCode::INTERNAL_SERVER_ERROR, "no");
    let ended = run_until(scene.own(&operation).await, &end, refusal);
    end.notify_one();
    let verdict = scene.guard.wait(&scene.rule, &operation, Duration::from_secs(10)).await;
    assert!(matches!(verdict, Some(Verdict::Replay(reply, _)) if reply.0.status == StatusCode::INTERNAL_SERVER_ERROR));
    ended.await.expect("an end");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_of_another_sidecar_looks_at_the_record() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, created());
    let sibling = scene.sibling();
    let wait = async { sibling.wait(&scene.rule, &operation, Duration::from_secs(10)).await };
    let later = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        end.notify_one();
    };
    let (verdict, ()) = tokio::join!(wait, later);
    assert!(matches!(verdict, Some(Verdict::Replay(..))));
    ended.await.expect("an end");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_hears_when_the_lease_of_a_lost_owner_ends() {
    for (on_unknown, expected) in [(HOLD, Verdict::OutcomeUnknown), (UnknownPolicy::Retry, Verdict::InFlight)] {
        let (scene, operation) = (Scene::new(), operation(1, on_unknown));
        // Another sidecar, which dies with the claim in its hands.
        let sibling = scene.sibling();
        let Ok(Admission::Owner(owner)) = sibling.claim(&scene.rule, &operation).await else { panic!("it is free") };
        std::mem::forget(owner);
        let begun = tokio::time::Instant::now();
        assert_eq!(scene.guard.wait(&scene.rule, &operation, LEASE * 10).await, Some(expected));
        let waited = begun.elapsed();
        assert!(waited >= LEASE && waited < LEASE + Duration::from_secs(3), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_never_becomes_an_owner() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, SendOutcome::NotSent);
    end.notify_one();
    let verdict = scene.guard.wait(&scene.rule, &operation, Duration::from_secs(10)).await;
    assert_eq!(verdict, Some(Verdict::InFlight));
    ended.await.expect("an end");
    assert_eq!(scene.held(&operation).await, None);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_in_time_and_only_so_many_wait() {
    let scene = Scene::with_route("max_waiters = 2\n");
    let (operation, never) = (operation(1, HOLD), Arc::new(Notify::new()));
    let _ended = run_until(scene.own(&operation).await, &never, created());
    let waited = AtomicU32::new(0);
    let wait = || async {
        let begun = tokio::time::Instant::now();
        let verdict = scene.guard.wait(&scene.rule, &operation, Duration::from_secs(5)).await;
        let is_over = begun.elapsed() >= Duration::from_secs(5);
        assert_eq!(verdict, is_over.then_some(Verdict::InFlight));
        waited.fetch_add(u32::from(is_over), Ordering::Relaxed);
    };
    tokio::join!(wait(), wait(), wait());
    assert_eq!(waited.into_inner(), 2);
    assert!(scene.counts(r#"onlyonce_waiting{route="orders"} 0"#));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_waits_for_its_own_request_only() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let mut other = operation.clone();
    other.fingerprint.body = [9; 16];
    let ended = run_until(scene.own(&other).await, &end, created());
    end.notify_one();
    let verdict = scene.guard.wait(&scene.rule, &operation, Duration::from_secs(10)).await;
    assert_eq!(verdict, Some(Verdict::KeyReused(Difference::Body)));
    ended.await.expect("an end");
}
