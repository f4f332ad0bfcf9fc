//! Stories of the protocol, on the memory store, with time that stands still until all are waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::sync::{Notify, oneshot};

use super::{Admission, Answer, ClaimError, Ended, Fate, Gate, Guard, Ownership, Rest, Silence, Verdict};
use crate::config::{self, Rule};
use crate::key::{DigestKey, Operation};
use crate::metrics::Metrics;
use crate::record::moves::{Exchange, Held, Owner};
use crate::record::{Claim, Fingerprint, Record, RecordName, Reply, State, Terms, Token, Unknown};
use crate::store::{
    self, Claimed, Exchanged, Health, Listing, Memory, Page, Released, Renewed, Settled, Store, StoreError,
};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is refused: certainly not done.
    Refused,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It is not done, and nobody can tell.
    RequestLost,
    /// It is done, and the whole process sleeps for this long before it reads the answer.
    Asleep(Duration),
}

/// The memory store, with calls that go wrong by plan.
struct Faulty {
    store: Memory,
    claims: Plan,
    /// The last claim that was asked for.
    claimed: Mutex<Option<Claim>>,
    renewals: Plan,
    settlements: Plan,
    releases: Plan,
}

/// What happens to the next calls; later ones succeed.
#[derive(Default)]
struct Plan(Mutex<VecDeque<Fault>>);

impl Plan {
    fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
    }

    async fn carry_out<T>(&self, call: store::Answer<'_, T>) -> Result<T, StoreError> {
        let fault = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match fault {
            None => call.await,
            Some(Fault::Refused) => Err(StoreError::Unavailable("by plan".into())),
            Some(Fault::RequestLost) => Err(StoreError::Uncertain("by plan".into())),
            Some(Fault::Asleep(time)) => {
                let answer = call.await;
                std::thread::sleep(time);
                answer
            }
            Some(Fault::AnswerLost) => {
                call.await?;
                Err(StoreError::Uncertain("by plan".into()))
            }
        }
    }
}

impl Store for Faulty {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> store::Answer<'a, Claimed> {
        *self.claimed.lock().unwrap_or_else(PoisonError::into_inner) = Some(claim.clone());
        Box::pin(self.claims.carry_out(self.store.claim(name, claim)))
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> store::Answer<'a, Renewed> {
        Box::pin(self.renewals.carry_out(self.store.renew(name, claim)))
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a Record) -> store::Answer<'a, Settled> {
        Box::pin(self.settlements.carry_out(self.store.settle(name, record)))
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> store::Answer<'a, Released> {
        Box::pin(self.releases.carry_out(self.store.release(name, token)))
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> store::Answer<'a, Option<Held>> {
        self.store.find(name)
    }

    fn list<'a>(&'a self, listing: &'a Listing) -> store::Answer<'a, Page> {
        self.store.list(listing)
    }

    fn exchange<'a>(&'a self, name: &'a RecordName, exchange: &'a Exchange) -> store::Answer<'a, Exchanged> {
        self.store.exchange(name, exchange)
    }

    fn subscribe(&self, name: &RecordName) -> Option<store::Changes> {
        self.store.subscribe(name)
    }

    fn digest_key(&self) -> store::Answer<'_, DigestKey> {
        self.store.digest_key()
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}

const LEASE: Duration = Duration::from_secs(30);
const RETENTION: Duration = Duration::from_secs(3600);
const HOLD: Unknown = Unknown::Hold(RETENTION);

/// One sidecar, its store, and one route.
struct Scene {
    store: Arc<Faulty>,
    guard: Arc<Guard>,
    metrics: Arc<Metrics>,
    rule: Arc<Rule>,
}

impl Scene {
    fn new() -> Self {
        Self::with_route("")
    }

