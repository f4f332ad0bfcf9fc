//! `onlyonce verify`: APIs of all kinds, and what the table says of them.

mod api;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
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
async fn an_effect_that_the_answers_hide_is_found_by_the_count() {
    let api = Api::start(Manners { keeps: true, secretly: true, ..Manners::default() }).await;
    let (status, report) = verdicts(format!("{}/orders", api.url()), &ALICE).await;
    assert_eq!((status, verdict(&report, "repeat")), (0, "pass"), "as far as the answers tell: {report:#}");
    let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
    assert_eq!((status, verdict(&report, "repeat")), (1, "fail"), "{report:#}");
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

    // A count that others raise is not gone by.
    let api = Api::start(Manners { keeps: true, busy_from: Some(1), ..Manners::default() }).await;
    let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
    assert_eq!((status, verdict(&report, "repeat")), (0, "pass"), "{report:#}");
    let instead = report["effects"]["instead"].as_str().expect("why not");
    assert!(instead.contains("changes by itself"), "{instead}");
}

/// The first read for the case that comes after the repeat: two before all, one for each request of the control, two for the
/// repeat.
const AFTER_REPEAT: usize = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_others_create_too_what_the_answers_prove_stays() {
    let repeat = async |manners| {
        let api = Api::start(manners).await;
        let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
        let instead = report["effects"].to_string();
        assert!(instead.contains("changed while nothing was sent"), "{report:#}");
        let of_keys = verdict(&report, "long-key").to_owned();
        (status, verdict(&report, "repeat").to_owned(), of_keys)
    };
    let busy = Manners { busy_from: Some(AFTER_REPEAT), ..Manners::default() };
    assert_eq!(repeat(busy).await, (1, "fail".to_owned(), "not-known".to_owned()));
    let kept = Manners { keeps: true, ..busy };
    assert_eq!(repeat(kept).await, (0, "pass".to_owned(), "pass".to_owned()));
    // The repeat was doubled by a count that is not gone by any more.
    let (status, verdict, _) = repeat(Manners { nameless: true, ..busy }).await;
    assert_eq!((status, verdict), (0, "not-known".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_that_is_not_given_any_more_is_not_gone_by_and_the_run_goes_on() {
    for from in [AFTER_REPEAT, AFTER_REPEAT + 1] {
        let manners = Manners { limited_from: Some(from), ..Manners::default() };
        let api = Api::start(manners).await;
        let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
        let instead = report["effects"]["instead"].as_str().expect("why not");
        assert!(status == 1 && instead.contains("answered with 429"), "{report:#}");
        says(&report, "concurrent", "fail");
        let api = Api::start(Manners { nameless: true, ..manners }).await;
        let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
        // It was seen while there was a count.
        assert_eq!((status, verdict(&report, "repeat")), (1, "fail"), "{report:#}");
        says(&report, "concurrent", "not-known");
        assert!(report["effects"].to_string().contains("answered with 429"), "{report:#}");
    }
}

/// What was seen while there was room stays; what a full page hides is not known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_that_stands_still_is_not_gone_by() {
    let pages = [(2, 0, "not-known"), (3, 1, "fail"), (1000, 1, "fail")];
    let running = pages.map(async |(page, status, repeat)| {
        let api = Api::start(Manners { nameless: true, page: Some(page), ..Manners::default() }).await;
        let (found, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
        assert_eq!(found, status, "{page}: {report:#}");
        says(&report, "repeat", repeat);
        says(&report, "concurrent", if page == 1000 { "fail" } else { "not-known" });
        let by = if page == 1000 { "count" } else { "nothing" };
        assert_eq!(report["effects"]["by"], by, "{page}: {report:#}");
    });
    join_all(running).await;
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
    assert!(text(&output.stderr).starts_with("error: the request gets no answer: no connection: "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_what_it_will_send_and_asks_and_no_value_of_a_header_or_body_is_printed() {
    let api = Api::start(Manners { keeps: true, ..Manners::default() }).await;
    let url = format!("{}/orders?token=query-secret", api.url());
    let other = ["--other-caller", "X-Api-Key: other-secret"];
    let arguments = [&ALICE[..], &COUNT, &other].concat();
    // There is no terminal to ask at.
    let output = run(url.clone(), &arguments).await;
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{said}");
    let own = format!("POST {}/orders?...", api.url());
    for expected in [
        own.as_str(),
        "authorization: (not shown)",
        "content-type: application/json",
        "another caller's x-api-key: (not shown)",
        "up to 41 such requests",
        "GET /orders is sent up to",
        "add --yes",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(api.orders().is_empty(), "nothing was sent");

    for format in ["text", "json", "junit"] {
        let output = run(url.clone(), &[&arguments[..], &["--yes", "--format", format]].concat()).await;
        let all = [said.clone(), text(&output.stdout), text(&output.stderr)].concat();
        assert_eq!(output.status.code(), Some(1), "{all}");
        for secret in ["secret", "book", "\x1b"] {
            assert!(!all.contains(secret), "{format} shows {secret}: {all}");
        }
    }
}

/// The exit status, and what a terminal shows of it, where this is typed once it asks.
async fn on_a_terminal(url: String, typed: &[u8], no_color: bool) -> (Option<i32>, String) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&person).expect("it is ours");
    unlockpt(&person).expect("it is ours");
    let name = ptsname(&person, Vec::new()).expect("a name").into_string().expect("UTF-8");
    let open = || Stdio::from(File::options().read(true).write(true).open(&name).expect("its other side"));
    let mut command = onlyonce(&["verify", "POST"]);
    command.arg(url).args(ALICE).env_remove("NO_COLOR").stdin(open()).stdout(open()).stderr(open());
    if no_color {
        command.env("NO_COLOR", "1");
    }
    let mut child = command.spawn().expect("the program");
    // Its sides of the terminal, which end the reading below when the program ends.
    drop(command);
    let shown = Arc::new(Mutex::new(Vec::new()));
    let (mut reader, into) = (File::from(person.try_clone().expect("a file")), Arc::clone(&shown));
    let reading = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            into.lock().expect("no panic").extend_from_slice(&bytes[..count]);
        }
    });
    let text = || String::from_utf8_lossy(&shown.lock().expect("no panic")).into_owned();
    until("it asks", async || text().contains("[y/N]")).await;
    rustix::io::write(&person, typed).expect("a terminal that reads");
    let mut status = None;
    until("it ends", async || {
        status = child.try_wait().expect("our child");
        status.is_some()
    })
    .await;
    reading.join().expect("no panic");
    (status.and_then(|status| status.code()), text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_terminal_it_asks_shows_how_far_it_is_and_has_colours_unless_no_color_is_set() {
    let api = Api::start(Manners::default()).await;
    let url = format!("{}/orders", api.url());
    let (status, shown) = on_a_terminal(url.clone(), b"\n", false).await;
    assert_eq!((status, api.orders().len()), (Some(2), 0), "{shown}");
    assert!(shown.contains("nothing was sent") && shown.contains("authorization: (not shown)"), "{shown}");

    let (status, shown) = on_a_terminal(url.clone(), b"y\n", false).await;
    assert_eq!(status, Some(1), "{shown}");
    for expected in ["\r\x1b[K2/20 The same request twice", "\x1b[1;31mFAIL\x1b[m       The same", "\x1b[32mpass\x1b[m"]
    {
        assert!(shown.contains(expected), "{expected:?}: {shown}");
    }
    assert!(!shown.contains("secret"), "{shown}");

    let (status, shown) = on_a_terminal(url, b"y\n", true).await;
    assert_eq!(status, Some(1), "{shown}");
    assert!(shown.contains("FAIL       The same request twice") && !shown.contains("\x1b[1;31m"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_fits_80_columns_and_pipelines_read_it_as_tests() {
    let api = Api::start(Manners::default()).await;
    let url = format!("{}/orders", api.url());
    let output = run(url.clone(), &[&ALICE[..], &["--yes"]].concat()).await;
    let table = text(&output.stdout);
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(text(&output.stderr).is_empty(), "no progress where nobody watches");
    for expected in [
        "FAIL       The same request twice\n           sent  ",
        "           came  201, then 201\n           so    one key, 2 effects by the answers: /orders/",
        "An effect was doubled",
        "effects    told by the answers, by Location",
        "draft: draft-ietf-httpapi-idempotency-key-header-07",
    ] {
        assert!(table.contains(expected), "{expected:?}: {table}");
    }
    let output = run(url, &[&ALICE[..], &["--yes", "--format", "junit"]].concat()).await;
    let report = text(&output.stdout);
    assert!(
        report.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"20\" failures=\""),
        "{report}"
    );
    assert_eq!(report.matches("<testcase ").count(), 20, "{report}");
    assert_eq!(report.matches("</testcase>").count(), 20, "{report}");
    assert!(report.contains("<failure message=\"one key, 2 effects by the answers"), "{report}");
    assert!(report.contains("<skipped message=\"not known: "), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_run_is_told_with_what_would_be_right_and_the_exit_status_is_2() {
    let backend = Backend::start().await;
    let url = format!("{}/orders", backend.url());
    let url = url.as_str();
    for (first, arguments, expected) in [
        ("POST", vec!["127.0.0.1:3000/orders"], "http://127.0.0.1:3000/orders"),
        ("POST", vec!["/orders"], "http://127.0.0.1:3000/orders"),
        ("POST", vec!["ftp://a/orders"], "ftp is not spoken here"),
        ("POST", vec!["http://a:b@c/orders"], "-H 'Authorization: ...'"),
        ("GET", vec![url], "as POST"),
        ("post", vec![url], "upper case"),
        ("POST", vec![url, "--key", "Idempotency-Key"], "\"header:Idempotency-Key\""),
        ("POST", vec![url, "--key", "heder:X"], "did you mean \"header:…\"?"),
        ("POST", vec![url, "--key", "ip"], "a client does not choose ip"),
        ("POST", vec![url, "--key", "json:/k", "-d", "a=1"], "give one with -d"),
        ("POST", vec![url, "--key", "form:k", "-d", "{}"], "give one with -d FIELD=VALUE"),
        ("POST", vec![url, "-H", "Idempotency-Key: 1"], "leave it out"),
        ("POST", vec![url, "--count", "POST /orders"], "as 'GET /orders'"),
        ("POST", vec![url, "--count", "http://other/orders"], "a path of the same server"),
        ("POST", vec![url, "--at", "json:/total"], "--count"),
        ("POST", vec![url, "--count", "/orders", "--at", "/total"], "write it as json:/total"),
        ("POST", vec![url, "--other-path", "orders"], "as /orders"),
        ("POST", vec![url, "--timeout", "30"], "as 30s"),
        ("POST", vec![url, "--timeout", "0s"], "at least 1ms"),
        ("POST", vec![url, "-d", "@nowhere"], "cannot read nowhere"),
        ("POST", vec![url, "-H", "Authorization Bearer s3cret"], "invalid value '(not shown)' for '--header"),
        ("POST", vec![url, "-H", "Authorization Bearer s3cret: x"], "what is before the colon is no header name"),
        ("POST", vec![url, "--other-caller", "Authorization s3cret"], "write it as 'Name: value'"),
        ("POST", vec![url, "-H", "Authorization:", "Bearer", "s3cret"], "unexpected argument '(not shown)'"),
        ("POST", vec!["http://a b/?token=s3cret"], "invalid value '(not shown)' for '<URL>'"),
        ("POST", vec![url, "-H", "A: s3cret", "--other-caller", "a: s3cret"], "both are one caller"),
        (
            "POST",
            vec![url, "--key", "json:/k", "-d", "{}", "--other-data", "[\"s3cret\"]"],
            "--other-data has no place",
        ),
    ] {
        let mut command = onlyonce(&["verify", first, "--yes"]);
        command.args(&arguments);
        let output = command.output().expect("the program");
        let said = text(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected) && !said.contains("s3cret"), "{arguments:?}: {said}");
    }
    assert_eq!(backend.count(), 0, "nothing was sent");

    let refused = |status: &str| vec![answer(status, "")];
    for (scripts, arguments, expected) in [
        (vec![refused("401 Unauthorized")], vec![], "the request is refused with 401"),
        (vec![refused("400 Bad Request"), refused("400 Bad Request")], vec![], "refused with 400"),
        (vec![vec![Step::Answer], refused("409 Conflict")], vec![], "--key json:/number"),
        (vec![vec![Step::Reset]], vec![], "the connection broke off before an answer"),
        (vec![vec![Step::Hang]], vec!["--timeout", "200ms"], "no answer in time"),
        (vec![refused("404 Not Found")], vec!["--count", "/total?k=s3cret"], "at /total: it is answered with 404"),
    ] {
        let backend = Backend::scripted(scripts).await;
        let output = run(format!("{}/orders", backend.url()), &[&["--yes"], arguments.as_slice()].concat()).await;
        let said = text(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(2), "{expected}: {said}");
        assert!(said.contains(expected) && said.contains("help: "), "{expected}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
        assert!(output.stdout.is_empty());
    }
    let output = run(format!("{}/orders", nobody()), &["--yes"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("no connection: "), "{}", text(&output.stderr));
}
