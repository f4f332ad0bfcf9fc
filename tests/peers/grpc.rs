//! gRPC, with a client and a server of the Python library `grpcio`: HTTP/2 on both sides.

use super::peer::{Peer, printed, python};
use super::support::Setup;

/// The client's calls of this kind, through a sidecar that guards the creating ones.
async fn calls(kind: &str) {
    let (_server, port) = Peer::start(&mut python("grpc_server.py"), "port");
    let mut setup = Setup::new(&format!("http://127.0.0.1:{port}")).with("upstream", "http2 = true");
    for method in ["Create", "Fail", "Later"] {
        setup = setup.another_route(&format!(
            "name = \"{}\"\npath = \"/shop.Orders/{method}\"\nscope = [\"header:Authorization\"]",
            method.to_lowercase()
        ));
    }
    let sidecar = setup.start().await;
    let mut client = python("grpc_client.py");
    client.arg(sidecar.address.to_string()).arg(kind);
    assert_eq!(printed(client).await.trim(), "as it should be");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_every_kind_pass() {
    calls("passing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_call_is_run_once_and_replayed_whole() {
    calls("guarded").await;
}
