//! Records in PostgreSQL, from outside: what clients get, and what operators do.

use std::process::Output;

use serde_json::Value;

use crate::support::process::run;
use crate::support::*;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Words with one space between them.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs the program in a folder with this configuration.
async fn with_config(setup: &Setup, arguments: &[&str]) -> Output {
    let (config, arguments) = (setup.toml(), arguments.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
    let running = tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("onlyonce.toml"), config).expect("a writable folder");
        run(folder.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    });
    within("onlyonce", running).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_duplicates_runs_and_the_others_wait_for_it_or_are_refused() {
    let server = PostgresServer::start();
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url()).with("store", &format!("url = \"{}\"", server.url()));
    // Two sidecars make the tables at the same time.
    let waiting = setup.clone().route("on_concurrent = \"wait\"\nwait_timeout = \"60s\"");
    let (one, other) = tokio::join!(setup.clone().start(), waiting.start());
    until("both are ready", async || {
        one.admin("/readyz?store=1").await.status == 200 && other.admin("/readyz?store=1").await.status == 200
    })
    .await;
    // The first of two that start on an empty database claims nothing for a while.
    for sidecar in [&one, &other] {
        until("claims are made", async || sidecar.ask(&order("first")).await.status == 201).await;
    }

    let gate = Gate::new();
    backend.then(vec![Step::Wait(gate.clone()), Step::Answer]);
    let first = one.asking(&order("k"));
    backend.has_seen(2).await;
    one.ask(&order("k")).await.refuses(409, "in-flight");
    let waits = other.asking(&order("k"));
    until("it waits", async || other.metric("onlyonce_waiting{route=\"orders\"}").await == 1.0).await;
    // Its sign is there, so it is notified.
    until("a sign", async || server.sql("SELECT count(*) FROM onlyonce.waiters") == "1").await;
    gate.open();
    let (first, waited) = (first.await.expect("an answer"), waits.await.expect("an answer"));
    assert_eq!((first.status, first.is_replay()), (201, false));
    assert_eq!((waited.status, waited.text(), waited.is_replay()), (201, first.text(), true));
    let again = one.ask(&order("k")).await;
    assert_eq!((again.status, again.text(), again.is_replay()), (201, first.text(), true));
    one.ask(&order("k").body("{\"another\":true}")).await.refuses(422, "key-reused");
    assert_eq!(backend.count(), 2);

    // A large answer comes back byte for byte, from either.
    let large = "x".repeat(300_000);
    backend.then(vec![say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{large}", large.len()))]);
    for (sidecar, is_replay) in [(&one, false), (&other, true), (&one, true)] {
        let answer = sidecar.ask(&order("large")).await;
        assert_eq!((answer.status, answer.is_replay()), (200, is_replay));
        assert!(answer.text() == large);
    }
    assert_eq!(server.sql("SELECT count(*) FROM onlyonce.bodies"), "5");
    // Only this store has sessions.
    assert_eq!(one.metric("onlyonce_store_sessions_left_behind").await, 0.0);
    let memory = Setup::new(&backend.url()).start().await;
    assert!(!memory.admin("/metrics").await.text().contains("left_behind"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_and_settle_records_and_hear_what_is_wrong() {
    let mut server = PostgresServer::start();
    server.sql("CREATE ROLE sidecar LOGIN PASSWORD 'open sesame'");
    let backend = Backend::start().await;
    let url = |user: &str| format!("url = \"{}\"", server.url_as(user));
    let owner = Setup::new(&backend.url()).with("store", &url("postgres"));
    let setup = Setup::new(&backend.url()).with("store", &url("sidecar:open%20sesame"));

    // Nothing is there, and looking does not make it.
    let checked = with_config(&owner, &["check", "--connect"]).await;
    let told = words(&text(&checked.stdout));
    assert_eq!(checked.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot be used: the tables are not there yet"), "{told}");
    let told = words(&text(&with_config(&setup, &["check", "--connect"]).await.stdout));
    assert!(
        told.contains("this user may not make them: run `onlyonce store init --sql --role ROLE | psql -d DATABASE`"),
        "{told}"
    );
    assert!(!told.contains("sesame"), "{told}");
    let refused = with_config(&setup, &["store", "init"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));

    // The statements that are printed are the ones that are run.
    let printed = with_config(&setup, &["store", "init", "--sql", "--role", "sidecar"]).await;
    server.sql(&text(&printed.stdout));
    let made = with_config(&owner, &["store", "init", "--role", "sidecar"]).await;
    assert!(
        words(&text(&made.stdout)).contains("the tables were there, in the schema onlyonce; sidecar has the rights")
    );
    let memory = Setup::new(&backend.url());
    assert_eq!(with_config(&memory, &["store", "init"]).await.status.code(), Some(2));
    let checked = with_config(&setup, &["check", "--connect"]).await;
    let told = words(&text(&checked.stdout));
    assert_eq!(checked.status.code(), Some(0), "{told}{}", text(&checked.stderr));
    for found in [
        &format!("PostgreSQL at 127.0.0.1:{}: can be used", server.port()),
        "server PostgreSQL 1",
        "no commit waits for one (synchronous_standby_names is empty)",
        "fsync or full_page_writes is off",
        "GRANT USAGE ON SCHEMA onlyonce TO \"sidecar\";",
    ] {
        assert!(told.contains(found), "{found}: {told}");
    }

    let sidecar = setup.clone().start().await;
    until("claims are made", async || sidecar.ask(&order("first")).await.status == 201).await;
    backend.then(vec![Step::Reset]);
    sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
    sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
    let explained = with_config(
        &setup,
        &[
            "explain",
            "--lookup",
            "POST",
            "/orders",
            "-H",
            "Idempotency-Key: k",
            "-H",
            "Authorization: Bearer alice",
            "-H",
            "Content-Type: application/json",
            "-d",
            r#"{"item":"book"}"#,
        ],
    )
    .await;
    let told = words(&text(&explained.stdout));
    assert!(told.contains("unknown"), "{told}{}", text(&explained.stderr));

    let admin = format!("http://{}", sidecar.admin);
    let records = async |arguments: &[&str]| {
        let output = with_config(&setup, &[&["records", "--admin", &admin], arguments].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let listed: Value = serde_json::from_str(&records(&["list", "--format", "json"]).await).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    let listed: Value =
        serde_json::from_str(&records(&["list", "--state", "unknown", "--format", "json"]).await).expect("JSON");
    let name = listed[0]["record"].as_str().expect("a name");
    assert!(records(&["show", name]).await.contains("unknown"));
    // What is told of it soon lies apart from its row.
    let reason = "it was there ".repeat(38);
    records(&["complete", name, "--status", "201", "-d", "{\"by\":\"hand\"}", "--reason", &reason]).await;
    let replayed = sidecar.ask(&order("k")).await;
    assert_eq!((replayed.status, replayed.text(), replayed.is_replay()), (201, "{\"by\":\"hand\"}", true));
    for _ in 0..2 {
        records(&["release", name, "--yes", "--reason", &reason]).await;
        assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    }
    assert_eq!(words(&records(&["show", name]).await).matches(reason.trim_end()).count(), 3);
    assert_eq!(backend.count(), 4);

    server.kill();
    let checked = with_config(&setup, &["check", "--connect"]).await;
    let told = words(&text(&checked.stdout));
    assert_eq!(
        (checked.status.code(), told.contains("cannot be used: PostgreSQL cannot be reached")),
        (Some(1), true),
        "{told}"
    );
    until("it is told", async || sidecar.admin("/readyz").await.text().contains("store: down")).await;
    sidecar.ask(&order("new")).await.refuses(503, "store-unavailable");
}