    fn with_route(keys: &str) -> Self {
        let text = format!(
            "upstream.url = \"http://127.0.0.1:1\"\nstore.url = \"memory:\"\n\
             [[route]]\nname = \"orders\"\npath = \"/orders\"\nscope = []\n{keys}"
        );
        let config = config::parse("test", &text, &|_| None).expect("a configuration");
        let store = Arc::new(Faulty {
            store: Memory::new(DigestKey::from_bytes([0; 32])),
            claims: Plan::default(),
            claimed: Mutex::default(),
            renewals: Plan::default(),
            settlements: Plan::default(),
            releases: Plan::default(),
        });
        let metrics = Arc::new(Metrics::new(["orders"].into_iter()).expect("metrics"));
        let guard = Guard::new(Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&metrics), 4);
        Self { store, guard, metrics, rule: Arc::clone(&config.routes.rules()[0]) }
    }

    /// A second sidecar on the same store.
    fn sibling(&self) -> Arc<Guard> {
        Guard::new(Arc::clone(&self.store) as Arc<dyn Store>, Arc::clone(&self.metrics), 4)
    }

    async fn admit(&self, operation: &Operation) -> Admission {
        self.guard.claim(&self.rule, operation).await.expect("the store answers")
    }

    async fn own(&self, operation: &Operation) -> Ownership {
        match self.admit(operation).await {
            Admission::Owner(ownership) => ownership,
            Admission::Repeat(verdict) => panic!("{verdict:?}"),
        }
    }

    async fn repeat(&self, operation: &Operation) -> Verdict {
        match self.admit(operation).await {
            Admission::Owner(_) => panic!("the operation was free"),
            Admission::Repeat(verdict) => verdict,
        }
    }

    async fn held(&self, operation: &Operation) -> Option<Held> {
        self.store.find(&operation.name).await.expect("the store answers")
    }

    fn last_claim(&self) -> Claim {
        self.store.claimed.lock().expect("no panic").clone().expect("a claim")
    }

    /// A claim arrives that nobody waits for.
    async fn arrives(&self, operation: &Operation, claim: &Claim) {
        let granted = self.store.store.claim(&operation.name, claim).await.expect("the store answers");
        assert!(matches!(granted, Claimed::Granted(_)));
    }

    fn counts(&self, line: &str) -> bool {
        self.metrics.render().expect("an exposition").lines().any(|told| told == line)
    }
}

fn operation(key: u8, on_unknown: Unknown) -> Operation {
    Operation {
        name: RecordName { route: "orders".into(), digest: [key; 16] },
        fingerprint: Fingerprint { target: [1; 16], recipe: 1, body: [1; 16] },
        terms: Terms { lease: LEASE, retention: RETENTION, on_unknown },
        key: None,
    }
}

fn answer(status: StatusCode, body: &'static str) -> Fate<()> {
    let body = vec![body.into()];
    let reply = Reply { status, headers: HeaderMap::new(), body, trailers: HeaderMap::new() };
    Fate::Answered(Answer { reply: Arc::new(reply), told: None, rest: Rest::Nothing })
}

fn created() -> Fate<()> {
    answer(StatusCode::CREATED, "order 1")
}

fn body(ended: &Ended<()>) -> Vec<u8> {
    match ended {
        Ended::Answered(reply) | Ended::Recorded(reply) => reply.body.concat(),
        other => panic!("{other:?}"),
    }
}

/// Sends at once, and ends as told.
async fn sent(gate: Gate, fate: Fate<()>) -> Fate<()> {
    if gate.may_send().await { fate } else { Fate::NotSent }
}

fn run(ownership: Ownership, fate: Fate<()>) -> oneshot::Receiver<Ended<()>> {
    ownership.run(move |gate| sent(gate, fate))
}

/// Sends, and ends when the test says so.
fn run_until(ownership: Ownership, until: &Arc<Notify>, fate: Fate<()>) -> oneshot::Receiver<Ended<()>> {
    let until = Arc::clone(until);
    ownership.run(move |gate| async move {
        let fate = sent(gate, fate).await;
        until.notified().await;
        fate
    })
}

