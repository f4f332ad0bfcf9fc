//! Owners, and what becomes of what they do.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use super::*;

#[tokio::test(start_paused = true)]
async fn one_of_many_runs_and_the_others_get_its_answer() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    let ownership = scene.own(&operation).await;
    for _ in 0..3 {
        assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
    }
    assert_eq!(body(&run(ownership, created()).await.expect("an end")), b"order 1");
    assert!(
        matches!(scene.repeat(&operation).await, Verdict::Replay(reply, _) if reply.0.body.pieces().concat() == b"order 1")
    );
    assert!(scene.counts(r#"onlyonce_records_total{route="orders",state="completed"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn what_certainly_did_not_run_frees_the_key() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    assert!(matches!(run(scene.own(&operation).await, SendOutcome::NotSent).await, Some(AttemptResult::NotSent)));
    assert_eq!(scene.held(&operation).await, None);
    let failed = run(scene.own(&operation).await, answer(StatusCode::INTERNAL_SERVER_ERROR, "no")).await;
    assert_eq!(body(&failed.expect("an end")), b"no");
    scene.own(&operation).await;
}

#[tokio::test(start_paused = true)]
async fn what_may_have_run_is_held_or_left_for_a_takeover() {
    let scene = Scene::new();
    let held = operation(1, HOLD);
    assert!(matches!(
        run(scene.own(&held).await, SendOutcome::Unknown(LostReason::Broken)).await,
        Some(AttemptResult::Lost(_))
    ));
    assert_eq!(scene.repeat(&held).await, Verdict::OutcomeUnknown);

    let retried = operation(2, UnknownPolicy::Retry);
    assert!(matches!(
        run(scene.own(&retried).await, SendOutcome::Unknown(LostReason::Broken)).await,
        Some(AttemptResult::Lost(_))
    ));
    assert_eq!(scene.repeat(&retried).await, Verdict::InFlight);
    tokio::time::sleep(LEASE).await;
    assert_eq!(scene.own(&retried).await.attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_never_came_to_the_gate_was_not_sent() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    let late = scene
        .own(&operation)
        .await
        .run(trace::Parent::default(), |_: SendFence| async { SendOutcome::<()>::Unknown(LostReason::Timeout) });
    assert!(matches!(late.await, Some(AttemptResult::NotSent)));
    assert_eq!(scene.held(&operation).await, None);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_many_leases_is_never_run_twice() {
    let (scene, operation, end) = (Scene::new(), operation(1, UnknownPolicy::Retry), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, created());
    for _ in 0..20 {
        tokio::time::sleep(LEASE / 2).await;
        assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
    }
    end.notify_one();
    assert_eq!(body(&ended.await.expect("an end")), b"order 1");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_does_not_end_the_attempt() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    scene.store.renewals.next([Fault::Refused; 6]);
    let ended = run_until(scene.own(&operation).await, &end, created());
    tokio::time::sleep(LEASE * 3 / 2).await;
    // Other sidecars cannot know that the owner is alive. This process can.
    let elsewhere = scene.sibling().claim(&scene.rule, &operation).await;
    assert!(matches!(elsewhere, Ok(Admission::Repeat(Verdict::OutcomeUnknown))));
    assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
    tokio::time::sleep(LEASE).await;
    assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
    end.notify_one();
    ended.await.expect("an end");
    assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(..)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_changes_nothing() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    drop(run_until(scene.own(&operation).await, &end, created()));
    end.notify_one();
    scene.guard.recorded().await;
    assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(..)));
}

/// Wherever it is by then, and whatever drops it.
#[tokio::test(start_paused = true)]
async fn whoever_polls_an_attempt_may_go_at_every_step() {
    for turns in 0.. {
        let (scene, operation) = (Scene::new(), operation(1, HOLD));
        let sends = Arc::new(AtomicU32::new(0));
        let mut running = scene.own(&operation).await.run(trace::Parent::default(), {
            let sends = Arc::clone(&sends);
            move |fence| async move {
                tokio::task::yield_now().await;
                assert!(fence.may_send().await);
                sends.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                created()
            }
        });
        let mut ended = None;
        for _ in 0..turns {
            if let Poll::Ready(end) = poll_fn(|cx| Poll::Ready(Pin::new(&mut running).poll(cx))).await {
                ended = Some(end);
                break;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(scene.guard.at_work(), usize::from(ended.is_none()));
        match turns % 3 {
            // On a thread that knows of no runtime.
            0 => std::thread::spawn(move || drop(running)).join().expect("no panic"),
            // By a panic.
            1 => drop(
                tokio::spawn(async move {
                    let _running = running;
                    panic!("by plan");
                })
                .await
                .expect_err("a panic"),
            ),
            _ => drop(running),
        }
        scene.guard.recorded().await;
        assert_eq!(sends.load(Ordering::Relaxed), 1);
        assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(..)), "after {turns} turns");
        if ended.is_some() {
            assert!(turns > 4, "{turns}");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_without_its_client_is_no_work_that_is_left() {
    for is_told in [false, true] {
        let (scene, operation) = (Scene::new(), operation(1, HOLD));
        let running = scene.own(&operation).await.run(trace::Parent::default(), |fence: SendFence| async move {
            fence.may_send().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            panic!("by plan");
            #[expect(unreachable_code, reason = "tells the type")]
            SendOutcome::<()>::NotSent
        });
        match is_told {
            true => assert!(running.detach().await.is_err()),
            false => drop(running),
        }
        scene.guard.recorded().await;
        assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
        assert_eq!(scene.guard.wait(&scene.rule, &operation, Duration::from_secs(1)).await, Some(Verdict::InFlight));
    }
}

#[test]
fn an_attempt_that_is_dropped_with_its_runtime_is_left_to_its_lease() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (first, second) = (runtime(), runtime());
    let (scene, operation) = (second.block_on(async { Scene::new() }), operation(1, HOLD));
    let never = Arc::new(Notify::new());
    #[expect(clippy::async_yields_async, reason = "it is dropped without its runtime")]
    let running = first.block_on(async {
        let until = Arc::clone(&never);
        let ownership = scene.own(&operation).await;
        let mut running = ownership.run(trace::Parent::default(), move |fence| async move {
            let outcome = sent(fence, created()).await;
            until.notified().await;
            outcome
        });
        assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut running).poll(cx))).await.is_pending());
        running
    });
    drop(first);
    drop(running);
    assert_eq!(scene.guard.at_work(), 0);
    assert_eq!(second.block_on(scene.repeat(&operation)), Verdict::InFlight);
}

