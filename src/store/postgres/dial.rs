//! The byte stream to a server, and the login.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, NoTls, NoTlsStream, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, Connection};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;

use super::error::PostgresError;
use crate::config::{PostgresAddress, StoreEndpoint};
use crate::store::certificate_fault::certificate_fault;
use crate::store::password;
use crate::tls;

/// The settings for opening connections to any of the servers.
pub(super) struct PostgresDialer {
    address: PostgresAddress,
    tls: Option<TlsConnector>,
}

/// A connection before its driver has started.
pub(super) enum OpenedConnection {
    Tcp(Box<Connection<TcpStream, NoTlsStream>>),
    Tls(Box<Connection<TcpStream, EncryptedStream>>),
    Unix(Box<Connection<UnixStream, NoTlsStream>>),
}

/// The connection ends if sent bytes are not acknowledged for this time.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(3);

impl PostgresDialer {
    pub(super) fn new(address: &PostgresAddress) -> Arc<Self> {
        let tls = address.tls.as_ref().map(|client| TlsConnector::from(client.config(None)));
        Arc::new(Self { address: address.clone(), tls })
    }

    pub(super) fn servers(&self) -> &[StoreEndpoint] {
        &self.address.servers
    }

    pub(super) fn server(&self) -> String {
        self.address.server()
    }

    /// Opens a connection on this runtime, and logs in. `purpose` is a part of its name at the server.
    pub(super) async fn open(
        &self,
        endpoint: &StoreEndpoint,
        purpose: &str,
    ) -> Result<(Client, OpenedConnection), PostgresError> {
        let mut login = Config::new();
        login.user(&self.address.username).dbname(&self.address.database).application_name(purpose);
        login.ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        let password = password::current(self.address.password.as_ref()).await;
        if let Some(password) = password.map_err(|error| PostgresError::PasswordFile(error.to_string()))? {
            login.password(password.expose());
        }
        let (host, port) = match endpoint {
            StoreEndpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(PostgresError::Unreachable)?;
                let (client, connection) = login.connect_raw(stream, NoTls).await.map_err(PostgresError::of)?;
                return Ok((client, OpenedConnection::Unix(Box::new(connection))));
            }
            StoreEndpoint::Tcp(host, port) => (host, *port),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(PostgresError::Unreachable)?;
        keep_alive(&stream).map_err(PostgresError::Unreachable)?;
        let Some(tls) = &self.tls else {
            let (client, connection) = login.connect_raw(stream, NoTls).await.map_err(PostgresError::of)?;
            return Ok((client, OpenedConnection::Tcp(Box::new(connection))));
        };
        let name = tls::server_name(host)
            .ok_or_else(|| PostgresError::Tls(format!("{host} is no name that a certificate can have")))?;
        let handshake = Handshake { tls: tls.clone(), name };
        let (client, connection) = login
            .connect_raw(stream, handshake)
            .await
            .map_err(|error| tls_fault(&error).map_or_else(|| PostgresError::of(error), PostgresError::Tls))?;
        Ok((client, OpenedConnection::Tls(Box::new(connection))))
    }
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(3));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

/// What is wrong with TLS, if the error is about that.
fn tls_fault(error: &tokio_postgres::Error) -> Option<String> {
    let mut next = Some(error as &(dyn std::error::Error + 'static));
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let error = inner.map_or(error, |inner| inner as &(dyn std::error::Error + 'static));
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(match error {
                rustls::Error::InvalidCertificate(reason) => certificate_fault(reason),
                rustls::Error::AlertReceived(_) => format!(
                    "{error}: where the server wants a client certificate, set store.client_cert and store.client_key"
                ),
                error => error.to_string(),
            });
        }
        next = error.source();
    }
    None
}

/// Begins TLS on a stream.
struct Handshake {
    tls: TlsConnector,
    name: ServerName<'static>,
}

/// A stream in TLS.
pub(super) struct EncryptedStream(tokio_rustls::client::TlsStream<TcpStream>);

impl TlsConnect<TcpStream> for Handshake {
    type Stream = EncryptedStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<EncryptedStream>> + Send>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        Box::pin(async move { self.tls.connect(self.name, stream).await.map(EncryptedStream) })
    }
}

impl TlsStream for EncryptedStream {
    /// None is needed: the server's certificate is checked, so nobody is in between.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for EncryptedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for EncryptedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
