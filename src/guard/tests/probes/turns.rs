//! The lock in the store: of all sidecars, one at a time asks about a record.

use super::*;
use crate::guard::probe::ProbeLock;

/// A backend that answers when it is let, or after this time, and notes the most questions that it had at once.
fn slow(scene: &Scene, takes: Duration, answer: &ProbeReading) -> (Arc<[AtomicU32; 3]>, [Arc<ProbePlan>; 2]) {
    let counts: Arc<[AtomicU32; 3]> = Arc::default();
    let plans = [(); 2].map(|()| {
        let (counts, answer) = (Arc::clone(&counts), answer.clone());
        let (_, ask) = backend(move |_| {
            let (counts, answer) = (Arc::clone(&counts), answer.clone());
            Box::pin(async move {
                let [asked, at_once, most] = &*counts;
                asked.fetch_add(1, Ordering::SeqCst);
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(takes).await;
                at_once.fetch_sub(1, Ordering::SeqCst);
                answer
            })
        });
        plan(scene, ProbedBy::Another, ProbeHost::Known(None), ask)
    });
    (counts, plans)
}

/// Ten repeats come to each sidecar at once: the backend has never two questions, and each sidecar keeps its pauses.
#[tokio::test(start_paused = true)]
async fn of_all_sidecars_one_at_a_time_asks_about_a_record() {
    for answer in [ProbeReading::Absent, ProbeReading::Inconclusive(Inconclusive::Status(500))] {
        let alone = asked_by(1, &answer).await;
        let by_two = asked_by(2, &answer).await;
        assert!((alone..=2 * alone).contains(&by_two), "{answer:?}: {by_two} and {alone}");
    }
}

