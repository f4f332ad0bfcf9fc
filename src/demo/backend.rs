//! A small invoice service: slow, and without protection against repeated requests.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, LOCATION, VARY, VIA};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;

use super::ledger::{Invoice, InvoiceOrder, Ledger, Way};
use super::{DemoAddresses, page};

/// How long it takes to create an invoice.
const CREATION: Duration = Duration::from_secs(2);
/// Longer bodies are refused.
const MAX_BODY: usize = 64 << 10;

/// The service.
#[derive(Debug)]
pub(super) struct Backend {
    ledger: Arc<Ledger>,
    places: DemoAddresses,
}

type BackendResponse = Response<Full<Bytes>>;

impl Backend {
    /// With an empty ledger. `places` are the targets of the page's forms.
    pub(super) fn new(places: DemoAddresses) -> Self {
        Self { ledger: Arc::default(), places }
    }

    /// Accepts connections and answers their requests, until it is aborted.
    pub(super) async fn serve(self, listener: TcpListener) {
        let backend = Arc::new(self);
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // For example, too many open files: an immediate retry would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let backend = Arc::clone(&backend);
            #[expect(clippy::disallowed_methods, reason = "a backend as they are: it ends with its process")]
            tokio::spawn(async move {
                let service = service_fn(|request| async { Ok::<_, Infallible>(backend.handle(request).await) });
                // Errors of client connections are ignored.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn handle(&self, request: Request<Incoming>) -> BackendResponse {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        // HEAD is answered like GET; hyper leaves the body out.
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        match (method, path.strip_prefix("/api").unwrap_or(path)) {
            (&Method::GET, "/") => {
                let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
                html(StatusCode::OK, page::page(host, self.places, &self.ledger))
            }
            (&Method::GET, "/style.css") => answer(StatusCode::OK, "text/css; charset=utf-8", page::STYLE.to_owned()),
            (&Method::GET, "/page.js") => script(page::PAGE_SCRIPT),
            (&Method::GET, "/form.js") => script(page::FORM_SCRIPT),
            (&Method::GET, "/form/guard") => html(StatusCode::OK, page::form(Way::Guard)),
            (&Method::GET, "/form/proxy") => html(StatusCode::OK, page::form(Way::Onlyonce)),
            (&Method::GET, "/form/backend") => html(StatusCode::OK, page::form(Way::Direct)),
            (&Method::GET, "/invoices") => match self.ledger.json() {
                Ok(ledger) => json(StatusCode::OK, ledger),
                Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            },
            (&Method::POST, "/invoices") => match Limited::new(body, MAX_BODY).collect().await {
                Ok(body) => self.create(&head.headers, &body.to_bytes()).await,
                Err(error) => refusal(StatusCode::BAD_REQUEST, &error.to_string()),
            },
            (_, "/invoices") => {
                let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "GET lists the invoices, POST creates one");
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
                answer
            }
            (&Method::GET, path) => {
                match path.strip_prefix("/invoices/").and_then(|number| self.ledger.created(number)) {
                    Some(invoice) => show(StatusCode::OK, &invoice, &head.headers),
                    None => refusal(StatusCode::NOT_FOUND, "there is nothing here"),
                }
            }
            _ => refusal(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }

    async fn create(&self, headers: &HeaderMap, body: &[u8]) -> BackendResponse {
        let Some((order, key, is_guarded)) = read(headers, body) else {
            return refusal(StatusCode::UNPROCESSABLE_ENTITY, "an invoice needs a customer and an amount");
        };
        let key = key.or_else(|| Some(headers.get("idempotency-key")?.to_str().ok()?.to_owned()));
        let through = headers.get_all(VIA).iter().any(|via| via.as_bytes().ends_with(b"onlyonce"));
        let way = match through {
            true if is_guarded => Way::Guard,
            true => Way::Onlyonce,
            false => Way::Direct,
        };
        // In a separate task: the service commits even if the client disconnects.
        let ledger = Arc::clone(&self.ledger);
        #[expect(clippy::disallowed_methods, reason = "waited for below")]
        let creating = tokio::spawn(async move {
            let number = ledger.begin(order, way, key);
            tokio::time::sleep(CREATION).await;
            ledger.finish(&number)
        });
        let Ok(Some(invoice)) = creating.await else {
            return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the invoice was not created");
        };
        let mut answer = show(StatusCode::CREATED, &invoice, headers);
        if let Ok(location) = HeaderValue::try_from(format!("/invoices/{}", invoice.number)) {
            answer.headers_mut().insert(LOCATION, location);
        }
        answer
    }
}

/// The order in a JSON or form body, its key, and whether it is of the form with the form guard.
fn read(headers: &HeaderMap, body: &[u8]) -> Option<(InvoiceOrder, Option<String>, bool)> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let fields: HashMap<String, Value> = if content_type.starts_with("application/json") {
        serde_json::from_slice(body).ok()?
    } else {
        let pairs = form_urlencoded::parse(body).into_owned();
        pairs.map(|(name, value)| (name, Value::String(value))).collect()
    };
    let filled = |name| match fields.get(name)? {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let order = InvoiceOrder { customer: filled("customer")?, amount: filled("amount")? };
    Some((order, filled("idempotency_key"), filled("way").as_deref() == Some("guard")))
}

/// A page for a browser, JSON for a program.
fn show(status: StatusCode, invoice: &Invoice, headers: &HeaderMap) -> BackendResponse {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let browser = accepted.into_iter().any(|line| line.contains("text/html"));
    let mut answer = if browser {
        html(status, page::invoice(invoice))
    } else {
        #[derive(Serialize)]
        struct InvoiceShape<'a> {
            number: &'a str,
            #[serde(flatten)]
            order: &'a InvoiceOrder,
        }
        match serde_json::to_string(&InvoiceShape { number: &invoice.number, order: &invoice.order }) {
            Ok(shown) => json(status, shown),
            Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    };
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    answer
}

fn refusal(status: StatusCode, text: &str) -> BackendResponse {
    answer(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn script(text: &str) -> BackendResponse {
    answer(StatusCode::OK, "text/javascript; charset=utf-8", text.to_owned())
}

fn html(status: StatusCode, page: String) -> BackendResponse {
    answer(status, "text/html; charset=utf-8", page)
}

fn json(status: StatusCode, text: String) -> BackendResponse {
    answer(status, "application/json", text + "\n")
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> BackendResponse {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(content_type: &'static str, body: &str) -> Option<(String, String, Option<String>)> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        let (order, key, _) = read(&headers, body.as_bytes())?;
        Some((order.customer, order.amount, key))
    }

    #[test]
    fn an_order_is_a_form_or_json() {
        const FORM: &str = "application/x-www-form-urlencoded";
        let ada = |key: Option<&str>| Some(("Ada L".to_owned(), "12.50".to_owned(), key.map(str::to_owned)));
        assert_eq!(reads(FORM, "customer=Ada+L&amount=12.50&idempotency_key=k"), ada(Some("k")));
        assert_eq!(reads(FORM, "customer=Ada%20L&amount=12.50"), ada(None));
        assert_eq!(reads("application/json", r#"{"customer":"Ada L","amount":"12.50"}"#), ada(None));
        assert_eq!(reads(FORM, "customer=+&amount=1"), None);
        assert_eq!(reads("application/json", "[]"), None);
        assert_eq!(reads("application/json", "{"), None);
    }
}
