//! What is said before, meanwhile and after, and what cannot be run.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::api::{Api, Manners};
use super::{ALICE, COUNT, run, text};
use crate::support::process::onlyonce;
use crate::support::*;

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
        "up to 65 requests, ten of them at once",
        "GET /orders is sent up to",
        "add --yes",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // All that differs from it.
    for expected in [
        "2 with another body: another value of /amount",
        "2 to another target: ?onlyonce-verify=1 is added",
        "3 as another caller, with another x-api-key",
        "1 without a key",
        "1 with quotes around the key",
        "1 with the key in upper case",
        "1 with two keys",
        "2 with an empty key",
        "6 with a key of 1024 characters",
        "4 cut off before the answer",
    ] {
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
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
    // No progress where nobody watches, but what it does and for how long.
    let said = text(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.starts_with(&format!("verify: up to 38 requests to POST {url}, each answered within 30s")), "{said}");
    let time = said.split_once("the rest takes about ").expect("how long").1;
    assert!(time.ends_with(['s', 'm']) && !said.contains("\r"), "{said}");
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
        ("POST", vec![url, "-H", "Idempotency-Key: 1"], "-H gives idempotency-key, and every case makes keys"),
        ("POST", vec![url, "-d", "@-", "--other-data", "@-"], "standard input is read once"),
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_data_and_another_path_are_announced_as_they_are_sent() {
    let api = Api::start(Manners::default()).await;
    let url = format!("{}/orders", api.url());
    let other = ["--other-path", "/api/other?token=s3cret", "--other-data", r#"{"item":"pen-s3cret"}"#];
    let output = run(url, &[&ALICE[..], &other].concat()).await;
    let said = text(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(2), "{said}");
    for expected in [
        "up to 38 requests, ten of them at once",
        "2 with another body, of --other-data (21 bytes)",
        "2 to another target: /api/other?...",
        "3 with a key of 1024 characters",
        "2 cut off before the answer",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // What is not sent is not announced.
    for absent in ["another caller", "another value", "onlyonce-verify", "to count", "s3cret"] {
        assert!(!said.contains(absent), "{absent}: {said}");
    }
    assert!(api.orders().is_empty(), "nothing was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_read_from_standard_input() {
    let bodies = [("-d", r#"{"item":"book"}"#), ("--json", r#"[{"item":"book"}]"#), ("-d", "item=book\n&amount=1\n")];
    for (option, body) in bodies {
        let api = Api::start(Manners { keeps: true, ..Manners::default() }).await;
        let mut command = onlyonce(&["verify", "POST", &format!("{}/orders", api.url()), option, "@-", "--yes"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program");
        child.stdin.take().expect("a pipe").write_all(body.as_bytes()).expect("it reads");
        let running = tokio::task::spawn_blocking(move || child.wait_with_output().expect("the program"));
        let output = running.await.expect("no panic");
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        // As curl does, without line breaks where it is a form.
        let sent = body.replace('\n', "");
        assert!(api.orders().iter().any(|order| order.body == sent.as_bytes()), "{sent}");
        assert!(text(&output.stdout).contains("pass       The same request twice"));
    }
}
