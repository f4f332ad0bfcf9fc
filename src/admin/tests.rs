//! The API of records, on the memory store.

mod access;
mod troubled_store;

use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::troubled_store::{Trouble, Troubled};
use super::*;
use crate::config::{self, AdminRight, AdminToken, Secret, UNNAMED_TOKEN};
use crate::guard::{NextAnswer, ProbeOutcome};
use crate::key::DigestKey;
use crate::record::transitions::{CompareAndSwap, OwnerState, StoredRecord};
use crate::record::{Claim, Fingerprint, Record, Reply, SettledRecord, State, Terms, Token, UnknownPolicy};
use crate::store::{
    AnyStore, Changes, Claimed, ListError, ListQuery, Memory, Metered, Page, Released, Renewed, Settled, StoreError,
    StoreFuture, SwapResult,
};

const HOUR: Duration = Duration::from_secs(3600);
const HOLD: Terms = Terms { lease: HOUR, retention: HOUR, on_unknown: UnknownPolicy::Hold(HOUR) };
const LOST: Terms = Terms { lease: Duration::ZERO, ..HOLD };

struct Scene {
    admin: Admin,
    store: Arc<Memory>,
}

impl Scene {
    fn new(token: Option<&str>) -> Self {
        Self::over(|store| store, token)
    }

    /// Over a store that is around the memory store.
    fn over(around: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>, token: Option<&str>) -> Self {
        Self::asking(around, token, Arc::new(|_| Box::pin(async { NextAnswer::Came(ProbeOutcome::Changed) })))
    }

    /// The same, and this is how the backend is asked.
    fn asking(around: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>, token: Option<&str>, ask: AskBackend) -> Self {
        let text = "upstream.url = \"http://127.0.0.1:1\"\nstore.url = \"memory:\"\n\
                    [[route]]\nname = \"orders\"\npath = \"/orders\"\nscope = []\n";
        let config = config::parse("test", text, &|_| None).expect("a configuration");
        let store = Arc::new(Memory::open(&config.store).expect("random bytes"));
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let token = token.map(|token| AdminToken {
            name: UNNAMED_TOKEN.to_owned(),
            token: Secret::new(token),
            may: AdminRight::Change,
        });
        let records = AnyStore::Other(around(Arc::clone(&store) as Arc<dyn Store>));
        let records = Arc::new(Metered::new(records, Arc::clone(&metrics)));
        let guard = Guard::new(Arc::clone(&records), Arc::clone(&metrics), 1);
        let (routes, trust) = (Arc::new(config.routes), config.trust);
        let access = Arc::new(Access::new(token.as_slice()));
        let keeping = RecordPlacement::of(&config.store);
        let in_force = Arc::new(ActiveRules { routes, trust, keeping, access });
        let admin = Admin::new(metrics, records, guard, move || Arc::clone(&in_force), ask);
        Self { admin, store }
    }

    /// A record of `orders`, its digest this byte.
    async fn put(&self, digest: u8, terms: Terms, state: Option<State>) -> (RecordName, Claim) {
        let name = RecordName { route: "orders".into(), digest: [digest; 16] };
        let claim = claim(digest, terms);
        assert!(matches!(self.store.claim(&name, &claim).await, Ok(Claimed::Granted(_))));
        if let Some(state) = state {
            let record = settled(claim.clone(), state);
            self.store.settle(&name, &record).await.expect("settled");
        }
        (name, claim)
    }

    async fn left(&self, name: &RecordName) -> Option<State> {
        self.store.find(name).await.expect("an answer").map(|held| held.record.state)
    }

    async fn ask(&self, request: http::request::Builder, body: &str) -> (StatusCode, Value) {
        let request = request
            .header(HOST, "localhost")
            .header(BY_OPERATOR, "1")
            .body(Full::from(body.to_owned()))
            .expect("a request");
        let response = self.admin.handle(request, Some(([127, 0, 0, 1], 5).into())).await;
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
    }

    async fn get(&self, target: &str) -> (StatusCode, Value) {
        self.ask(Request::get(target), "").await
    }

    async fn post(&self, target: &str, body: &Value) -> (StatusCode, Value) {
        let request = Request::post(target).header(CONTENT_TYPE, "application/json");
        self.ask(request, &body.to_string()).await
    }
}