#[tokio::test(start_paused = true)]
async fn one_of_many_runs_and_the_others_get_its_answer() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    let ownership = scene.own(&operation).await;
    for _ in 0..3 {
        assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
    }
    assert_eq!(body(&run(ownership, created()).await.expect("an end")), b"order 1");
    assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(reply) if reply.body.concat() == b"order 1"));
    assert!(scene.counts(r#"onlyonce_records_total{route="orders",state="completed"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn what_certainly_did_not_run_frees_the_key() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    assert!(matches!(run(scene.own(&operation).await, Fate::NotSent).await, Ok(Ended::NotSent)));
    assert_eq!(scene.held(&operation).await, None);
    let failed = run(scene.own(&operation).await, answer(StatusCode::INTERNAL_SERVER_ERROR, "no")).await;
    assert_eq!(body(&failed.expect("an end")), b"no");
    scene.own(&operation).await;
}

#[tokio::test(start_paused = true)]
async fn what_may_have_run_is_held_or_left_for_a_takeover() {
    let scene = Scene::new();
    let held = operation(1, HOLD);
    assert!(matches!(run(scene.own(&held).await, Fate::Unknown(Silence::Broken)).await, Ok(Ended::Silent(_))));
    assert_eq!(scene.repeat(&held).await, Verdict::OutcomeUnknown);

    let retried = operation(2, Unknown::Retry);
    assert!(matches!(run(scene.own(&retried).await, Fate::Unknown(Silence::Broken)).await, Ok(Ended::Silent(_))));
    assert_eq!(scene.repeat(&retried).await, Verdict::InFlight);
    tokio::time::sleep(LEASE).await;
    assert_eq!(scene.own(&retried).await.attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_never_came_to_the_gate_was_not_sent() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    let late = scene.own(&operation).await.run(|_: Gate| async { Fate::<()>::Unknown(Silence::Timeout) });
    assert!(matches!(late.await, Ok(Ended::NotSent)));
    assert_eq!(scene.held(&operation).await, None);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_many_leases_is_never_run_twice() {
    let (scene, operation, end) = (Scene::new(), operation(1, Unknown::Retry), Arc::new(Notify::new()));
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
    assert_eq!(scene.repeat(&operation).await, Verdict::OutcomeUnknown);
    tokio::time::sleep(LEASE).await;
    assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
    end.notify_one();
    ended.await.expect("an end");
    assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(_)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_changes_nothing() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    drop(run_until(scene.own(&operation).await, &end, created()));
    end.notify_one();
    scene.guard.drain().await;
    assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(_)));
}

#[tokio::test(start_paused = true)]
async fn an_ownership_that_is_not_used_is_given_back() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    drop(scene.own(&operation).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.held(&operation).await, None);
}

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
    run(scene.own(&operation).await, Fate::NotSent).await.expect("an end");
    // Both tries arrive, one after the other.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        scene.arrives(&operation, &late).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(scene.held(&operation).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_an_answer_is_made_again() {
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let (scene, operation) = (Scene::new(), operation(1, HOLD));
        scene.store.claims.next([fault]);
        run(scene.own(&operation).await, created()).await.expect("an end");
        assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(_)), "{fault:?}");
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
        let ended = run_until(scene.own(&operation).await, &end, Fate::NotSent);
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
    let first = run_until(scene.own(&operation).await, &end, Fate::NotSent);
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
    let ended = scene.own(&operation).await.run(move |gate| async move {
        gone.notified().await;
        sent(gate, created()).await
    });
    // An operator frees the key, and somebody else claims it; the first owner's renewal is told so.
    let token = scene.held(&operation).await.expect("a record").record.claim.token;
    scene.store.store.release(&operation.name, token).await.expect("the store answers");
    let other = scene.own(&operation).await;
    tokio::time::sleep(LEASE / 3 + Duration::from_secs(1)).await;
    go.notify_one();
    assert!(matches!(ended.await.expect("an end"), Ended::Replaced));
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn the_clean_up_touches_nobody_elses_record() {
    let (scene, operation, never) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    scene.store.claims.next([Fault::RequestLost; 2]);
    assert!(scene.guard.claim(&scene.rule, &operation).await.is_err());
    drop(run_until(scene.own(&operation).await, &never, created()));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(scene.held(&operation).await.expect("a record").owner(), Owner::Alive);
}

#[tokio::test(start_paused = true)]
async fn the_answer_is_delivered_and_recording_is_tried_until_it_is_done() {
    for fault in [Fault::Refused, Fault::RequestLost, Fault::AnswerLost] {
        let (scene, operation) = (Scene::new(), operation(1, HOLD));
        scene.store.settlements.next([fault; 5]);
        assert_eq!(body(&run(scene.own(&operation).await, created()).await.expect("an end")), b"order 1");
        scene.guard.drain().await;
        assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(_)), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_is_tried_until_it_is_done() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    scene.store.releases.next([Fault::Refused; 5]);
    run(scene.own(&operation).await, Fate::NotSent).await.expect("an end");
    scene.guard.drain().await;
    assert_eq!(scene.held(&operation).await, None);
}

