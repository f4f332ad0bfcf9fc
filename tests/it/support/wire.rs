//! One end of a connection, used with bytes.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The timeout of every wait: whatever takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Ends a test that would hang.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Polls until a condition is true that nothing signals.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A start line and the header lines as received. Bytes are read as Latin-1, so that none is lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    pub first: String,
    pub lines: Vec<(String, String)>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let first = lines.next().expect("a start line").to_owned();
        let lines = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header line: {line:?}"));
            (name.to_owned(), value.trim().to_owned())
        });
        Self { first, lines: lines.collect() }
    }

    /// The values of all lines of this name, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.lines.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of the only line of this name.
    pub fn value(&self, name: &str) -> Option<&str> {
        match self.values(name)[..] {
            [] => None,
            [value] => Some(value),
            _ => panic!("more than one {name} in {self:?}"),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    fn is_chunked(&self) -> bool {
        self.value("transfer-encoding") == Some("chunked")
    }

    fn length(&self) -> Option<usize> {
        self.value("content-length").map(|length| length.parse().expect("a length"))
    }
}

/// A request as a backend saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Deref for Seen {
    type Target = Head;
    fn deref(&self) -> &Head {
        &self.head
    }
}

/// A whole response, its chunks joined.
#[derive(Clone)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Deref for Response {
    type Target = Head;
    fn deref(&self) -> &Head {
        &self.head
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = &self.body[..self.body.len().min(500)];
        write!(f, "{:?} {:?}", self.head, String::from_utf8_lossy(start))
    }
}

impl Response {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Status and code of a problem.
    #[track_caller]
    pub fn problem(&self) -> (u16, String) {
        assert_eq!(self.value("content-type"), Some("application/problem+json"), "not a problem: {self:?}");
        let code = self.json()["code"].as_str().expect("every problem has a code").to_owned();
        (self.status, code)
    }

    /// Fails unless this is that problem.
    #[track_caller]
    pub fn refuses(&self, status: u16, code: &str) {
        assert_eq!(self.problem(), (status, code.to_owned()), "{}", self.text());
    }

    pub fn is_replay(&self) -> bool {
        self.value("idempotent-replayed") == Some("true")
    }

    /// Seconds; the sidecar promises at least one.
    pub fn retry_after(&self) -> Option<u64> {
        self.value("retry-after").map(|seconds| seconds.parse().expect("whole seconds"))
    }
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    head: String,
    body: Vec<u8>,
    chunks: bool,
}

/// `POST`, the method that is guarded.
pub fn post(target: &str) -> Request {
    request("POST", target)
}

pub fn request(method: &str, target: &str) -> Request {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: api.test\r\n");
    Request { method: method.to_owned(), head, body: Vec::new(), chunks: false }
}

