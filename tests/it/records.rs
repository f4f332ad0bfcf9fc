//! Operators and records: look at them, free their keys, settle them by hand.

mod lists;

use std::net::SocketAddr;
use std::process::Output;

use serde_json::Value;

use crate::support::*;

/// The result of `onlyonce records`.
struct Did {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Did {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Fails unless the command succeeded.
    #[track_caller]
    fn well(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (Some(0), ""), "{}", self.out);
        let is_json = self.out.starts_with(['[', '{']);
        let fits = self.out.lines().all(|line| line.chars().count() <= 80);
        assert!(is_json || fits, "wider than 80 columns: {}", self.out);
        self.out
    }

    /// Fails unless the command was refused with these words.
    #[track_caller]
    fn failed(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, Some(status), "{}{}", self.out, self.err);
        let said: Vec<&str> = self.err.split_whitespace().collect();
        let said = said.join(" ");
        words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not in {said:?}"));
    }
}

/// Runs `onlyonce records` with this token, or none, in an empty folder.
async fn records_with(token: Option<&str>, arguments: &[&str]) -> Did {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = process::onlyonce(&[&["records"], arguments].concat());
    command.current_dir(folder.path()).env_remove("ONLYONCE_ADMIN_TOKEN");
    if let Some(token) = token {
        command.env("ONLYONCE_ADMIN_TOKEN", token);
    }
    let output = tokio::task::spawn_blocking(move || command.output().expect("the program"));
    Did::of(within("onlyonce records", output).await.expect("no panic"))
}

/// Asks this admin listener.
async fn records(admin: SocketAddr, arguments: &[&str]) -> Did {
    records_with(None, &[&["--admin", &format!("http://{admin}")], arguments].concat()).await
}

async fn list(admin: SocketAddr, filter: &[&str]) -> Vec<Value> {
    let listed = records(admin, &[&["list", "--format", "json"], filter].concat()).await.well();
    serde_json::from_str(&listed).unwrap_or_else(|error| panic!("{error}: {listed}"))
}

/// The names of all records in this state.
async fn names(admin: SocketAddr, state: &str) -> Vec<String> {
    let listed = list(admin, &["--state", state]).await;
    listed.iter().map(|entry| entry["record"].as_str().expect("a name").to_owned()).collect()
}

/// The only record in this state.
async fn only(admin: SocketAddr, state: &str) -> String {
    let names = names(admin, state).await;
    assert_eq!(names.len(), 1, "{names:?}");
    names[0].clone()
}

/// A sidecar with an unknown outcome for this key.
async fn with_unknown(store: &Store, backend: &Backend, key: &str) -> Sidecar {
    let sidecar = Setup::new(&backend.url()).store(store).start().await;
    backend.then(vec![Step::Reset]);
    sidecar.ask(&order(key)).await.refuses(502, "upstream-failed");
    sidecar.ask(&order(key)).await.refuses(409, "outcome-unknown");
    sidecar
}

