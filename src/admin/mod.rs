//! The listener of operators and of Prometheus.

mod access;
mod answer;
mod error;
mod history;
mod look_up;
mod page;
mod placement;
mod probe;
mod records;
mod rules;
mod sentence;
pub mod shape;
pub mod status;
pub mod story;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::timestamp::{InvalidTimestamp, Timestamp};
pub use access::{Access, BY_OPERATOR};
pub use placement::RecordPlacement;
pub use probe::AskBackend;
pub use rules::{ActiveRules, check, look_up};

use access::Operator;
use error::{AdminError, AdminErrorKind};
use records::{ChangeAuthor, LIMIT, MOST, RecordApi, RecordFilter};
use shape::{BulkReleaseRequest, BulkReleaseResponse, RecordPage, RefusalList, RefusedRequest};
use status::{Figures, StoreStatus};

use crate::guard::Guard;
use crate::metrics::Metrics;
use crate::record::{NotAName, RecordName};
use crate::store::{Health, NodeUse, Store};

/// The service of the admin listener.
pub struct Admin {
    metrics: Arc<Metrics>,
    store: Arc<dyn Store>,
    records: RecordApi,
    in_force: Box<dyn Fn() -> Arc<ActiveRules> + Send + Sync>,
    ask_backend: AskBackend,
    figures: Figures,
    draining: AtomicBool,
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// The exposition format's own media type.
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

const NOTHING: &str =
    "here are /, /metrics, /healthz, /readyz, /status, /records, /unknown, /refusals, /look-up, /rules and /explain\n";

/// How often the counters are looked at.
const EVERY: Duration = Duration::from_secs(5);

/// The largest body of a call: an answer by an operator, as JSON.
const MAX_BODY: usize = 2 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

impl Admin {
    /// Serves these. Records require a token; without one, a call from this machine.
    pub fn new(
        metrics: Arc<Metrics>,
        store: Arc<dyn Store>,
        guard: Arc<Guard>,
        in_force: impl Fn() -> Arc<ActiveRules> + Send + Sync + 'static,
        ask_backend: AskBackend,
    ) -> Self {
        let records = RecordApi { store: Arc::clone(&store), guard };
        Self {
            figures: Figures::new(&metrics),
            metrics,
            store,
            records,
            in_force: Box::new(in_force),
            ask_backend,
            draining: AtomicBool::new(false),
        }
    }

    /// From now on, `/readyz` answers 503.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>, peer: Option<SocketAddr>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let (head, body) = request.into_parts();
        let mut body = pin!(body);
        let answer = self.answer(&head, body.as_mut(), peer).await;
        drain(body).await;
        answer
    }

