//! Runs that ask the backend about a record.

use std::time::Instant;

use http::HeaderValue;

use super::*;
use crate::guard::probe::ProbeLock;
use crate::guard::{Inconclusive, NextAnswer, NotAsked, ProbeHost, ProbeOutcome, ProbePlan, ProbeReading, ProbedBy};
use crate::key::{NoProbe, OperationProbe, ProbeValues};
use crate::record::Phase;
use crate::record::probe::ProbeFacts;

const PROBE: &str = "[route.probe]\npath = \"/orders?k={key}\"\nafter = \"1ms\"\n\
    found = { status = [\"200\"], json = \"/id\" }\nabsent = { status = [\"404\"], json = \"/error\" }";

/// An absence counts after an hour.
const AN_HOUR: &str = "[route.probe]\npath = \"/orders?k={key}\"\nafter = \"1h\"\n\
    found = { status = [\"200\"], json = \"/id\" }\nabsent = { status = [\"404\"], json = \"/error\" }";

type Answering = std::pin::Pin<Box<dyn Future<Output = ProbeReading> + Send>>;
type Hosts = Arc<Mutex<Vec<Option<HeaderValue>>>>;

/// A backend that answers each question by its number, and the hosts that it was asked for.
fn backend(answer: impl Fn(usize) -> Answering + Send + Sync + 'static) -> (Hosts, crate::guard::AskFn) {
    let hosts = Hosts::default();
    let asked = Arc::clone(&hosts);
    let ask = move |target: String, host| {
        assert_eq!(target, "/orders?k=k");
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(host);
        answer(asked.len())
    };
    (hosts, Box::new(ask))
}

fn count(hosts: &Hosts) -> usize {
    hosts.lock().unwrap_or_else(PoisonError::into_inner).len()
}

fn plan(scene: &Scene, by: ProbedBy, host: ProbeHost, ask: crate::guard::AskFn) -> Arc<ProbePlan> {
    let values = Some(Ok(ProbeValues::kept(vec![("key".to_owned(), b"k".to_vec())])));
    let probe = Arc::clone(scene.rule.probe.as_ref().expect("a probe"));
    Arc::new(ProbePlan { probe, attempt_timeout: Duration::from_millis(1), by, values, host, ask })
}

fn found() -> ProbeReading {
    let SendOutcome::Answered(found) = created() else { unreachable!("it is an answer") };
    ProbeReading::Found(found.reply)
}

fn now(reading: ProbeReading) -> Answering {
    Box::pin(async move { reading })
}

/// What others need to ask, with this host.
fn kept(host: Option<&'static str>) -> Option<Box<OperationProbe>> {
    let values = vec![("key".to_owned(), b"k".to_vec())];
    let mut facts = ProbeFacts { attempt_timeout: Duration::from_millis(1), values };
    if let Some(host) = host {
        facts.add_host(&HeaderValue::from_static(host));
    }
    Some(Box::new(OperationProbe { values: Err(NoProbe::NoKey), kept: Some(facts) }))
}