on_every_store! {
    async fn the_key_of_an_unknown_outcome_is_freed(store: &Store) {
        let backend = Backend::start().await;
        let sidecar = with_unknown(store, &backend, "k").await;
        let record = only(sidecar.admin, "unknown").await;
        let said = records(sidecar.admin, &["release", &record]).await.well();
        assert!(said.contains("It was unknown. The next request with its key runs."), "{said}");
        assert_eq!(sidecar.ask(&order("k")).await.status, 201);
        assert!(sidecar.ask(&order("k")).await.is_replay());
        assert_eq!(backend.count(), 2);
        // A recorded response is not deleted without confirmation.
        let asked = records(sidecar.admin, &["release", &record]).await;
        asked.failed(2, &["is completed: its answer is kept", "If that is meant: --yes"]);
        assert!(sidecar.ask(&order("k")).await.is_replay());
        let again = records(sidecar.admin, &["release", &record, "--yes"]).await;
        assert!(again.well().contains("It was completed with 201."));
        records(sidecar.admin, &["release", &record]).await.failed(1, &["the key is free", "record-not-found"]);
    }

    /// The operator looks, another one is faster, and the first one then frees what was not there when they looked.
    async fn a_record_that_has_changed_since_it_was_shown_stays_as_it_is(store: &Store) {
        let backend = Backend::start().await;
        let sidecar = with_unknown(store, &backend, "k").await;
        let record = only(sidecar.admin, "unknown").await;
        let shown = list(sidecar.admin, &[]).await.remove(0);
        let was = ["state", "attempt", "claimed_at", "settled_at"].map(|name| (name.to_owned(), shown[name].clone()));
        let was = Value::Object(was.into_iter().collect());
        let ask = async |verb: &str, content: Value| {
            let request = Request::to_host(&format!("/records/{record}/{verb}"), "localhost");
            let request = request.line("Onlyonce-Admin: 1").json(&content.to_string());
            Wire::connect(sidecar.admin).await.ask(&request).await
        };
        records(sidecar.admin, &["complete", &record, "--status", "201", "-d", "{}"]).await.well();
        let refused = ask("release", serde_json::json!({ "was": was })).await;
        refused.refuses(409, "record-changed");
        assert!(refused.text().contains("was unknown, and is completed now"), "{}", refused.text());
        assert!(sidecar.ask(&order("k")).await.is_replay());
        // Another record of the same state, attempt and key.
        records(sidecar.admin, &["release", &record, "--yes"]).await.well();
        backend.then(vec![Step::Reset]);
        sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
        for (verb, content) in [
            ("release", serde_json::json!({ "was": was })),
            ("complete", serde_json::json!({ "status": 201, "was": was })),
        ] {
            let refused = ask(verb, content).await;
            refused.refuses(409, "record-changed");
            assert!(refused.text().contains("is another one by now"), "{}", refused.text());
        }
        sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
        // As it is shown now.
        let shown = list(sidecar.admin, &[]).await.remove(0);
        let was = ["state", "attempt", "claimed_at", "settled_at"].map(|name| (name.to_owned(), shown[name].clone()));
        let was = Value::Object(was.into_iter().collect());
        assert_eq!(ask("release", serde_json::json!({ "was": was })).await.status, 200);
        assert_eq!(sidecar.ask(&order("k")).await.status, 201);
        assert_eq!(backend.count(), 3);
    }

    async fn what_an_operator_did_is_told_also_after_a_release(store: &Store) {
        let backend = Backend::start().await;
        let sidecar = with_unknown(store, &backend, "k").await;
        let record = only(sidecar.admin, "unknown").await;
        let said = records(sidecar.admin, &["release", &record, "--reason", "no such order"]).await;
        said.well();
        let shown = records(sidecar.admin, &["show", &record]).await.well();
        let words: Vec<&str> = shown.split_whitespace().collect();
        let words = words.join(" ");
        assert!(words.contains("no record: the key is free"), "{shown}");
        assert!(words.contains("released by this machine from 127.0.0.1: \"no such order\""), "{shown}");
        // The key is free, and the list is empty.
        assert_eq!(list(sidecar.admin, &[]).await, Vec::<Value>::new());
        backend.then(vec![Step::Reset]);
        sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
        let settle = ["complete", &record, "--status", "201", "-d", "{}", "--reason", "it was there at last"];
        records(sidecar.admin, &settle).await.well();
        let shown = records(sidecar.admin, &["show", &record, "--format", "json"]).await.well();
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        let audit = shown["audit"].as_array().expect("lines");
        let told: Vec<_> = audit.iter().map(|line| (line["did"].as_str(), line["reason"].as_str())).collect();
        assert_eq!(told, [
            (Some("release"), Some("no such order")),
            (Some("complete"), Some("it was there at last")),
        ]);
        assert_eq!((&audit[1]["status"], &audit[1]["was"], &audit[1]["not_done"]), (&201.into(), &"unknown".into(), &Value::Null));
        // A refused change is not audited.
        records(sidecar.admin, &settle).await.failed(1, &["already-completed"]);
        let long = "x".repeat(501);
        records(sidecar.admin, &["release", &record, "--yes", "--reason", &long]).await.failed(1, &["500 characters"]);
        let shown = records(sidecar.admin, &["show", &record, "--format", "json"]).await.well();
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(shown["audit"].as_array().map(Vec::len), Some(2));
    }

    async fn an_answer_that_no_record_can_hold_is_refused(store: &Store) {
        let backend = Backend::start().await;
        let sidecar = with_unknown(store, &backend, "k").await;
        let record = only(sidecar.admin, "unknown").await;
        let names = |count: usize| (0..count).map(|number| (format!("x-{number}"), "1".to_owned())).collect::<Vec<_>>();
        let lines = |count: usize| vec![("x-line".to_owned(), "1".to_owned()); count];
        let large = vec![("x-line".to_owned(), "1".repeat(70_000))];
        for headers in [names(40_000), names(1001), lines(70_000), lines(1001), large] {
            let given = serde_json::json!({ "status": 201, "headers": headers });
            let complete = Request::to_host(&format!("/records/{record}/complete"), "localhost").line("Onlyonce-Admin: 1").json(&given.to_string());
            let refused = Wire::connect(sidecar.admin).await.ask(&complete).await;
            refused.refuses(400, "bad-request");
            assert!(refused.text().contains("at most"), "{}", refused.text());
        }
        // The record is unchanged; a response of the allowed size is kept.
        assert_eq!(only(sidecar.admin, "unknown").await, record);
        let given = serde_json::json!({ "status": 201, "headers": lines(80) });
        let complete = Request::to_host(&format!("/records/{record}/complete"), "localhost").line("Onlyonce-Admin: 1").json(&given.to_string());
        assert_eq!(Wire::connect(sidecar.admin).await.ask(&complete).await.status, 200);
        let replay = sidecar.ask(&order("k")).await;
        assert_eq!((replay.is_replay(), replay.values("x-line").len()), (true, 80));
        assert_eq!(backend.count(), 1);
    }

    async fn an_unknown_outcome_is_settled_by_hand(store: &Store) {
        let backend = Backend::start().await;
        let sidecar = with_unknown(store, &backend, "k").await;
        let record = only(sidecar.admin, "unknown").await;
        let settle = ["complete", &record, "--status", "201", "-H", "Location: /orders/7", "-d", "{\"order\":7}"];
        let said = records(sidecar.admin, &settle).await.well();
        assert!(said.contains("It was unknown. Retries get this 201 until 20"), "{said}");
        let replay = sidecar.ask(&order("k")).await;
        assert!(replay.is_replay());
        assert_eq!((replay.status, replay.value("location"), replay.text()), (201, Some("/orders/7"), "{\"order\":7}"));
        // The record keeps the fingerprint.
        sidecar.ask(&order("k").body("another")).await.refuses(422, "key-reused");
        assert_eq!(backend.count(), 1);
        let again = records(sidecar.admin, &settle).await;
        again.failed(1, &["already-completed", "Release it first"]);
    }

    async fn the_body_is_shown_only_where_it_is_asked_for(store: &Store) {
        let backend = Backend::start().await;
        let sidecar = Setup::new(&backend.url()).store(store).with("admin", "token = \"open-sesame-for-all\"").start().await;
        backend.then(vec![answer("201 Created\r\nSet-Cookie: session=s3cret", "the s3cret body")]);
        sidecar.ask(&order("k")).await;
        let url = format!("http://{}", sidecar.admin);
        let records = async |arguments: &[&str]| {
            records_with(Some("open-sesame-for-all"), &[&["--admin", &url], arguments].concat()).await.well()
        };
        let listed = records(&["list"]).await;
        assert!(!listed.contains("s3cret"), "{listed}");
        let record = listed.lines().next().expect("a name");
        for format in ["text", "json"] {
            let show = ["show", record, "--format", format];
            let shown = records(&show).await;
            assert!(shown.contains("completed") && shown.contains("201") && shown.contains("set-cookie"), "{shown}");
            assert!(!shown.contains("s3cret"), "{shown}");
            let shown = records(&[&show[..], &["--body"]].concat()).await;
            assert!(shown.contains("the s3cret body") && shown.contains("session=s3cret"), "{shown}");
        }
    }

    async fn without_a_token_no_body_is_shown(store: &Store) {
        let backend = Backend::start().await;
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        backend.then(vec![answer("201 Created\r\nSet-Cookie: session=s3cret", "the s3cret body")]);
        sidecar.ask(&order("k")).await;
        let record = only(sidecar.admin, "completed").await;
        for (name, lines) in [
            (&*record, "Onlyonce-Admin: 1"),
            (&*record, "Onlyonce-Admin: 1\r\nAuthorization: Bearer any"),
            ("orders:00000000000000000000000000000000", "Onlyonce-Admin: 1"),
        ] {
            let ask = request("GET", &format!("/records/{name}?body=1")).host("localhost").line(lines);
            let refused = Wire::connect(sidecar.admin).await.ask(&ask).await;
            assert!(!refused.text().contains("s3cret") && refused.json()["answer"].is_null(), "{refused:?}");
            refused.refuses(403, "token-needed");
        }
        let show = ["show", &record, "--body"];
        let refused = records(sidecar.admin, &show).await;
        refused.failed(1, &["No admin.token is set", "(token-needed)", "env:ONLYONCE_ADMIN_TOKEN", "openssl rand -hex 32"]);
        assert!(refused.out.is_empty() && refused.err.lines().all(|line| line.chars().count() <= 80), "{}", refused.err);
        assert!(records(sidecar.admin, &show[..2]).await.well().contains("201"));
    }

    async fn a_running_request_keeps_its_record_unless_forced(store: &Store) {
        let (backend, gate) = Backend::gated().await;
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        let first = sidecar.asking(&order("k"));
        backend.has_seen(1).await;
        let record = only(sidecar.admin, "in_flight").await;
        let refused = records(sidecar.admin, &["release", &record]).await;
        refused.failed(1, &["owner-alive", "a retry may run beside", "--force"]);
        let refused = records(sidecar.admin, &["complete", &record, "--status", "200"]).await;
        refused.failed(1, &["owner-alive", "--force"]);
        sidecar.ask(&order("k")).await.refuses(409, "in-flight");

        let settle = ["complete", &record, "--status", "200", "-d", "by hand", "--force"];
        records(sidecar.admin, &settle).await.well();
        assert_eq!(sidecar.ask(&order("k")).await.text(), "by hand");
        gate.open();
        // The owner's client gets the recorded response, too.
        assert_eq!(first.await.expect("an answer").text(), "by hand");
        assert_eq!((sidecar.ask(&order("k")).await.text(), backend.count()), ("by hand", 1));
    }

    async fn a_running_request_is_overtaken_by_force(store: &Store) {
        let (backend, gate) = Backend::gated().await;
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        let first = sidecar.asking(&order("k"));
        backend.has_seen(1).await;
        let record = only(sidecar.admin, "in_flight").await;
        let said = records(sidecar.admin, &["release", &record, "--force"]).await.well();
        assert!(said.contains("It was in flight.") && said.contains("goes on"), "{said}");
        let second = sidecar.ask(&order("k")).await;
        assert_eq!((second.status, second.is_replay(), backend.count()), (201, false, 2));
        gate.open();
        assert_eq!(first.await.expect("an answer").text(), second.text());
        assert_eq!(sidecar.ask(&order("k")).await.text(), second.text());
    }

    async fn many_keys_are_freed_once_it_is_meant(store: &Store) {
        let backend = Backend::start().await;
        let sidecar = with_unknown(store, &backend, "0").await;
        for key in ["1", "2"] {
            backend.then(vec![Step::Reset]);
            sidecar.ask(&order(key)).await;
        }
        sidecar.ask(&order("done")).await;
        let mut unknown = names(sidecar.admin, "unknown").await;
        unknown.sort_unstable();
        let release = ["release", "--route", "orders", "--state", "unknown", "--since", "1h"];
        let said = records(sidecar.admin, &release).await.well();
        let mut named: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("would release ")).collect();
        named.sort_unstable();
        assert_eq!(named, unknown);
        assert!(said.contains("3 records of orders, unknown since 20") && said.contains("--yes"), "{said}");
        assert_eq!(names(sidecar.admin, "unknown").await.len(), 3);
        let later = ["release", "--route", "orders", "--state", "unknown", "--since", "2100-01-01T00:00:00Z", "--yes"];
        assert!(records(sidecar.admin, &later).await.well().contains("0 records"));
        assert_eq!(names(sidecar.admin, "unknown").await.len(), 3);

        let said = records(sidecar.admin, &[&release[..], &["--yes"]].concat()).await.well();
        assert!(said.contains("3 records of orders") && said.contains(": released"), "{said}");
        assert_eq!((names(sidecar.admin, "unknown").await.len(), names(sidecar.admin, "completed").await.len()), (0, 1));
        assert_eq!(sidecar.ask(&order("1")).await.status, 201);
    }
}

