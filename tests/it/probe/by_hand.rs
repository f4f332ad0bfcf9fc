//! An operator has the backend asked (`onlyonce records probe`).

use serde_json::json;

use super::*;

async fn probe(sidecar: &Sidecar, record: &str) -> Response {
    let call = Request::to_host(&format!("/records/{record}/probe"), "localhost").line("Onlyonce-Admin: 1");
    Wire::connect(sidecar.admin).await.ask(&call.json(r#"{"reason":"a customer asks"}"#)).await
}

/// An operator has the backend asked, and the story of the record tells of it.
#[tokio::test]
async fn an_operator_has_the_backend_asked() {
    // Without a script, it answers 201: neither found nor absent.
    let backend = losing([]).await;
    let sidecar = Setup::new(&backend.url()).route(&search(&format!("{OWN}\nafter = \"1ms\""))).start().await;
    lose(&sidecar).await;
    let record = sidecar.ask(&order("k")).await.json()["record"].as_str().map(ToOwned::to_owned);
    let record = record.expect("a record");
    // A moment after the sidecar has asked by itself, it does not ask again.
    until("it is asked", async || {
        let told = probe(&sidecar, &record).await.json();
        assert_eq!(told["now"]["state"], "unknown", "{told}");
        if told["probe"] == "inconclusive" {
            assert_eq!(told["detail"], "neither found nor absent names its status (201)");
        }
        told["probe"] == "inconclusive"
    })
    .await;
    backend.then(something());
    until("it is known", async || {
        let told = probe(&sidecar, &record).await;
        told.status == 409 || told.json()["probe"] == "found"
    })
    .await;
    probe(&sidecar, &record).await.refuses(409, "already-completed");
    sidecar.ask(&order("k")).await.refuses(409, "already-completed");
    let show = request("GET", &format!("/records/{record}")).host("localhost").line("Onlyonce-Admin: 1");
    let shown = Wire::connect(sidecar.admin).await.ask(&show).await.json();
    let audit = shown["audit"].as_array().expect("lines");
    let (by_probe, by_hand): (Vec<_>, Vec<_>) = audit.iter().partition(|line| line["by"] == "probe");
    assert!(by_hand.iter().all(|line| line["did"] == "probe" && line["reason"] == "a customer asks"), "{shown}");
    assert_eq!(by_probe.len(), 1, "{shown}");
    assert_eq!((&by_probe[0]["did"], &by_probe[0]["asked"]), (&json!("complete"), &json!("/orders?key={key}")));
    let in_vain = "neither found nor absent names its status (201)";
    assert!(by_hand.iter().any(|line| line["not_done"] == in_vain), "{shown}");
    assert_eq!(orders(&backend), 1);
}

/// What cannot be asked about is said.
#[tokio::test]
async fn an_operator_is_told_why_the_backend_is_not_asked() {
    let values = format!("[probe]\npath = \"/o/{{json:/item}}?k={{key}}\"\n{FOUND}\n{ABSENT}\nauthorization = \"x\"");
    for (keys, why) in [
        ("", "its route has no [route.probe]"),
        (&search(""), "the route's probe has no credential of its own (probe.authorization)"),
        (&values, "what to ask for is not kept with the record (store.encryption_keys; 4 KiB at most)"),
    ] {
        let (store, backend) = (Store::embedded(), losing([]).await);
        let setup = Setup::new(&backend.url()).store(&store);
        let sidecar = setup.clone().route("").start().await;
        lose(&sidecar).await;
        let record = sidecar.ask(&order("k")).await.json()["record"].as_str().map(ToOwned::to_owned);
        sidecar.stop().await;
        let sidecar = setup.route(keys).start().await;
        let told = probe(&sidecar, &record.expect("a record")).await.json();
        assert_eq!((&told["probe"], &told["detail"]), (&json!("not_asked"), &json!(why)), "{told}");
        assert_eq!(backend.count(), 1);
    }
}

/// The record of the order that was lost. Its repeat does not wait for the backend.
async fn record(sidecar: &Sidecar) -> String {
    let refused = sidecar.ask(&order("k")).await;
    refused.refuses(409, "outcome-unknown");
    refused.json()["record"].as_str().expect("a record").to_owned()
}

/// What the record's story tells of its questions: what became of each.
async fn told(sidecar: &Sidecar, record: &str) -> Vec<Option<String>> {
    let show = request("GET", &format!("/records/{record}")).host("localhost").line("Onlyonce-Admin: 1");
    let shown = Wire::connect(sidecar.admin).await.ask(&show).await.json();
    let asked = |line: &&Value| line["did"] == "probe";
    let lines = shown["audit"].as_array().expect("lines").iter().filter(asked);
    lines.map(|line| line["not_done"].as_str().map(ToOwned::to_owned)).collect()
}

/// A backend that takes longer than an operator waits, half a minute, has not said yet that nothing changed.
#[tokio::test]
#[ignore = "tests/run --all"]
async fn an_operator_is_told_that_there_is_no_answer_yet() {
    let gate = Gate::new();
    let backend = losing([[vec![Step::Wait(gate.clone())], something()].concat()]).await;
    let sidecar = Setup::new(&backend.url()).route(&search(&format!("timeout = \"1m\"\n{OWN}"))).start().await;
    lose(&sidecar).await;
    backend.has_seen(2).await;
    let mut leaves = sidecar.begin(&order("k")).await;
    let listed = request("GET", "/records").host("localhost").line("Onlyonce-Admin: 1");
    let listed = Wire::connect(sidecar.admin).await.ask(&listed).await.json();
    let record = listed["records"][0]["record"].as_str().expect("a record");
    let told_now = probe(&sidecar, record).await.json();
    assert_eq!((&told_now["probe"], &told_now["now"]["state"]), (&json!("pending"), &json!("unknown")), "{told_now}");
    assert_eq!(told(&sidecar, record).await, [None], "it was asked");
    gate.open();
    leaves.response().await.refuses(409, "already-completed");
    assert_eq!(questions(&backend).len(), 1);
}

/// The backend was asked a moment ago, and is not asked over and over.
#[tokio::test]
async fn an_operator_is_told_that_the_next_question_is_not_due() {
    for (says, last) in [
        (nothing(), "the backend has nothing of the request so far"),
        (says("503 Service Unavailable", "{}"), "neither found nor absent names its status (503)"),
    ] {
        let backend = losing(vec![says; 9]).await;
        let keys = search(&format!("after = \"10m\"\n{OWN}"));
        let sidecar = Setup::new(&backend.url()).route(&keys).start().await;
        lose(&sidecar).await;
        let record = record(&sidecar).await;
        // It comes to one that is not due as soon as there are two within a second.
        let mut told_now = json!({});
        until("one that is not due", async || {
            told_now = probe(&sidecar, &record).await.json();
            told_now["probe"] == "not_asked"
        })
        .await;
        let detail = told_now["detail"].as_str().expect("a text");
        assert!(detail.starts_with("it was asked a moment ago") && detail.contains(last), "{told_now}");
        assert!(told_now["again_in_ms"].as_u64().is_some_and(|again| again <= 60_000), "{told_now}");
        assert_eq!(told(&sidecar, &record).await.pop(), Some(Some(detail.to_owned())));
    }
}
