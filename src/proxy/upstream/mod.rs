//! The upstream: sends requests, and tells for certain whether a request left.
//!
//! hyper's connections are used without its pooling client, because the protocol must know for certain whether a
//! request left. [`Unsent`] is that certainty: hyper returns a request only if no byte of it was written.

mod capture;
mod connect;
mod goaway;
mod own;
mod pool;
mod response;
mod send_error;
mod socket;
mod streams;
#[cfg(test)]
mod tests;
mod write_through;

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

pub(super) use self::own::{AskError, OwnAnswer};
pub use self::response::UpstreamBody;
pub(super) use self::send_error::{SendError, Unsent};

use self::capture::{Capture, Captured};
use self::connect::{Connector, NewConnection};
use self::pool::{Connection, Pool};
use self::response::UpstreamConnection;
use self::send_error::SendFailure;
use self::socket::Unanswered;
use self::streams::SharedConnections;
use super::body::incoming::IncomingBody;
use super::body::progress::BodyProgress;
use super::body::relay::Relay;
use super::body::request::RequestBody;
use super::budget::Budget;
use super::fields::Fields;
use super::framing;
use super::head::{self, UpstreamTarget};
use super::refused_page;
use crate::fail_point::{self, Step};
use crate::guard::{BodyRemainder, LostReason, ReceivedResponse, SendFence, SendOutcome};
use crate::record::Reply;
use crate::rule::Disposition;
use crate::tick;
use crate::{clock, config};

/// The backend.
#[derive(Clone)]
pub struct Upstream {
    settings: Arc<config::UpstreamConfig>,
    target: Arc<UpstreamTarget>,
    connector: Arc<Connector>,
    pool: Arc<Pool>,
    /// The HTTP/2 connections, with `upstream.http2`.
    streams: Option<Arc<SharedConnections>>,
}

/// A request without a response.
struct FailedSend {
    error: SendError,
    /// The connection was used before.
    reused: bool,
}

/// The limits of a guarded attempt.
pub(super) struct AttemptLimits {
    /// The time for head and body.
    pub(super) timeout: Duration,
    /// The most bytes of the response body that are kept in memory.
    pub(super) max_response_body: u64,
    /// A page that refuses is stored, although the policy would free the key.
    pub(super) keeps_pages: bool,
}

impl Upstream {
    /// Connects to nothing yet. `max_idle` connections may wait for the next request.
    pub fn new(settings: config::UpstreamConfig, max_idle: usize) -> Self {
        let pool = Pool::new(max_idle);
        let streams = settings.http2.then(|| Arc::new(SharedConnections::new()));
        #[expect(clippy::disallowed_methods, reason = "ends with the pool")]
        tokio::spawn(sweep(Arc::downgrade(&pool), streams.as_ref().map(Arc::downgrade), settings.idle_timeout));
        let (target, connector) = (Arc::new(UpstreamTarget::of(&settings)), Arc::new(Connector::new(&settings)));
        Self { settings: Arc::new(settings), target, connector, pool, streams }
    }

    /// How heads are rewritten for the backend.
    pub(super) fn target(&self) -> &UpstreamTarget {
        &self.target
    }

    /// The configuration.
    pub fn settings(&self) -> &config::UpstreamConfig {
        &self.settings
    }

    /// Forwards a request, and returns its response as it arrives.
    ///
    /// With `again`, a request with an idempotent method and no pending body is sent once more on another connection,
    /// if a reused connection broke before a response: the backend may have closed it at that moment.
    pub(super) async fn forward(
        &self,
        request: &mut Request<RequestBody>,
        again: bool,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let mut copy = if again { copy(request) } else { None };
        let failure = match self.send(request, self.settings.idle_timeout, None).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        match &mut copy {
            Some(copy) if failure.reused && failure.error.is_end_of_connection() => {
                tracing::debug!(error = &failure.error as &dyn std::error::Error, "sent again on another connection");
                Box::pin(self.send(copy, Duration::ZERO, None)).await.map_err(|failure| failure.error)
            }
            _ => Err(failure.error),
        }
    }

    /// Sends a request of the proxy's own, without a body and with an idempotent method, and reads the answer, up to `most`
    /// bytes of its body. The caller limits the time.
    pub(super) async fn ask(
        &self,
        request: &mut Request<RequestBody>,
        most: u64,
        budget: &Budget,
    ) -> Result<OwnAnswer, AskError> {
        let response = self.forward(request, true).await?;
        OwnAnswer::read(response, most, budget).await
    }

