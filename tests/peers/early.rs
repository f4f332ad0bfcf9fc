//! Clients that write the whole request before they read, and responses that arrive earlier.

use std::process::Command;

use super::peer::{beside, printed, python};
use super::support::{ByHand, Setup, Sidecar};

const ROUNDS: &str = "10";

/// A route that requires a key, one with a small `max_request_body`, and a backend that refuses in the middle of a
/// request and closes.
async fn sidecar() -> Sidecar {
    let backend = ByHand::start().await;
    let url = backend.url();
    tokio::spawn(async move {
        loop {
            let mut connection = backend.accept_at_last().await;
            tokio::spawn(async move {
                if connection.head().await.is_some() {
                    let no = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
                    // The other side may have ended.
                    let _ = connection.try_send(no).await;
                }
            });
        }
    });
    let required = "name = \"required\"\npath = \"/required\"\nscope = []\non_missing_key = \"reject\"";
    Setup::new(&url).another_route(required).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn python_gets_every_refusal_of_a_large_body() {
    let sidecar = sidecar().await;
    let mut client = python("early_client.py");
    client.arg(sidecar.address.to_string()).arg(ROUNDS);
    assert!(printed(client).await.contains("all as they should be"));
}

#[tokio::test(flavor = "multi_thread")]
async fn node_gets_every_refusal_of_a_large_body() {
    let sidecar = sidecar().await;
    let mut client = Command::new("node");
    client.arg(beside("early.mjs")).arg(sidecar.address.to_string()).arg(ROUNDS);
    assert!(printed(client).await.contains("all as they should be"));
}
