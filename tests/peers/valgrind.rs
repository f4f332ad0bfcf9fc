//! valgrind, which is a machine without some of what the kernel maps into programs (the vDSO among it).

use super::support::{Backend, Process, Setup, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_request_is_served_under_valgrind() {
    let backend = Backend::start().await;
    let mut sidecar = Process::under(&["valgrind", "--tool=none"], &Setup::new(&backend.url())).await;
    assert_eq!(sidecar.ask(&order("17")).await.status, 201);
    assert!(sidecar.ask(&order("17")).await.is_replay());
    assert_eq!(backend.count(), 1);
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.exit().await, Some(0));
}
