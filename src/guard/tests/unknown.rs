//! How many records are unknown now.

use super::*;
use crate::record::transitions;
use crate::record::{Extensions, SettledRecord};

/// While the survey runs.
struct Surveyed {
    scene: Scene,
    survey: tokio::task::JoinHandle<()>,
}

impl Surveyed {
    fn new() -> Self {
        let scene = Scene::new();
        let guard = Arc::clone(&scene.guard);
        let survey = tokio::spawn(async move { match guard.survey().await {} });
        Self { scene, survey }
    }

    #[track_caller]
    fn are(&self, count: usize) {
        let series = format!("onlyonce_records_unknown{{route=\"orders\"}} {count}");
        assert!(self.scene.counts(&series), "not {count}");
    }

    /// Until what others did is found.
    async fn walked(&self) {
        tokio::time::sleep(Duration::from_secs(65)).await;
    }

    /// A record of another process, in this state or in flight.
    async fn put(&self, operation: &Operation, state: Option<State>) -> Claim {
        let claim = Claim {
            token: Token([operation.name.digest[0]; 16]),
            attempt: 1,
            terms: operation.terms,
            fingerprint: operation.fingerprint,
            claimed_at: 0,
            extensions: Extensions::default(),
        };
        self.scene.arrives(operation, &claim).await;
        if let Some(state) = state {
            let record = SettledRecord::of(Record { claim: claim.clone(), state }).expect("not in flight");
            self.scene.store.settle(&operation.name, &record).await.expect("settled");
        }
        claim
    }
}

impl Drop for Surveyed {
    fn drop(&mut self) {
        self.survey.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn what_this_process_does_is_told_at_once() {
    let unknown = Surveyed::new();
    unknown.are(0);
    for key in 1..=3 {
        run(unknown.scene.own(&operation(key, HOLD)).await, SendOutcome::Unknown(LostReason::Broken))
            .await
            .expect("an end");
        unknown.are(usize::from(key));
    }
    run(unknown.scene.own(&operation(4, HOLD)).await, created()).await.expect("an end");
    unknown.are(3);
    unknown.scene.guard.freed(&operation(1, HOLD).name);
    unknown.are(2);
    unknown.scene.guard.settled_by_another(&operation(2, HOLD).name);
    unknown.scene.guard.settled_by_another(&operation(4, HOLD).name);
    unknown.are(1);
}

#[tokio::test(start_paused = true)]
async fn what_others_did_is_found() {
    let unknown = Surveyed::new();
    // More than one page of them.
    for key in 0..=255 {
        for second in 0..3 {
            let mut operation = operation(key, HOLD);
            operation.name.digest[1] = second;
            unknown.put(&operation, Some(State::Unknown { settled_at: 0 })).await;
        }
    }
    let mut elsewhere = operation(1, HOLD);
    elsewhere.name = elsewhere.name.observed();
    unknown.put(&elsewhere, Some(State::Unknown { settled_at: 0 })).await;
    unknown.are(0);
    unknown.walked().await;
    unknown.are(768);
    // Another sidecar's operator frees one of them.
    let mut freed = operation(7, HOLD);
    freed.name.digest[1] = 1;
    let held = unknown.scene.held(&freed).await.expect("a record");
    let swap = transitions::release_by_hand(held.seen(), false).expect("nobody is in the way");
    unknown.scene.store.compare_and_swap(&freed.name, &swap).await.expect("freed");
    unknown.walked().await;
    unknown.are(767);
    tokio::time::sleep(RETENTION).await;
    unknown.walked().await;
    unknown.are(0);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_lost_leaves_a_record_that_is_unknown() {
    let unknown = Surveyed::new();
    let retried = operation(2, UnknownPolicy::Retry);
    unknown.put(&operation(1, HOLD), None).await;
    unknown.put(&retried, None).await;
    tokio::time::sleep(LEASE / 2).await;
    unknown.are(0);
    tokio::time::sleep(LEASE).await;
    unknown.walked().await;
    // Under retry, a repeat takes over.
    unknown.are(1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_record_is_told_for_as_long_as_it_holds_its_key() {
    let unknown = Surveyed::new();
    let mut operation = operation(1, UnknownPolicy::Hold(Duration::from_secs(20)));
    operation.terms.lease = Duration::from_secs(10);
    run(unknown.scene.own(&operation).await, SendOutcome::Unknown(LostReason::Broken)).await.expect("an end");
    unknown.are(1);
    unknown.walked().await;
    unknown.are(0);
}

#[tokio::test(start_paused = true)]
async fn a_walk_begins_anew_when_another_server_has_the_records() {
    let unknown = Surveyed::new();
    for key in 0..=255 {
        for second in 0..3 {
            let mut operation = operation(key, HOLD);
            operation.name.digest[1] = second;
            unknown.put(&operation, Some(State::Unknown { settled_at: 0 })).await;
        }
    }
    // Between the first page and the second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    unknown.scene.store.changes.fetch_add(1, Ordering::SeqCst);
    unknown.are(0);
    unknown.walked().await;
    unknown.are(768);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_is_asked_for_again_and_what_has_expired_is_not_counted_meanwhile() {
    let unknown = Surveyed::new();
    let mut operation = operation(1, UnknownPolicy::Hold(Duration::from_secs(100)));
    operation.terms.lease = Duration::from_secs(10);
    unknown.put(&operation, Some(State::Unknown { settled_at: 0 })).await;
    unknown.walked().await;
    unknown.are(1);
    // For ten minutes, none of the store's lists comes to an end.
    unknown.scene.store.lists.next([Fault::Refused; 20]);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(unknown.scene.store.lists.left() > 0);
    unknown.are(0);
    let mut later = operation.clone();
    later.name.digest[1] = 1;
    later.terms.on_unknown = HOLD;
    unknown.put(&later, Some(State::Unknown { settled_at: 0 })).await;
    tokio::time::sleep(Duration::from_secs(900)).await;
    unknown.are(1);
}
