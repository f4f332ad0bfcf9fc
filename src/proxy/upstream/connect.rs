//! Makes connections: TCP, TLS or a Unix socket, and the HTTP handshake.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::super::body::request::RequestBody;
use super::super::limits::{MAX_ANSWER_FIELDS, MAX_BUFFER, MAX_HEAD};
use super::goaway::{GoAwayReader, LastStream};
use super::pool::Connection;
use super::send_error::Unsent;
use super::socket::{ReadAfterRefusal, SocketSignals, UpstreamSocket};
use super::streams;
use crate::config::{self, HeaderCase, UpstreamAddress};
use crate::{tick, tls};

/// How the backend is reached.
pub(super) struct Connector {
    address: BackendAddress,
    http2: bool,
    timeout: Duration,
    header_case: HeaderCase,
}

enum BackendAddress {
    Tcp(String, u16),
    Tls(String, u16, ServerName<'static>, TlsConnector),
    Unix(PathBuf),
}

/// A new connection: no request was sent over it yet.
pub(super) enum NewConnection {
    Http1(Connection),
    Http2 {
        sender: http2::SendRequest<RequestBody>,
        /// The number of concurrent requests that the backend accepts.
        most: u32,
        last: LastStream,
        signals: Arc<SocketSignals>,
    },
}

/// A backend that does not answer a ping within this time is lost, and its requests with it.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// The HTTP/2 receive window of one response, for a client that does not read.
const STREAM_WINDOW: u32 = 256 << 10;
/// The receive window of a connection. It is large enough for all its streams: a response that is not read must not
/// stall the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * streams::MOST;
/// The send buffer for one request body.
const SEND_BUFFER: usize = 256 << 10;
/// The limit for the head of a response, as in HTTP/1.1. HTTP/2 adds 32 bytes to the size of each field (RFC 9113,
/// 6.5.2).
const MAX_HEAD_LIST: u32 = (MAX_HEAD + 32 * MAX_ANSWER_FIELDS) as u32;

impl Connector {
    pub(super) fn new(settings: &config::UpstreamConfig) -> Self {
        let host = |authority: &Authority| authority.host().trim_matches(['[', ']']).to_owned();
        let address = match &settings.address {
            UpstreamAddress::Http(authority) => {
                BackendAddress::Tcp(host(authority), authority.port_u16().unwrap_or(80))
            }
            UpstreamAddress::Https(authority, client) => {
                let protocol: &[u8] = if settings.http2 { b"h2" } else { b"http/1.1" };
                let name = tls::server_name(authority.host());
                let name = name.expect("the configuration takes only hosts that can be named");
                let connector = TlsConnector::from(client.config(Some(protocol)));
                BackendAddress::Tls(host(authority), authority.port_u16().unwrap_or(443), name, connector)
            }
            UpstreamAddress::Unix(path) => BackendAddress::Unix(path.clone()),
        };
        let config::UpstreamConfig { http2, connect_timeout: timeout, header_case, .. } = *settings;
        Self { address, http2, timeout, header_case }
    }

    /// Connects, and returns when a request can be sent.
    pub(super) async fn connect(&self) -> Result<NewConnection, Unsent> {
        tick::timeout(self.timeout, pin!(self.open())).await.map_err(|_| Unsent::ConnectTimeout)?
    }

    async fn open(&self) -> Result<NewConnection, Unsent> {
        match &self.address {
            BackendAddress::Tcp(host, port) => {
                let (stream, signals) = UpstreamSocket::new(tcp(host, *port).await?);
                self.handshake(stream, signals).await
            }
            BackendAddress::Tls(host, port, name, connector) => {
                let (stream, signals) = UpstreamSocket::new(tcp(host, *port).await?);
                let stream = connector.connect(name.clone(), stream).await.map_err(Unsent::Tls)?;
                if self.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(Unsent::NoHttp2);
                }
                self.handshake(stream, signals).await
            }
            BackendAddress::Unix(path) => {
                let (stream, signals) = UpstreamSocket::new(UnixStream::connect(path).await.map_err(Unsent::Connect)?);
                self.handshake(stream, signals).await
            }
        }
    }

    async fn handshake<S>(&self, stream: S, signals: Arc<SocketSignals>) -> Result<NewConnection, Unsent>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = ReadAfterRefusal::new(stream, &signals);
        if self.http2 {
            handshake_http2(stream, signals).await
        } else {
            handshake_http1(stream, signals, self.header_case).await
        }
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, Unsent> {
    let stream = TcpStream::connect((host, port)).await.map_err(Unsent::Connect)?;
    stream.set_nodelay(true).map_err(Unsent::Connect)?;
    Ok(stream)
}

async fn handshake_http1<S>(stream: S, signals: Arc<SocketSignals>, case: HeaderCase) -> Result<NewConnection, Unsent>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_BUFFER).max_header_size(MAX_HEAD).max_headers(MAX_ANSWER_FIELDS);
    builder.title_case_headers(case == HeaderCase::Title);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Unsent::Closed)?;
    #[expect(clippy::disallowed_methods, reason = "ends with the sender, or with the backend")]
    let task = tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "an upstream connection ended");
        }
    });
    Ok(NewConnection::Http1(Connection::new(sender, signals, task.abort_handle())))
}

/// Waits for the backend's settings, with which its side of the connection begins (RFC 9113, 3.4). So no request is
/// sent to a server that does not speak HTTP/2, and none waits inside hyper for a stream after the lease was checked.
async fn handshake_http2<S>(stream: S, signals: Arc<SocketSignals>) -> Result<NewConnection, Unsent>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let turns = NotifyingExecutor::default();
    let mut builder = http2::Builder::new(turns.clone());
    builder.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).keep_alive_timeout(PONG_WITHIN);
    builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    builder.max_send_buf_size(SEND_BUFFER).max_header_list_size(MAX_HEAD_LIST);
    // No stream is allowed before the settings have arrived.
    builder.initial_max_send_streams(0);
    let (stream, last) = GoAwayReader::new(stream);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Unsent::Closed)?;
    let mut connection = Box::pin(connection);
    let most = loop {
        let most = connection.current_max_send_streams();
        if most > 0 {
            break u32::try_from(most).unwrap_or(u32::MAX);
        }
        tokio::select! {
            _ended = &mut connection => return Err(Unsent::NoHttp2),
            () = turns.0.notified() => {}
        }
    };
    #[expect(clippy::disallowed_methods, reason = "ends with the senders, or with the backend")]
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = &error as &dyn std::error::Error, "an upstream connection ended");
        }
    });
    Ok(NewConnection::Http2 { sender, most, last, signals })
}

/// Runs the tasks of one HTTP/2 connection, and notifies when one of them was polled: hyper has no event for the
/// arrival of the settings. The tasks end with their connection.
#[derive(Clone, Default)]
struct NotifyingExecutor(Arc<Notify>);

impl<F> Executor<F> for NotifyingExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let turns = Arc::clone(&self.0);
        #[expect(clippy::disallowed_methods, reason = "ends with the connection")]
        tokio::spawn(async move {
            let mut task = pin!(task);
            poll_fn(|cx| {
                let polled = task.as_mut().poll(cx);
                turns.notify_one();
                polled
            })
            .await;
        });
    }
}
