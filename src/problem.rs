//! Every answer that is our own: problem details (RFC 9457), or a small page for a browser.
//!
//! HTTP statuses of our own answers appear only here. No key, body or credential appears in any of them.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::record::RecordName;

/// What went wrong: the `code` member, and the end of `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The first request with this key is still running.
    InFlight,
    /// The key was used for another request.
    KeyReused,
    /// The same, where the route asks for 409 (`on_mismatch = "conflict"`).
    KeyReusedConflict,
    /// An earlier attempt started, and nobody knows how it ended.
    OutcomeUnknown,
    /// It was done, and the answer was not kept.
    AlreadyCompleted,
    /// The route requires a key.
    MissingKey,
    /// The key is not one.
    InvalidKey,
    /// The key is older than any record.
    KeyExpired,
    /// The body that holds key or scope does not parse.
    InvalidBody,
    /// The request cannot be forwarded safely.
    BadRequest,
    /// The target is longer than anybody should need.
    TargetTooLong,
    /// The body is too large to be guarded.
    RequestTooLarge,
    /// The body came too slowly.
    RequestTimeout,
    /// The request asks for something that this proxy does not do.
    NotImplemented,
    /// `Expect` with anything but `100-continue`.
    ExpectationFailed,
    /// The store of the records does not answer.
    StoreUnavailable,
    /// A record is there, and cannot be read.
    RecordUnreadable,
    /// Too much work at once.
    Overloaded,
    /// The backend could not be reached; nothing was sent.
    UpstreamUnreachable,
    /// The backend broke off.
    UpstreamFailed,
    /// The backend took too long.
    UpstreamTimeout,
}

impl Code {
    fn describe(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InFlight => (StatusCode::CONFLICT, "in-flight", "The first request is still running"),
            Self::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "key-reused", "The key was used for another request"),
            Self::KeyReusedConflict => (StatusCode::CONFLICT, "key-reused", "The key was used for another request"),
            Self::OutcomeUnknown => {
                (StatusCode::CONFLICT, "outcome-unknown", "The outcome of an earlier attempt is not known")
            }
            Self::AlreadyCompleted => (StatusCode::CONFLICT, "already-completed", "This was done already"),
            Self::MissingKey => (StatusCode::BAD_REQUEST, "missing-key", "An idempotency key is required"),
            Self::InvalidKey => (StatusCode::BAD_REQUEST, "invalid-key", "The idempotency key is not valid"),
            Self::KeyExpired => (StatusCode::GONE, "key-expired", "The idempotency key is too old"),
            Self::InvalidBody => (StatusCode::BAD_REQUEST, "invalid-body", "The body cannot be read"),
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "The request cannot be forwarded safely"),
            Self::TargetTooLong => (StatusCode::URI_TOO_LONG, "target-too-long", "The request target is too long"),
            Self::RequestTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "request-too-large", "The request body is too large")
            }
            Self::RequestTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request body came too slowly")
            }
            Self::NotImplemented => (StatusCode::NOT_IMPLEMENTED, "not-implemented", "Not supported here"),
            Self::ExpectationFailed => {
                (StatusCode::EXPECTATION_FAILED, "expectation-failed", "The expectation cannot be met")
            }
            Self::StoreUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "Requests cannot be guarded just now")
            }
            Self::RecordUnreadable => {
                (StatusCode::SERVICE_UNAVAILABLE, "record-unreadable", "The record of this request cannot be read")
            }
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many requests at once"),
            Self::UpstreamUnreachable => {
                (StatusCode::BAD_GATEWAY, "upstream-unreachable", "The backend cannot be reached")
            }
            Self::UpstreamFailed => (StatusCode::BAD_GATEWAY, "upstream-failed", "The backend broke off"),
            Self::UpstreamTimeout => (StatusCode::GATEWAY_TIMEOUT, "upstream-timeout", "The backend took too long"),
        }
    }

    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        self.describe().0
    }
}

/// One answer of our own.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    route: Option<Box<str>>,
    record: Option<Box<str>>,
    /// Whole seconds.
    retry_after: Option<u32>,
    original: Option<(StatusCode, Option<HeaderValue>)>,
    close: bool,
}

impl Problem {
    /// A problem with its plain-language explanation.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let detail = detail.into();
        Self { code, detail, route: None, record: None, retry_after: None, original: None, close: false }
    }

    /// What went wrong.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Names the route.
    pub fn route(mut self, name: &str) -> Self {
        self.route = Some(name.into());
        self
    }

    /// Names the record.
    pub fn record(mut self, name: &RecordName) -> Self {
        self.record = Some(name.to_string().into());
        self
    }

    /// Says when to try again, in seconds (RFC 9110, 10.2.3).
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Tells what the answer that was not kept had been.
    pub fn original(mut self, status: StatusCode, location: Option<HeaderValue>) -> Self {
        self.original = Some((status, location));
        self
    }

    /// Closes the connection: what is left of the request on it will not be read.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// The answer.
    pub fn response(&self, form: Form) -> Response<Bytes> {
        let (status, _, _) = self.code.describe();
        let (content_type, body) = match form {
            Form::Page => ("text/html; charset=utf-8", self.page()),
            Form::Json => ("application/problem+json", self.json()),
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VARY, HeaderValue::from_static("accept"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some((_, Some(location))) = &self.original {
            headers.insert(LOCATION, location.clone());
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn json(&self) -> String {
        #[derive(Serialize)]
        struct Members<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            detail: &'a str,
            code: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            route: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            record: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            original_status: Option<u16>,
        }
        let (status, code, title) = self.code.describe();
        let members = Members {
            r#type: format!("urn:onlyonce:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            code,
            route: self.route.as_deref(),
            record: self.record.as_deref(),
            original_status: self.original.as_ref().map(|(status, _)| status.as_u16()),
        };
        // A struct of strings and numbers has a JSON form.
        serde_json::to_string(&members).unwrap_or_else(|_| String::from("{}"))
    }

    fn page(&self) -> String {
        let (_, code, title) = self.code.describe();
        let mut rows = String::new();
        let mut row = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = write!(rows, "<dt>{name}</dt><dd>{}</dd>", escape(value));
        };
        row("Code", code);
        if let Some(record) = &self.record {
            row("Record", record);
        }
        if let Some((_, Some(location))) = &self.original {
            row("Result", &String::from_utf8_lossy(location.as_bytes()));
        }
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
             <style>:root{{color-scheme:light dark}}\
             body{{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:8vh auto;padding:0 1rem}}\
             h1{{font-size:1.4rem;line-height:1.2}}dt{{opacity:.7}}dd{{margin:0 0 .5rem;overflow-wrap:anywhere}}</style>\n\
             <h1>{title}</h1>\n<p>{}</p>\n<dl>{rows}</dl>\n</html>\n",
            escape(&self.detail)
        )
    }
}

/// How a problem is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/problem+json` (RFC 9457).
    Json,
    /// A small page, for a browser that sent a form.
    Page,
}

impl Form {
    /// The form that a request asks for: a page where `Accept` names `text/html`, and no problem details.
    pub fn of(request: &HeaderMap) -> Self {
        let names = |media: &str| {
            request.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains(media))
        };
        if names("text/html") && !names("application/problem+json") { Self::Page } else { Self::Json }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
