//! WebSocket, with a client and a server of the Python library `websockets`.

use super::peer::{Peer, printed, python};
use super::support::{Setup, until};

#[tokio::test(flavor = "multi_thread")]
async fn websockets_talk_through_the_sidecar() {
    let (_server, port) = Peer::start(&mut python("websocket_server.py"), "port");
    let sidecar = Setup::new(&format!("http://127.0.0.1:{port}")).start().await;
    let mut client = python("websocket_client.py");
    client.arg(sidecar.address.to_string());
    assert_eq!(printed(client).await.trim(), "20 talked");
    until("all tunnels have ended", async || sidecar.metric("onlyonce_connections").await == 0.0).await;
}