fn claim(token: u8, terms: Terms) -> Claim {
    let fingerprint = Fingerprint { target: [1; 16], recipe: 1, body: [0xab; 16] };
    Claim {
        token: Token([token; 16]),
        attempt: 1,
        terms,
        fingerprint,
        claimed_at: 1_795_262_400_000,
        extensions: Default::default(),
    }
}

fn settled(claim: Claim, state: State) -> SettledRecord {
    SettledRecord::of(Record { claim, state }).expect("not in flight")
}

fn unknown() -> Option<State> {
    Some(State::Unknown { settled_at: 1_795_262_460_000 })
}

fn completed(body: &'static [u8]) -> Option<State> {
    let mut headers = HeaderMap::new();
    headers.append("location", HeaderValue::from_static("/orders/1"));
    let reply =
        Reply { status: StatusCode::CREATED, headers, body: vec![body.into()].into(), trailers: HeaderMap::new() };
    Some(State::Completed { settled_at: 1_795_262_460_000, reply: reply.into() })
}

fn code(answer: &(StatusCode, Value)) -> (u16, &str) {
    (answer.0.as_u16(), answer.1["code"].as_str().unwrap_or_else(|| panic!("no problem: {answer:?}")))
}

#[tokio::test]
async fn records_are_listed_with_what_is_known_of_them() {
    let scene = Scene::new(None);
    scene.put(1, HOLD, None).await;
    scene.put(2, LOST, None).await;
    scene.put(3, HOLD, completed(b"secret")).await;
    scene.put(4, HOLD, unknown()).await;
    let (status, page) = scene.get("/records").await;
    assert_eq!((status, &page["next"]), (StatusCode::OK, &Value::Null));
    let told = |index: usize, what: &str| page["records"][index][what].clone();
    assert_eq!([0, 1, 2, 3].map(|index| told(index, "state")), ["in_flight", "in_flight", "completed", "unknown"]);
    assert_eq!([0, 1, 2].map(|index| told(index, "owner")), [json!("alive"), json!("lost"), Value::Null]);
    assert_eq!(told(0, "record"), "orders:01010101010101010101010101010101");
    assert_eq!(
        (told(0, "route"), told(0, "attempt"), told(0, "fingerprint")),
        (json!("orders"), json!(1), json!("abababab"))
    );
    assert_eq!((told(0, "claimed_at"), told(0, "lease")), (json!("2026-11-21T12:00:00.000Z"), json!("1h")));
    assert_eq!((told(2, "settled_at"), told(2, "status")), (json!("2026-11-21T12:01:00.000Z"), json!(201)));
    assert!(!page.to_string().contains("secret"));

    let (_, page) = scene.get("/records?route=orders&state=unknown&cursor=").await;
    assert_eq!(page["records"].as_array().map(Vec::len), Some(1));
    let (_, page) = scene.get("/records?route=others").await;
    assert_eq!(page["records"], json!([]));
    for wrong in ["state=lost", "limit=0", "limit=1001", "limit=x", "routes=orders", "cursor=7", "cursor=nonsense"] {
        assert_eq!(code(&scene.get(&format!("/records?{wrong}")).await), (400, "bad-request"), "{wrong}");
    }
}

#[tokio::test]
async fn a_list_goes_on_at_its_cursor() {
    let scene = Scene::new(None);
    for digest in 0..25 {
        scene.put(digest, HOLD, if digest % 5 == 0 { unknown() } else { None }).await;
    }
    for (filter, expected) in [("", 25), ("&state=unknown", 5)] {
        let (mut names, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let (_, page) = scene.get(&format!("/records?limit=4{filter}&cursor={cursor}")).await;
            names.extend(page["records"].as_array().expect("a list").iter().map(|entry| entry["record"].to_string()));
            pages += 1;
            match page["next"].as_str() {
                // As some clients write it.
                Some(next) => cursor = next.replace(':', "%3A"),
                None => break,
            }
        }
        names.dedup();
        assert_eq!((names.len(), pages > 1), (expected, true), "{filter}");
    }
}

