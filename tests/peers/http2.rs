//! Clients that speak HTTP/2 in clear text: curl, nghttp, h2load.

use std::process::Command;

use super::curl::{body, curl};
use super::peer::printed;
use super::support::{Backend, Setup, answer};

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_by_curl_in_http_2_is_replayed() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let url = format!("http://{}/orders", sidecar.address);
    let order = ["--http2-prior-knowledge", "-H", "Idempotency-Key: 17", "-d", "item=book", &url];
    let first = printed(curl(&order)).await;
    assert!(first.starts_with("HTTP/2 201"), "{first}");
    let repeat = printed(curl(&order)).await;
    assert!(repeat.contains("idempotent-replayed: true"), "{repeat}");
    assert_eq!(body(&repeat), body(&first));
    // The same from an HTTP/1.1 client that offers an upgrade: it is guarded without it.
    let old = printed(curl(&["--http2", "-H", "Idempotency-Key: 18", "-d", "item=book", &url])).await;
    assert!(old.starts_with("HTTP/1.1 201"), "{old}");
    assert!(!old.contains("101 Switching"), "{old}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_by_curl_in_http_2_arrives_whole() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("large");
    std::fs::write(&file, vec![b'x'; 8 << 20]).expect("a file");
    let data = format!("@{}", file.display());
    let url = format!("http://{}/upload", sidecar.address);
    let printed = printed(curl(&["--http2-prior-knowledge", "--data-binary", &data, &url])).await;
    assert!(printed.starts_with("HTTP/2 201"), "{printed}");
    assert_eq!(backend.only().body.len(), 8 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn nghttp_gets_a_large_answer() {
    let backend = Backend::scripted([vec![answer("200 OK", "x".repeat(4 << 20))]]).await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut nghttp = Command::new("nghttp");
    nghttp.args(["--timeout=60", &format!("http://{}/large", sidecar.address)]);
    assert_eq!(printed(nghttp).await.len(), 4 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn h2load_gets_an_answer_to_every_request() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let mut h2load = Command::new("h2load");
    // Many streams on a few connections, all with one key.
    h2load.args(["-n", "2000", "-c", "4", "-m", "50", "-H", "Idempotency-Key: 17", "-d"]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("order");
    std::fs::write(&file, "item=book").expect("a file");
    h2load.arg(&file).arg(format!("http://{}/orders", sidecar.address));
    let report = printed(h2load).await;
    assert!(report.contains("2000 succeeded") || report.contains("2000 done"), "{report}");
    assert!(report.contains("0 errored, 0 timeout"), "{report}");
    assert_eq!(backend.count(), 1, "{report}");
}
