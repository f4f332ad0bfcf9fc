//! The tests that every store passes.
//!
//! Times are real, and no test fails because the machine is slow: what must be alive has minutes to live, and what must
//! be over has milliseconds.

mod any_order;
mod by_hand;
mod claims;
mod stored_bytes;

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::*;
use crate::config::Durability;
use crate::key::DigestKey;
use crate::record::transitions::{self, ClaimTransition, CompareAndSwap, OwnerState, RenewTransition};
use crate::record::{Fingerprint, Reply, Settlement, State, Terms, UnknownPolicy};
use crate::rule::OnStoreError;
pub(super) use any_order::any_order_of_moves_ends_as_in_memory;
pub(super) use by_hand::{
    a_cursor_that_no_list_gave_is_refused, an_owner_that_is_heard_of_keeps_its_record,
    one_of_many_operators_moves_a_record, operators_move_every_state, records_are_listed_page_by_page,
    what_was_settled_by_hand_is_replayed,
};
pub(super) use claims::{
    a_claim_on_a_living_owner_is_refused, a_claim_on_nothing_is_granted, a_claim_that_arrived_before_is_granted_again,
    a_lost_owner_blocks_the_key_under_hold, a_lost_owner_is_replaced_after_the_hold,
    a_lost_owner_is_replaced_under_retry, a_renewal_ends_the_silence, a_renewal_that_finds_another_is_lost,
    a_renewal_that_finds_nothing_claims_again, another_use_of_the_key_takes_nothing_over,
    one_of_many_claims_is_granted, one_of_many_takeovers_is_granted,
};
pub(super) use stored_bytes::{
    an_outcome_that_is_written_again_is_known_to_be_the_same, replies_come_back_as_they_were,
    what_cannot_be_read_is_left_alone,
};

/// A store under test, and what must live as long as it does.
pub(super) struct Subject {
    pub(super) store: Arc<dyn Store>,
    plant: Option<Plant>,
    _keep: Box<dyn Any + Send + Sync>,
}

/// Puts bytes where a record lies.
type Plant = Box<dyn Fn(RecordName, Vec<u8>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

impl Subject {
    pub(super) fn new(store: Arc<dyn Store>, keep: impl Any + Send + Sync) -> Self {
        Self { store, plant: None, _keep: Box::new(keep) }
    }

    /// For stores that hold bytes, which can be damaged.
    pub(super) fn with_plant<F>(mut self, plant: impl Fn(RecordName, Vec<u8>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.plant = Some(Box::new(move |name, bytes| Box::pin(plant(name, bytes))));
        self
    }
}

/// One test for each story. Each has its own subject.
macro_rules! suite {
    // One test of all of it, which only `tests/run --all` runs.
    (whole $subject:path) => {
        crate::store::conformance::suite! { stories whole $subject }
    };
    // One test of all of it, on what takes long to start: the same for every story.
    ($(#[$when:meta])? on_one $servers:expr, $subject:path) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$when])?
        async fn the_whole_suite() {
            let servers = $servers;
            let on_them = async || $subject(&servers).await;
            crate::store::conformance::suite! { stories on_one on_them }
        }
    };
    ($subject:path) => {
        crate::store::conformance::suite! { stories each $subject }
    };
    (stories $form:ident $subject:path) => {
        crate::store::conformance::suite! { $form $subject:
            a_claim_on_nothing_is_granted,
            a_claim_on_a_living_owner_is_refused,
            a_claim_that_arrived_before_is_granted_again,
            a_lost_owner_is_replaced_under_retry,
            a_lost_owner_blocks_the_key_under_hold,
            a_lost_owner_is_replaced_after_the_hold,
            another_use_of_the_key_takes_nothing_over,
            one_of_many_claims_is_granted,
            one_of_many_takeovers_is_granted,
            a_renewal_ends_the_silence,
            a_renewal_that_finds_nothing_claims_again,
            a_renewal_that_finds_another_is_lost,
            every_move_from_every_state,
            an_unknown_outcome_may_become_known_late,
            a_settled_record_lives_anew,
            an_unknown_record_lives_as_long_as_it_is_held,
            a_record_expires,
            replies_come_back_as_they_were,
            an_outcome_that_is_written_again_is_known_to_be_the_same,
            what_cannot_be_read_is_left_alone,
            records_do_not_meet,
            operators_move_every_state,
            an_owner_that_is_heard_of_keeps_its_record,
            one_of_many_operators_moves_a_record,
            what_was_settled_by_hand_is_replayed,
            records_are_listed_page_by_page,
            a_cursor_that_no_list_gave_is_refused,
            the_digest_key_stays,
            any_order_of_moves_ends_as_in_memory,
        }
    };
    (whole $subject:path: $($story:ident),* $(,)?) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "tests/run --all"]
        async fn the_whole_suite() {
            $( crate::store::conformance::$story(&$subject().await).await; )*
        }
    };
    (on_one $subject:path: $($story:ident),* $(,)?) => {
        $( crate::store::conformance::$story(&$subject().await).await; )*
    };
    (each $subject:path: $($story:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                crate::store::conformance::$story(&$subject().await).await;
            }
        )*
    };
}
pub(super) use suite;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(100);
/// After this, what had [`SHORT`] is over.
const OVER: Duration = Duration::from_millis(300);