#[tokio::test]
async fn a_body_is_shown_where_it_is_asked_for() {
    let scene = Scene::new(None);
    let (name, _) = scene.put(1, HOLD, completed(b"{\"id\":1}")).await;
    let (other, _) = scene.put(2, HOLD, completed(b"\xff")).await;
    let (status, shown) = scene.get(&format!("/records/{name}")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(shown["answer"], json!({"status": 201, "headers": [["location", "/orders/1"]], "body_bytes": 8}));
    let gone = RecordName { digest: [9; 16], ..name.clone() };
    assert_eq!(code(&scene.get(&format!("/records/{gone}")).await), (404, "record-not-found"));
    for record in [&name, &other, &gone] {
        let refused = scene.get(&format!("/records/{record}?body=1")).await;
        assert_eq!((code(&refused), &refused.1["answer"]), ((403, "token-needed"), &Value::Null));
    }

    assert_eq!(code(&scene.get("/records/orders:12").await), (400, "bad-request"));
    assert_eq!(code(&scene.get("/records/a/b/c").await), (404, "not-found"));

    let scene = Scene::new(Some("open-sesame"));
    scene.put(1, HOLD, completed(b"{\"id\":1}")).await;
    scene.put(2, HOLD, completed(b"\xff")).await;
    let body = async |record: String| {
        let request = Request::get(format!("/records/{record}?body=1"));
        scene.ask(request.header(AUTHORIZATION, "Bearer open-sesame"), "").await.1
    };
    assert_eq!(body(name.to_string().replace(':', "%3A")).await["answer"]["body"], "{\"id\":1}");
    let shown = body(other.to_string()).await;
    assert_eq!((&shown["answer"]["body_base64"], &shown["answer"]["body"]), (&json!("/w=="), &Value::Null));
}

#[tokio::test]
async fn a_released_key_is_free() {
    let scene = Scene::new(None);
    for state in [unknown(), completed(b"{}"), None] {
        let (name, _) = scene.put(1, LOST, state).await;
        let (status, changed) = scene.post(&format!("/records/{name}/release"), &json!({})).await;
        assert_eq!((status, &changed["now"]), (StatusCode::OK, &Value::Null));
        assert_eq!(scene.left(&name).await, None);
        let again = scene.post(&format!("/records/{name}/release"), &json!({})).await;
        assert_eq!(code(&again), (404, "record-not-found"));
    }
}

#[tokio::test]
async fn a_living_owner_is_in_the_way_but_of_force() {
    let scene = Scene::new(None);
    let (name, claim) = scene.put(1, HOLD, None).await;
    let complete = |force: bool| json!({"status": 200, "force": force});
    let refused = scene.post(&format!("/records/{name}/release"), &json!({"force": false})).await;
    assert_eq!(code(&refused), (409, "owner-alive"));
    assert_eq!(refused.1["record"], name.to_string());
    let refused = scene.post(&format!("/records/{name}/complete"), &complete(false)).await;
    assert_eq!(code(&refused), (409, "owner-alive"));
    assert_eq!(scene.left(&name).await, Some(State::InFlight));

    let (status, _) = scene.post(&format!("/records/{name}/complete"), &complete(true)).await;
    assert_eq!(status, StatusCode::OK);
    // The owner's own outcome comes too late.
    let late = settled(claim, unknown().expect("a state"));
    scene.store.settle(&name, &late).await.expect("an answer");
    assert!(matches!(scene.left(&name).await, Some(State::Completed { .. })));
    let (other, _) = scene.put(2, HOLD, None).await;
    let (status, _) = scene.post(&format!("/records/{other}/release"), &json!({"force": true})).await;
    assert_eq!((status, scene.left(&other).await), (StatusCode::OK, None));
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_by_hand() {
    let scene = Scene::new(None);
    let (name, mine) = scene.put(1, HOLD, unknown()).await;
    let target = format!("/records/{name}/complete");
    let given = json!({"status": 201, "headers": [["Location", "/orders/7"]], "body": "{\"id\":7}"});
    let (status, changed) = scene.post(&target, &given).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    assert_eq!((&changed["was"]["state"], &changed["now"]["state"]), (&json!("unknown"), &json!("completed")));

    let Ok(Claimed::Refused(held)) = scene.store.claim(&name, &claim(2, HOLD)).await else { panic!("it is settled") };
    assert_eq!((held.record.claim, held.silent_for < HOUR / 2), (mine, true));
    let State::Completed { reply, .. } = held.record.state else { panic!("it is completed") };
    assert_eq!((reply.status, reply.body.pieces()), (StatusCode::CREATED, &[Bytes::from_static(b"{\"id\":7}")][..]));
    assert_eq!(reply.headers["location"], "/orders/7");
    assert_eq!(code(&scene.post(&target, &given).await), (409, "already-completed"));
    for wrong in [
        json!({}),
        json!({"status": 99}),
        json!({"status": 200, "body": "a", "body_base64": "YQ=="}),
        json!({"status": 200, "headers": [["Content-Length", "1"]]}),
        json!({"status": 200, "bodi": "a"}),
    ] {
        assert_eq!(code(&scene.post(&target, &wrong).await), (400, "bad-request"), "{wrong}");
    }
}

#[tokio::test]
async fn what_operators_did_is_no_record_to_show_or_to_change() {
    let scene = Scene::new(None);
    let (name, _) = scene.put(1, HOLD, unknown()).await;
    assert_eq!(scene.post(&format!("/records/{name}/release"), &json!({})).await.0, StatusCode::OK);
    let told = name.audit();
    let before = scene.left(&told).await;
    assert!(before.is_some());
    let target = format!("/records/{told}");
    let forced = json!({"force": true});
    for answer in [
        scene.get(&target).await,
        scene.post(&format!("{target}/release"), &forced).await,
        scene.post(&format!("{target}/complete"), &json!({"status": 200, "force": true})).await,
    ] {
        assert_eq!(code(&answer), (400, "bad-request"));
        assert!(answer.1["detail"].as_str().is_some_and(|detail| detail.contains("is no record")), "{answer:?}");
    }
    assert!(scene.left(&told).await == before);
}

#[tokio::test]
async fn where_it_is_not_known_whether_a_line_was_written_nothing_is_changed_and_the_line_says_so() {
    let scene = Scene::over(|store| Arc::new(Troubled(store, Trouble::Lost)), None);
    let (name, _) = scene.put(1, HOLD, unknown()).await;
    let released = scene.post(&format!("/records/{name}/release"), &json!({"reason": "a reason"})).await;
    assert_eq!(code(&released), (503, "store-unavailable"));
    assert!(scene.left(&name).await == unknown());
    let shown = scene.get(&format!("/records/{name}")).await.1;
    assert_eq!(
        (&shown["audit"][0]["reason"], &shown["audit"][0]["not_done"]),
        (&json!("a reason"), &json!("the line could not be written for certain"))
    );
}

#[tokio::test]
async fn an_operator_is_told_why_there_is_no_answer_and_the_line_tells_what_came_of_the_question() {
    let last = ProbeOutcome::Absent(Duration::from_secs(90));
    let due_in = Duration::from_millis(700);
    for (answer, told, detail, again, line) in [
        (
            NextAnswer::NotDue { last, due_in },
            "not_asked",
            "it was asked a moment ago (the backend has nothing of the request so far; it is asked again in 90s), and may \
             be asked again in 1s",
            json!(700),
            true,
        ),
        (
            NextAnswer::Outstanding,
            "pending",
            "the backend has not answered yet; what it says is acted on when it comes",
            Value::Null,
            false,
        ),
        (
            NextAnswer::Never,
            "not_asked",
            "whoever asked has stopped without an answer; it may be asked again now",
            Value::Null,
            true,
        ),
        (NextAnswer::Came(ProbeOutcome::Changed), "changed", "the record changed meanwhile", Value::Null, true),
    ] {
        let ask: AskBackend = Arc::new(move |_| {
            let answer = answer.clone();
            Box::pin(async { answer })
        });
        let scene = Scene::asking(|store| store, None, ask);
        let (name, _) = scene.put(1, HOLD, unknown()).await;
        let (_, answer) = scene.post(&format!("/records/{name}/probe"), &json!({})).await;
        assert_eq!(
            (&answer["probe"], &answer["detail"], &answer["again_in_ms"]),
            (&json!(told), &json!(detail), &again)
        );
        let shown = scene.get(&format!("/records/{name}")).await.1;
        let not_done = if line { json!(detail) } else { Value::Null };
        assert_eq!(
            (&shown["audit"][0]["did"], &shown["audit"][0]["not_done"]),
            (&json!("probe"), &not_done),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn what_came_of_a_question_is_told_though_the_record_cannot_be_read_after_it() {
    for (outcome, told) in [(ProbeOutcome::Completed(StatusCode::OK), "found"), (ProbeOutcome::Released, "released")] {
        let is_blind = Arc::new(AtomicBool::new(false));
        let blinds = Arc::clone(&is_blind);
        let ask: AskBackend = Arc::new(move |_| {
            blinds.store(true, Ordering::Relaxed);
            let outcome = outcome.clone();
            Box::pin(async { NextAnswer::Came(outcome) })
        });
        let scene = Scene::asking(|store| Arc::new(Troubled(store, Trouble::Blind(is_blind))), None, ask);
        let (name, _) = scene.put(1, HOLD, unknown()).await;
        let (status, answer) = scene.post(&format!("/records/{name}/probe"), &json!({})).await;
        assert_eq!((status, &answer["probe"], &answer["now"]), (StatusCode::OK, &json!(told), &Value::Null));
        let detail = answer["detail"].as_str().expect("a text");
        assert!(detail.contains("the record could not be read after that: the store is unavailable"), "{detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bulk_release_from_a_slow_store_ends_its_call_in_time_and_goes_on_with_the_next() {
    let scene = Scene::over(|store| Arc::new(Troubled(store, Trouble::Late(Duration::from_secs(1)))), None);
    for digest in 0..50 {
        scene.put(digest, HOLD, unknown()).await;
    }
    let (mut calls, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let wanted = json!({"route": "orders", "state": "unknown", "since": "2026-11-21T12:00:00Z", "dry_run": false,
            "cursor": cursor});
        let begun = Instant::now();
        let (status, done) = scene.post("/records/release", &wanted).await;
        assert_eq!((status, &done["left"]), (StatusCode::OK, &json!([])), "{done}");
        assert!(begun.elapsed() <= Duration::from_secs(21), "{:?}", begun.elapsed());
        calls.push(done["released"].as_array().expect("a list").len());
        match &done["next"] {
            Value::Null => break,
            next => cursor = next.clone(),
        }
    }
    assert_eq!(calls, [20, 20, 10]);
}

#[tokio::test]
async fn many_keys_are_freed_after_a_dry_run() {
    let scene = Scene::new(None);
    for digest in 0..4 {
        scene.put(digest, HOLD, unknown()).await;
    }
    let (completed, _) = scene.put(4, HOLD, completed(b"{}")).await;
    let (alive, _) = scene.put(5, HOLD, None).await;
    let (lost, _) = scene.put(6, LOST, None).await;
    let ask = |state: &str, since: &str, dry_run: Option<bool>| {
        let mut wanted = json!({"route": "orders", "state": state, "since": since});
        if let Some(dry_run) = dry_run {
            wanted["dry_run"] = dry_run.into();
        }
        wanted
    };
    let count = |answer: &(StatusCode, Value)| {
        assert_eq!((answer.0, &answer.1["next"]), (StatusCode::OK, &Value::Null), "{answer:?}");
        ["released", "left"].map(|which| answer.1[which].as_array().expect("a list").len())
    };
    let noon = "2026-11-21T12:00:00Z";
    assert_eq!(count(&scene.post("/records/release", &ask("unknown", noon, None)).await), [4, 0]);
    assert_eq!(count(&scene.post("/records/release", &ask("unknown", "2026-11-21T12:01:01Z", None)).await), [0, 0]);
    assert_eq!(count(&scene.post("/records/release", &ask("in_flight", noon, None)).await), [1, 1]);
    assert_eq!(scene.store_size().await, 7);

    assert_eq!(count(&scene.post("/records/release", &ask("unknown", noon, Some(false))).await), [4, 0]);
    let freed = scene.post("/records/release", &ask("in_flight", noon, Some(false))).await;
    assert_eq!((count(&freed), &freed.1["left"][0]["code"]), ([1, 1], &json!("owner-alive")));
    assert_eq!(scene.store_size().await, 2);
    assert_eq!(scene.left(&lost).await, None);
    assert!(scene.left(&completed).await.is_some() && scene.left(&alive).await.is_some());
    for wrong in
        [json!({"route": "orders", "state": "unknown"}), ask("unknown", "yesterday", None), ask("all", noon, None)]
    {
        assert_eq!(code(&scene.post("/records/release", &wrong).await), (400, "bad-request"), "{wrong}");
    }
}

impl Scene {
    async fn store_size(&self) -> usize {
        self.get("/records").await.1["records"].as_array().expect("a list").len()
    }
}

#[tokio::test]
async fn a_released_owner_that_is_alive_comes_back_unless_another_came_first() {
    let scene = Scene::new(None);
    let (name, claim) = scene.put(1, HOLD, None).await;
    scene.post(&format!("/records/{name}/release"), &json!({"force": true})).await;
    scene.store.renew(&name, &claim).await.expect("an answer");
    let held = scene.store.find(&name).await.expect("an answer").expect("a record");
    assert_eq!((held.owner(), held.record.claim), (OwnerState::Alive, claim));
}
