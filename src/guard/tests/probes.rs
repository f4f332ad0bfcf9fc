//! Runs that ask the backend about a record.

mod turns;

use std::time::Instant;

use http::HeaderValue;

use super::*;
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
