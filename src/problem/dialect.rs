//! The members by which the clients of known APIs recognise an error.
//!
//! Some clients ignore the status: Stripe's for Node takes any JSON without a member `error` for the requested object. These
//! members are added to the problem document and do not conflict with those of RFC 9457.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::Code;

/// The API whose clients are addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `error: {type, code, message}`, and `Stripe-Should-Retry`.
    Stripe,
    /// `errors: [{category, code, detail}]`
    Square,
    /// `name`, `message`, `details: [{issue, description}]`
    Paypal,
    /// `error: {type, code, message, errors: [{reason, message}]}`
    Gocardless,
}

/// Whether a repeat may get another answer: `true` or `false`. Stripe's clients obey it before they look at the status.
pub const SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");

/// What a dialect adds to a problem document.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Members<'a> {
    Stripe { error: StripeError<'a> },
    Square { errors: [SquareError<'a>; 1] },
    Paypal { name: &'static str, message: &'a str, details: [PaypalDetail<'a>; 1] },
    Gocardless { error: GocardlessError<'a> },
}

#[derive(Serialize)]
pub(super) struct StripeError<'a> {
    r#type: &'static str,
    code: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
pub(super) struct SquareError<'a> {
    category: &'static str,
    code: &'static str,
    detail: &'a str,
}

#[derive(Serialize)]
pub(super) struct PaypalDetail<'a> {
    issue: &'static str,
    description: &'a str,
}

#[derive(Serialize)]
pub(super) struct GocardlessError<'a> {
    r#type: &'static str,
    code: &'static str,
    message: &'a str,
    errors: [GocardlessReason<'a>; 1],
}

/// Clients read the reason of every entry, so that each has one. It is never `idempotent_creation_conflict`, which requires
/// the id of the existing resource: a client would look it up.
#[derive(Serialize)]
pub(super) struct GocardlessReason<'a> {
    reason: &'static str,
    message: &'a str,
}

impl Dialect {
    /// The members of one problem.
    pub(super) fn members(self, code: Code, detail: &str) -> Members<'_> {
        let (_, name, _) = code.describe();
        match self {
            Self::Stripe => {
                Members::Stripe { error: StripeError { r#type: stripe_type(code), code: name, message: detail } }
            }
            Self::Square => {
                Members::Square { errors: [SquareError { category: square_category(code), code: name, detail }] }
            }
            Self::Paypal => Members::Paypal {
                name: paypal_name(code),
                message: detail,
                details: [PaypalDetail { issue: name, description: detail }],
            },
            Self::Gocardless => Members::Gocardless {
                error: GocardlessError {
                    r#type: gocardless_type(code),
                    code: name,
                    message: detail,
                    errors: [GocardlessReason { reason: name, message: detail }],
                },
            },
        }
    }

    /// The header fields of one problem.
    pub(super) fn add_fields(self, headers: &mut HeaderMap, should_retry: bool) {
        match self {
            Self::Stripe => {
                let value = if should_retry { "true" } else { "false" };
                headers.insert(SHOULD_RETRY, HeaderValue::from_static(value));
            }
            Self::Square | Self::Paypal | Self::Gocardless => {}
        }
    }
}

fn stripe_type(code: Code) -> &'static str {
    match code.status().as_u16() {
        500.. => "api_error",
        _ if code.is_about_key() => "idempotency_error",
        _ => "invalid_request_error",
    }
}

fn square_category(code: Code) -> &'static str {
    match code.status().as_u16() {
        500.. => "API_ERROR",
        401 => "AUTHENTICATION_ERROR",
        _ => "INVALID_REQUEST_ERROR",
    }
}

fn paypal_name(code: Code) -> &'static str {
    match code.status().as_u16() {
        503 => "SERVICE_UNAVAILABLE",
        500.. => "INTERNAL_SERVER_ERROR",
        401 => "AUTHENTICATION_FAILURE",
        403 => "NOT_AUTHORIZED",
        409 => "RESOURCE_CONFLICT",
        422 => "UNPROCESSABLE_ENTITY",
        _ => "INVALID_REQUEST",
    }
}

/// Only types that clients know: they report an unknown type as another error.
fn gocardless_type(code: Code) -> &'static str {
    match code.status().as_u16() {
        500.. => "gocardless",
        409 | 422 => "invalid_state",
        _ => "invalid_api_usage",
    }
}
