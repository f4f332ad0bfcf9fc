//! The listener of operators and of Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::metrics::Metrics;
use crate::store::{Health, Store};

/// What the admin listener tells.
pub struct Admin {
    metrics: Arc<Metrics>,
    store: Arc<dyn Store>,
    draining: AtomicBool,
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// The exposition format's own media type.
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

impl Admin {
    /// Tells of these.
    pub fn new(metrics: Arc<Metrics>, store: Arc<dyn Store>) -> Self {
        Self { metrics, store, draining: AtomicBool::new(false) }
    }

    /// From now on, `/readyz` says no.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Answers one request.
    pub fn handle<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => self.metrics(),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => {
                self.ready(request.uri().query().is_some_and(|query| query.split('&').any(|p| p == "store=1")))
            }
            _ => text(StatusCode::NOT_FOUND, "here are /metrics, /healthz and /readyz\n"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        self.metrics.store_state(self.store.health() == Health::Up, self.store.losses());
        match self.metrics.render() {
            Ok(exposition) => answer(StatusCode::OK, EXPOSITION, exposition),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics cannot be shown: {error}\n")),
        }
    }

    /// The store decides only where it is asked about: a failover of it must not take unguarded traffic out too.
    fn ready(&self, asks_for_store: bool) -> Response<Full<Bytes>> {
        let draining = self.draining.load(Ordering::Relaxed);
        let store = self.store.health();
        let ready = !draining && (!asks_for_store || store == Health::Up);
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let serving = if draining { "draining" } else { "serving" };
        let store = match store {
            Health::Up => "up",
            Health::Down => "down",
        };
        text(status, &format!("{serving}\nstore: {store}\n"))
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    answer(status, TEXT, body.to_owned())
}

fn answer(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
