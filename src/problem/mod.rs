//! The proxy's own answers: problem details (RFC 9457), or a small page for a browser.
//!
//! Only this room sets their HTTP statuses. They contain no key, body or credential.

mod code;
mod dialect;
mod format;
mod page;
mod script;

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LINK, LOCATION, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

pub use code::Code;
pub use dialect::{Dialect, SHOULD_RETRY};
pub use format::ProblemFormat;
pub use script::{SCRIPT_FETCH, SCRIPT_FORM, backend_answered, replay_denied};

use crate::record::RecordName;

/// The preferences of the request that were applied (RFC 7240, 3).
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The preference to wait for an answer (RFC 7240, 4.3).
pub const WAIT: HeaderValue = HeaderValue::from_static("wait");

/// One answer of the proxy.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    /// The route's own message, which replaces the explanation.
    message: Option<Box<str>>,
    route: Option<Box<str>>,
    record: Option<Box<str>>,
    /// Whole seconds.
    retry_after: Option<u32>,
    original: Option<Box<(StatusCode, Option<HeaderValue>)>>,
    dialect: Option<Dialect>,
    /// An address without angle brackets.
    help: Option<Box<str>>,
    waited: bool,
    /// A repeat of the request would not be guarded.
    unguarded: bool,
    close: bool,
}

impl Problem {
    /// A problem with its plain-language explanation.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            message: None,
            route: None,
            record: None,
            retry_after: None,
            original: None,
            dialect: None,
            help: None,
            waited: false,
            unguarded: false,
            close: false,
        }
    }

    /// What went wrong.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Why, in plain words; not in the route's own.
    pub fn detail(&self) -> &Cow<'static, str> {
        &self.detail
    }

    /// The name of the record that it is about.
    pub fn about(&self) -> Option<&str> {
        self.record.as_deref()
    }

    /// Replaces the explanation by the route's own message, if it has one.
    pub fn message(mut self, message: Option<&str>) -> Self {
        self.message = message.map(Into::into);
        self
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

    /// Adds `Retry-After`, in seconds (RFC 9110, 10.2.3).
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds the status of the original answer, which is not stored.
    pub fn original(mut self, status: StatusCode, location: Option<HeaderValue>) -> Self {
        self.original = Some(Box::new((status, location)));
        self
    }

    /// Adds the members by which the clients of one API recognise an error.
    pub fn dialect(mut self, dialect: Option<Dialect>) -> Self {
        self.dialect = dialect;
        self
    }

    /// Links to documentation, as the draft asks (draft-ietf-httpapi-idempotency-key-header-07, 2.7).
    pub fn help(mut self, address: Option<&str>) -> Self {
        self.help = address.map(Into::into);
        self
    }

    /// The client has waited for it, as it asked to.
    pub fn waited(&mut self) {
        self.waited = true;
    }

    /// The request was sent without a guard: a repeat may run it again.
    pub fn unguarded(mut self) -> Self {
        self.unguarded = true;
        self
    }

    /// Whether a repeat with the same key is safe, and may get another answer than this one.
    fn should_retry(&self) -> bool {
        self.code.may_pass() && !self.unguarded
    }

    /// Closes the connection, because the rest of the request is not read.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// The answer.
    pub fn response(&self, format: ProblemFormat) -> Response<Bytes> {
        let (content_type, body) = match format {
            ProblemFormat::Page => ("text/html; charset=utf-8", self.page()),
            ProblemFormat::Json => ("application/problem+json", self.json(None)),
            ProblemFormat::Script { has_own_key } => {
                ("application/problem+json", self.json(Some(self.offer(has_own_key))))
            }
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VARY, HeaderValue::from_static("accept"));
        if matches!(format, ProblemFormat::Script { .. }) {
            headers.insert(SCRIPT_FORM, self.verb());
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some((_, Some(location))) = self.original.as_deref() {
            headers.insert(LOCATION, location.clone());
        }
        let help = self.help.as_deref().map(|address| HeaderValue::try_from(format!("<{address}>; rel=\"help\"")));
        // The configuration accepts only addresses that are valid here.
        if let Some(Ok(link)) = help {
            headers.insert(LINK, link);
        }
        if self.waited {
            headers.insert(PREFERENCE_APPLIED, WAIT);
        }
        if let Some(dialect) = self.dialect {
            dialect.add_fields(headers, self.should_retry());
        }
        if self.code == Code::InvalidToken {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
        }
        if self.code == Code::MethodNotAllowed {
            // Required (RFC 9110, 15.5.6).
            headers.insert(ALLOW, HeaderValue::from_static("OPTIONS"));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// `offer` takes the place of the explanation.
    fn json(&self, offer: Option<script::Offer<'_>>) -> String {
        #[derive(Serialize)]
        struct ProblemMembers<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a str>,
            #[serde(flatten)]
            offer: Option<script::Offer<'a>>,
            code: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            route: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            record: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            original_status: Option<u16>,
            #[serde(flatten)]
            dialect: Option<dialect::Members<'a>>,
        }
        let (status, code, title) = self.code.describe();
        let detail = self.message.as_deref().unwrap_or(&self.detail);
        let members = ProblemMembers {
            r#type: format!("urn:onlyonce:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: offer.is_none().then_some(detail),
            offer,
            code,
            route: self.route.as_deref(),
            record: self.record.as_deref(),
            original_status: self.original.as_deref().map(|(status, _)| status.as_u16()),
            dialect: self.dialect.map(|dialect| dialect.members(self.code, detail)),
        };
        // A struct of strings and numbers serializes to JSON.
        serde_json::to_string(&members).unwrap_or_else(|_| String::from("{}"))
    }
}