#[tokio::test(start_paused = true)]
async fn every_client_of_a_key_gets_the_answer_that_was_recorded_first() {
    let (scene, operation, end) = (Scene::new(), operation(1, Unknown::Retry), Arc::new(Notify::new()));
    scene.store.renewals.next([Fault::Refused; 4]);
    let stalled = run_until(scene.own(&operation).await, &end, answer(StatusCode::CREATED, "stalled"));
    tokio::time::sleep(LEASE + Duration::from_millis(1)).await;
    let sibling = scene.sibling();
    let Ok(Admission::Owner(taker)) = sibling.claim(&scene.rule, &operation).await else { panic!("a lost owner") };
    assert_eq!(body(&run(taker, answer(StatusCode::CREATED, "taker")).await.expect("an end")), b"taker");
    end.notify_one();
    let ended = stalled.await.expect("an end");
    assert!(matches!(ended, Ended::Recorded(_)));
    assert_eq!(body(&ended), b"taker");
    assert!(scene.counts(r#"onlyonce_lease_lost_total{route="orders"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_was_replaced_answers_with_its_own_response() {
    let (scene, operation, end) = (Scene::new(), operation(1, Unknown::Retry), Arc::new(Notify::new()));
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
    assert!(matches!(scene.repeat(&operation).await, Verdict::Replay(_)), "settling writes where nothing is");
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
            Some(_) => assert!(matches!(ended, Ended::InDoubt)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_releases_nothing() {
    let (scene, operation) = (Scene::new(), operation(1, HOLD));
    let ended = scene.own(&operation).await.run(|gate: Gate| async move {
        gate.may_send().await;
        panic!("by plan");
        #[expect(unreachable_code, reason = "tells the type")]
        Fate::<()>::NotSent
    });
    assert!(ended.await.is_err());
    assert_eq!(scene.repeat(&operation).await, Verdict::InFlight);
    tokio::time::sleep(LEASE).await;
    assert_eq!(scene.repeat(&operation).await, Verdict::OutcomeUnknown);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_runs_out_settles_what_is_left() {
    let scene = Scene::new();
    let (sent, unsent, never) = (operation(1, HOLD), operation(2, HOLD), Arc::new(Notify::new()));
    let first = run_until(scene.own(&sent).await, &never, created());
    let second = scene.own(&unsent).await.run(|_: Gate| std::future::pending::<Fate<()>>());
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.guard.abandon();
    scene.guard.drain().await;
    assert!(matches!(first.await, Ok(Ended::Silent(_))));
    assert!(matches!(second.await, Ok(Ended::NotSent)));
    assert_eq!(scene.repeat(&sent).await, Verdict::OutcomeUnknown);
    assert_eq!(scene.held(&unsent).await, None);
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

#[tokio::test(start_paused = true)]
async fn a_waiter_is_woken_when_the_attempt_ends() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, created());
    let wait = scene.guard.wait(&scene.rule, &operation, Duration::from_secs(10));
    let later = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        end.notify_one();
    };
    let begun = tokio::time::Instant::now();
    let (verdict, ()) = tokio::join!(wait, later);
    assert!(matches!(verdict, Verdict::Replay(reply) if reply.body.concat() == b"order 1"));
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
    assert!(matches!(verdict, Verdict::Replay(reply) if reply.status == StatusCode::INTERNAL_SERVER_ERROR));
    ended.await.expect("an end");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_of_another_sidecar_looks_at_the_record() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, created());
    let sibling = scene.sibling();
    let wait = sibling.wait(&scene.rule, &operation, Duration::from_secs(10));
    let later = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        end.notify_one();
    };
    let (verdict, ()) = tokio::join!(wait, later);
    assert!(matches!(verdict, Verdict::Replay(_)));
    ended.await.expect("an end");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_never_becomes_an_owner() {
    let (scene, operation, end) = (Scene::new(), operation(1, HOLD), Arc::new(Notify::new()));
    let ended = run_until(scene.own(&operation).await, &end, Fate::NotSent);
    end.notify_one();
    let verdict = scene.guard.wait(&scene.rule, &operation, Duration::from_secs(10)).await;
    assert_eq!(verdict, Verdict::InFlight);
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
        assert_eq!(verdict, Verdict::InFlight);
        waited.fetch_add(u32::from(begun.elapsed() >= Duration::from_secs(5)), Ordering::Relaxed);
    };
    tokio::join!(wait(), wait(), wait());
    assert_eq!(waited.into_inner(), 2);
    assert!(scene.counts(r#"onlyonce_waiting{route="orders"} 0"#));
}