const RETRY: Terms = Terms { lease: LONG, retention: LONG, on_unknown: UnknownPolicy::Retry };
const HOLD: Terms = Terms { lease: LONG, retention: LONG, on_unknown: UnknownPolicy::Hold(LONG) };
/// The lease is over as soon as it begins.
const LOST_RETRY: Terms = Terms { lease: Duration::ZERO, ..RETRY };
const LOST_HOLD: Terms = Terms { lease: Duration::ZERO, ..HOLD };

/// Settings that no slow machine is too slow for. Where the store is, the caller says.
pub(super) fn settings() -> config::StoreConfig {
    config::StoreConfig {
        location: StoreLocation::Memory,
        prefix: "onlyonce".to_owned(),
        timeout: Duration::from_secs(20),
        on_error: OnStoreError::Reject,
        digest_key: None,
        durability: Durability::Disk,
        accept_eviction: false,
        replica_acks: 0,
        fsync_acks: false,
        compress_above: None,
        encryption_keys: Vec::new(),
    }
}

/// A name that nobody used before.
pub(super) fn name() -> RecordName {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut digest = [0xab; 16];
    digest[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    RecordName { route: "orders".into(), digest }
}

pub(super) fn claim(token: u8, terms: Terms) -> Claim {
    Claim {
        token: Token([token; 16]),
        attempt: 1,
        terms,
        fingerprint: Fingerprint { target: [1; 16], recipe: 1, body: [2; 16] },
        claimed_at: 1_763_700_000_000,
        extensions: Default::default(),
    }
}

pub(super) fn completed(claim: &Claim, body: &'static [u8]) -> SettledRecord {
    let body = if body.is_empty() { Vec::new() } else { vec![Bytes::from_static(body)] }.into();
    let reply = Reply { status: StatusCode::CREATED, headers: HeaderMap::new(), body, trailers: HeaderMap::new() };
    SettledRecord::new(claim.clone(), &Settlement::Completed(reply.into()), 5)
}

fn unreplayable(claim: &Claim) -> SettledRecord {
    let location = Some(HeaderValue::from_static("/orders/1"));
    SettledRecord::new(claim.clone(), &Settlement::Unreplayable { status: StatusCode::OK, location }, 6)
}

fn unknown(claim: &Claim) -> SettledRecord {
    SettledRecord::new(claim.clone(), &Settlement::Unknown, 7)
}

fn in_flight(claim: &Claim) -> Record {
    Record { claim: claim.clone(), state: State::InFlight }
}

async fn grant(store: &dyn Store, name: &RecordName, claim: &Claim) -> Claim {
    match store.claim(name, claim).await.expect("an answer") {
        Claimed::Granted(claim) => claim,
        refused @ Claimed::Refused(_) => panic!("{refused:?}"),
    }
}

async fn refuse(store: &dyn Store, name: &RecordName, claim: &Claim) -> StoredRecord {
    match store.claim(name, claim).await.expect("an answer") {
        Claimed::Granted(claim) => panic!("granted as {claim:?}"),
        Claimed::Refused(held) => *held,
    }
}

async fn find(store: &dyn Store, name: &RecordName) -> Option<StoredRecord> {
    store.find(name).await.expect("an answer")
}

async fn settle(store: &dyn Store, name: &RecordName, record: &SettledRecord) -> Settled {
    store.settle(name, record).await.expect("an answer")
}

/// Every verb, with one's own token and another's, from every state: what the pure transitions say is done.
pub(super) async fn every_move_from_every_state(subject: &Subject) {
    let store = &*subject.store;
    let owner = claim(1, RETRY);
    let states = [
        None,
        Some(in_flight(&owner)),
        Some(completed(&owner, b"{}").into_record()),
        Some(unreplayable(&owner).into_record()),
        Some(unknown(&owner).into_record()),
    ];
    for (state, actor) in states.iter().flat_map(|state| [(state, claim(1, RETRY)), (state, claim(2, RETRY))]) {
        let prepare = async || {
            let name = name();
            if let Some(record) = state {
                grant(store, &name, &owner).await;
                if let Some(record) = SettledRecord::of(record.clone()) {
                    assert_eq!(settle(store, &name, &record).await, Settled::Written);
                }
            }
            name
        };
        let left = async |name: &RecordName| find(store, name).await.map(|held| held.record);
        let what = format!("{:?} finds {state:?}", actor.token);

        let name = prepare().await;
        let held = state.clone().map(|record| StoredRecord { record, silent_for: Duration::ZERO });
        match (transitions::claim(held, &actor), store.claim(&name, &actor).await.expect("an answer")) {
            (ClaimTransition::Write(wanted), Claimed::Granted(claim)) => {
                assert_eq!((&claim, left(&name).await), (&wanted, Some(in_flight(&wanted))), "{what}");
            }
            (ClaimTransition::AlreadyMine(wanted), Claimed::Granted(claim)) => assert_eq!(claim, wanted, "{what}"),
            (ClaimTransition::Refuse(wanted), Claimed::Refused(held)) => {
                assert_eq!(held.record, wanted.record, "{what}");
            }
            (expected, claimed) => panic!("{what}: {expected:?} is not {claimed:?}"),
        }

        let name = prepare().await;
        let renewed = store.renew(&name, &actor).await.expect("an answer");
        let (expected, after) = match transitions::renew(state.as_ref(), actor.token) {
            RenewTransition::Extend => (Renewed::Extended, state.clone()),
            RenewTransition::ClaimAgain => (Renewed::ClaimedAgain, Some(in_flight(&actor))),
            RenewTransition::Refuse => (Renewed::Lost, state.clone()),
        };
        assert_eq!((renewed, left(&name).await), (expected, after), "{what}");

        for outcome in [completed(&actor, b"[1]"), unreplayable(&actor), unknown(&actor)] {
            let name = prepare().await;
            let settled = settle(store, &name, &outcome).await;
            let (expected, after) = match state {
                Some(record) if !transitions::settles(Some(record), actor.token) => {
                    (Settled::Kept(Box::new(record.clone())), record.clone())
                }
                _ => (Settled::Written, outcome.into_record()),
            };
            assert_eq!((settled, left(&name).await), (expected, Some(after)), "{what}");
        }

        let name = prepare().await;
        let released = store.release(&name, actor.token).await.expect("an answer");
        let (expected, after) = match state {
            None => (Released::Absent, None),
            Some(record) if transitions::releases(record, actor.token) => (Released::Deleted, None),
            Some(record) => (Released::Kept, Some(record.clone())),
        };
        assert_eq!((released, left(&name).await), (expected, after), "{what}");
    }
}

pub(super) async fn an_unknown_outcome_may_become_known_late(subject: &Subject) {
    let (store, name, mine) = (&*subject.store, name(), claim(1, HOLD));
    grant(store, &name, &mine).await;
    assert_eq!(settle(store, &name, &unknown(&mine)).await, Settled::Written);
    assert_eq!(refuse(store, &name, &claim(2, HOLD)).await.record.state, State::Unknown { settled_at: 7 });
    let late = completed(&mine, b"late");
    assert_eq!(settle(store, &name, &late).await, Settled::Written);
    assert_eq!(refuse(store, &name, &claim(2, HOLD)).await.record, late);
    // Final, for its owner too.
    assert_eq!(settle(store, &name, &unknown(&mine)).await, Settled::Kept(Box::new(late.into_record())));
}

pub(super) async fn a_settled_record_lives_anew(subject: &Subject) {
    let (store, name) = (&*subject.store, name());
    grant(store, &name, &claim(1, Terms { retention: SHORT, ..RETRY })).await;
    settle(store, &name, &completed(&claim(1, RETRY), b"{}")).await;
    tokio::time::sleep(OVER).await;
    assert!(matches!(refuse(store, &name, &claim(2, RETRY)).await.record.state, State::Completed { .. }));
}

pub(super) async fn an_unknown_record_lives_as_long_as_it_is_held(subject: &Subject) {
    let store = &*subject.store;
    let (held, retried) = (name(), name());
    let hold = claim(1, Terms { on_unknown: UnknownPolicy::Hold(SHORT), ..HOLD });
    settle(store, &held, &unknown(&hold)).await;
    settle(store, &retried, &unknown(&claim(1, RETRY))).await;
    tokio::time::sleep(OVER).await;
    assert_eq!(find(store, &held).await, None);
    assert_eq!(find(store, &retried).await.expect("a record").record.state, State::Unknown { settled_at: 7 });
}

pub(super) async fn a_record_expires(subject: &Subject) {
    let (store, flying, settled) = (&*subject.store, name(), name());
    let mine = claim(1, Terms { retention: SHORT, ..RETRY });
    grant(store, &flying, &mine).await;
    settle(store, &settled, &completed(&mine, b"{}")).await;
    tokio::time::sleep(OVER).await;
    for name in [flying, settled] {
        assert_eq!(find(store, &name).await, None);
        assert_eq!(store.release(&name, mine.token).await.expect("an answer"), Released::Absent);
        assert_eq!(grant(store, &name, &claim(2, RETRY)).await.attempt, 1);
    }
}

pub(super) async fn records_do_not_meet(subject: &Subject) {
    let store = &*subject.store;
    let one = name();
    let other = RecordName { route: "payments".into(), ..one.clone() };
    grant(store, &one, &claim(1, RETRY)).await;
    assert_eq!(grant(store, &other, &claim(2, RETRY)).await.attempt, 1);
    assert_eq!(store.release(&one, Token([1; 16])).await.expect("an answer"), Released::Deleted);
    assert_eq!(find(store, &one).await, None);
    assert_eq!(find(store, &other).await.expect("a record").record.claim.token, Token([2; 16]));
}

pub(super) async fn the_digest_key_stays(subject: &Subject) {
    let first: DigestKey = subject.store.digest_key().expect("a key");
    assert_eq!(subject.store.digest_key().expect("a key"), first);
    assert_eq!(subject.store.health(), Health::Up);
}