    /// Sends a guarded request once, and reads its response up to the limit. The response is written to `relay`
    /// meanwhile.
    pub(super) async fn attempt(
        &self,
        request: &mut Request<RequestBody>,
        fence: SendFence,
        limits: &AttemptLimits,
        budget: &Budget,
        relay: Option<Relay>,
    ) -> SendOutcome<UpstreamBody> {
        let deadline = Instant::now() + limits.timeout;
        let sent = {
            let sending = pin!(self.send(request, self.settings.guarded_idle, Some(&fence)));
            tick::timeout_at(deadline, sending).await
        };
        let response = match sent {
            // The request did not ask for another protocol.
            Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return SendOutcome::Unknown(LostReason::Broken);
            }
            Ok(Ok(response)) => response,
            Ok(Err(FailedSend { error: SendError::Unsent(reason), .. })) => {
                tracing::warn!(error = &reason as &dyn std::error::Error, "a guarded request was not sent");
                return SendOutcome::NotSent;
            }
            Ok(Err(FailedSend { error: error @ (SendError::Broken(_) | SendError::Unframed(_)), .. })) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the answer to a guarded request was lost");
                return SendOutcome::Unknown(LostReason::Broken);
            }
            // Connecting has its own deadline, so the time ran out after the request was sent.
            Err(_) => return SendOutcome::Unknown(LostReason::Timeout),
        };
        fail_point::reach(Step::HeadRead).await;
        let (mut parts, mut body) = response.into_parts();
        let mut origin_directive = head::cross_response(&mut parts.headers, body.fields());
        if limits.keeps_pages && refused_page::is_refused_page(parts.status, &parts.headers) {
            origin_directive = origin_directive.or(Some(Disposition::Store));
        }
        if let Some(relay) = &relay
            && !body.is_broken().await
            // A response without a body ends with its head, and its end must wait until the outcome is recorded.
            && !body.is_end_stream()
        {
            relay.begin(parts.status, &parts.headers, &body.size_hint());
        }
        let mut capture = Capture::new(limits.max_response_body, budget);
        let captured = {
            let reading = pin!(capture.read(&mut body, relay.as_ref()));
            tick::timeout_at(deadline, reading).await
        };
        let rest = match captured {
            Ok(Ok(Captured::Whole)) => BodyRemainder::Nothing,
            Ok(Ok(Captured::Full)) => BodyRemainder::Oversized(body),
            Ok(Err(_)) => BodyRemainder::Broken(LostReason::Broken),
            Err(_) => BodyRemainder::Broken(LostReason::Timeout),
        };
        if let BodyRemainder::Nothing = rest {
            head::remove_framing(&mut parts.headers);
        }
        let (body, trailers) = capture.finish();
        let reply = Reply { status: parts.status, headers: parts.headers, body: body.into(), trailers };
        SendOutcome::Answered(ReceivedResponse { reply: Arc::new(reply), origin_directive, rest })
    }

    /// Takes the request by reference: passed by value, it would be stored twice in the future.
    async fn send(
        &self,
        request: &mut Request<RequestBody>,
        max_idle: Duration,
        fence: Option<&SendFence>,
    ) -> Result<Response<UpstreamBody>, FailedSend> {
        let upload = request.body().pending_upload();
        loop {
            let connected = match fence {
                None => self.connection(max_idle).await,
                Some(_) => self.exclusive_connection(max_idle).await,
            };
            let (mut connection, reused) = connected.map_err(|error| FailedSend::unsent(error, false))?;
            if let Some(fence) = fence {
                fail_point::reach(Step::BeforeSend).await;
                if !fence.may_send().await {
                    return Err(FailedSend::unsent(Unsent::LeaseInDoubt, reused));
                }
            }
            if let UpstreamConnection::Pooled(pooled, _) = &connection
                && let Some(since) = pooled.idle_since
                && !clock::has_read_events_since(since)
            {
                pooled.signals.look();
            }
            let sent = match &mut connection {
                // Inline, and not in `send`: request and response would be moved once more each.
                UpstreamConnection::Pooled(Connection { sender, signals, .. }, _) => {
                    let sending = pin!(sender.try_send_request(std::mem::take(request)));
                    // Dropped before the request is, so that the connection is cut when that wakes it.
                    let unanswered = fence.map(|_| Unanswered::over(signals));
                    let sent = sending.await;
                    if let (Ok(_), Some(unanswered)) = (&sent, unanswered) {
                        unanswered.answered();
                    }
                    sent
                }
                UpstreamConnection::Dedicated(..) | UpstreamConnection::SharedStream(_) => {
                    Box::pin(connection.send(std::mem::take(request))).await
                }
            };
            match sent {
                Ok(response) => {
                    return answered(response, connection, upload).map_err(|error| FailedSend { error, reused });
                }
                Err(error) => match SendFailure::of(error, !reused) {
                    SendFailure::Unwritten(unwritten, _) if reused => *request = *unwritten,
                    SendFailure::Unwritten(_, error) => return Err(FailedSend::unsent(Unsent::Closed(error), reused)),
                    SendFailure::Written(error) if connection.is_untouched() => {
                        return Err(FailedSend { error: error.unprocessed(), reused });
                    }
                    SendFailure::Written(error) => return Err(FailedSend { error, reused }),
                },
            }
        }
    }

    /// A connection for the next request, and whether it was used before.
    async fn connection(&self, max_idle: Duration) -> Result<(UpstreamConnection, bool), Unsent> {
        let Some(streams) = &self.streams else { return self.exclusive_connection(max_idle).await };
        if let Some(stream) = streams.take(max_idle) {
            return Ok((UpstreamConnection::SharedStream(stream), true));
        }
        // One connection is made for all requests that wait here. Making it takes at most this long.
        let waiting = pin!(streams.connecting.lock());
        let waiting = tick::timeout(self.settings.connect_timeout, waiting);
        let _turn = waiting.await.map_err(|_| Unsent::ConnectTimeout)?;
        if let Some(stream) = streams.take(max_idle) {
            return Ok((UpstreamConnection::SharedStream(stream), true));
        }
        let connection = match Box::pin(self.connector.connect()).await? {
            NewConnection::Http1(connection) => self.pooled(connection),
            NewConnection::Http2 { sender, most, last: _, signals: _ } => {
                UpstreamConnection::SharedStream(streams.add(sender, most))
            }
        };
        Ok((connection, false))
    }

    /// The same, not shared with other requests.
    async fn exclusive_connection(&self, max_idle: Duration) -> Result<(UpstreamConnection, bool), Unsent> {
        if let Some(connection) = self.pool.take(max_idle) {
            return Ok((UpstreamConnection::Pooled(connection, Arc::clone(&self.pool)), true));
        }
        let connection = match Box::pin(self.connector.connect()).await? {
            NewConnection::Http1(connection) => self.pooled(connection),
            // The backend may send GOAWAY at any time, and a request that is sent at that moment may have run or not.
            // Only a new connection is safe from that. (In HTTP/1.1 the last response says so.)
            NewConnection::Http2 { sender, most: _, last, signals } => {
                signals.discard_unsent();
                UpstreamConnection::Dedicated(sender, last, signals)
            }
        };
        Ok((connection, false))
    }

    fn pooled(&self, connection: Connection) -> UpstreamConnection {
        UpstreamConnection::Pooled(connection, Arc::clone(&self.pool))
    }
}

