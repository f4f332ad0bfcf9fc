//! Node's clients.

use std::process::Command;

use serde_json::{Value, json};

use super::peer::{beside, built, printed};
use super::support::{Backend, Setup};

/// A JavaScript client with the packages of `package.json`, on the Node of `requirements.txt`.
pub fn client(script: &str) -> Command {
    linked(&format!("clients/{script}"))
}

/// A script of this folder with the same packages.
pub fn linked(script: &str) -> Command {
    let mut command = Command::new(built("peers-python/bin/node"));
    // Its imports are resolved from the folder of the link.
    command.args(["--preserve-symlinks", "--preserve-symlinks-main"]).arg(built("peers-node").join(script));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_clients_click_twice_stream_and_ask_first() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route("on_concurrent = \"wait\"").start().await;
    let mut node = Command::new("node");
    node.arg(beside("node.mjs")).arg(format!("http://{}", sidecar.address));
    let told: Value = serde_json::from_str(&printed(node).await).expect("JSON");

    let order = &told["again"]["body"];
    assert_eq!((&told["again"]["status"], &told["again"]["replayed"]), (&json!(201), &json!("true")), "{told}");
    for click in told["twice"].as_array().expect("two clicks") {
        assert_eq!((&click["status"], &click["body"]), (&json!(201), order), "{told}");
    }
    assert_eq!(told["upload"]["status"], 201, "{told}");
    for asking in [&told["first"], &told["repeat"]] {
        assert_eq!((&asking["asked"], &asking["status"]), (&json!(true), &json!(201)), "{told}");
    }
    assert_eq!((&told["repeat"]["reused"], &told["repeat"]["body"]), (&json!(true), &told["first"]["body"]), "{told}");

    let seen = backend.seen();
    assert_eq!(seen.iter().filter(|seen| seen.first.starts_with("POST /orders ")).count(), 2, "two keys");
    let upload = seen.iter().find(|seen| seen.first.starts_with("POST /upload ")).expect("the upload");
    assert_eq!(upload.body.len(), 4 << 20);
    assert!(seen.iter().all(|seen| !seen.has("expect")));
}
