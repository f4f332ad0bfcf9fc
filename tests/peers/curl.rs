//! curl.

use std::process::Command;

use super::peer::printed;
use super::support::{Backend, Setup};

pub fn curl(arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--include"]).args(arguments);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_by_curl_is_replayed() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let url = format!("http://{}/orders", sidecar.address);
    let order =
        ["-H", "Idempotency-Key: 17", "-H", "Content-Type: application/json", "-d", "{\"item\":\"book\"}", &url];

    let first = printed(curl(&order)).await;
    assert!(first.starts_with("HTTP/1.1 201"), "{first}");
    assert!(!first.contains("idempotent-replayed"), "{first}");

    let repeat = printed(curl(&order)).await;
    assert!(repeat.starts_with("HTTP/1.1 201"), "{repeat}");
    assert!(repeat.contains("idempotent-replayed: true"), "{repeat}");
    assert_eq!(body(&repeat), body(&first));
    assert_eq!(backend.count(), 1);
}

pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("an answer has a head").1
}
