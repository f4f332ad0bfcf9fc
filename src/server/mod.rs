//! Listening: connections, their limits and their end.

mod pace;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::metrics::Metrics;
use crate::proxy::{Client, MAX_BUFFER, Tunnel};
use pace::{Overdue, Pace};

/// Connections of one kind, over all listeners.
#[derive(Clone)]
pub struct Server {
    /// Taken before a connection is accepted, so that the others wait in the kernel.
    places: Arc<Semaphore>,
    header_timeout: Duration,
    idle_timeout: Duration,
    /// Where connections of clients are counted; those of operators are not.
    metrics: Option<Arc<Metrics>>,
    connections: TaskTracker,
    stop: CancellationToken,
}

/// After an error that says "no more files" or the like: trying again at once would only spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections of operators at once.
const BESIDE: usize = 100;

impl Server {
    /// A server with the limits of `[server]`.
    pub fn new(settings: &config::Server, metrics: Arc<Metrics>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS))),
            header_timeout: settings.header_timeout,
            idle_timeout: settings.idle_timeout,
            metrics: Some(metrics),
            connections: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Another server with the same timeouts, for operators, which stops by itself.
    pub fn beside(&self) -> Self {
        let places = Arc::new(Semaphore::new(BESIDE));
        Self { places, metrics: None, connections: TaskTracker::new(), stop: CancellationToken::new(), ..self.clone() }
    }

    /// Accepts connections and answers their requests until [`stop`](Self::stop).
    pub async fn serve<A, F, B>(self, listener: TcpListener, answer: A)
    where
        A: Fn(Request<Incoming>, Client) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        while let Some(accepted) = self.stop.run_until_cancelled(self.accept(&listener)).await {
            let (stream, address, place) = match accepted {
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
                server.connection(stream, address, answer).await;
                drop(place);
            });
        }
    }

    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        loop {
            match listener.accept().await {
                Ok((stream, client)) => {
                    stream.set_nodelay(true)?;
                    return Ok((stream, client, place));
                }
                // The client was gone before it was accepted: that concerns nobody else.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn connection<A, F, B>(&self, stream: TcpStream, address: SocketAddr, answer: A)
    where
        A: Fn(Request<Incoming>, Client) -> F,
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + 'static,
    {
        let client = Client { peer: Some(address), secure: false, presence: Arc::default() };
        let pace = Arc::new(Pace::new(self.header_timeout, self.idle_timeout, Arc::clone(&client.presence)));
        let stream = pace::Watched::new(stream, Arc::clone(&pace), Arc::clone(&client.presence));
        // Where an answer ends the talk in HTTP.
        let tunnel = OnceLock::new();
        let service = service_fn(|request| {
            let busy = pace.busy();
            let answering = answer(request, client.clone());
            let tunnel = &tunnel;
            async move {
                let mut answer = answering.await;
                if let Some(opened) = answer.extensions_mut().remove::<Tunnel>() {
                    // An answer that opens one is the last of its connection.
                    let _ = tunnel.set(opened);
                }
                Ok::<_, std::convert::Infallible>(answer.map(|body| pace::Tail::new(body, busy)))
            }
        });
        let mut builder = http1::Builder::new();
        // A client that has closed its writing side still wants its answer.
        builder.half_close(true).max_buf_size(MAX_BUFFER);
        // hyper's own timer is set anew for each request, which costs a system call; `pace` keeps the time instead.
        builder.header_read_timeout(None);
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let (mut stopping, mut idle) = (false, false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error = &error as &dyn std::error::Error, "a client connection ended");
                    }
                    break;
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                // While stopping too: hyper waits for the rest of a head, and the drain would wait with it.
                overdue = pace.overdue(), if !idle => match overdue {
                    Overdue::Idle => {
                        (stopping, idle) = (true, true);
                        connection.as_mut().graceful_shutdown();
                    }
                    Overdue::Head | Overdue::Stuck => return,
                },
            }
        }
        // It keeps the connection's place among the others, and the drain waits for it.
        if let Some(tunnel) = tunnel.get() {
            tunnel.clone().run().await;
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
