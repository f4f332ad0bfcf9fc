//! A request that is given up: what the operating system has not sent of it by then never arrives. Otherwise it might run
//! long after its outcome was recorded as unknown, when somebody has looked and found nothing of it.

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::*;

/// A backend that takes nothing from the network beyond a few kilobytes, before it reads.
async fn slow_backend() -> (TcpListener, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("TCP");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port on loopback");
    let listener = socket.listen(16).expect("a bound socket");
    let address = listener.local_addr().expect("a bound listener has an address");
    (listener, format!("http://{address}"))
}

/// An order that does not fit into the buffer of the backend, and fits into that of the sidecar's socket.
fn large_order() -> Request {
    post("/orders").line("Idempotency-Key: k").by("alice").body("x".repeat(LENGTH))
}

/// Less than the window of a stream in HTTP/2.
const LENGTH: usize = 60_000;

/// All that comes, until the connection ends.
async fn read_all(mut stream: TcpStream) -> usize {
    let (mut all, mut buffer) = (0, [0; 1024]);
    loop {
        match within("the end of the connection", stream.read(&mut buffer)).await {
            Ok(0) | Err(_) => return all,
            Ok(read) => all += read,
        }
    }
}

/// How much of an order arrives at a backend that begins to read when it was given up.
async fn arrives(http2: bool) -> usize {
    let (listener, url) = slow_backend().await;
    let keys = format!("attempt_timeout = \"3s\"\nhttp2 = {http2}");
    let sidecar = Setup::new(&url).with("upstream", &keys).route("wait_timeout = \"1s\"").start().await;
    let first = sidecar.asking(&large_order());
    let (mut stream, _) = within("a connection", listener.accept()).await.expect("it comes");
    if http2 {
        // Its settings, without which no request is sent.
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("an open connection");
    }
    first.await.expect("no panic").refuses(504, "upstream-timeout");
    // It is reset, though the backend has read nothing. In good order, its end would come behind all that was sent.
    within("a reset", stream.ready(Interest::ERROR)).await.expect("a socket");
    let arrived = read_all(stream).await;
    sidecar.ask(&large_order()).await.refuses(409, "outcome-unknown");
    arrived
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_sent_of_a_request_when_it_was_given_up_never_arrives() {
    let (http1, http2) = tokio::join!(arrives(false), arrives(true));
    assert!(http1 < LENGTH && http2 < LENGTH, "{http1} bytes over HTTP/1.1, {http2} over HTTP/2");
}
