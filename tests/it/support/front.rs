//! Fronts for a backend: TLS, or a Unix socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// Forwards connections. Listens until it is dropped.
pub struct Front {
    pub url: String,
    refused: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
    _folder: Option<TempDir>,
}

impl Front {
    /// Ends TLS in front of the backend at this `http://` URL.
    pub async fn tls(backend: &str, config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let (backend, acceptor) = (address(backend), TlsAcceptor::from(config));
        let refused = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&refused);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, counter) = (acceptor.clone(), Arc::clone(&counter));
                tokio::spawn(async move {
                    match acceptor.accept(stream).into_fallible().await {
                        Ok(stream) => pipe(stream, backend).await,
                        Err((_, mut stream)) => {
                            counter.fetch_add(1, Ordering::Relaxed);
                            // A close with unread data would drop what was sent.
                            let _ = stream.shutdown().await;
                            let _ = stream.read_to_end(&mut Vec::new()).await;
                        }
                    }
                });
            }
        });
        Self { url: format!("https://localhost:{port}"), refused, task, _folder: None }
    }

    /// A Unix socket in front of the backend at this `http://` URL.
    pub async fn unix(backend: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("backend.sock");
        let listener = UnixListener::bind(&path).expect("a path of our own");
        let backend = address(backend);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pipe(stream, backend));
            }
        });
        let url = format!("unix:{}", path.display());
        Self { url, refused: Arc::default(), task, _folder: Some(folder) }
    }

    /// The number of failed TLS handshakes.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("a URL with an address")
}

async fn pipe(mut stream: impl AsyncRead + AsyncWrite + Unpin, backend: SocketAddr) {
    let mut backend = TcpStream::connect(backend).await.expect("the backend listens");
    backend.set_nodelay(true).expect("a TCP socket");
    // Either side may break off.
    let _ = copy_bidirectional(&mut stream, &mut backend).await;
}
