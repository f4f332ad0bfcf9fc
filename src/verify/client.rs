//! A client that does what clients do: it waits, it gives up, it sends many at once. One connection for each request, so
//! that nothing is sent again on another one.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, HOST, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::task::AbortOnDropHandle;

use super::answer::{ApiAnswer, ClientOutcome};
use super::key_position::RequestParts;
use crate::tls::{self, Authorities, TlsClient};

/// A server, and how long to wait for it.
#[derive(Clone)]
pub(super) struct ApiClient {
    authority: Authority,
    tls: Option<(ServerName<'static>, TlsConnector)>,
    timeout: Duration,
}

/// Answers are not read beyond this.
const MAX_ANSWER: usize = 8 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const AGENT: &str = concat!("onlyonce-verify/", env!("CARGO_PKG_VERSION"));

impl ApiClient {
    /// The server of an absolute URL.
    pub(super) fn new(url: &Uri, timeout: Duration) -> Result<Self, String> {
        let (Some(scheme), Some(authority)) = (url.scheme(), url.authority()) else {
            return Err("the URL names no server".to_owned());
        };
        let tls = if *scheme == Scheme::HTTPS {
            let name = tls::server_name(authority.host()).ok_or("its host cannot be that of a certificate")?;
            let authorities =
                Authorities::of_system().ok_or("this system trusts no authority: set SSL_CERT_FILE to a PEM file")?;
            let client = TlsClient { authorities, identity: None };
            Some((name, TlsConnector::from(client.config(Some(b"http/1.1")))))
        } else {
            None
        };
        Ok(Self { authority: authority.clone(), tls, timeout })
    }

    /// Sends a request, and waits for its answer.
    pub(super) async fn ask(&self, method: &Method, parts: RequestParts) -> ClientOutcome {
        match timeout(self.timeout, self.exchange(self.request(method, parts))).await {
            Ok(Ok(answer)) => ClientOutcome::Answered(answer),
            Ok(Err(why)) => ClientOutcome::Failed(why),
            Err(_) => ClientOutcome::Failed("no answer in time".to_owned()),
        }
    }

    /// Sends a request, and closes the connection a while after all of it was sent, without reading an answer, as far as a
    /// client goes.
    pub(super) async fn give_up(&self, method: &Method, parts: RequestParts, after: Duration) -> ClientOutcome {
        let request = self.request(method, parts);
        let sent = Arc::new(Notify::new());
        if request.body().is_end_stream() {
            sent.notify_one();
        }
        let signal = Arc::clone(&sent);
        let request = request.map(|body| {
            body.map_frame(move |frame| {
                signal.notify_one();
                frame
            })
        });
        let leaves = async {
            sent.notified().await;
            sleep(after).await;
        };
        tokio::select! {
            answered = self.exchange(request) => match answered {
                Ok(answer) => ClientOutcome::GaveUp(Some(answer)),
                Err(why) => ClientOutcome::Failed(why),
            },
            () = leaves => ClientOutcome::GaveUp(None),
            () = sleep(self.timeout) => ClientOutcome::Failed("it could not be sent in time".to_owned()),
        }
    }

    async fn exchange<B>(&self, request: Request<B>) -> Result<ApiAnswer, String>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let connection = timeout(CONNECT_TIMEOUT, self.connect()).await.map_err(|_| "no connection in time")?;
        match connection.map_err(|error| format!("no connection: {error}"))? {
            ApiConnection::Plain(stream) => exchange_over(stream, request).await,
            ApiConnection::Tls(stream) => exchange_over(*stream, request).await,
        }
    }

    async fn connect(&self) -> io::Result<ApiConnection> {
        let host = self.authority.host().trim_matches(['[', ']']);
        let port = self.authority.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => ApiConnection::Plain(stream),
            Some((name, connector)) => ApiConnection::Tls(Box::new(connector.connect(name.clone(), stream).await?)),
        })
    }

    fn request(&self, method: &Method, parts: RequestParts) -> Request<Full<Bytes>> {
        let RequestParts { target, mut headers, body } = parts;
        if let Ok(host) = HeaderValue::from_str(self.authority.as_str()) {
            headers.entry(HOST).or_insert(host);
        }
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        // Framed by what is sent.
        headers.remove(CONTENT_LENGTH);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = Uri::from(target);
        *request.headers_mut() = headers;
        request
    }
}

enum ApiConnection {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn exchange_over<S, B>(stream: S, request: Request<B>) -> Result<ApiAnswer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let broken = |_| "the connection broke off before an answer".to_owned();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    #[expect(clippy::disallowed_methods, reason = "ends with this call, whose end closes the connection")]
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(broken)?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|_| "the answer broke off, or is too large".to_owned())?.to_bytes();
    Ok(ApiAnswer { status: head.status, headers: head.headers, body })
}
