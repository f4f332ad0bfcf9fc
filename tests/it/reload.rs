//! Reloads replace the rules without an effect on requests that are being served.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::Signal;

use crate::support::*;

const RELOADED: &str = "reloaded: the configuration is in force";
const REFUSED: &str = "the configuration was not reloaded";
const OK: &str = "onlyonce_config_reloads_total{result=\"ok\"}";
const NOT_OK: &str = "onlyonce_config_reloads_total{result=\"refused\"}";

/// Waits for this number of successful reloads.
async fn reloaded(process: &Process, times: f64) {
    until("reloaded", async || process.metric(OK).await >= times).await;
    assert_eq!(process.metric(OK).await, times);
}

fn is_guarded(answers: [&Response; 2]) -> bool {
    assert_eq!(answers.map(|answer| answer.status), [201, 201]);
    answers[1].is_replay()
}

#[tokio::test]
async fn a_hangup_reloads_whether_the_file_has_changed_or_not() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let process = Process::start(&setup).await;
    process.signal(Signal::HUP);
    reloaded(&process, 1.0).await;
    assert!(process.ask(&order("a")).await.status == 201 && process.ask(&order("a")).await.is_replay());

    process.rewrite(&setup.route("path = \"/other\""));
    process.signal(Signal::HUP);
    reloaded(&process, 2.0).await;
    assert!(!is_guarded([&process.ask(&order("b")).await, &process.ask(&order("b")).await]));
}

#[tokio::test]
async fn a_changed_file_is_noticed_however_it_changes() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let process = Process::start(&setup).await;
    let create = |path: &str| post(path).line(&format!("Idempotency-Key: {path}")).by("alice");

    process.rewrite(&setup.clone().route("path = \"/in-place\""));
    reloaded(&process, 1.0).await;
    let path = create("/in-place");
    assert!(is_guarded([&process.ask(&path).await, &process.ask(&path).await]));

    let beside = process.file().with_extension("new");
    fs::write(&beside, setup.clone().route("path = \"/renamed\"").toml()).expect("a writable folder");
    fs::rename(&beside, process.file()).expect("the same folder");
    reloaded(&process, 2.0).await;
    let path = create("/renamed");
    assert!(is_guarded([&process.ask(&path).await, &process.ask(&path).await]));
    assert_eq!(process.metric(NOT_OK).await, 0.0);
}

/// The file is a link into `..data`, itself a link to a folder of its own for each version, which is replaced by a
/// rename.
#[tokio::test]
async fn a_file_that_kubernetes_mounted_is_noticed_too() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mount = |version: &str, setup: &Setup| {
        fs::create_dir(folder.path().join(version)).expect("a new version");
        fs::write(folder.path().join(version).join("onlyonce.toml"), setup.toml()).expect("a writable folder");
        symlink(version, folder.path().join("..data_tmp")).expect("a new link");
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).expect("the same folder");
    };
    mount("..2026_11_21", &setup);
    let file = folder.path().join("onlyonce.toml");
    symlink(Path::new("..data").join("onlyonce.toml"), &file).expect("a new link");

    let process = Process::start_with(&file).await;
    mount("..2026_11_22", &setup.route("message = \"Done already.\""));
    fs::remove_dir_all(folder.path().join("..2026_11_21")).expect("the old version");
    reloaded(&process, 1.0).await;
    process.ask(&order("k")).await;
    let reused = process.ask(&order("k").line("X: y").body("{}")).await;
    assert_eq!((reused.status, reused.json()["detail"].as_str()), (422, Some("Done already.")));
}

#[tokio::test]
async fn a_broken_file_is_refused_once_in_the_words_of_check_and_the_old_rules_stay() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let process = Process::start(&setup).await;
    let first = process.ask(&order("k")).await;

    fs::write(process.file(), setup.clone().route("lease = \"soon\"\npolicy = \"lenent\"").toml()).expect("to write");
    until("refused", async || process.metric(NOT_OK).await > 0.0).await;
    let check = process::onlyonce(&["check"]).arg("--config").arg(process.file()).output().expect("the program");
    let told = String::from_utf8(check.stderr).expect("text");
    assert!(told.contains("lenient") && told.ends_with("\n"), "{told}");
    process.logs(REFUSED).await;
    let log = process.log();
    let line = log.lines().find(|line| line.contains(REFUSED)).expect("it is logged");
    let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(event["level"], "ERROR");
    let message = event["message"].as_str().expect("a message");
    assert!(message.ends_with(told.trim_end()), "{message}\n\n{told}");

    assert!(process.ask(&order("k")).await.is_replay());
    assert_eq!((first.status, backend.count()), (201, 1));

    // The broken file is read many times before a valid one is written.
    process.rewrite(&setup.route("retention = \"5d\""));
    reloaded(&process, 1.0).await;
    assert_eq!(process.metric(NOT_OK).await, 1.0);
    assert!(process.ask(&order("k")).await.is_replay());
}

#[tokio::test]
async fn a_file_that_is_gone_is_refused_and_missed_no_more_when_it_is_back() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let process = Process::start(&setup).await;
    fs::remove_file(process.file()).expect("it is there");
    process.logs("there is no file").await;
    assert_eq!(process.ask(&order("k")).await.status, 201);
    process.rewrite(&setup);
    reloaded(&process, 1.0).await;
    assert_eq!(process.metric(NOT_OK).await, 1.0);
}

