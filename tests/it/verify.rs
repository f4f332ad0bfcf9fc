//! `onlyonce verify`: APIs of all kinds, and what the table says of them.

mod api;
mod command_line;
mod count;

use std::collections::HashSet;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use serde_json::{Value, json};

use self::api::{Api, Leavers, Manners};
use crate::support::process::onlyonce;
use crate::support::*;

const ALICE: [&str; 4] = ["-H", "Authorization: Bearer alice-secret", "-d", r#"{"item":"book","amount":120}"#];
const COUNT: [&str; 4] = ["--count", "GET /orders", "--at", "json:/total"];

/// Runs `onlyonce verify POST` in the background, as a process.
async fn run(url: String, arguments: &[&str]) -> Output {
    let mut command = onlyonce(&["verify", "POST"]);
    command.arg(url).args(arguments).env_remove("NO_COLOR");
    let running = tokio::task::spawn_blocking(move || command.output().expect("the program"));
    running.await.expect("no panic")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The exit status, and the verdict on each case.
async fn verdicts(url: String, arguments: &[&str]) -> (i32, Value) {
    let mut all = vec!["--yes", "--format", "json"];
    all.extend(arguments);
    let output = run(url, &all).await;
    let status = output.status.code().expect("an exit status");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    (status, report)
}

#[track_caller]
fn verdict<'a>(report: &'a Value, case: &str) -> &'a str {
    let cases = report["cases"].as_array().expect("cases");
    let found = cases.iter().find(|row| row["case"] == case).unwrap_or_else(|| panic!("no {case}: {report:#}"));
    found["verdict"].as_str().expect("a verdict")
}