/// How often the backend was asked within ten minutes by so many sidecars. None of them frees the key.
async fn asked_by(sidecars: usize, answer: &ProbeReading) -> u32 {
    let scene = Scene::with_route(AN_HOUR);
    let operation = operation(1, HOLD);
    run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    let (counts, plans) = slow(&scene, Duration::from_secs(1), answer);
    let guards = [Arc::clone(&scene.guard), scene.sibling()];
    let probe = scene.rule.probe.as_ref().expect("a probe");
    let repeats = guards.iter().zip(&plans).take(sidecars).flat_map(|each| [each; 10]).map(|(guard, plan)| {
        let (guard, rule, probe) = (Arc::clone(guard), Arc::clone(&scene.rule), Arc::clone(probe));
        let (operation, plan) = (operation.clone(), Arc::clone(plan));
        tokio::spawn(async move { guard.probe_for_repeat(&rule, &probe, &operation, Some(plan)).await })
    });
    for repeat in repeats.collect::<Vec<_>>() {
        assert_eq!(repeat.await.expect("no panic"), Verdict::OutcomeUnknown);
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    let [asked, _, most] = &*counts;
    assert_eq!(most.load(Ordering::SeqCst), 1, "never two at once");
    asked.load(Ordering::SeqCst)
}

/// One that died while it asked keeps the others waiting for `timeout` and two seconds.
#[tokio::test(start_paused = true)]
async fn who_dies_while_it_asks_is_not_long_in_the_way_of_others() {
    let scene = Scene::with_route(PROBE);
    let operation = operation(1, HOLD);
    run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    let timeout = scene.rule.probe.as_ref().expect("a probe").timeout;
    let lock = ProbeLock::new(&operation.name, timeout);
    assert!(lock.take(&*scene.store).await.expect("the store answers"));
    let (hosts, ask) = backend(|_| now(found()));
    let plan = plan(&scene, ProbedBy::Another, ProbeHost::Known(None), ask);
    let begun = tokio::time::Instant::now();
    let refused = scene.guard.probe_by_hand(&operation.name, &plan).await;
    assert_eq!(refused, NextAnswer::Came(ProbeOutcome::NotAsked(NotAsked::AnotherAsks)));
    until_final(&scene, &operation, &plan).await;
    let took = begun.elapsed();
    assert!(took >= timeout + Duration::from_secs(2) && took < timeout + Duration::from_secs(5), "{took:?}");
    assert_eq!(count(&hosts), 1);
}

/// A sidecar whose answers tell nothing, as it is cut off from the backend or has an old credential, keeps nobody from asking.
#[tokio::test(start_paused = true)]
async fn who_learns_nothing_leaves_the_next_question_to_others() {
    for why in [Inconclusive::Unsent, Inconclusive::TimedOut, Inconclusive::Status(401)] {
        let scene = Scene::with_route(PROBE);
        let operation = operation(1, HOLD);
        run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
        let (_, ask) = backend(move |_| now(ProbeReading::Inconclusive(why)));
        let in_vain = plan(&scene, ProbedBy::Another, ProbeHost::Known(None), ask);
        let came = scene.guard.probe_by_hand(&operation.name, &in_vain).await;
        assert_eq!(came, NextAnswer::Came(ProbeOutcome::Inconclusive(why)));
        let (hosts, ask) = backend(|_| now(found()));
        let learns = plan(&scene, ProbedBy::Another, ProbeHost::Known(None), ask);
        let found = scene.sibling().probe_by_hand(&operation.name, &learns).await;
        assert_eq!(
            (found, count(&hosts)),
            (NextAnswer::Came(ProbeOutcome::Completed(StatusCode::CREATED)), 1),
            "{why}"
        );
    }
}

/// Repeats come until it is known what became of the first request.
async fn until_final(scene: &Scene, operation: &Operation, plan: &Arc<ProbePlan>) {
    let probe = scene.rule.probe.as_ref().expect("a probe");
    while phase(scene, operation).await == Some(Phase::Unknown) {
        scene.guard.probe_for_repeat(&scene.rule, probe, operation, Some(Arc::clone(plan))).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A looker that has seen an absence loses its lock, and is refused: it keeps what it has seen, and its second one counts.
#[tokio::test]
async fn who_is_refused_between_two_absences_keeps_the_first() {
    let scene = Scene::with_route(PROBE);
    let operation = operation(1, HOLD);
    run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    let lock = operation.name.probe_lock();
    let other = Arc::new(ProbeLock::new(&operation.name, Duration::from_secs(60)));
    let (store, name, takes) = (Arc::clone(&scene.store), lock.clone(), Arc::clone(&other));
    let (hosts, ask) = backend(move |count| {
        let (store, name, takes) = (Arc::clone(&store), name.clone(), Arc::clone(&takes));
        Box::pin(async move {
            if count == 1 {
                let held = store.find(&name).await.expect("the store answers").expect("a lock");
                store.release(&name, held.record.claim.token).await.expect("the store answers");
                assert!(takes.take(&*store).await.expect("the store answers"));
            }
            ProbeReading::Absent
        })
    });
    let plan = plan(&scene, ProbedBy::Another, ProbeHost::Known(None), ask);
    // The first one counts.
    tokio::time::sleep(Duration::from_millis(5)).await;
    scene.guard.probe_by_hand(&operation.name, &plan).await;
    let refused = ProbeOutcome::NotAsked(NotAsked::AnotherAsks);
    let asks = scene.guard.probes.known(&operation.name).expect("it goes on");
    loop {
        match asks.next_answer(Duration::from_secs(9)).await {
            NextAnswer::Came(last) | NextAnswer::NotDue { last, .. } if last == refused => break,
            NextAnswer::NotDue { .. } => tokio::time::sleep(Duration::from_millis(1)).await,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((count(&hosts), phase(&scene, &operation).await), (1, Some(Phase::Unknown)), "another has the lock");
    other.release(&*scene.store).await;
    over(&scene, &operation).await;
    assert_eq!((count(&hosts), phase(&scene, &operation).await), (2, None), "the second one frees the key");
    assert_eq!(scene.store.find(&lock).await.expect("the store answers"), None);
}

/// Nobody asks without the lock, and what is not asked is asked later.
#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_for_the_lock_is_asked_again_before_the_backend_is() {
    let scene = Scene::with_route(PROBE);
    let operation = operation(1, HOLD);
    run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    for fault in [Fault::Refused, Fault::RequestLost, Fault::AnswerLost, Fault::Unacknowledged] {
        scene.store.renewals.next([fault]);
    }
    let (hosts, ask) = backend(|_| now(found()));
    let plan = plan(&scene, ProbedBy::Another, ProbeHost::Known(None), ask);
    let refused = scene.guard.probe_by_hand(&operation.name, &plan).await;
    assert_eq!((refused, count(&hosts)), (NextAnswer::Came(ProbeOutcome::NotAsked(NotAsked::Store)), 0));
    over(&scene, &operation).await;
    assert_eq!((count(&hosts), phase(&scene, &operation).await), (1, Some(Phase::Unreplayable)));
    assert_eq!(scene.store.renewals.left(), 0);
    // Nothing of it is left.
    assert_eq!(scene.store.find(&operation.name.probe_lock()).await.expect("the store answers"), None);
}
