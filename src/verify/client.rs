//! A client that does what clients do: it waits, it gives up, it sends many at once. One connection for each request, so
//! that nothing is sent again on another one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_LENGTH, HOST, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::task::AbortOnDropHandle;

use super::answer::{ApiAnswer, ClientOutcome};
use super::key_position::RequestParts;
use super::sent::{SentBody, SentSignal, SentStream};
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
        self.timed(method, parts).await.0
    }

    /// The same, and how long the answer took once all of the request was sent.
    pub(super) async fn timed(&self, method: &Method, parts: RequestParts) -> (ClientOutcome, Duration) {
        let sent = Arc::new(SentSignal::default());
        let failed = |why| (ClientOutcome::Failed(why), Duration::ZERO);
        match timeout(self.timeout, self.exchange(self.request(method, parts, &sent), &sent)).await {
            Ok(Ok((answer, took))) => (ClientOutcome::Answered(answer), took),
            Ok(Err(why)) => failed(why),
            Err(_) => failed("no answer in time".to_owned()),
        }
    }

    /// Sends a request, and closes the connection a while after all of it was sent, without reading an answer, as far as a
    /// client goes.
    pub(super) async fn give_up(&self, method: &Method, parts: RequestParts, after: Duration) -> ClientOutcome {
        let sent = Arc::new(SentSignal::default());
        let request = self.request(method, parts, &sent);
        let leaves = async {
            sent.wait().await;
            sleep(after).await;
        };
        tokio::select! {
            answered = self.exchange(request, &sent) => match answered {
                Ok((answer, _)) => ClientOutcome::GaveUp(Some(answer)),
                Err(why) => ClientOutcome::Failed(why),
            },
            () = leaves => ClientOutcome::GaveUp(None),
            () = sleep(self.timeout) => ClientOutcome::Failed("it could not be sent in time".to_owned()),
        }
    }

    /// The answer, and how long its head took once all of the request was sent.
    async fn exchange(
        &self,
        request: Request<SentBody>,
        sent: &Arc<SentSignal>,
    ) -> Result<(ApiAnswer, Duration), String> {
        let connection = timeout(CONNECT_TIMEOUT, self.connect()).await.map_err(|_| "no connection in time")?;
        match connection.map_err(|error| format!("no connection: {error}"))? {
            ApiConnection::Plain(stream) => exchange_over(stream, request, sent).await,
            ApiConnection::Tls(stream) => exchange_over(*stream, request, sent).await,
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

    fn request(&self, method: &Method, parts: RequestParts, sent: &Arc<SentSignal>) -> Request<SentBody> {
        let RequestParts { target, mut headers, body } = parts;
        if let Ok(host) = HeaderValue::from_str(self.authority.as_str()) {
            headers.entry(HOST).or_insert(host);
        }
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        // Framed by what is sent.
        headers.remove(CONTENT_LENGTH);
        let mut request = Request::new(SentBody::new(body, Arc::clone(sent)));
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

async fn exchange_over<S>(
    stream: S,
    request: Request<SentBody>,
    sent: &Arc<SentSignal>,
) -> Result<(ApiAnswer, Duration), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |_| "the connection broke off before an answer".to_owned();
    let stream = SentStream::new(stream, Arc::clone(sent));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    #[expect(clippy::disallowed_methods, reason = "ends with this call, whose end closes the connection")]
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(broken)?;
    // An answer that comes before all is sent takes no time.
    let took = sent.at().map_or(Duration::ZERO, |sent| Instant::now().saturating_duration_since(sent));
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|_| "the answer broke off, or is too large".to_owned())?.to_bytes();
    Ok((ApiAnswer { status: head.status, headers: head.headers, body }, took))
}