/// The response, with unambiguous framing.
fn answered(
    response: Response<Incoming>,
    connection: UpstreamConnection,
    upload: Option<BodyProgress>,
) -> Result<Response<UpstreamBody>, SendError> {
    let (mut head, body) = response.into_parts();
    let fields = Fields::of(&head.headers);
    let after = framing::settle(&mut head, fields).map_err(SendError::Unframed)?;
    let body = IncomingBody::response(body, head.version);
    // An intermediary sends its own version (RFC 9112, 2.3).
    head.version = Version::HTTP_11;
    Ok(Response::from_parts(head, UpstreamBody::new(body, fields, connection, upload, after)))
}

impl FailedSend {
    fn unsent(reason: Unsent, reused: bool) -> Self {
        Self { error: SendError::Unsent(reason), reused }
    }
}

/// A copy of the request, if its method is idempotent (RFC 9110, 9.2.2) and its body is in memory.
fn copy(request: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE]
        .contains(request.method());
    let mut copy = Request::new(request.body().try_clone().filter(|_| idempotent)?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(Box::new(copy))
}

/// Closes unused connections.
async fn sweep(pool: Weak<Pool>, streams: Option<Weak<SharedConnections>>, max_idle: Duration) {
    const EVERY: Duration = Duration::from_secs(1);
    loop {
        tick::sleep(EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.sweep(max_idle);
        if let Some(streams) = streams.as_ref().and_then(Weak::upgrade) {
            streams.sweep(max_idle);
        }
    }
}
