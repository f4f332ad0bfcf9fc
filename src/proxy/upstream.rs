//! The upstream, and the fate of what is sent to it.
//!
//! hyper's own connections are used without its pooling client, because the protocol must know for certain
//! whether a request left. [`Unsent`] is that certainty: hyper hands a request back only if no byte of it
//! was written.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::body::RequestBody;
use super::budget::Budget;
use super::head::{self, UpstreamHost};
use super::pool::{Connection, Pool};
use crate::config;
use crate::fail_point::{self, Step};
use crate::guard::{Answer, Fate, Gate, Rest, Silence};
use crate::record::Reply;

/// The backend.
#[derive(Clone)]
pub struct Upstream {
    settings: Arc<config::Upstream>,
    host: UpstreamHost,
    pool: Arc<Pool>,
}

/// How a request to the upstream failed, by what is known of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// No byte of it left.
    #[error("nothing was sent")]
    Unsent(#[source] Unsent),
    /// It may have arrived.
    #[error("the connection broke after the request was sent")]
    Broken(#[source] hyper::Error),
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    /// The address could not be looked up, or nobody listens there.
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    /// Connecting took too long.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// The connection was gone before it took the request.
    #[error("the connection was closed before the request")]
    Closed(#[source] hyper::Error),
    /// The owner's hold on its record could not be confirmed.
    #[error("the lease could not be confirmed")]
    LeaseInDoubt,
}

/// What a guarded attempt may take.
pub(super) struct Limits {
    /// Head and body.
    pub(super) timeout: Duration,
    /// Bytes of the response that are held.
    pub(super) max_response_body: u64,
}

/// hyper grows its buffers to some 400 KiB for each connection unless it is told not to.
pub(crate) const MAX_BUFFER: usize = 64 * 1024;

/// Smaller frames are gathered; larger ones are kept as they came.
const PIECE: usize = 16 * 1024;

impl Upstream {
    /// Connects to nothing yet.
    pub fn new(settings: config::Upstream) -> Self {
        let pool = Pool::new(settings.idle_timeout);
        // An authority has only characters that a field value may have (RFC 3986, 3.2).
        let own = HeaderValue::from_str(settings.authority.as_str()).unwrap_or(HeaderValue::from_static(""));
        let host = UpstreamHost { own, preserve: settings.preserve_host };
        Self { settings: Arc::new(settings), host, pool }
    }

    /// What becomes of `Host`.
    pub(super) fn own_host(&self) -> &UpstreamHost {
        &self.host
    }

    /// The configuration.
    pub fn settings(&self) -> &config::Upstream {
        &self.settings
    }

    /// Passes a request on, and its response back as it comes.
    pub(super) async fn forward(&self, request: Request<RequestBody>) -> Result<Response<UpstreamBody>, SendError> {
        self.send(request, self.settings.idle_timeout, None).await
    }

    /// Sends a guarded request once, and reads its answer as far as may be held.
    pub(super) async fn attempt(
        &self,
        request: Request<RequestBody>,
        gate: Gate,
        limits: &Limits,
        budget: &Budget,
    ) -> Fate<UpstreamBody> {
        let deadline = Instant::now() + limits.timeout;
        let sending = self.send(request, self.settings.guarded_idle, Some(&gate));
        let response = match tokio::time::timeout_at(deadline, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(SendError::Unsent(reason))) => {
                tracing::warn!(error = &reason as &dyn std::error::Error, "a guarded request was not sent");
                return Fate::NotSent;
            }
            Ok(Err(SendError::Broken(error))) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the answer to a guarded request was lost");
                return Fate::Unknown(Silence::Broken);
            }
            // Connecting has a deadline of its own; what is left to run out is the backend's time.
            Err(_) => return Fate::Unknown(Silence::Timeout),
        };
        fail_point::reach(Step::HeadRead).await;
        let (mut parts, mut body) = response.into_parts();
        let told = head::cross_response(&mut parts.headers);
        let mut capture = Capture::new(limits.max_response_body, budget);
        let captured = tokio::time::timeout_at(deadline, capture.read(&mut body)).await;
        let rest = match captured {
            Ok(Ok(Captured::Whole)) => Rest::Nothing,
            Ok(Ok(Captured::Full)) => Rest::Oversized(body),
            Ok(Err(_)) => Rest::Broken(Silence::Broken),
            Err(_) => Rest::Broken(Silence::Timeout),
        };
        if let Rest::Nothing = rest {
            head::remove_framing(&mut parts.headers);
        }
        let (body, trailers) = capture.finish();
        let reply = Reply { status: parts.status, headers: parts.headers, body, trailers };
        Fate::Answered(Answer { reply: Arc::new(reply), told, rest })
    }

    async fn send(
        &self,
        mut request: Request<RequestBody>,
        max_idle: Duration,
        gate: Option<&Gate>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        loop {
            let pooled = self.pool.take(max_idle);
            let fresh = pooled.is_none();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => self.connect().await.map_err(SendError::Unsent)?,
            };
            if let Some(gate) = gate {
                fail_point::reach(Step::BeforeSend).await;
                if !gate.may_send().await {
                    return Err(SendError::Unsent(Unsent::LeaseInDoubt));
                }
            }
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    let home = Some((Arc::clone(&self.pool), connection));
                    return Ok(response.map(|body| UpstreamBody::new(body, home)));
                }
                Err(mut refused) => match (refused.take_message(), fresh) {
                    (Some(unsent), false) => request = unsent,
                    (Some(_), true) => return Err(SendError::Unsent(Unsent::Closed(refused.into_error()))),
                    (None, _) => return Err(SendError::Broken(refused.into_error())),
                },
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Unsent> {
        let authority = &self.settings.authority;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let connecting = async {
            let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = tokio::time::timeout(self.settings.connect_timeout, connecting)
            .await
            .map_err(|_| Unsent::ConnectTimeout)?
            .map_err(Unsent::Connect)?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_BUFFER);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Unsent::Closed)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = &error as &dyn std::error::Error, "an upstream connection ended");
            }
        });
        Ok(Connection::new(sender))
    }
}

