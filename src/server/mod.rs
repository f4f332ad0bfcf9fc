//! Connections of clients and operators: accepting, limits, and their end.

mod cores;
mod http1;
mod http2;
mod lengths;
mod linger;
mod listen;
mod mismatch;
mod pace;
mod phase;
mod stream;
mod streams;
mod tls;
mod watched;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::config::{self, HeaderCase};
use crate::metrics::Metrics;
use crate::proxy::Client;
use crate::tick::Flag;
use crate::tls::TlsIdentity;
use cores::CoreLoad;
pub use cores::Cores;
use listen::{AcceptedConnection, FairListeners, HANDSHAKE};
pub use listen::{InheritedSockets, Listener};
use mismatch::{MismatchLog, ProtocolMismatch};
use pace::{ConnectionTimers, Expired};
use stream::ClientStream;
use watched::WatchedSocket;

/// The connections of one kind, over all listeners.
#[derive(Clone)]
pub struct Server {
    /// A permit is taken before a connection is accepted, so that further ones wait in the kernel.
    places: Arc<Semaphore>,
    operators: usize,
    header_timeout: Duration,
    idle_timeout: Duration,
    header_case: HeaderCase,
    /// How long a stop waits for a handshake that has begun.
    handshake: Duration,
    /// The TLS settings of new connections.
    tls: Arc<ArcSwapOption<ServerConfig>>,
    mismatches: Arc<MismatchLog>,
    /// Counts connections of clients. Those of operators are not counted.
    metrics: Option<Arc<Metrics>>,
    connections: TaskTracker,
    stop: CancellationToken,
    /// The same for connections, which look at it in each poll.
    stopping: Arc<Flag>,
}

/// What a client speaks.
#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionEnd {
    /// By HTTP.
    Own,
    /// By a timeout or a stop.
    GivenUp,
}

/// The pause after an error such as "too many open files", so that accepting does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a stop waits for the first request of a connection that has just been made.
const NEWCOMER: Duration = Duration::from_secs(2);

/// The most connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Of clients.
    pub clients: usize,
    /// Of operators.
    pub operators: usize,
}

