//! Stories of the protocol, on the memory store, with time that stands still until all are waiting.

mod attempts;
mod changes;
mod claims;
mod lost_records;
mod probe_facts;
mod probes;
mod unknown;
mod waiting;
mod without_store;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::sync::{Notify, oneshot};

use super::{
    Admission, AttemptResult, BodyRemainder, ClaimError, Guard, LostReason, OriginalAnswer, Ownership,
    ReceivedResponse, RunningAttempt, Sealed, SendFence, SendOutcome, Verdict,
};
use crate::config;
use crate::key::{DigestKey, Operation};
use crate::metrics::Metrics;
use crate::record::encryption::EncryptionKey;
use crate::record::transitions::{CompareAndSwap, OwnerState, StoredRecord};
use crate::record::{
    Claim, Extensions, Fingerprint, Record, RecordName, Reply, SettledRecord, State, Terms, Token, UnknownPolicy,
};
use crate::rule::Rule;
use crate::store::{
    self, Claimed, Cursor, Health, ListError, ListQuery, Memory, Page, Released, Renewed, Settled, Store, StoreError,
    SwapResult,
};
use crate::trace;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is refused: certainly not done.
    Refused,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It is done, and too few replicas have it.
    Unacknowledged,
    /// It is not done, and nobody can tell.
    RequestLost,
    /// It is done, and the whole process sleeps for this long before it reads the answer.
    Asleep(Duration),
    /// It is done, and the answer takes this long.
    Slow(Duration),
    /// It is done this much later.
    Late(Duration),
    /// The record cannot be read.
    Unreadable,
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
    /// The number of releases so far.
    released: AtomicU32,
    finds: Plan,
    lists: Plan,
    /// How often the store has become another one. A place in a list of one means nothing to the next.
    changes: AtomicU32,
    /// Whether it says that it cannot be used.
    is_down: AtomicBool,
    keys: Vec<Arc<EncryptionKey>>,
}

/// What happens to the next calls; later ones succeed.
#[derive(Default)]
struct Plan(Mutex<VecDeque<Fault>>);

impl Plan {
    fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
    }

    /// How many calls are still to go wrong.
    fn left(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    async fn carry_out<T, E: From<StoreError>>(&self, call: store::StoreFuture<'_, T, E>) -> Result<T, E> {
        let fault = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match fault {
            None => call.await,
            Some(Fault::Refused) => Err(StoreError::Unavailable("by plan".into()).into()),
            Some(Fault::Unreadable) => {
                let source = crate::record::codec::Unreadable::Damaged("by plan");
                Err(StoreError::Unreadable { name: "by plan".to_owned(), source }.into())
            }
            Some(Fault::RequestLost) => Err(StoreError::Uncertain("by plan".into()).into()),
            Some(Fault::Slow(time)) => {
                let answer = call.await;
                tokio::time::sleep(time).await;
                answer
            }
            Some(Fault::Late(time)) => {
                tokio::time::sleep(time).await;
                call.await
            }
            Some(Fault::Asleep(time)) => {
                let answer = call.await;
                std::thread::sleep(time);
                answer
            }
            Some(Fault::Unacknowledged) => {
                call.await?;
                Err(StoreError::Unacknowledged("by plan".into()).into())
            }
            Some(Fault::AnswerLost) => {
                call.await?;
                Err(StoreError::Uncertain("by plan".into()).into())
            }
        }
    }
}

impl Store for Faulty {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> store::StoreFuture<'a, Claimed> {
        *self.claimed.lock().unwrap_or_else(PoisonError::into_inner) = Some(claim.clone());
        Box::pin(self.claims.carry_out(self.store.claim(name, claim)))
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> store::StoreFuture<'a, Renewed> {
        Box::pin(self.renewals.carry_out(self.store.renew(name, claim)))
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a SettledRecord) -> store::StoreFuture<'a, Settled> {
        Box::pin(self.settlements.carry_out(self.store.settle(name, record)))
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> store::StoreFuture<'a, Released> {
        self.released.fetch_add(1, Ordering::SeqCst);
        Box::pin(self.releases.carry_out(self.store.release(name, token)))
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> store::StoreFuture<'a, Option<StoredRecord>> {
        Box::pin(self.finds.carry_out(self.store.find(name)))
    }

    fn list<'a>(&'a self, listing: &'a ListQuery) -> store::StoreFuture<'a, Page, ListError> {
        let of = self.changes.load(Ordering::SeqCst).to_string();
        Box::pin(async move {
            let after = match listing.after.as_ref().map(|Cursor(text)| text.split_once('@').expect("its own")) {
                Some((change, _)) if change != of => return Err(StoreError::Refused("by plan".into()).into()),
                other => other.map(|(_, place)| Cursor(place.to_owned())),
            };
            let listing = ListQuery { after, ..listing.clone() };
            let mut page = self.lists.carry_out(self.store.list(&listing)).await?;
            page.next = page.next.map(|Cursor(place)| Cursor(format!("{of}@{place}")));
            Ok(page)
        })
    }

    fn compare_and_swap<'a>(
        &'a self,
        name: &'a RecordName,
        swap: &'a CompareAndSwap,
    ) -> store::StoreFuture<'a, SwapResult> {
        self.store.compare_and_swap(name, swap)
    }

    fn subscribe(&self, name: &RecordName, patience: Duration) -> Option<store::Changes> {
        self.store.subscribe(name, patience)
    }

    fn digest_key(&self) -> Result<DigestKey, StoreError> {
        self.store.digest_key()
    }

    fn encryption_keys(&self) -> &[Arc<EncryptionKey>] {
        &self.keys
    }

    fn health(&self) -> Health {
        if self.is_down.load(Ordering::SeqCst) { Health::Down } else { self.store.health() }
    }
}

