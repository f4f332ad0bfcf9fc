//! Changes by what the backend has answered to a probe.

use super::*;
use crate::guard::audit::{self, AuditLine};
use crate::record::StateName;
use crate::record::probe::{FoundEffect, complete_by_probe};

const ASKED: &str = "/orders?idempotency_key={key}";

async fn told(scene: &Scene, operation: &Operation) -> Vec<AuditLine> {
    audit::read(&*scene.store, &operation.name).await.expect("lines")
}

async fn found(scene: &Scene, operation: &Operation) -> CompareAndSwap {
    let seen = scene.held(operation).await.expect("a record").seen();
    let found = FoundEffect::Unreplayable { status: StatusCode::OK, location: None };
    complete_by_probe(seen, found, 9)
}

async fn unknown(scene: &Scene) -> Operation {
    let operation = operation(1, HOLD);
    run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    operation
}

#[tokio::test(start_paused = true)]
async fn a_change_by_a_probe_is_told_with_what_was_asked() {
    let scene = Scene::new();
    let operation = unknown(&scene).await;
    let swap = found(&scene, &operation).await;
    let done = scene.guard.change_by_probe(&operation.name, &swap, ASKED, None).await.expect("the store answers");
    assert_eq!(done, SwapResult::Done);
    let original = OriginalAnswer { status: StatusCode::OK, location: None };
    let expected = Verdict::AlreadyCompleted(Sealed(original));
    assert_eq!(scene.repeat(&operation).await, expected);
    let told_then = told(&scene, &operation).await;
    let [line] = &told_then[..] else { panic!("{told_then:?}") };
    assert_eq!((line.did.as_str(), &*line.by, line.asked.as_deref()), ("complete", "probe", Some(ASKED)));
    assert_eq!((line.was, line.status, line.not_done.as_deref()), (StateName::Unknown, Some(200), None));
    assert!(scene.counts("onlyonce_records_unknown{route=\"orders\"} 0"));

    // The record has changed since: nothing is done, and the line says so.
    let done = scene.guard.change_by_probe(&operation.name, &swap, ASKED, None).await.expect("the store answers");
    assert!(matches!(done, SwapResult::Changed(Some(_))));
    let lines = told(&scene, &operation).await;
    assert_eq!((lines[0].not_done.as_deref(), lines[1].not_done.as_deref()), (None, Some("the record had changed")));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_probe_frees_is_free_and_its_story_stays() {
    let scene = Scene::new();
    let operation = unknown(&scene).await;
    let seen = scene.held(&operation).await.expect("a record").seen();
    let swap = CompareAndSwap { seen, to: None };
    let done = scene.guard.change_by_probe(&operation.name, &swap, ASKED, None).await.expect("the store answers");
    assert_eq!(done, SwapResult::Done);
    let line = &told(&scene, &operation).await[0];
    assert_eq!((line.did.as_str(), &*line.by, line.asked.as_deref()), ("release", "probe", Some(ASKED)));
    run(scene.own(&operation).await, created()).await.expect("an end");
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_of_any_kind_gives_its_client_what_a_probe_has_recorded() {
    for late in [created(), answer(StatusCode::INTERNAL_SERVER_ERROR, "no"), SendOutcome::Unknown(LostReason::Timeout)]
    {
        let scene = Scene::new();
        let operation = operation(1, HOLD);
        let ownership = scene.own(&operation).await;
        let seen = scene.held(&operation).await.expect("a record").seen();
        let SendOutcome::Answered(found) = answer(StatusCode::OK, "order 7") else { unreachable!("it is an answer") };
        let swap = complete_by_probe(seen, FoundEffect::Completed(found.reply), 9);
        let done = scene.guard.change_by_probe(&operation.name, &swap, ASKED, None).await.expect("the store answers");
        assert_eq!(done, SwapResult::Done);
        let ended = run(ownership, late).await.expect("an end");
        assert!(matches!(ended, AttemptResult::Recorded(_)), "{ended:?}");
        assert_eq!(body(&ended), b"order 7");
        assert!(scene.counts("onlyonce_lease_lost_total{route=\"orders\"} 0"));
    }
}

/// Where no answer is recorded, the client is told what every repeat is told: a late refusal would tell it that nothing
/// happened.
#[tokio::test(start_paused = true)]
async fn a_late_answer_of_any_kind_tells_its_client_what_a_probe_has_found() {
    let broken = |rest| {
        let SendOutcome::Answered(received) = created() else { unreachable!("it is an answer") };
        SendOutcome::Answered(ReceivedResponse { rest, ..received })
    };
    for late in [
        created(),
        answer(StatusCode::UNPROCESSABLE_ENTITY, "no"),
        answer(StatusCode::INTERNAL_SERVER_ERROR, "no"),
        answer(StatusCode::SERVICE_UNAVAILABLE, "later"),
        broken(BodyRemainder::Oversized(())),
        broken(BodyRemainder::Broken(LostReason::Broken)),
        SendOutcome::Unknown(LostReason::Timeout),
        SendOutcome::NotSent,
    ] {
        let told = format!("{late:?}");
        let scene = Scene::new();
        let operation = operation(1, HOLD);
        let ownership = scene.own(&operation).await;
        let swap = found(&scene, &operation).await;
        let done = scene.guard.change_by_probe(&operation.name, &swap, ASKED, None).await.expect("the store answers");
        assert_eq!(done, SwapResult::Done);
        let ended = run(ownership, late).await.expect("an end");
        let original = OriginalAnswer { status: StatusCode::OK, location: None };
        let AttemptResult::AlreadyCompleted(told_to_it) = ended else { panic!("{told}: {ended:?}") };
        assert_eq!(told_to_it, Sealed(original.clone()), "{told}");
        assert_eq!(scene.repeat(&operation).await, Verdict::AlreadyCompleted(Sealed(original)), "{told}");
        assert!(scene.counts("onlyonce_lease_lost_total{route=\"orders\"} 0"), "{told}");
    }
}

/// What another request of the key has come to is no answer to this one.
#[tokio::test(start_paused = true)]
async fn a_late_answer_is_its_client_s_where_the_key_was_freed_since() {
    for is_used_again in [false, true] {
        for late in [created(), answer(StatusCode::UNPROCESSABLE_ENTITY, "no")] {
            let scene = Scene::new();
            let operation = operation(1, HOLD);
            let ownership = scene.own(&operation).await;
            let gate = Arc::new(Notify::new());
            let ended = run_until(ownership, &gate, late);
            // It is sent.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let seen = scene.held(&operation).await.expect("a record").seen();
            let swap = CompareAndSwap { seen, to: None };
            let done = scene.sibling().change_by_probe(&operation.name, &swap, ASKED, None).await;
            assert_eq!(done.expect("the store answers"), SwapResult::Done);
            let _next = if is_used_again { Some(scene.own_elsewhere(&operation).await) } else { None };
            gate.notify_one();
            let ended = ended.await.expect("an end");
            assert!(matches!(ended, AttemptResult::Answered(_)), "{is_used_again}: {ended:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_told_is_not_made() {
    let scene = Scene::new();
    let operation = unknown(&scene).await;
    let swap = found(&scene, &operation).await;
    scene.store.settlements.next([Fault::Refused]);
    let untold = scene.guard.change_by_probe(&operation.name, &swap, ASKED, None).await;
    assert!(matches!(untold, Err(crate::guard::NotChanged::NotAnnounced(_))), "{untold:?}");
    assert_eq!(scene.repeat(&operation).await, Verdict::OutcomeUnknown);
    assert_eq!(told(&scene, &operation).await, []);
}

/// What is kept in the audit says what happened at the store, and not something like it.
#[test]
fn a_store_that_cannot_be_reached_has_not_refused() {
    let cause = || "by plan".into();
    let source = crate::record::codec::Unreadable::Damaged("by plan");
    for (failure, why) in [
        (StoreError::Unavailable(cause()), "the store could not be reached"),
        (StoreError::Refused(cause()), "the store refused"),
        (StoreError::Uncertain(cause()), "the store did not answer: it may have been done"),
        (StoreError::Unacknowledged(cause()), "the store may lose it: it may have been done"),
        (StoreError::Unreadable { name: "orders:1".to_owned(), source }, "the record cannot be read"),
    ] {
        assert_eq!(crate::guard::why_not_done(&Err(failure)), Some(why));
    }
}