impl Server {
    /// A server with the timeouts of `[server]`.
    pub fn new(settings: &config::ServerConfig, places: ConnectionLimits, metrics: Arc<Metrics>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places.clients.min(Semaphore::MAX_PERMITS))),
            operators: places.operators,
            header_timeout: settings.header_timeout,
            idle_timeout: settings.idle_timeout,
            header_case: settings.header_case,
            // The other half of a short drain is for requests in flight.
            handshake: HANDSHAKE.min(settings.drain_timeout / 2),
            tls: Arc::new(ArcSwapOption::from(settings.tls.as_ref().map(tls::settings))),
            mismatches: Arc::default(),
            metrics: Some(metrics),
            connections: TaskTracker::new(),
            stop: CancellationToken::new(),
            stopping: Arc::default(),
        }
    }

    /// Another server with the same timeouts, for operators. It is stopped on its own.
    pub fn admin_server(&self) -> Self {
        let places = Arc::new(Semaphore::new(self.operators));
        let (tls, mismatches) = (Arc::default(), Arc::default());
        let (connections, stop, stopping) = (TaskTracker::new(), CancellationToken::new(), Arc::default());
        Self { places, tls, mismatches, metrics: None, connections, stop, stopping, ..self.clone() }
    }

    /// Sets or removes the TLS settings for new connections.
    pub fn set_tls(&self, tls: Option<&TlsIdentity>) {
        self.tls.store(tls.map(tls::settings));
    }

    /// Accepts connections and serves them on this runtime, until [`stop`](Self::stop).
    pub fn serve<A, F, B>(&self, listeners: Vec<Listener>, answer: A) -> AbortOnDropHandle<()>
    where
        A: Fn(Request<Incoming>, Client) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + Unpin> + Send + Unpin + 'static,
    {
        let server = self.clone();
        self.accept_from(listeners, move |accepted, place| {
            let load = Arc::default();
            server.connections.spawn(server.clone().connection(accepted, place, load, answer.clone()));
        })
    }

    /// The same on the cores. `answer` makes the service for the core with this number. The returned future accepts.
    pub fn serve_on<A, F, B>(
        &self,
        cores: Arc<Cores>,
        listeners: Vec<Listener>,
        answer: impl Fn(usize) -> A + Send + Sync + 'static,
    ) -> AbortOnDropHandle<()>
    where
        A: Fn(Request<Incoming>, Client) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + Unpin> + Send + Unpin + 'static,
    {
        let server = self.clone();
        self.accept_from(listeners, move |accepted, place| {
            let (number, core) = cores.least_loaded();
            let connection = server.clone().connection(accepted, place, Arc::clone(&core.load), answer(number));
            server.connections.spawn_on(connection, &core.runtime);
        })
    }

    fn accept_from<H>(&self, listeners: Vec<Listener>, hand_over: H) -> AbortOnDropHandle<()>
    where
        H: Fn(AcceptedConnection, OwnedSemaphorePermit) + Send + Sync + 'static,
    {
        // Tracked like the connections: the file of a Unix socket is removed with its listener.
        AbortOnDropHandle::new(
            self.connections.spawn(self.clone().accept_all(FairListeners::new(listeners), hand_over)),
        )
    }

    async fn accept_all(self, mut turns: FairListeners, hand_over: impl Fn(AcceptedConnection, OwnedSemaphorePermit)) {
        while let Some(accepted) = self.stop.run_until_cancelled(self.accept(&mut turns)).await {
            match accepted {
                Ok((accepted, place)) => hand_over(accepted, place),
                Err(error) => not_accepted(&error).await,
            }
        }
        // A client in the queue of the kernel is connected as far as it knows, and may have sent a request.
        turns.close();
        while let Ok(place) = Arc::clone(&self.places).acquire_owned().await
            && let Some(accepted) = turns.accept_last(self.handshake).await
        {
            match accepted {
                Ok(accepted) => hand_over(accepted, place),
                Err(error) if is_gone(&error) => {}
                Err(error) => not_accepted(&error).await,
            }
        }
    }

    /// The next connection of any listener. One permit is reserved for all listeners together.
    async fn accept(&self, turns: &mut FairListeners) -> io::Result<(AcceptedConnection, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        loop {
            match turns.accept().await {
                Ok(accepted) => return Ok((accepted, place)),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn connection<A, F, B>(
        self,
        accepted: AcceptedConnection,
        place: OwnedSemaphorePermit,
        load: Arc<CoreLoad>,
        answer: A,
    ) where
        A: Fn(Request<Incoming>, Client) -> F,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + Unpin> + Send + Unpin + 'static,
    {
        let _counted = (self.metrics.as_ref().map(|metrics| metrics.connection()), load.count());
        match accepted.open() {
            Ok((stream, peer)) => {
                let client = Client::new(peer);
                self.converse(stream, client, &load, answer).await;
            }
            Err(error) => ended(&error),
        }
        drop(place);
    }

    async fn converse<A, F, B>(&self, stream: ClientStream, client: Client, load: &Arc<CoreLoad>, answer: A)
    where
        A: Fn(Request<Incoming>, Client) -> F,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + Unpin> + Send + Unpin + 'static,
    {
        let pace =
            Arc::new(ConnectionTimers::new(self.header_timeout, self.idle_timeout, Arc::clone(&client.disconnect)));
        let begun = Instant::now();
        let given_up = async {
            self.stop.cancelled().await;
            tokio::time::sleep_until(begun + NEWCOMER).await;
        };
        let opened = tokio::select! {
            opened = self.open(stream, client.peer, &pace) => opened,
            () = given_up => return,
            _ = pace.overdue(|| None) => return,
        };
        match opened {
            Ok((stream, Protocol::Http1)) => {
                let secure = stream.is_secure();
                self.http1(stream, &pace, Client { secure, ..client }, answer).await;
            }
            Ok((stream, Protocol::Http2)) => {
                let secure = stream.is_secure();
                self.http2(stream, &pace, Client { secure, ..client }, load, answer).await;
            }
            Err(error) => ended(&error),
        }
    }

    /// Finds out the protocol of a client. Unix sockets are not secured: they do not leave the machine.
    async fn open(
        &self,
        stream: ClientStream,
        peer: Option<SocketAddr>,
        pace: &Arc<ConnectionTimers>,
    ) -> io::Result<(WatchedSocket, Protocol)> {
        let log = |mismatch| self.mismatches.say(mismatch, self.metrics.is_none(), peer);
        let (stream, is_http2) = match (stream, self.tls.load_full()) {
            (ClientStream::Tcp(stream), Some(settings)) => {
                let stream = tls::handshake(settings, stream).await;
                let stream =
                    stream.inspect_err(|error| ProtocolMismatch::of_handshake(error).into_iter().for_each(log))?;
                let is_http2 = tls::is_http2(&stream);
                (WatchedSocket::new(ClientStream::Tls(stream), Arc::clone(pace)), is_http2)
            }
            (stream, _) => {
                let mut stream = WatchedSocket::new(stream, Arc::clone(pace));
                let is_http2 = stream.begins_with_preface().await?;
                ProtocolMismatch::of_first_bytes(stream.read_ahead()).into_iter().for_each(log);
                (stream, is_http2)
            }
        };
        Ok((stream, if is_http2 { Protocol::Http2 } else { Protocol::Http1 }))
    }

    /// Drives a connection until it ends, is overdue, or the server stops. `finish` makes it refuse further requests.
    async fn drive<C>(
        &self,
        connection: C,
        finish: impl Fn(Pin<&mut C>),
        pace: &ConnectionTimers,
        untaken: impl Fn() -> Option<u64>,
    ) -> ConnectionEnd
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let mut overdue = pin!(pace.overdue(&untaken));
        let mut is_stopping = false;
        let driven = poll_fn(|cx| {
            loop {
                // First: hyper closes a connection of which it has read nothing, and pending bytes must be read before
                // that.
                if let Poll::Ready(end) = connection.as_mut().poll(cx) {
                    end.unwrap_or_else(|error| ended(&error));
                    return Poll::Ready(ConnectionEnd::Own);
                }
                // Also during a stop: hyper waits for the rest of a head, and the drain would wait with it.
                match overdue.as_mut().poll(cx) {
                    Poll::Ready(Expired::Head | Expired::WriteStalled) => return Poll::Ready(ConnectionEnd::GivenUp),
                    Poll::Ready(Expired::Idle) => overdue.set(pace.overdue(&untaken)),
                    // Checked last: the flag wakes the wait for overdue connections.
                    Poll::Pending if !is_stopping && self.stopping.is_raised() => {}
                    Poll::Pending => return Poll::Pending,
                }
                is_stopping = true;
                pace.close();
                finish(connection.as_mut());
            }
        });
        driven.await
    }

    /// Accepts only what is in the queues of the kernel. Connections end after their present response.
    pub fn stop(&self) {
        self.stop.cancel();
        self.stopping.raise();
        self.connections.close();
    }

    /// Waits for the end of the last connection. Follows [`stop`](Self::stop).
    pub async fn stopped(&self) {
        self.connections.wait().await;
    }
}

/// The client left before it was accepted. No other connection is affected.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn not_accepted(error: &io::Error) {
    tracing::warn!(error = error as &dyn std::error::Error, "a connection could not be accepted");
    tokio::time::sleep(PAUSE).await;
}

fn ended(error: &(dyn std::error::Error + 'static)) {
    tracing::debug!(error, "a client connection ended");
}