const LEASE: Duration = Duration::from_secs(30);
const RETENTION: Duration = Duration::from_secs(3600);
const HOLD: UnknownPolicy = UnknownPolicy::Hold(RETENTION);

fn metered(store: &Arc<Faulty>, metrics: &Arc<Metrics>) -> Arc<store::Metered> {
    let store = store::AnyStore::Other(Arc::clone(store) as Arc<dyn Store>);
    Arc::new(store::Metered::new(store, Arc::clone(metrics)))
}

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
            released: AtomicU32::default(),
            finds: Plan::default(),
            lists: Plan::default(),
            changes: AtomicU32::default(),
            is_down: AtomicBool::new(false),
            keys: vec![Arc::new(EncryptionKey::new(&[1; 32]))],
        });
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        metrics.route("orders");
        let guard = Guard::new(metered(&store, &metrics), Arc::clone(&metrics), 4);
        Self { store, guard, metrics, rule: Arc::clone(&config.routes.rules()[0]) }
    }

    /// A second sidecar on the same store.
    fn sibling(&self) -> Arc<Guard> {
        Guard::new(metered(&self.store, &self.metrics), Arc::clone(&self.metrics), 4)
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

    /// The same in another sidecar.
    async fn own_elsewhere(&self, operation: &Operation) -> Ownership {
        match self.sibling().claim(&self.rule, operation).await {
            Ok(Admission::Owner(ownership)) => ownership,
            Ok(Admission::Repeat(verdict)) => panic!("{verdict:?}"),
            Err(error) => panic!("{error}"),
        }
    }

    async fn repeat(&self, operation: &Operation) -> Verdict {
        match self.admit(operation).await {
            Admission::Owner(_) => panic!("the operation was free"),
            Admission::Repeat(verdict) => verdict,
        }
    }

    async fn held(&self, operation: &Operation) -> Option<StoredRecord> {
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

fn operation(key: u8, on_unknown: UnknownPolicy) -> Operation {
    Operation {
        name: RecordName { route: "orders".into(), digest: [key; 16] },
        fingerprint: Fingerprint { target: [1; 16], recipe: 1, body: [1; 16] },
        terms: Terms { lease: LEASE, retention: RETENTION, on_unknown },
        key: None,
        extensions: Extensions::default(),
        probe: None,
    }
}

fn answer(status: StatusCode, body: &'static str) -> SendOutcome<()> {
    let body = vec![body.into()].into();
    let reply = Reply { status, headers: HeaderMap::new(), body, trailers: HeaderMap::new() };
    SendOutcome::Answered(ReceivedResponse {
        reply: Arc::new(reply),
        origin_directive: None,
        rest: BodyRemainder::Nothing,
    })
}

fn created() -> SendOutcome<()> {
    answer(StatusCode::CREATED, "order 1")
}

fn body(ended: &AttemptResult<()>) -> Vec<u8> {
    match ended {
        AttemptResult::Answered(reply) | AttemptResult::Recorded(Sealed(reply)) => reply.body.pieces().concat(),
        other => panic!("{other:?}"),
    }
}

/// Sends at once, and ends as told.
async fn sent(fence: SendFence, outcome: SendOutcome<()>) -> SendOutcome<()> {
    if fence.may_send().await { outcome } else { SendOutcome::NotSent }
}

fn run(ownership: Ownership, outcome: SendOutcome<()>) -> RunningAttempt<()> {
    ownership.run(trace::Parent::default(), move |fence| sent(fence, outcome))
}

/// Sends, and ends when the test says so.
fn run_until(
    ownership: Ownership,
    until: &Arc<Notify>,
    outcome: SendOutcome<()>,
) -> oneshot::Receiver<AttemptResult<()>> {
    let until = Arc::clone(until);
    let running = ownership.run(trace::Parent::default(), move |fence| async move {
        let outcome = sent(fence, outcome).await;
        until.notified().await;
        outcome
    });
    running.detach()
}