    async fn answer<B>(&self, head: &Parts, body: Pin<&mut B>, peer: Option<SocketAddr>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let path = head.uri.path();
        if path == "/records" || path.starts_with("/records/") {
            return self.about_records(head, body, peer).await.unwrap_or_else(AdminError::response);
        }
        if matches!(path, "/rules" | "/explain" | "/look-up") {
            return self.about_rules(head, body, peer).await.unwrap_or_else(AdminError::response);
        }
        if !matches!(head.method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(READ));
            return response;
        }
        match path {
            "/metrics" => self.metrics(),
            "/status" => self.status(head, peer),
            "/unknown" | "/refusals" => self.lists(head, peer).await.unwrap_or_else(AdminError::response),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(head.uri.query().is_some_and(|query| query.split('&').any(|p| p == "store=1"))),
            _ => page::file(path).unwrap_or_else(|| text(StatusCode::NOT_FOUND, NOTHING)),
        }
    }

    async fn about_records<B>(
        &self,
        head: &Parts,
        body: B,
        peer: Option<SocketAddr>,
    ) -> Result<Response<Full<Bytes>>, AdminError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let operator = self.operator(head, peer)?;
        let records = self.records.clone();
        // A client may escape the colon of a name.
        let path = head.uri.path().replace("%3A", ":").replace("%3a", ":");
        match *path.split('/').skip(1).collect::<Vec<_>>() {
            ["records"] => {
                must_be(&[Method::GET, Method::HEAD], READ, head)?;
                let query = query(head.uri.query())?;
                let not_configured = query.route.as_deref().and_then(|route| (self.in_force)().not_configured(route));
                let page = records.list(&query).await?;
                Ok(json(StatusCode::OK, &RecordPage { not_configured, ..page }))
            }
            ["records", "release"] => {
                must_be(&[Method::POST], "POST", head)?;
                operator.may_change()?;
                let wanted: BulkReleaseRequest = parsed(&head.headers, body).await?;
                let not_configured = (self.in_force)().not_configured(&wanted.route);
                let released = async move {
                    let done = records.release_many(wanted, &ChangeAuthor { operator, peer }).await?;
                    Ok(BulkReleaseResponse { not_configured, ..done })
                };
                changed(released).await
            }
            ["records", name] => {
                must_be(&[Method::GET, Method::HEAD], READ, head)?;
                let with_body = head.uri.query().is_some_and(|query| query.split('&').any(|p| p == "body=1"));
                if with_body {
                    operator.may_see_bodies()?;
                }
                Ok(json(StatusCode::OK, &records.show(&record(name)?, with_body).await?))
            }
            ["records", name, "release"] => {
                must_be(&[Method::POST], "POST", head)?;
                operator.may_change()?;
                let (name, wanted) = (record(name)?, parsed(&head.headers, body).await?);
                changed(async move { records.release(&name, wanted, &ChangeAuthor { operator, peer }).await }).await
            }
            ["records", name, "complete"] => {
                must_be(&[Method::POST], "POST", head)?;
                operator.may_change()?;
                let (name, wanted) = (record(name)?, parsed(&head.headers, body).await?);
                changed(async move { records.complete(&name, wanted, &ChangeAuthor { operator, peer }).await }).await
            }
            ["records", name, "probe"] => {
                must_be(&[Method::POST], "POST", head)?;
                operator.may_change()?;
                let (name, wanted) = (record(name)?, parsed(&head.headers, body).await?);
                let ask = Arc::clone(&self.ask_backend);
                changed(async move { records.probe(&name, wanted, &ChangeAuthor { operator, peer }, ask).await }).await
            }
            _ => Err(AdminError::new(
                AdminErrorKind::NotFound,
                "Here are /records, /records/RECORD and what is done to them.",
            )),
        }
    }

    async fn about_rules<B>(
        &self,
        head: &Parts,
        body: B,
        peer: Option<SocketAddr>,
    ) -> Result<Response<Full<Bytes>>, AdminError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        self.operator(head, peer)?;
        let in_force = (self.in_force)();
        if head.uri.path() == "/look-up" {
            must_be(&[Method::POST], "POST", head)?;
            let asked = parsed(&head.headers, body).await?;
            let name = look_up::name(&in_force, &*self.store, &asked)?;
            return Ok(json(StatusCode::OK, &self.records.looked_up(&name).await?));
        }
        if head.uri.path() == "/explain" {
            must_be(&[Method::POST], "POST", head)?;
            let asked = parsed(&head.headers, body).await?;
            return Ok(json(StatusCode::OK, &rules::explain(&in_force, &*self.store, asked).await?));
        }
        must_be(&[Method::GET, Method::HEAD], READ, head)?;
        Ok(json(StatusCode::OK, &rules::told(&in_force, &*self.store, head.uri.query()).await?))
    }

    /// Who asks, if they may see records.
    fn operator(&self, head: &Parts, peer: Option<SocketAddr>) -> Result<Operator, AdminError> {
        (self.in_force)().access.check(&head.uri, &head.headers, peer.map(|peer| peer.ip()))
    }

    /// The figures of now and of the last hour. They are as open as the metrics.
    fn status(&self, head: &Parts, peer: Option<SocketAddr>) -> Response<Full<Bytes>> {
        self.figures.look(&self.metrics);
        let in_force = (self.in_force)();
        let store = StoreStatus {
            location: Some(in_force.keeping.store.clone()),
            up: self.store.health() == Health::Up,
            used_ratio: self.store.used_ratio(),
            losses: self.store.losses(),
            may_evict: self.store.may_evict(),
            calls: Vec::new(),
            errors: Vec::new(),
            typical_ms: Vec::new(),
            slow_ms: Vec::new(),
        };
        let mut status = self.figures.status(&in_force.routes, store, self.draining.load(Ordering::Relaxed));
        match self.operator(head, peer) {
            Ok(operator) => status.may_change = operator.may_change().is_ok(),
            Err(refusal) => status.hide_configuration(refusal.of_records()),
        }
        json(StatusCode::OK, &status)
    }

    /// What the status page lists beside the figures.
    async fn lists(&self, head: &Parts, peer: Option<SocketAddr>) -> Result<Response<Full<Bytes>>, AdminError> {
        self.operator(head, peer)?;
        if head.uri.path() == "/refusals" {
            let refusals = self.metrics.refused().all().into_iter().map(RefusedRequest::of).collect();
            return Ok(json(StatusCode::OK, &RefusalList { refusals }));
        }
        let unknown = self.metrics.read().routes.values().map(|route| route.unknown).sum::<i64>();
        let count = usize::try_from(unknown).unwrap_or_default();
        Ok(json(StatusCode::OK, &self.records.unknown(count).await?))
    }

    /// Keeps the figures of the last hour, for as long as it is polled.
    pub async fn keep_figures(&self) -> Infallible {
        loop {
            tokio::time::sleep(EVERY).await;
            self.figures.look(&self.metrics);
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let (store, up) = (&self.store, self.store.health() == Health::Up);
        let used = store.used_by_node().into_iter().map(|NodeUse { node, used_ratio }| (node, used_ratio)).collect();
        self.metrics.store_state(up, store.losses(), used, store.may_evict());
        if let Some(left_behind) = store.left_behind() {
            self.metrics.store_left_behind(left_behind);
        }
        match self.metrics.render() {
            Ok(exposition) => answer(StatusCode::OK, EXPOSITION, exposition),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics cannot be shown: {error}\n")),
        }
    }

    /// The store is included only on request: a failover of the store must not take unguarded traffic out of service.
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

/// Safe methods.
const READ: &str = "GET, HEAD";

fn must_be(methods: &[Method], allow: &'static str, head: &Parts) -> Result<(), AdminError> {
    if methods.contains(&head.method) {
        return Ok(());
    }
    Err(AdminError::new(AdminErrorKind::Method(allow), format!("{} is not answered here, but {allow}.", head.method)))
}

fn record(name: &str) -> Result<RecordName, AdminError> {
    // What is kept beside a record, as what operators did to it, is shown with it or not at all, and changed by nobody.
    let parsed = name.parse().and_then(|name: RecordName| if name.is_of_request() { Ok(name) } else { Err(NotAName) });
    parsed.map_err(|error| AdminError::new(AdminErrorKind::BadRequest, format!("'{name}' is no record: {error}.")))
}

/// Completes a change even if the client disconnects.
async fn changed<T: Serialize + Send + 'static>(
    change: impl Future<Output = Result<T, AdminError>> + Send + 'static,
) -> Result<Response<Full<Bytes>>, AdminError> {
    #[expect(clippy::disallowed_methods, reason = "waited for at once")]
    let done = tokio::spawn(change).await;
    let gave_up = |_| AdminError::new(AdminErrorKind::Store, "It may have been done or not. Look at the record.");
    Ok(json(StatusCode::OK, &done.map_err(gave_up)??))
}