#[tokio::test(start_paused = true)]
async fn an_ownership_that_is_not_used_is_given_back() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    let ownership = scene.own(&operation).await;
    assert_eq!(ownership.attempt(), 1);
    drop(ownership);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.held(&operation).await, None);
}

#[tokio::test(start_paused = true)]
async fn the_answer_is_delivered_and_recording_is_tried_until_it_is_done() {
    for fault in [Fault::Refused, Fault::RequestLost, Fault::AnswerLost] {
        let (scene, operation) = (Scene::new(), operation(1, HOLD));
        scene.store.settlements.next([fault; 5]);
        assert_eq!(body(&run(scene.own(&operation).await, created()).await.expect("an end")), b"order 1");
        scene.guard.recorded().await;
        assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(..)), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_is_tried_until_it_is_done() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    scene.store.releases.next([Fault::Refused; 5]);
    run(scene.own(&operation).await, SendOutcome::NotSent).await.expect("an end");
    scene.guard.recorded().await;
    assert_eq!(scene.held(&operation).await, None);
}

/// The first try freed the key, and a repeat has claimed it when the second comes. Nobody took anything over.
#[tokio::test(start_paused = true)]
async fn a_release_whose_answer_is_lost_is_no_lost_lease() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    let first = scene.own(&operation).await;
    scene.store.releases.next([Fault::AnswerLost, Fault::Slow(LEASE / 10)]);
    run(first, SendOutcome::NotSent).await.expect("an end");
    let Ok(Admission::Owner(_repeat)) = scene.sibling().claim(&scene.rule, &operation).await else {
        panic!("the key is free")
    };
    scene.guard.recorded().await;
    assert!(scene.held(&operation).await.is_some(), "the repeat keeps its claim");
    assert!(scene.counts(r#"onlyonce_lease_lost_total{route="orders"} 0"#));
}

#[tokio::test(start_paused = true)]
async fn a_release_is_not_undone_by_its_own_owner() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    // Tried again, it is done at once, and a renewal would come before its answer.
    scene.store.releases.next([Fault::Refused, Fault::Slow(LEASE / 2)]);
    run(scene.own(&operation).await, SendOutcome::NotSent).await.expect("an end");
    scene.guard.recorded().await;
    assert_eq!(scene.held(&operation).await, None);
}