#[track_caller]
fn says(report: &Value, case: &str, expected: &str) {
    assert_eq!(verdict(report, case), expected, "{case}: {report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_knows_no_keys_doubles_effects_and_the_exit_status_is_1() {
    let api = Api::start(Manners { waits_for_leavers: true, ..Manners::default() }).await;
    let front = Leavers::start(api.address, &api).await;
    let url = format!("http://{}/orders", front.address);
    let (status, report) = verdicts(url, &[&ALICE[..], &COUNT].concat()).await;
    assert_eq!(
        (status, &report["harmful"], &report["effects"]["by"]),
        (1, &json!(true), &json!("count")),
        "{report:#}"
    );
    for case in ["repeat", "concurrent", "lost-answer", "client-timeout"] {
        says(&report, case, "fail");
    }
    says(&report, "control", "pass");
    // What a key means to it was not asked: it creates fewer orders.
    for case in ["other-body", "key-case", "long-key", "replay-body"] {
        says(&report, case, "not-known");
    }
    let most = report["requests"].as_u64().expect("a number");
    assert_eq!(u64::try_from(api.orders().len()).expect("few"), most, "{report:#}");
    assert_eq!(most, 2 + 1 + 10 + 2 + 2 + 1 + 1, "{report:#}");
    assert_eq!(api.state.chunked.load(Ordering::SeqCst), 0, "a request that is given up is as any other");

    // Without a count, the answers prove it.
    let (status, report) = verdicts(format!("{}/orders", api.url()), &ALICE).await;
    assert_eq!((status, &report["effects"]), (1, &json!({"by": "names", "source": "Location", "instead": null})));
    says(&report, "repeat", "fail");
    says(&report, "concurrent", "fail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_api_passes_behind_onlyonce() {
    let api = Api::start(Manners { waits_for_leavers: true, ..Manners::default() }).await;
    let setup = Setup::new(&api.url()).route("on_concurrent = \"wait\"\nhelp = \"https://docs.test/keys\"");
    let sidecar = setup.start().await;
    let other = ["--other-caller", "Authorization: Bearer bob"];
    let arguments = [&ALICE[..], &COUNT, &other].concat();
    let front = Leavers::start(sidecar.address, &api).await;
    let (status, report) = verdicts(format!("http://{}/orders", front.address), &arguments).await;
    assert_eq!((status, &report["harmful"]), (0, &json!(false)), "{report:#}");
    for row in report["cases"].as_array().expect("cases") {
        // A repeat waits here: no 409 is seen.
        let expected = if row["case"] == "conflict-answer" { "not-known" } else { "pass" };
        assert_eq!(row["verdict"], expected, "{row:#}");
    }
    // For each key, caller and body one order.
    let mut seen = HashSet::new();
    for order in api.orders().into_iter().filter(|order| order.key.is_some()) {
        assert!(seen.insert(order.clone()), "twice: {order:?}");
    }
    assert!(seen.iter().any(|order| order.caller == "Bearer bob"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_another_caller_makes_the_exit_status_1() {
    let other = ["--other-caller", "Authorization: Bearer bob"];
    let arguments = [&ALICE[..], &other].concat();
    for (by_caller, status, expected) in [(false, 1, "fail"), (true, 0, "pass")] {
        let api = Api::start(Manners { keeps: true, by_caller, ..Manners::default() }).await;
        let (found, report) = verdicts(format!("{}/orders", api.url()), &arguments).await;
        assert_eq!(found, status, "{report:#}");
        says(&report, "repeat", "pass");
        says(&report, "other-caller", expected);
        says(&report, "other-body", "warn");
        let harms = report["cases"].as_array().expect("cases").iter().filter(|row| !row["harm"].is_null()).count();
        assert_eq!(harms, usize::from(!by_caller), "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_told_is_no_verdict() {
    // Nothing is named and nothing counted.
    let api = Api::start(Manners { nameless: true, ..Manners::default() }).await;
    let url = format!("{}/orders", api.url());
    let (status, report) = verdicts(url.clone(), &ALICE).await;
    assert_eq!((status, &report["effects"]["by"]), (0, &json!("nothing")), "{report:#}");
    for case in ["control", "repeat", "concurrent", "lost-answer"] {
        says(&report, case, "not-known");
    }
    // The same with a count.
    let (status, report) = verdicts(url, &[&ALICE[..], &COUNT].concat()).await;
    assert_eq!((status, verdict(&report, "repeat")), (1, "fail"), "{report:#}");

    // A count that others raise is not relied on.
    let api = Api::start(Manners { keeps: true, busy_from: Some(1), ..Manners::default() }).await;
    let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
    assert_eq!((status, verdict(&report, "repeat")), (0, "pass"), "{report:#}");
    let instead = report["effects"]["instead"].as_str().expect("why not");
    assert!(instead.contains("changes by itself"), "{instead}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_is_where_the_products_selectors_say() {
    let places = [
        ("json:/meta/key", r#"{"item":"book","meta":{}}"#),
        ("form:request", "item=book&amount=12"),
        ("query:request", "{}"),
        ("cookie:request", r#"{"item":"book"}"#),
    ];
    let running = places.map(async |(selector, body)| {
        let api = Api::start(Manners::default()).await;
        let sidecar = Setup::new(&api.url()).route(&format!("key = \"{selector}\"")).start().await;
        let url = format!("http://{}/orders", sidecar.address);
        let (status, report) = verdicts(url, &[&["--key", selector, "-d", body], &COUNT[..]].concat()).await;
        assert_eq!(status, 0, "{selector}: {report:#}");
        for case in ["control", "repeat", "concurrent", "key-case", "replay-body", "two-keys"] {
            says(&report, case, "pass");
        }
        says(&report, "quoted-key", "not-known");
    });
    join_all(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_keys_must_be_quoted_they_are() {
    let api = Api::start(Manners::default()).await;
    let sidecar = Setup::new(&api.url()).route("key_format = \"quoted\"\non_missing_key = \"reject\"").start().await;
    let (status, report) = verdicts(format!("http://{}/orders", sidecar.address), &ALICE).await;
    assert_eq!(status, 0, "{report:#}");
    for case in ["repeat", "quoted-key", "no-key", "two-keys", "empty-key"] {
        says(&report, case, "pass");
    }
    assert!(api.orders().iter().all(|order| order.key.as_ref().is_some_and(|key| key.starts_with('"'))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_the_authorities_of_the_system_are_trusted() {
    let api = Api::start(Manners::default()).await;
    let authority = Authority::new();
    let issued = authority.issue("localhost");
    let certificate = authority.write("cert.pem", &issued.certificate);
    let key = authority.write("key.pem", &issued.key);
    let table = format!("tls = {{ cert = {certificate:?}, key = {key:?} }}");
    let sidecar = Setup::new(&api.url()).with("server", &table).start().await;
    let url = format!("https://localhost:{}/orders", sidecar.address.port());
    let ask = async |authorities: &Path| {
        let mut command = onlyonce(&["verify", "POST", &url, "--yes", "--format", "json", "-d", "{\"a\":1}"]);
        command.env("SSL_CERT_FILE", authorities).env_remove("SSL_CERT_DIR");
        tokio::task::spawn_blocking(move || command.output().expect("the program")).await.expect("no panic")
    };
    let output = ask(&authority.file()).await;
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    says(&report, "repeat", "pass");
    // Of another authority.
    let output = ask(&Authority::new().file()).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("\nerror: the request gets no answer: no connection: "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_another_caller_is_seen_although_each_answer_has_something_new_in_it() {
    let other = ["--other-caller", "Authorization: Bearer bob"];
    let arguments = [&ALICE[..], &other].concat();
    let stamped = Manners { keeps: true, stamped: true, ..Manners::default() };
    let all = [
        (stamped, 1, "fail"),
        (Manners { by_caller: true, ..stamped }, 0, "pass"),
        // The identifier is made of the key: it is the same for both callers, and what was created is not.
        (Manners { of_key: true, ..stamped }, 1, "fail"),
        (Manners { of_key: true, by_caller: true, ..stamped }, 0, "not-known"),
        (Manners { of_key: true, by_caller: true, stamped: false, ..stamped }, 0, "not-known"),
    ];
    let running = all.map(async |(manners, status, expected)| {
        let api = Api::start(manners).await;
        let (found, report) = verdicts(format!("{}/orders", api.url()), &arguments).await;
        says(&report, "other-caller", expected);
        assert_eq!(found, status, "{report:#}");
        says(&report, "replay-body", if manners.stamped { "warn" } else { "pass" });
    });
    join_all(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_key_that_runs_with_another_body_has_doubled_an_effect() {
    let all = [(false, true), (true, true), (false, false), (true, false)];
    let running = all.map(async |(nameless, is_counted)| {
        let api = Api::start(Manners { keeps: true, by_body: true, nameless, ..Manners::default() }).await;
        let arguments = if is_counted { [&ALICE[..], &COUNT].concat() } else { ALICE.to_vec() };
        let (status, report) = verdicts(format!("{}/orders", api.url()), &arguments).await;
        // What nothing tells is not known.
        let expected = if nameless && !is_counted { (0, "not-known") } else { (1, "fail") };
        assert_eq!((status, verdict(&report, "other-body")), expected, "{nameless} {is_counted}: {report:#}");
        says(&report, "repeat", if expected.0 == 1 { "pass" } else { "not-known" });
        let harms = report["cases"].as_array().expect("cases").iter().filter(|row| !row["harm"].is_null()).count();
        assert_eq!(harms, usize::try_from(status).expect("small"), "{report:#}");
    });
    join_all(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_at_once_are_not_known_where_nine_are_refused_for_the_load() {
    let statuses = [Some("429 Too Many Requests"), Some("503 Service Unavailable"), None];
    let running = statuses.map(async |one_at_once| {
        // The first of ten runs until nine are refused.
        let api = Api::start(Manners { keeps: true, one_at_once, ..Manners::default() }).await;
        let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
        says(&report, "repeat", "pass");
        says(&report, "concurrent", if one_at_once.is_some() { "not-known" } else { "pass" });
        assert_eq!(status, 0, "{report:#}");
        if one_at_once.is_some() {
            assert!(report.to_string().contains("9 of 10 were refused for the load"), "{report:#}");
        }
    });
    join_all(running).await;
}