/// Waits until nobody asks about this record any more.
async fn over(scene: &Scene, operation: &Operation) {
    while scene.guard.probes.known(&operation.name).is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn phase(scene: &Scene, operation: &Operation) -> Option<Phase> {
    scene.held(operation).await.map(|held| held.record.summary().phase)
}

/// The key is freed while the backend is asked, and the next attempt under it ends unknown, too. What is learnt of the
/// first one says nothing of it.
#[tokio::test(start_paused = true)]
async fn a_run_is_about_one_attempt_and_no_other() {
    for by in [ProbedBy::Owner, ProbedBy::Another] {
        for then in [ProbeReading::Absent, found()] {
            let scene = Scene::with_route(PROBE);
            let operation = operation(1, HOLD);
            let gate = Arc::new(Notify::new());
            let (opens, answer) = (Arc::clone(&gate), then.clone());
            let (hosts, ask) = backend(move |count| {
                let (opens, answer) = (Arc::clone(&opens), answer.clone());
                Box::pin(async move {
                    if count > 1 {
                        return answer;
                    }
                    opens.notified().await;
                    ProbeReading::Inconclusive(Inconclusive::Unanswered)
                })
            });
            let plan = plan(&scene, by, ProbeHost::Known(None), ask);
            let ownership = scene.own(&operation).await;
            if by == ProbedBy::Owner {
                ownership.ask_if_unknown(Arc::clone(&plan));
            }
            run(ownership, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
            let by_hand = (by == ProbedBy::Another).then(|| {
                let (guard, name) = (Arc::clone(&scene.guard), operation.name.clone());
                tokio::spawn(async move { guard.probe_by_hand(&name, &plan).await })
            });
            while count(&hosts) == 0 {
                tokio::task::yield_now().await;
            }
            let seen = scene.held(&operation).await.expect("a record").seen();
            let freed = CompareAndSwap { seen, to: None };
            let freed = scene.store.compare_and_swap(&operation.name, &freed).await.expect("the store answers");
            assert_eq!(freed, SwapResult::Done);
            let next = scene.own_elsewhere(&operation).await;
            run(next, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
            gate.notify_one();
            over(&scene, &operation).await;
            assert_eq!(phase(&scene, &operation).await, Some(Phase::Unknown), "{by:?} {then:?}");
            assert_eq!(count(&hosts), 1, "{by:?} {then:?}");
            drop(by_hand);
        }
    }
}

/// The run about an earlier attempt waits for its next question, and is not in the way of the next owner's.
#[tokio::test(start_paused = true)]
async fn an_owner_asks_about_its_attempt_though_another_one_is_asked_about() {
    let scene = Scene::with_route(PROBE);
    let operation = operation(1, HOLD);
    let (_, in_vain) = backend(|_| now(ProbeReading::Inconclusive(Inconclusive::Unanswered)));
    let ownership = scene.own(&operation).await;
    ownership.ask_if_unknown(plan(&scene, ProbedBy::Owner, ProbeHost::Known(None), in_vain));
    run(ownership, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    let seen = scene.held(&operation).await.expect("a record").seen();
    let freed = CompareAndSwap { seen, to: None };
    assert_eq!(scene.store.compare_and_swap(&operation.name, &freed).await.expect("an answer"), SwapResult::Done);
    let (hosts, ask) = backend(|_| now(found()));
    let next = scene.own(&operation).await;
    next.ask_if_unknown(plan(&scene, ProbedBy::Owner, ProbeHost::Known(None), ask));
    run(next, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    over(&scene, &operation).await;
    assert_eq!((count(&hosts), phase(&scene, &operation).await), (1, Some(Phase::Unreplayable)));
}

/// The host of the first request is kept with its record. Without it, nobody guesses.
#[tokio::test(start_paused = true)]
async fn others_ask_for_the_host_of_the_first_request_or_not_at_all() {
    let own = || ProbeHost::Known(Some(HeaderValue::from_static("of.this.route")));
    for (kept, fixed, expected) in [
        (kept(Some("a.example")), ProbeHost::Kept, Ok(Some("a.example"))),
        (kept(Some("a.example")), own(), Ok(Some("a.example"))),
        // The upstream's own was sent.
        (kept(None), ProbeHost::Kept, Ok(None)),
        (kept(None), own(), Ok(None)),
        (None, ProbeHost::Kept, Err(NotAsked::HostNotKept)),
        (None, ProbeHost::Known(None), Ok(None)),
    ] {
        let scene = Scene::with_route(PROBE);
        let mut operation = operation(1, HOLD);
        operation.probe = kept;
        run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
        let (hosts, ask) = backend(|_| now(found()));
        let outcome = scene.guard.probe_by_hand(&operation.name, &plan(&scene, ProbedBy::Another, fixed, ask)).await;
        let hosts = hosts.lock().expect("no panic").clone();
        match expected {
            Ok(host) => {
                assert_eq!(outcome, NextAnswer::Came(ProbeOutcome::Completed(StatusCode::CREATED)));
                assert_eq!(hosts, [host.map(HeaderValue::from_static)]);
            }
            Err(why) => assert_eq!((outcome, hosts), (NextAnswer::Came(ProbeOutcome::NotAsked(why)), Vec::new())),
        }
    }
}

/// How long the attempt may take is by the configuration that its owner had.
#[tokio::test(start_paused = true)]
async fn others_ask_about_a_lost_owner_only_with_what_it_has_kept() {
    for (probe, outcome) in [
        (None, ProbeOutcome::NotAsked(NotAsked::TimeoutNotKept)),
        (kept(None), ProbeOutcome::Completed(StatusCode::CREATED)),
    ] {
        let scene = Scene::with_route(PROBE);
        let operation = Operation { probe, ..operation(1, HOLD) };
        let _lost = scene.own_elsewhere(&operation).await;
        tokio::time::sleep(LEASE).await;
        let (_, ask) = backend(|_| now(found()));
        let plan = plan(&scene, ProbedBy::Another, ProbeHost::Known(None), ask);
        assert_eq!(scene.guard.probe_by_hand(&operation.name, &plan).await, NextAnswer::Came(outcome));
    }
}

/// The write is made, and its answer is lost: it is made again, finds itself, and the backend is asked.
#[tokio::test(start_paused = true)]
async fn an_owner_asks_also_where_the_answer_of_its_write_was_lost() {
    let scene = Scene::with_route(PROBE);
    let operation = operation(1, HOLD);
    let (hosts, ask) = backend(|_| now(found()));
    let ownership = scene.own(&operation).await;
    ownership.ask_if_unknown(plan(&scene, ProbedBy::Owner, ProbeHost::Known(None), ask));
    scene.store.settlements.next([Fault::AnswerLost]);
    run(ownership, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    tokio::time::sleep(LEASE).await;
    assert_eq!((count(&hosts), phase(&scene, &operation).await), (1, Some(Phase::Unreplayable)));
}

/// A defect in a question is the end of its run, and not of all questions about the record.
#[tokio::test(start_paused = true)]
async fn a_record_is_asked_about_again_after_a_panic() {
    let scene = Scene::with_route(PROBE);
    let operation = operation(1, HOLD);
    run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    let (hosts, ask) = backend(|count| {
        Box::pin(async move {
            assert!(count > 1, "a test asked for a panic");
            found()
        })
    });
    let plan = plan(&scene, ProbedBy::Another, ProbeHost::Known(None), ask);
    let begun = tokio::time::Instant::now();
    assert_eq!(scene.guard.probe_by_hand(&operation.name, &plan).await, NextAnswer::Never);
    assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waits for it");
    // Its lock ends by itself.
    tokio::time::sleep(plan.probe.timeout + Duration::from_secs(2)).await;
    let again = scene.guard.probe_by_hand(&operation.name, &plan).await;
    let found = NextAnswer::Came(ProbeOutcome::Completed(StatusCode::CREATED));
    assert_eq!((again, count(&hosts)), (found, 2));
}

/// A run that is replaced, or that the process stops, ends without its last word: whoever waits for that ends, too.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_run_that_ends_without_a_word() {
    for stops in [true, false] {
        let scene = Scene::with_route(AN_HOUR);
        let operation = operation(1, HOLD);
        run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
        let (hosts, ask) = backend(|_| now(ProbeReading::Absent));
        let plan = plan(&scene, ProbedBy::Another, ProbeHost::Known(None), ask);
        let came = scene.guard.probe_by_hand(&operation.name, &plan).await;
        assert!(matches!(came, NextAnswer::Came(ProbeOutcome::Absent(_))), "{came:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The next question may be asked now, and is not.
        let current = scene.guard.probes.known(&operation.name).expect("it goes on");
        if stops {
            scene.guard.abandon();
        } else {
            let claim = scene.held(&operation).await.expect("a record").record.claim;
            scene.guard.begin_probe(&operation.name, &claim, &plan);
        }
        let begun = tokio::time::Instant::now();
        assert_eq!(current.next_answer(Duration::from_secs(3600)).await, NextAnswer::Never, "{stops}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{stops}: {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The owner has asked since.
        assert_eq!(count(&hosts), if stops { 1 } else { 2 }, "{stops}");
    }
}

/// Whoever waits is told what became of the question: it is not over, it is not due, or it has been over for a while.
#[tokio::test(start_paused = true)]
async fn whoever_waits_for_an_answer_is_told_why_there_is_none() {
    let scene = Scene::with_route(AN_HOUR);
    let operation = operation(1, HOLD);
    run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    let gate = Arc::new(Notify::new());
    let opens = Arc::clone(&gate);
    let (hosts, ask) = backend(move |_| {
        let opens = Arc::clone(&opens);
        Box::pin(async move {
            opens.notified().await;
            ProbeReading::Absent
        })
    });
    let plan = plan(&scene, ProbedBy::Another, ProbeHost::Known(None), ask);
    let begun = tokio::time::Instant::now();
    assert_eq!(scene.guard.probe_by_hand(&operation.name, &plan).await, NextAnswer::Outstanding);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    // A repeat waits for `timeout`, and no longer.
    let (rule, probe) = (&scene.rule, scene.rule.probe.as_ref().expect("a probe"));
    let begun = tokio::time::Instant::now();
    let verdict = scene.guard.probe_for_repeat(rule, probe, &operation, Some(Arc::clone(&plan))).await;
    assert_eq!((verdict, begun.elapsed()), (Verdict::OutcomeUnknown, probe.timeout));
    let (guard, name, another) = (Arc::clone(&scene.guard), operation.name.clone(), Arc::clone(&plan));
    let waiting = tokio::spawn(async move { guard.probe_by_hand(&name, &another).await });
    tokio::task::yield_now().await;
    gate.notify_one();
    let NextAnswer::Came(last @ ProbeOutcome::Absent(_)) = waiting.await.expect("no panic") else { panic!("absent") };
    let (due_in, begun) = (Duration::from_secs(1), tokio::time::Instant::now());
    let at_once = scene.guard.probe_by_hand(&operation.name, &plan).await;
    assert_eq!((at_once, begun.elapsed()), (NextAnswer::NotDue { last, due_in }, Duration::ZERO));
    assert_eq!(count(&hosts), 1);
}

/// Between the second absence and the exchange the process stands still for as long as the owner had been silent. The
/// owner may have been back, and lost again.
#[tokio::test]
async fn a_key_is_not_freed_by_one_who_was_away_for_as_long_as_its_owner() {
    for is_away in [true, false] {
        let scene = Scene::with_route(PROBE);
        let mut operation = operation(1, HOLD);
        operation.terms.lease = Duration::from_millis(20);
        operation.probe = kept(None);
        let begun = Instant::now();
        let _lost = scene.own_elsewhere(&operation).await;
        let store = Arc::clone(&scene.store);
        let (_, ask) = backend(move |_| {
            // The line for the audit is written next.
            let mut plan = store.settlements.0.lock().expect("no panic");
            plan.clear();
            if is_away {
                plan.push_back(Fault::Asleep(begun.elapsed()));
            }
            now(ProbeReading::Absent)
        });
        tokio::time::sleep(Duration::from_millis(25)).await;
        let plan = plan(&scene, ProbedBy::Another, ProbeHost::Known(None), ask);
        scene.guard.probe_by_hand(&operation.name, &plan).await;
        over(&scene, &operation).await;
        let expected = if is_away { Some(Phase::InFlight) } else { None };
        assert_eq!(phase(&scene, &operation).await, expected);
        let lines = crate::guard::audit::read(&*scene.store, &operation.name).await.expect("lines");
        let why = lines.iter().map(|line| line.not_done.as_deref()).next_back().expect("a line");
        assert_eq!(why, is_away.then_some("it took so long that its owner may have been back"));
    }
}

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

/// A record that cannot be read does not get better by trying.
#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_is_not_asked_about() {
    let scene = Scene::with_route(PROBE);
    let operation = operation(1, HOLD);
    run(scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    let (hosts, ask) = backend(|_| now(found()));
    let plan = plan(&scene, ProbedBy::Another, ProbeHost::Known(None), ask);
    scene.store.finds.next([Fault::Unreadable]);
    let refused = scene.guard.probe_by_hand(&operation.name, &plan).await;
    assert_eq!(refused, NextAnswer::Came(ProbeOutcome::NotAsked(NotAsked::Unreadable)));
    assert!(scene.guard.probes.known(&operation.name).is_none(), "it is not tried again");
    assert_eq!(count(&hosts), 0);
}