#[tokio::test(start_paused = true)]
async fn every_client_of_a_key_gets_the_answer_that_was_recorded_first() {
    let (scene, operation, end) = (Scene::new(), operation(1, UnknownPolicy::Retry), Arc::new(Notify::new()));
    scene.store.renewals.next([Fault::Refused; 4]);
    let stalled = run_until(scene.own(&operation).await, &end, answer(StatusCode::CREATED, "stalled"));
    tokio::time::sleep(LEASE + Duration::from_millis(1)).await;
    let sibling = scene.sibling();
    let Ok(Admission::Owner(taker)) = sibling.claim(&scene.rule, &operation).await else { panic!("a lost owner") };
    assert_eq!(body(&run(taker, answer(StatusCode::CREATED, "taker")).await.expect("an end")), b"taker");
    end.notify_one();
    let ended = stalled.await.expect("an end");
    assert!(matches!(ended, AttemptResult::Recorded(_)));
    assert_eq!(body(&ended), b"taker");
    assert!(scene.counts(r#"onlyonce_lease_lost_total{route="orders"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_the_answer_to_another_request() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, answer(StatusCode::CREATED, "mine"));
    // The store loses the record, and another sidecar carries out another request with the key.
    let token = scene.held(&operation).await.expect("a record").record.claim.token;
    scene.store.store.release(&operation.name, token).await.expect("the store answers");
    let mut other = operation.clone();
    other.fingerprint.body = [9; 16];
    run(scene.own_elsewhere(&other).await, answer(StatusCode::CREATED, "theirs")).await.expect("an end");
    end.notify_one();
    assert_eq!(body(&ended.await.expect("an end")), b"mine");
}

#[tokio::test(start_paused = true)]
async fn that_the_answer_to_another_attempt_is_not_stored_is_no_answer_to_this_one() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, answer(StatusCode::CREATED, "mine"));
    // The store loses the record, and another sidecar runs the request again.
    let token = scene.held(&operation).await.expect("a record").record.claim.token;
    scene.store.store.release(&operation.name, token).await.expect("the store answers");
    let SendOutcome::Answered(theirs) = created() else { unreachable!("it is an answer") };
    let oversized = SendOutcome::Answered(ReceivedResponse { rest: BodyRemainder::Oversized(()), ..theirs });
    run(scene.own_elsewhere(&operation).await, oversized).await.expect("an end");
    end.notify_one();
    assert_eq!(body(&ended.await.expect("an end")), b"mine");
    assert!(matches!(scene.repeat(&operation).await, Verdict::AlreadyCompleted(_)));
}