/// A response body, which gives its connection back when it was read to the end.
pub struct UpstreamBody {
    body: Incoming,
    home: Option<(Arc<Pool>, Connection)>,
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamBody").finish_non_exhaustive()
    }
}

impl UpstreamBody {
    fn new(body: Incoming, home: Option<(Arc<Pool>, Connection)>) -> Self {
        let mut this = Self { body, home };
        if this.body.is_end_stream() {
            this.go_home();
        }
        this
    }

    fn go_home(&mut self) {
        if let Some((pool, connection)) = self.home.take() {
            pool.put(connection);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Err(_))) => self.home = None,
            Poll::Ready(None) => self.go_home(),
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.go_home(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body in the making, up to a cap.
struct Capture<'a> {
    cap: u64,
    budget: &'a Budget,
    length: u64,
    pieces: Vec<Bytes>,
    /// Small frames, gathered.
    gathered: BytesMut,
    trailers: HeaderMap,
}

enum Captured {
    Whole,
    Full,
}

impl<'a> Capture<'a> {
    fn new(cap: u64, budget: &'a Budget) -> Self {
        let (pieces, gathered, trailers) = (Vec::new(), BytesMut::new(), HeaderMap::new());
        Self { cap, budget, length: 0, pieces, gathered, trailers }
    }

    /// Reads until the end, the cap, or the limit of the budget. Whatever was read is kept, also when this is
    /// dropped half-way.
    async fn read(&mut self, body: &mut UpstreamBody) -> Result<Captured, hyper::Error> {
        if body.size_hint().lower() > self.cap {
            return Ok(Captured::Full);
        }
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(piece) => {
                    self.length += piece.len() as u64;
                    let fits = self.keep(piece, body.is_end_stream());
                    if !fits || self.length > self.cap {
                        return Ok(Captured::Full);
                    }
                }
                Err(frame) => self.trailers.extend(frame.into_trailers().unwrap_or_default()),
            }
        }
        Ok(if self.gather() { Captured::Whole } else { Captured::Full })
    }

    /// Keeps a piece, and says whether the budget could take it.
    fn keep(&mut self, piece: Bytes, last: bool) -> bool {
        if piece.len() >= PIECE || (last && self.gathered.is_empty()) {
            return self.gather() & self.hold(piece);
        }
        self.gathered.extend_from_slice(&piece);
        self.gathered.len() < PIECE || self.gather()
    }

    /// Moves what was gathered to the pieces.
    fn gather(&mut self) -> bool {
        let gathered = self.gathered.split().freeze();
        gathered.is_empty() || self.hold(gathered)
    }

    fn hold(&mut self, piece: Bytes) -> bool {
        let counted = self.budget.hold(piece.clone());
        let fits = counted.is_some();
        self.pieces.push(counted.unwrap_or(piece));
        fits
    }

    fn finish(mut self) -> (Vec<Bytes>, HeaderMap) {
        if !self.gathered.is_empty() {
            self.pieces.push(self.gathered.freeze());
        }
        (self.pieces, self.trailers)
    }
}