/// A POST of an order, on the route that every [`Setup`](super::Setup) has.
pub fn order(key: &str) -> Request {
    post("/orders").line(&format!("Idempotency-Key: {key}")).by("alice").json(r#"{"item":"book"}"#)
}

impl Request {
    pub fn to_host(target: &str, host: &str) -> Self {
        let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\n");
        Self { head, ..post(target) }
    }

    /// The same, for another host.
    pub fn host(mut self, host: &str) -> Self {
        self.head = self.head.replacen("\r\nHost: api.test\r\n", &format!("\r\nHost: {host}\r\n"), 1);
        self
    }

    /// The same, for another target.
    pub fn at(self, target: &str) -> Self {
        let (_, lines) = self.head.split_once("\r\n").expect("a request line");
        let head = format!("{} {target} HTTP/1.1\r\n{lines}", self.method);
        Self { head, ..self }
    }

    pub fn line(mut self, line: &str) -> Self {
        self.head.push_str(line);
        self.head.push_str("\r\n");
        self
    }

    pub fn by(self, caller: &str) -> Self {
        self.line(&format!("Authorization: Bearer {caller}"))
    }

    pub fn json(self, body: &str) -> Self {
        self.line("Content-Type: application/json").body(body)
    }

    pub fn form(self, body: &str) -> Self {
        self.line("Content-Type: application/x-www-form-urlencoded").body(body)
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// The body in chunks, without a length.
    pub fn chunked(mut self) -> Self {
        self.chunks = true;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone().into_bytes();
        if self.chunks {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            self.body.chunks(1000).for_each(|piece| bytes.extend(chunk(piece)));
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            if !self.body.is_empty() || self.method == "POST" {
                bytes.extend(format!("Content-Length: {}\r\n", self.body.len()).into_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// One chunk of a chunked body.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// A TCP or Unix stream.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes its close a reset.
    fn reset(&self) {
        panic!("only TCP has resets");
    }
}

impl Transport for TcpStream {
    fn reset(&self) {
        self.set_zero_linger().expect("a TCP socket");
    }
}

impl Transport for tokio::net::UnixStream {}
impl Transport for tokio_rustls::client::TlsStream<TcpStream> {}

/// A connection.
pub struct Wire {
    stream: Box<dyn Transport>,
    /// Bytes that were read and not used yet.
    pending: Vec<u8>,
    /// No timeout: a backend may wait for the next request during the whole test.
    patient: bool,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await;
        Self::new(stream.unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        Self::over(stream)
    }

    pub fn over(stream: impl Transport + 'static) -> Self {
        Self { stream: Box::new(stream), pending: Vec::new(), patient: false }
    }

    pub fn patient(stream: TcpStream) -> Self {
        Self { patient: true, ..Self::new(stream) }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sending", self.stream.write_all(bytes.as_ref())).await.expect("the other side reads");
    }

    /// Sends bytes; the other side may close the connection meanwhile.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        within("sending", self.stream.write_all(bytes.as_ref())).await
    }

    /// Closes the sending side.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("an open connection");
    }

    /// Closes it with a reset.
    pub fn reset(self) {
        self.stream.reset();
    }

    pub async fn ask(&mut self, request: &Request) -> Response {
        self.send(request.bytes()).await;
        self.response_to(&request.method).await
    }

    /// The next response, to a request that is not HEAD.
    pub async fn response(&mut self) -> Response {
        self.response_to("").await
    }

    pub async fn response_to(&mut self, method: &str) -> Response {
        let head = self.head().await.expect("a response, not the end of the connection");
        let status = head.first.split(' ').nth(1).expect("a status").parse().expect("a number");
        let mut trailers = Vec::new();
        let body = if method == "HEAD" || matches!(status, 100..200 | 204 | 304) {
            Vec::new()
        } else if head.is_chunked() {
            let (body, after) = self.chunks().await;
            trailers = after;
            body
        } else if let Some(length) = head.length() {
            self.exactly(length).await
        } else {
            self.rest().await
        };
        Response { status, head, body, trailers }
    }

    /// The next request; `None` when the connection ends instead.
    pub async fn request(&mut self) -> Option<Seen> {
        let head = self.head().await?;
        let body =
            if head.is_chunked() { self.chunks().await.0 } else { self.exactly(head.length().unwrap_or(0)).await };
        Some(Seen { head, body })
    }

    /// The next head; `None` when the connection ends before it.
    pub async fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = self.pending.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.pending.drain(..end + 4).collect();
                return Some(Head::parse(&head));
            }
            if self.more().await == 0 {
                assert!(self.pending.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.pending));
                return None;
            }
        }
    }

    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.pending.len() < length {
            let read = self.more().await;
            assert!(read > 0, "the connection ended after {} of {length} bytes", self.pending.len());
        }
        self.pending.drain(..length).collect()
    }

    /// One chunk; empty: the last.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let size = self.line().await;
        let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("not a chunk's size: {size:?}"));
        if size == 0 {
            return Vec::new();
        }
        let data = self.exactly(size).await;
        assert_eq!(self.line().await, "");
        data
    }

    async fn chunks(&mut self) -> (Vec<u8>, Vec<(String, String)>) {
        let mut body = Vec::new();
        loop {
            let data = self.chunk().await;
            if data.is_empty() {
                break;
            }
            body.extend(data);
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else { break };
            trailers.push((name.to_owned(), value.trim().to_owned()));
        }
        (body, trailers)
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.pending.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.pending.drain(..end + 2).collect();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.more().await > 0, "the connection ended within a chunked body");
        }
    }

    /// All bytes until the connection ends or breaks.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.pending)
    }

    /// Fails unless the other side closes the connection without sending anything.
    pub async fn ends(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "unexpected: {:?}", String::from_utf8_lossy(&rest));
    }

    async fn more(&mut self) -> usize {
        self.pending.reserve(64 * 1024);
        let reading = self.stream.read_buf(&mut self.pending);
        let read = if self.patient { reading.await } else { within("reading", reading).await };
        // A reset is an end too.
        read.unwrap_or(0)
    }
}