#[tokio::test(start_paused = true)]
async fn whoever_writes_the_outcome_stays_the_owner_however_long_that_takes() {
    for on_unknown in [HOLD, UnknownPolicy::Retry] {
        let (scene, operation) = (Scene::new(), operation(1, on_unknown));
        // A large answer over a slow link.
        scene.store.settlements.next([Fault::Late(LEASE * 3)]);
        let ended = run(scene.own(&operation).await, created()).detach();
        for _ in 0..5 {
            tokio::time::sleep(LEASE / 2).await;
            assert_eq!(scene.held(&operation).await.expect("a record").owner(), OwnerState::Alive);
        }
        assert_eq!(body(&ended.await.expect("an end")), b"order 1");
        assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(..)));
        assert!(!scene.counts(r#"onlyonce_lease_lost_total{route="orders"} 1"#));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_knows_the_outcome_stays_the_owner_until_it_is_recorded() {
    for on_unknown in [HOLD, UnknownPolicy::Retry] {
        let (scene, operation) = (Scene::new(), operation(1, on_unknown));
        // Longer than a lease: recording is tried about once in a second.
        scene.store.settlements.next([Fault::Refused; 90]);
        assert_eq!(body(&run(scene.own(&operation).await, created()).await.expect("an end")), b"order 1");
        tokio::time::sleep(LEASE + LEASE / 2).await;
        assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
        scene.guard.recorded().await;
        assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(..)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_meets_its_own_outcome_has_lost_nothing() {
    for on_unknown in [HOLD, UnknownPolicy::Retry] {
        let (scene, operation) = (Scene::new(), operation(1, on_unknown));
        // Written, and the answer is lost; then the store is away for longer than it takes to renew.
        scene.store.settlements.next([Fault::AnswerLost]);
        scene.store.settlements.next([Fault::RequestLost; 30]);
        run(scene.own(&operation).await, created()).await.expect("an end");
        scene.guard.recorded().await;
        assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(..)));
        assert!(!scene.counts(r#"onlyonce_lease_lost_total{route="orders"} 1"#));
        assert!(scene.counts(r#"onlyonce_records_total{route="orders",state="completed"} 1"#));
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_was_replaced_answers_with_its_own_response() {
    let (scene, operation, end) = (Scene::new(), operation(1, UnknownPolicy::Retry), Arc::new(Notify::new()));
    scene.store.renewals.next([Fault::Refused; 4]);
    let stalled = run_until(scene.own(&operation).await, &end, answer(StatusCode::CREATED, "stalled"));
    tokio::time::sleep(LEASE + Duration::from_millis(1)).await;
    let taker = scene.own(&operation).await;
    end.notify_one();
    assert_eq!(body(&stalled.await.expect("an end")), b"stalled");
    let record = scene.held(&operation).await.expect("a record").record;
    assert_eq!((record.state, record.claim.attempt), (State::InFlight, 2));
    assert!(scene.counts(r#"onlyonce_lease_lost_total{route="orders"} 1"#));
    drop(taker);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_the_record_gets_it_again() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, created());
    let token = scene.held(&operation).await.expect("a record").record.claim.token;
    scene.store.store.release(&operation.name, token).await.expect("the store answers");
    tokio::time::sleep(LEASE / 2).await;
    assert_eq!(scene.repeat(&operation).await, Verdict::InFlight, "the renewal claims again");
    scene.store.store.release(&operation.name, token).await.expect("the store answers");
    end.notify_one();
    ended.await.expect("an end");
    assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(..)), "settling writes where nothing is");
}

#[tokio::test]
async fn before_the_first_byte_an_old_hold_is_renewed_or_nothing_is_sent() {
    const SHORT: Duration = Duration::from_millis(100);
    // A renewal that is itself too old when its answer is read says nothing of now.
    for fault in [None, Some(Fault::Refused), Some(Fault::Asleep(SHORT * 3 / 5))] {
        let scene = Scene::new();
        let mut operation = operation(1, HOLD);
        operation.terms.lease = SHORT;
        let ownership = scene.own(&operation).await;
        // On the machine's own clock: it must count through suspend, so a paused one cannot stand in for it.
        std::thread::sleep(SHORT * 3 / 5);
        scene.store.renewals.next(fault);
        let ended = run(ownership, created()).await.expect("an end");
        match fault {
            None => assert_eq!(body(&ended), b"order 1"),
            Some(_) => assert!(matches!(ended, AttemptResult::InDoubt)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_releases_nothing() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    let ended = scene.own(&operation).await.run(trace::Parent::default(), |fence: SendFence| async move {
        fence.may_send().await;
        panic!("by plan");
        #[expect(unreachable_code, reason = "tells the type")]
        SendOutcome::<()>::NotSent
    });
    assert!(ended.await.is_none());
    assert_eq!(scene.guard.at_work(), 0);
    assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
    tokio::time::sleep(LEASE).await;
    assert_eq!(scene.repeat(&operation).await, Verdict::OutcomeUnknown);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_runs_out_settles_what_is_left() {
    let scene = Scene::new();
    let (sent, unsent, never) = (operation(1, HOLD), operation(2, HOLD), Arc::new(Notify::new()));
    let first = run_until(scene.own(&sent).await, &never, created());
    let second = scene
        .own(&unsent)
        .await
        .run(trace::Parent::default(), |_: SendFence| std::future::pending::<SendOutcome<()>>())
        .detach();
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.guard.abandon();
    scene.guard.recorded().await;
    assert!(matches!(first.await, Ok(AttemptResult::Lost(_))));
    assert!(matches!(second.await, Ok(AttemptResult::NotSent)));
    assert_eq!(scene.repeat(&sent).await, Verdict::OutcomeUnknown);
    assert_eq!(scene.held(&unsent).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_runs_out_waits_for_no_renewal() {
    let (scene, operation, never) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    scene.store.renewals.next([Fault::Slow(LEASE / 2)]);
    let ended = run_until(scene.own(&operation).await, &never, created());
    tokio::time::sleep(LEASE / 3 + Duration::from_secs(1)).await;
    let begun = tokio::time::Instant::now();
    scene.guard.abandon();
    scene.guard.recorded().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(matches!(ended.await, Ok(AttemptResult::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn too_much_work_is_refused_before_the_claim() {
    let (scene, never) = (Scene::new(), Arc::new(Notify::new()));
    for key in 0..4 {
        drop(run_until(scene.own(&operation(key, HOLD)).await, &never, created()));
    }
    let refused = scene.guard.claim(&scene.rule, &operation(9, HOLD)).await.err();
    assert!(matches!(refused, Some(ClaimError::Overloaded)));
    assert_eq!(scene.held(&operation(9, HOLD)).await, None);
}
