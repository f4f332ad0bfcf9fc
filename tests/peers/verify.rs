//! `onlyonce verify` against two middlewares for idempotency that others wrote.

use std::process::Command;

use serde_json::Value;

use super::peer::{Peer, built, python, run};
use super::support::process::onlyonce;

/// On Debian's Node: that of `requirements.txt` is started by a program in between, which leaves it behind when killed.
fn express() -> Command {
    let mut command = Command::new("node");
    command.args(["--preserve-symlinks", "--preserve-symlinks-main"]);
    command.arg(built("peers-node/clients/express_idempotency.mjs"));
    command
}

/// The exit status, and the verdict on each case.
async fn verdicts(server: &mut Command) -> (Option<i32>, Vec<(String, String)>) {
    let (_server, port) = Peer::start(server, "port");
    let mut command = onlyonce(&["verify", "POST"]);
    command.arg(format!("http://127.0.0.1:{port}/orders"));
    command.args(["-H", "Authorization: Bearer alice", "--other-caller", "Authorization: Bearer bob"]);
    command.args(["-d", r#"{"item":"book"}"#, "--count", "GET /orders", "--at", "json:/total"]);
    command.args(["--yes", "--format", "json"]);
    let output = run(command).await;
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let text = |row: &Value, name: &str| row[name].as_str().expect("a text").to_owned();
    let rows = report["cases"].as_array().expect("cases").iter();
    (output.status.code(), rows.map(|row| (text(row, "case"), text(row, "verdict"))).collect())
}

#[track_caller]
fn are(found: &[(String, String)], expected: &[(&str, &str)]) {
    let found: Vec<(&str, &str)> = found.iter().map(|(case, verdict)| (case.as_str(), verdict.as_str())).collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/run --all"]
async fn express_idempotency_gives_one_callers_answer_to_another() {
    let (status, found) = verdicts(&mut express()).await;
    assert_eq!(status, Some(1), "{found:?}");
    are(
        &found,
        &[
            ("control", "pass"),
            ("repeat", "pass"),
            ("replay-status", "pass"),
            ("replay-body", "pass"),
            // It keeps the Content-Type only.
            ("replay-location", "warn"),
            ("replay-headers", "pass"),
            ("concurrent", "pass"),
            ("lost-answer", "pass"),
            ("client-timeout", "pass"),
            // With 417.
            ("other-body", "pass"),
            ("other-target", "pass"),
            ("other-caller", "fail"),
            ("no-key", "pass"),
            ("quoted-key", "warn"),
            ("key-case", "pass"),
            ("two-keys", "warn"),
            ("empty-key", "warn"),
            ("long-key", "pass"),
            ("conflict-answer", "warn"),
            ("reuse-answer", "warn"),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/run --all"]
async fn asgi_idempotency_header_goes_by_the_key_alone() {
    let (status, found) = verdicts(&mut python("verify_asgi.py")).await;
    assert_eq!(status, Some(1), "{found:?}");
    are(
        &found,
        &[
            ("control", "pass"),
            ("repeat", "pass"),
            ("replay-status", "pass"),
            ("replay-body", "pass"),
            ("replay-location", "warn"),
            ("replay-headers", "pass"),
            ("concurrent", "pass"),
            ("lost-answer", "pass"),
            ("client-timeout", "pass"),
            ("other-body", "warn"),
            ("other-target", "warn"),
            ("other-caller", "fail"),
            ("no-key", "pass"),
            ("quoted-key", "warn"),
            ("key-case", "pass"),
            ("two-keys", "warn"),
            ("empty-key", "warn"),
            ("long-key", "pass"),
            ("conflict-answer", "warn"),
            ("reuse-answer", "not-known"),
        ],
    );
}
