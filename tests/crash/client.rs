//! A client: one request on one connection, and what comes back.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::net::sockopt::set_socket_linger;
use tokio::sync::mpsc;

/// The timeout of every wait: whatever takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A complete response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Whether it is marked as a replay.
    pub replayed: bool,
    /// The part that must be equal for all clients of one key.
    pub content: Content,
    /// The code of the problem, if it is one.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Content {
    pub status: u16,
    pub location: Option<String>,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn is_problem(&self, code: &str) -> bool {
        self.problem.as_deref() == Some(code)
    }

    /// Whether the outcome is known, and stays as it is.
    pub fn is_settled(&self) -> bool {
        self.replayed || self.is_success() || self.is_problem("already-completed")
    }

    fn parse(response: &[u8]) -> Option<Self> {
        let end = response.windows(4).position(|four| four == b"\r\n\r\n")?;
        let (head, body) = (std::str::from_utf8(&response[..end]).ok()?, &response[end + 4..]);
        let field = |wanted: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
        };
        let status = head.split(' ').nth(1)?.parse().ok()?;
        if field("content-length")?.parse() != Ok(body.len()) {
            return None;
        }
        let content_type = field("content-type");
        let problem = (content_type.as_deref() == Some("application/problem+json")).then(|| {
            let problem: serde_json::Value = serde_json::from_slice(body).expect("problem details are JSON");
            problem["code"].as_str().expect("every problem has a code").to_owned()
        });
        let replayed = field("idempotent-replayed").is_some();
        let content = Content { status, location: field("location"), content_type, body: body.to_vec() };
        Some(Self { status, replayed, content, problem })
    }
}

/// The text in the tables.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.problem, self.replayed) {
            (Some(problem), _) => write!(f, "{} {problem}", self.status),
            (None, true) => write!(f, "{} replayed", self.status),
            (None, false) => write!(f, "{}", self.status),
        }
    }
}

/// Sends an order with this key. `None`: there was no complete response.
pub fn order(sidecar: SocketAddr, key: &str) -> Option<Answer> {
    Answer::parse(&exchange(sidecar, &request(key))?)
}

fn body(key: &str) -> String {
    format!("{{\"item\":\"{key}\"}}")
}

fn request(key: &str) -> String {
    let body = body(key);
    format!(
        "POST /orders HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer customer\r\nIdempotency-Key: {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// An order whose client leaves before the response.
pub enum Begun {
    /// It resets its connection.
    Http1(Option<TcpStream>),
    /// It resets its stream when asked to, and keeps the connection until this is dropped.
    Http2(mpsc::Sender<()>),
}

impl Begun {
    pub fn over_http1(sidecar: SocketAddr, key: &str) -> Self {
        let mut stream = TcpStream::connect(sidecar).expect("a sidecar that lives listens");
        stream.write_all(request(key).as_bytes()).expect("a connection");
        Self::Http1(Some(stream))
    }

    pub fn over_http2(sidecar: SocketAddr, key: &str) -> Self {
        // The default (RFC 9113, 6.5.2).
        Self::with_window(sidecar, key, 65_535)
    }

    /// It takes not one byte of the content of the answer (RFC 9113, 6.9).
    pub fn stalled_over_http2(sidecar: SocketAddr, key: &str) -> Self {
        Self::with_window(sidecar, key, 0)
    }

    fn with_window(sidecar: SocketAddr, key: &str, window: u32) -> Self {
        let (leave, mut leaving) = mpsc::channel(1);
        let body = body(key);
        let request = http::Request::post("http://shop.example/orders")
            .header("authorization", "Bearer customer")
            .header("idempotency-key", key)
            .header("content-type", "application/json");
        let request = request.body(()).expect("a request");
        let talking = async move {
            let stream = tokio::net::TcpStream::connect(sidecar).await.expect("a sidecar that lives listens");
            let connecting = h2::client::Builder::new().initial_window_size(window).handshake::<_, Bytes>(stream);
            let (sender, connection) = connecting.await.expect("it speaks HTTP/2");
            tokio::spawn(connection);
            let mut sender = sender.ready().await.expect("a connection");
            let (answer, mut sending) = sender.send_request(request, false).expect("a stream");
            sending.send_data(body.into(), true).expect("a stream");
            leaving.recv().await;
            sending.send_reset(h2::Reason::CANCEL);
            drop(answer);
            leaving.recv().await;
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        thread::spawn(move || runtime.block_on(talking));
        Self::Http2(leave)
    }

    pub fn leave(&mut self) {
        match self {
            // Without lingering, closing a socket sends a reset.
            Self::Http1(stream) => drop(stream.take().map(|stream| set_socket_linger(&stream, Some(Duration::ZERO)))),
            Self::Http2(leave) => leave.blocking_send(()).expect("its thread waits"),
        }
    }
}

/// The number of attempts that run in a sidecar or are not recorded yet, by its metrics.
pub fn at_work(admin: SocketAddr) -> u32 {
    metric(admin, "onlyonce_in_flight{route=\"orders\"}")
}

/// Whether a sidecar can use its store, by its metrics.
pub fn store_is_up(admin: SocketAddr) -> bool {
    metric(admin, "onlyonce_store_up") == 1
}

/// How many claims of a sidecar have failed at its store, by its metrics.
pub fn claims_failed(admin: SocketAddr) -> u32 {
    metric(admin, "onlyonce_store_errors_total{op=\"claim\"}")
}

fn metric(admin: SocketAddr, series: &str) -> u32 {
    let request = "GET /metrics HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n";
    let metrics = exchange(admin, request).expect("a sidecar that lives tells its metrics");
    let metrics = String::from_utf8(metrics).expect("metrics are text");
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.expect("the metric").parse().expect("a number")
}

/// All bytes until the connection ends; `None` if it cannot be made or breaks.
fn exchange(address: SocketAddr, request: &str) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a duration that is not zero");
    stream.write_all(request.as_bytes()).ok()?;
    let mut response = Vec::new();
    match stream.read_to_end(&mut response) {
        Ok(_) => Some(response),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("no answer within {PATIENCE:?}, and no end of the connection")
        }
        Err(_) => None,
    }
}

/// Polls until there is a value.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
