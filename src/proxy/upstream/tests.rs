//! A backend that closes a connection that nobody uses. It is a thread, so that the test says when tokio may hear of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use http_body_util::BodyExt;

use super::*;
use crate::config::UpstreamAddress;

struct Backend {
    address: SocketAddr,
    /// Has it close its connection in this way.
    close: Sender<BackendEnd>,
    /// It has.
    closed: Receiver<()>,
}

#[derive(Debug, Clone, Copy)]
enum BackendEnd {
    Close,
    Reset,
    SayMore,
}

impl Backend {
    /// Answers one request on each connection, and then waits until it is told to close it.
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("a bound listener has an address");
        let ((close, closing), (done, closed)) = (channel(), channel());
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                read_request(&mut stream);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("an open connection");
                let Ok(end) = closing.recv() else { return };
                match end {
                    BackendEnd::Close => {}
                    // What is unread makes it a reset.
                    BackendEnd::Reset => {
                        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("TCP");
                    }
                    BackendEnd::SayMore => stream.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").expect("open"),
                }
                drop(stream);
                if done.send(()).is_err() {
                    return;
                }
            }
        });
        Self { address, close, closed }
    }

    fn upstream(&self) -> Upstream {
        const LONG: Duration = Duration::from_secs(60);
        let settings = config::UpstreamConfig {
            address: UpstreamAddress::Http(self.address.to_string().parse().expect("an authority")),
            http2: false,
            connect_timeout: LONG,
            response_timeout: LONG,
            attempt_timeout: LONG,
            idle_timeout: LONG,
            guarded_idle: LONG,
            preserve_host: true,
            header_case: config::HeaderCase::Lower,
        };
        Upstream::new(settings, 1)
    }
}

fn read_request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\nbody") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        read.extend_from_slice(&byte);
    }
}

fn post() -> Request<RequestBody> {
    let request = Request::post("/").header("host", "a").header("content-length", 4);
    request.body(RequestBody::buffered("body".into())).expect("a request")
}

async fn answered(upstream: &Upstream) {
    let response = upstream.forward(&mut post(), false).await.expect("an answer");
    assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "ok");
}

#[tokio::test]
async fn an_end_that_tokio_has_not_heard_of_is_seen_before_anything_is_sent() {
    for end in [BackendEnd::Close, BackendEnd::Reset, BackendEnd::SayMore] {
        let backend = Backend::start();
        let upstream = backend.upstream();
        answered(&upstream).await;
        for _ in 0..3 {
            // Its connection is waiting in the pool.
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(
                upstream
                    .pool
                    .take(Duration::MAX)
                    .map(|connection| Arc::clone(&upstream.pool).put(connection, None))
                    .is_some()
            );
            // Without a turn for tokio in between: this thread is the only one that it has.
            backend.close.send(end).expect("the backend is there");
            backend.closed.recv().expect("the backend is there");
            answered(&upstream).await;
        }
    }
}