on_every_lasting_store! {
    async fn the_records_that_are_unknown_now_are_told_by_a_gauge(store: &Store) {
        const UNKNOWN: &str = "onlyonce_records_unknown{route=\"orders\"}";
        let backend = Backend::start().await;
        let sidecar = with_unknown(store, &backend, "k").await;
        assert_eq!(sidecar.metric(UNKNOWN).await, 1.0);
        sidecar.stop().await;
        // A restarted sidecar, or another one with the same store, finds it.
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        until("it is found", async || sidecar.metric(UNKNOWN).await == 1.0).await;
        let record = only(sidecar.admin, "unknown").await;
        records(sidecar.admin, &["complete", &record, "--status", "201"]).await.well();
        assert_eq!(sidecar.metric(UNKNOWN).await, 0.0);
    }

    async fn the_key_of_a_lost_owner_is_freed_without_force(store: &Store) {
        let (backend, gate) = Backend::gated().await;
        let setup = Setup::new(&backend.url()).store(store).route("lease = \"1s\"");
        let mut lost = Process::start(&setup).await;
        let _first = lost.begin(&order("k")).await;
        backend.has_seen(1).await;
        lost.kill();
        gate.open();
        let sidecar = setup.start().await;
        until("its owner counts as lost", async || {
            sidecar.ask(&order("k")).await.problem() == (409, "outcome-unknown".to_owned())
        })
        .await;
        let listed = list(sidecar.admin, &["--state", "in_flight"]).await;
        assert_eq!((listed.len(), &listed[0]["owner"]), (1, &Value::from("lost")));
        let record = listed[0]["record"].as_str().expect("a name");
        let said = records(sidecar.admin, &["release", record]).await.well();
        assert!(said.contains("in flight, its owner lost"), "{said}");
        assert_eq!((sidecar.ask(&order("k")).await.status, backend.count()), (201, 2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_a_line_in_the_log() {
    let backend = Backend::start().await;
    backend.then(vec![Step::Reset]);
    let mut sidecar = Process::start(&Setup::new(&backend.url())).await;
    sidecar.ask(&order("the-key")).await;
    let record = only(sidecar.admin, "unknown").await;
    let settle = ["complete", &record, "--status", "200", "-d", "the body"];
    records(sidecar.admin, &settle).await.well();
    records(sidecar.admin, &settle).await.failed(1, &["already-completed"]);
    records(sidecar.admin, &["release", &record, "--yes"]).await.well();
    sidecar.logs("record_released").await;
    sidecar.kill();
    let log = sidecar.whole_log();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let changes: Vec<Value> = events.filter(|event| event["record"] == *record && event["by"].is_string()).collect();
    assert_eq!(
        changes.iter().map(|change| &change["event"]).collect::<Vec<_>>(),
        ["record_completed", "record_released"]
    );
    for (change, was) in changes.iter().zip(["unknown", "completed"]) {
        assert_eq!((&change["was"], &change["force"]), (&Value::from(was), &Value::from(false)));
        assert_eq!(change["by"], "this machine");
        assert!(change["from"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{change}");
    }
    assert!(!log.contains("the body"));
}
