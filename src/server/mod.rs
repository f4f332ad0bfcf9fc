//! Listening: connections, their limits and their end.

mod http1;
mod http2;
mod lengths;
mod linger;
mod listen;
mod pace;
mod stream;
mod streams;
mod tls;
mod watched;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, HeaderCase};
use crate::metrics::Metrics;
use crate::proxy::Client;
use crate::tls::Identity;
use listen::Turns;
pub use listen::{Listener, Passed};
use pace::{Overdue, Pace};
use stream::Stream;
use watched::Watched;

/// Connections of one kind, over all listeners.
#[derive(Clone)]
pub struct Server {
    /// Taken before a connection is accepted, so that the others wait in the kernel.
    places: Arc<Semaphore>,
    operators: usize,
    header_timeout: Duration,
    idle_timeout: Duration,
    header_case: HeaderCase,
    /// What connections over TCP are secured with, from now on.
    tls: Arc<ArcSwapOption<ServerConfig>>,
    /// Where connections of clients are counted; those of operators are not.
    metrics: Option<Arc<Metrics>>,
    connections: TaskTracker,
    stop: CancellationToken,
}

/// What a client speaks.
#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// HTTP came to its end on it.
    Own,
    /// It was given up.
    GivenUp,
}

/// After an error that says "no more files" or the like: trying again at once would only spin.
const PAUSE: Duration = Duration::from_millis(100);

/// How many connections there may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Of clients.
    pub clients: usize,
    /// Of operators.
    pub operators: usize,
}

impl Server {
    /// A server with the timeouts of `[server]`.
    pub fn new(settings: &config::Server, places: Places, metrics: Arc<Metrics>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places.clients.min(Semaphore::MAX_PERMITS))),
            operators: places.operators,
            header_timeout: settings.header_timeout,
            idle_timeout: settings.idle_timeout,
            header_case: settings.header_case,
            tls: Arc::new(ArcSwapOption::from(settings.tls.as_ref().map(tls::settings))),
            metrics: Some(metrics),
            connections: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Another server with the same timeouts, for operators, which stops by itself.
    pub fn beside(&self) -> Self {
        let places = Arc::new(Semaphore::new(self.operators));
        let tls = Arc::default();
        let (connections, stop) = (TaskTracker::new(), CancellationToken::new());
        Self { places, tls, metrics: None, connections, stop, ..self.clone() }
    }

    /// Secures connections with this from now on, or with nothing. Those that are there are left as they are.
    pub fn set_tls(&self, tls: Option<&Identity>) {
        self.tls.store(tls.map(tls::settings));
    }

    /// From now on, accepts connections and answers their requests, until [`stop`](Self::stop).
    pub fn serve<A, F, B>(&self, listeners: Vec<Listener>, answer: A)
    where
        A: Fn(Request<Incoming>, Client) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        // Waited for with the connections: the file of a Unix socket goes with its listener.
        self.connections.spawn(self.clone().accept_all(listeners, answer));
    }

    async fn accept_all<A, F, B>(self, listeners: Vec<Listener>, answer: A)
    where
        A: Fn(Request<Incoming>, Client) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        let mut turns = Turns::new(listeners);
        while let Some(accepted) = self.stop.run_until_cancelled(self.accept(&mut turns)).await {
            let (stream, peer, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (server, answer) = (self.clone(), answer.clone());
            self.connections.spawn(async move {
                let _counted = server.metrics.as_ref().map(|metrics| metrics.connection());
                let client = Client { peer, secure: false, presence: Arc::default() };
                server.connection(stream, client, answer).await;
                drop(place);
            });
        }
    }

    /// The next connection, on whichever listener it comes. One place is kept for it, and not one for each listener.
    async fn accept(&self, turns: &mut Turns) -> io::Result<(Stream, Option<SocketAddr>, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        loop {
            match turns.accept().await {
                Ok((stream, peer)) => return Ok((stream, peer, place)),
                // The client was gone before it was accepted: that concerns nobody else.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn connection<A, F, B>(&self, stream: Stream, client: Client, answer: A)
    where
        A: Fn(Request<Incoming>, Client) -> F,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        let pace = Arc::new(Pace::new(self.header_timeout, self.idle_timeout, Arc::clone(&client.presence)));
        let opened = tokio::select! {
            opened = self.open(stream, &pace) => opened,
            () = self.stop.cancelled() => return,
            _ = pace.overdue(|| None) => return,
        };
        match opened {
            Ok((stream, Protocol::Http1)) => {
                let secure = stream.is_secure();
                self.http1(stream, &pace, Client { secure, ..client }, answer).await;
            }
            Ok((stream, Protocol::Http2)) => {
                let secure = stream.is_secure();
                self.http2(stream, &pace, Client { secure, ..client }, answer).await;
            }
            Err(error) => ended(&error),
        }
    }

    /// Finds out what a client speaks. Unix sockets are not secured: they do not leave the machine.
    async fn open(&self, stream: Stream, pace: &Arc<Pace>) -> io::Result<(Watched, Protocol)> {
        let (stream, is_http2) = match (stream, self.tls.load_full()) {
            (Stream::Tcp(stream), Some(settings)) => {
                let stream = tls::handshake(settings, stream).await?;
                let is_http2 = tls::is_http2(&stream);
                (Watched::new(Stream::Tls(stream), Arc::clone(pace)), is_http2)
            }
            (stream, _) => {
                let mut stream = Watched::new(stream, Arc::clone(pace));
                let is_http2 = stream.begins_with_preface().await?;
                (stream, is_http2)
            }
        };
        Ok((stream, if is_http2 { Protocol::Http2 } else { Protocol::Http1 }))
    }

    /// Lets a connection live to its end: its own, that of the server, or that of patience. `finish` has it take no
    /// further request.
    async fn drive<C>(
        &self,
        connection: C,
        finish: impl Fn(Pin<&mut C>),
        pace: &Pace,
        untaken: impl Fn() -> Option<u64>,
    ) -> End
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = std::pin::pin!(connection);
        let mut stopping = false;
        loop {
            tokio::select! {
                end = connection.as_mut() => {
                    end.unwrap_or_else(|error| ended(&error));
                    return End::Own;
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    pace.close();
                    finish(connection.as_mut());
                }
                // While stopping too: hyper waits for the rest of a head, and the drain would wait with it.
                overdue = pace.overdue(&untaken) => match overdue {
                    Overdue::Idle => {
                        stopping = true;
                        pace.close();
                        finish(connection.as_mut());
                    }
                    Overdue::Head | Overdue::Stuck => return End::GivenUp,
                },
            }
        }
    }

    /// Accepts nothing more; connections end with the answer they are at.
    pub fn stop(&self) {
        self.stop.cancel();
        self.connections.close();
    }

    /// Waits for the last connection to end. Follows [`stop`](Self::stop).
    pub async fn stopped(&self) {
        self.connections.wait().await;
    }
}

fn ended(error: &(dyn std::error::Error + 'static)) {
    tracing::debug!(error, "a client connection ended");
}
