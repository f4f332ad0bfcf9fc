//! The HTTP client of the exporter.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};

/// A collector, reached over plain HTTP. It runs on the same machine, or behind a proxy that encrypts.
///
/// The exporter calls it on its own thread, which blocks.
#[derive(Debug)]
pub(super) struct Collector {
    runtime: Runtime,
    host: String,
    port: u16,
}

/// The time limit for one batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// The limit for a collector's response. Real responses are shorter.
const MAX_ANSWER: usize = 64 * 1024;

impl Collector {
    pub(super) fn new(endpoint: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("OTEL_EXPORTER_OTLP_ENDPOINT: {what}: {endpoint:?}; it looks like http://127.0.0.1:4318")
        };
        let uri: Uri = endpoint.parse().map_err(|_| wrong("not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("traces are sent over http only"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("OTEL_EXPORTER_OTLP_ENDPOINT: a name and a password are not sent; it looks like \
                        http://127.0.0.1:4318"
                .to_owned());
        }
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?.trim_matches(['[', ']']).to_owned();
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("traces cannot be sent: {error}"))?;
        Ok(Self { runtime, host, port: uri.port_u16().unwrap_or(80) })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let (mut head, body) = request.into_parts();
        if let Some(authority) = head.uri.authority() {
            head.headers.insert(header::HOST, authority.as_str().parse()?);
        }
        head.uri = head.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
        let answered = async {
            let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        tokio::select! {
            answer = answered => answer,
            end = connection => Err(end.map_or_else(HttpError::from, |()| "the collector closed the connection".into())),
        }
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.send(request)).await? })
    }
}
