//! What others need to ask about an attempt.

use super::*;
use crate::key::{NoProbe, OperationProbe};
use crate::record::code;
use crate::record::probe::ProbeFacts;

fn kept(facts: &ProbeFacts) -> Option<Box<OperationProbe>> {
    Some(Box::new(OperationProbe { values: Err(NoProbe::NoKey), kept: Some(facts.clone()) }))
}

fn asked() -> (Operation, ProbeFacts) {
    let values = vec![("key".to_owned(), b"the key".to_vec())];
    let facts = ProbeFacts { attempt_timeout: Duration::from_secs(600), values };
    let mut operation = operation(1, HOLD);
    operation.extensions = Extensions::of(code::TRACE, b"trace");
    operation.probe = kept(&facts);
    (operation, facts)
}

/// What another sidecar knows of it.
async fn known(scene: &Scene, operation: &Operation) -> Option<ProbeFacts> {
    let held = scene.held(operation).await.expect("a record");
    let claim = &held.record.claim;
    assert_eq!(claim.extensions.get(code::TRACE), Some(&b"trace"[..]));
    ProbeFacts::of(claim, &operation.name, scene.guard.store.encryption_keys())
}

#[tokio::test(start_paused = true)]
async fn they_are_kept_with_the_record_until_the_outcome_is_known() {
    let scene = Scene::new();
    let (operation, facts) = asked();
    let ownership = scene.own(&operation).await;
    assert_eq!(known(&scene, &operation).await, Some(facts.clone()));
    run(ownership, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    assert_eq!(known(&scene, &operation).await, Some(facts));

    let scene = Scene::new();
    run(scene.own(&operation).await, created()).await.expect("an end");
    assert_eq!(known(&scene, &operation).await, None);
    let held = scene.held(&operation).await.expect("a record");
    assert_eq!(held.record.claim.extensions.get(code::PROBE), None);
}

#[tokio::test(start_paused = true)]
async fn those_of_the_last_owner_are_kept_after_a_takeover() {
    let scene = Scene::new();
    let (mut operation, _) = asked();
    operation.terms.on_unknown = UnknownPolicy::Retry;
    run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    tokio::time::sleep(LEASE).await;
    let facts = ProbeFacts { attempt_timeout: Duration::from_secs(7), values: Vec::new() };
    operation.probe = kept(&facts);
    let ownership = scene.own_elsewhere(&operation).await;
    assert_eq!(ownership.attempt(), 2);
    assert_eq!(known(&scene, &operation).await, Some(facts));
}