/// Reads the rest of a short body, because a connection with unread bytes cannot be reused.
async fn drain<B: Body<Data = Bytes>>(mut body: Pin<&mut B>) {
    const SHORT: u64 = 64 * 1024;
    const WITHIN: Duration = Duration::from_secs(1);
    if body.is_end_stream() || body.size_hint().upper().is_none_or(|left| left > SHORT) {
        return;
    }
    let draining = async { while let Some(Ok(_)) = body.frame().await {} };
    // The connection to a slower client is closed.
    let _ = tokio::time::timeout(WITHIN, draining).await;
}

/// The parameters of a list.
fn query(text: Option<&str>) -> Result<RecordFilter, AdminError> {
    let bad = |what: String| AdminError::new(AdminErrorKind::BadRequest, what);
    let mut query = RecordFilter { route: None, state: None, since: None, cursor: None, limit: LIMIT };
    for (name, value) in text.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
        // No value needs escaping, but some clients escape the colon.
        let value = value.replace("%3A", ":").replace("%3a", ":");
        match name {
            _ if value.is_empty() => {}
            "route" => query.route = Some(value),
            "state" => query.state = Some(value.parse().map_err(|error| bad(format!("{error}.")))?),
            "cursor" => query.cursor = Some(value),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                query.limit = limit.ok_or_else(|| bad(format!("limit is a number from 1 to {MOST}.")))?;
            }
            _ => return Err(bad(format!("'{name}' is not asked here: route, state, cursor and limit are."))),
        }
    }
    Ok(query)
}

/// The JSON in a body.
async fn parsed<T, B>(headers: &HeaderMap, body: B) -> Result<T, AdminError>
where
    T: DeserializeOwned,
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    // A page of another origin cannot send this type without a preflight (Fetch, 4.8), which is never granted.
    let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(AdminError::new(AdminErrorKind::NotJson, "Send it as JSON, with Content-Type: application/json."));
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let read = read.map_err(|_| AdminError::new(AdminErrorKind::TooSlow, "The body did not come in time."))?;
    let body = read.map_err(|error| match error.is::<LengthLimitError>() {
        true => AdminError::new(AdminErrorKind::TooLarge, "The body has more than 2 MiB."),
        false => AdminError::new(AdminErrorKind::BadRequest, "The body broke off."),
    })?;
    let body = body.to_bytes();
    let json = if body.is_empty() { &b"{}"[..] } else { &body };
    serde_json::from_slice(json)
        .map_err(|error| AdminError::new(AdminErrorKind::BadRequest, format!("The body is not right: {error}.")))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    // All shapes serialize to JSON.
    let mut body = serde_json::to_string(value).unwrap_or_default();
    body.push('\n');
    let mut response = answer(status, JSON, body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
