//! TLS with clients.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::tls::TlsIdentity;

const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

pub(super) fn settings(identity: &TlsIdentity) -> Arc<ServerConfig> {
    identity.server(&[HTTP_2, HTTP_1_1])
}

pub(super) async fn handshake(settings: Arc<ServerConfig>, stream: TcpStream) -> io::Result<Box<TlsStream<TcpStream>>> {
    TlsAcceptor::from(settings).accept(stream).await.map(Box::new)
}

/// Whether HTTP/2 was negotiated (ALPN, RFC 7301).
pub(super) fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP_2)
}