#[tokio::test]
async fn what_takes_effect_at_the_next_start_only_is_said_and_the_rest_is_in_force() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let process = Process::start(&setup).await;
    let changed = setup
        .with("server", "listen = \"127.0.0.1:1\"\nmax_connections = 7")
        .with("store", "url = \"redis://127.0.0.1:1\"")
        .with("log", "level = \"debug\"\nformat = \"text\"")
        .route("path = \"/other\"");
    process.rewrite(&changed);
    reloaded(&process, 1.0).await;
    for key in ["server.listen", "server.max_connections", "store.url"] {
        process.logs(&format!("{key} changed: takes effect at the next start")).await;
    }
    assert!(!process.log().contains("server.idle_timeout changed"));
    let other = post("/other").line("Idempotency-Key: k").by("alice");
    assert!(is_guarded([&process.ask(&other).await, &process.ask(&other).await]));
}

#[tokio::test]
async fn the_log_level_changes_at_once() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let process = Process::start(&setup).await;
    process.ask(&order("told")).await;
    process.logs("\"executed\"").await;
    process.rewrite(&setup.clone().with("log", "level = \"error\""));
    reloaded(&process, 1.0).await;
    let before = process.log();
    process.ask(&order("untold")).await;
    process.rewrite(&setup);
    reloaded(&process, 2.0).await;
    process.logs(RELOADED).await;
    assert!(!process.log()[before.len()..].contains("\"executed\""), "{}", process.log());
    process.ask(&order("told-again")).await;
    until("told", async || process.log().matches("\"executed\"").count() == 2).await;
}

#[tokio::test]
async fn at_warn_only_requests_of_unknown_outcome_have_a_line() {
    let scripts = ["201 Created", "504 Late", "201 Created"].map(|status| vec![answer(status, "{}")]);
    let backend = Backend::scripted(scripts).await;
    let setup = Setup::new(&backend.url());
    let process = Process::start(&setup).await;
    process.rewrite(&setup.clone().with("log", "level = \"warn\""));
    reloaded(&process, 1.0).await;
    for key in ["stored", "unknown", "stored-too"] {
        process.ask(&order(key)).await;
    }
    process.logs("\"became\":\"unknown\"").await;
    process.rewrite(&setup);
    reloaded(&process, 2.0).await;
    process.logs(RELOADED).await;
    assert_eq!(process.log().matches("\"became\"").count(), 1, "{}", process.log());
}

#[tokio::test]
async fn connections_attempts_and_waiters_survive_and_end_by_the_rules_that_they_began_with() {
    let gate = Gate::new();
    let backend = Backend::scripted([vec![Step::Answer], vec![Step::Wait(gate.clone()), Step::Answer]]).await;
    let setup = Setup::new(&backend.url()).route("on_concurrent = \"wait\"");
    let process = Process::start(&setup).await;
    let mut idle = process.connect().await;
    assert_eq!(idle.ask(&request("GET", "/")).await.status, 201);

    let mut owner = process.begin(&order("k")).await;
    backend.has_seen(2).await;
    let mut waiter = process.begin(&order("k")).await;
    until("waiting", async || process.metric("onlyonce_waiting{route=\"orders\"}").await == 1.0).await;

    // Another name, no waiting, another backend: all settings of the route have changed when they end.
    let elsewhere = Backend::start().await;
    let renamed = setup
        .clone()
        .with("upstream", &format!("url = \"{}\"", elsewhere.url()))
        .route("name = \"renamed\"\non_concurrent = \"reject\"");
    process.rewrite(&renamed);
    reloaded(&process, 1.0).await;
    assert_eq!(process.metric("onlyonce_in_flight{route=\"orders\"}").await, 1.0);
    assert_eq!(idle.ask(&order("k")).await.status, 201);
    assert_eq!((backend.count(), elsewhere.count()), (2, 1));
    assert_eq!(process.metric("onlyonce_requests_total{outcome=\"executed\",route=\"renamed\"}").await, 1.0);

    gate.open();
    let (first, second) = (owner.response().await, waiter.response().await);
    assert!(is_guarded([&first, &second]));
    assert_eq!(first.body, second.body);

    // Its record is found again when the old route name is used again.
    process.rewrite(&setup);
    reloaded(&process, 2.0).await;
    assert!(owner.ask(&order("k")).await.is_replay());
    assert_eq!((backend.count(), elsewhere.count()), (2, 1));
    assert_eq!(process.metric("onlyonce_in_flight{route=\"orders\"}").await, 0.0);
}

#[tokio::test]
async fn a_body_on_its_way_is_guarded_by_the_rules_that_its_request_began_with() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let process = Process::start(&setup).await;
    let whole = order("k").bytes();
    let (head, rest) = whole.split_at(whole.len() - 5);
    let mut client = process.connect().await;
    client.send(head).await;
    until("the body is being read", async || process.metric("onlyonce_buffered_bytes").await > 0.0).await;
    process.rewrite(&setup.route("mode = \"off\""));
    reloaded(&process, 1.0).await;
    client.send(rest).await;
    assert_eq!(client.response().await.status, 201);
    until("counted", async || {
        process.metric("onlyonce_requests_total{outcome=\"executed\",route=\"orders\"}").await == 1.0
    })
    .await;
    assert_eq!(backend.count(), 1);
}
