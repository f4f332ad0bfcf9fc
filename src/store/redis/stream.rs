//! The byte stream to a server, opened in the same way for every use: TCP, TLS over TCP, or a Unix socket. Protocols
//! are handled elsewhere.

use std::error::Error;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{self, AlertDescription};

use crate::config::{RedisAddress, Secret, StoreEndpoint, StorePassword};
use crate::store::certificate_fault::certificate_fault;
use crate::store::password::{self, PasswordUnreadable};
use crate::tls;

/// The settings for opening connections to any server: TLS, user, password and database.
pub(super) struct Dialer {
    tls: Option<TlsConnector>,
    pub(super) username: Option<String>,
    password: Option<StorePassword>,
    pub(super) database: i64,
    /// Whether the last server accepted a connection, whatever happened after that.
    reached: AtomicBool,
}

/// An open connection.
pub(super) enum RedisStream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// The connection ends if sent bytes are not acknowledged for this time.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(3);

impl Dialer {
    pub(super) fn new(address: &RedisAddress) -> Arc<Self> {
        let RedisAddress { servers: _, database, username, password, tls } = address;
        let tls = tls.as_ref().map(|client| TlsConnector::from(client.config(None)));
        Arc::new(Self {
            tls,
            username: username.clone(),
            password: password.clone(),
            database: *database,
            reached: AtomicBool::new(false),
        })
    }

    /// The same without a database number. Sentinels and cluster nodes have no numbered databases.
    pub(super) fn without_database(&self) -> Self {
        let (username, password) = (self.username.clone(), self.password.clone());
        Self { username, password, ..self.without_credentials() }
    }

    /// The same without a login.
    pub(super) fn without_credentials(&self) -> Self {
        let (tls, reached) = (self.tls.clone(), AtomicBool::new(false));
        Self { tls, username: None, password: None, database: 0, reached }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns whether a server was reached since the last call, and resets that.
    pub(super) fn take_reached(&self) -> bool {
        self.reached.swap(false, Ordering::Relaxed)
    }

    pub(super) fn has_credentials(&self) -> bool {
        self.password.is_some()
    }

    pub(super) async fn password(&self) -> io::Result<Option<Secret>> {
        password::current(self.password.as_ref()).await.map_err(io::Error::other)
    }

    /// Opens a stream on this runtime.
    pub(super) async fn open(&self, endpoint: &StoreEndpoint) -> io::Result<RedisStream> {
        let (host, port) = match endpoint {
            StoreEndpoint::Unix(path) => return UnixStream::connect(path).await.map(RedisStream::Unix),
            StoreEndpoint::Tcp(host, port) => (host, *port),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        self.reached.store(true, Ordering::Relaxed);
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(3));
        socket.set_tcp_keepalive(&keepalive)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        let Some(tls) = &self.tls else { return Ok(RedisStream::Tcp(stream)) };
        let name = tls::server_name(host).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{host} is no name that a certificate can have"))
        })?;
        match tls.connect(name, stream).await {
            Ok(stream) => Ok(RedisStream::Tls(Box::new(stream))),
            // A server without TLS closes the connection, or replies with an error of its own protocol.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(io::Error::other(HungUp)),
            Err(error) => Err(error),
        }
    }
}

/// The server closed the connection during the handshake.
#[derive(Debug, thiserror::Error)]
#[error("the server hung up in the TLS handshake")]
struct HungUp;

/// The error and its causes, out of what they are wrapped in: the `redis` crate and I/O errors do not return a wrapped error
/// as their source.
fn unwrapped<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(unwrap(error)), |error: &&'a (dyn Error + 'static)| (*error).source().map(unwrap))
}

fn unwrap<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let error = match error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        Some(wrapped) => &**wrapped,
        None => error,
    };
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => wrapped,
        None => error,
    }
}

/// Why there is no password, if the error is about that.
pub(super) fn password_fault(error: &(dyn Error + 'static)) -> Option<String> {
    unwrapped(error).find_map(|error| error.downcast_ref::<PasswordUnreadable>()).map(ToString::to_string)
}

/// A TLS error with advice on how to fix it. `None` if the error is not about TLS.
pub(super) fn tls_fault(error: &(dyn Error + 'static)) -> Option<String> {
    const NO_TLS: &str =
        "the port does not speak TLS: write redis:// (without the second s), or name the server's tls-port";
    for error in unwrapped(error) {
        if error.is::<HungUp>() {
            return Some(NO_TLS.to_owned());
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(match error {
                rustls::Error::InvalidMessage(_) => NO_TLS.to_owned(),
                rustls::Error::InvalidCertificate(reason) => certificate_fault(reason),
                rustls::Error::AlertReceived(
                    AlertDescription::CertificateRequired
                    | AlertDescription::HandshakeFailure
                    | AlertDescription::BadCertificate
                    | AlertDescription::DecryptError
                    | AlertDescription::UnknownCA
                    | AlertDescription::CertificateUnknown
                    | AlertDescription::CertificateExpired
                    | AlertDescription::AccessDenied,
                ) => format!(
                    "{error}: the server wants a client certificate that it believes: set store.client_cert and \
                     store.client_key"
                ),
                rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
                | rustls::Error::PeerIncompatible(_) => {
                    format!("{error}: TLS 1.2 or 1.3 is needed (tls-protocols of the server)")
                }
                error => error.to_string(),
            });
        }
    }
    None
}

impl AsyncRead for RedisStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for RedisStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
