//! valgrind: a machine without the vDSO.

use std::process::Command;

use super::support::{Backend, Process, Setup, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_request_is_served_under_valgrind() {
    let backend = Backend::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("onlyonce.toml");
    std::fs::write(&file, Setup::new(&backend.url()).toml()).expect("a writable folder");
    let mut command = Command::new("valgrind");
    command.args(["--tool=none", env!("CARGO_BIN_EXE_onlyonce"), "serve", "--log-format", "json", "--config"]);
    command.arg(file);
    let mut sidecar = Process::of(command).await;
    assert_eq!(sidecar.ask(&order("17")).await.status, 201);
    assert!(sidecar.ask(&order("17")).await.is_replay());
    assert_eq!(backend.count(), 1);
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.exit().await, Some(0));
}
