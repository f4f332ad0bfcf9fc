//! Errors of the admin API.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::shape;
use crate::record::RecordName;
use crate::record::transitions;
use crate::store::{self, ListError, StoreError};

/// Why a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AdminErrorKind {
    /// The request is malformed.
    BadRequest,
    /// The body is not JSON.
    NotJson,
    /// The body is too large.
    TooLarge,
    /// The body came too slowly.
    TooSlow,
    /// The token is missing or wrong.
    Unauthorized,
    /// The call does not come from an allowed place.
    Forbidden,
    /// The token is good for reading only.
    ReadOnly,
    /// It is shown to those with a token only, and none is set.
    NeedsToken,
    /// There is nothing under this path.
    NotFound,
    /// The method is not allowed; those that are.
    Method(&'static str),
    /// There is no such record.
    NoRecord,
    /// The record's owner is alive.
    OwnerAlive,
    /// The record has an answer.
    Completed,
    /// The record changed meanwhile.
    Changed,
    /// The record cannot be read.
    Unreadable,
    /// The store did not answer.
    Store,
}

/// One error.
#[derive(Debug, Clone)]
pub(super) struct AdminError {
    why: AdminErrorKind,
    detail: Cow<'static, str>,
    record: Option<String>,
}

impl AdminError {
    pub(super) fn new(why: AdminErrorKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { why, detail: detail.into(), record: None }
    }

    pub(super) fn about(self, name: &RecordName) -> Self {
        Self { record: Some(name.to_string()), ..self }
    }

    /// The error for a change that the record's state does not allow.
    pub(super) fn of_move(why: transitions::ManualChangeRefused) -> Self {
        match why {
            transitions::ManualChangeRefused::OwnerAlive => Self::new(
                AdminErrorKind::OwnerAlive,
                "The owner of this record is alive: the request is running, and its outcome will be recorded. With \
                 force the record is changed all the same, and a retry may run beside that request.",
            ),
            transitions::ManualChangeRefused::Completed => Self::new(
                AdminErrorKind::Completed,
                "This record has an answer, which clients may have seen. Release it first; the next request runs then, \
                 unless the key is settled before it comes.",
            ),
        }
    }

    pub(super) fn of_store(error: &StoreError) -> Self {
        let causes = store::causes(error);
        match error {
            StoreError::Unavailable(_) | StoreError::Refused(_) => {
                Self::new(AdminErrorKind::Store, format!("Nothing was done, as {causes}."))
            }
            StoreError::Uncertain(_) | StoreError::Unacknowledged(_) => Self::new(
                AdminErrorKind::Store,
                format!("It may have been done or not, as {causes}. Look at the record."),
            ),
            StoreError::Unreadable { .. } => Self::new(AdminErrorKind::Unreadable, format!("{causes}.")),
        }
    }

    /// The same for a call that only looks.
    pub(super) fn of_look(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_)
            | StoreError::Refused(_)
            | StoreError::Uncertain(_)
            | StoreError::Unacknowledged(_) => {
                Self::new(AdminErrorKind::Store, format!("It cannot be looked up, as {}.", store::causes(error)))
            }
            StoreError::Unreadable { .. } => Self::of_store(error),
        }
    }

    pub(super) fn of_list(error: &ListError) -> Self {
        match error {
            ListError::BadCursor => Self::new(
                AdminErrorKind::BadRequest,
                "The cursor is not from a list of this store. A cursor is what the page before gave as next.",
            ),
            ListError::Store(error) => Self::of_look(error),
        }
    }

    /// Why the status page shows no records.
    pub(super) fn of_records(self) -> super::status::NoRecords {
        let (_, code, _) = self.why.describe();
        super::status::NoRecords { code: code.to_owned(), detail: self.detail.into_owned() }
    }

    /// A change is not made, since what would be told of it could not be written.
    pub(super) fn untold(error: &StoreError) -> Self {
        let detail = format!("Nothing was done, as its line for the audit could not be written: {error}.");
        Self::new(AdminErrorKind::Store, detail)
    }

    /// Whether there is just no such record.
    pub(super) fn is_no_record(&self) -> bool {
        self.why == AdminErrorKind::NoRecord
    }

    /// Whether the store has failed, and not the record.
    pub(super) fn is_of_store(&self) -> bool {
        self.why == AdminErrorKind::Store
    }

    /// As an item of a list.
    pub(super) fn left(self) -> shape::NotReleased {
        let (_, code, _) = self.why.describe();
        shape::NotReleased {
            record: self.record.unwrap_or_default(),
            code: code.to_owned(),
            detail: self.detail.into_owned(),
        }
    }

    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let (status, code, title) = self.why.describe();
        let problem = shape::AdminProblem {
            r#type: format!("urn:onlyonce:problem:{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail.into_owned(),
            code: code.to_owned(),
            record: self.record,
        };
        let mut response = super::json(status, &problem);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.why {
            AdminErrorKind::Unauthorized => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            AdminErrorKind::Method(right) => drop(headers.insert(ALLOW, HeaderValue::from_static(right))),
            _ => {}
        }
        response
    }
}

impl AdminErrorKind {
    fn describe(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "The request makes no sense"),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", "The request is not JSON"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "request-too-large", "The request body is too large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request body came too slowly"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "The admin token is missing or wrong"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Not from there"),
            Self::ReadOnly => (StatusCode::FORBIDDEN, "read-only", "Not with this token"),
            Self::NeedsToken => (StatusCode::FORBIDDEN, "token-needed", "Not without a token"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is nothing here"),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Not with this method"),
            Self::NoRecord => (StatusCode::NOT_FOUND, "record-not-found", "There is no such record"),
            Self::OwnerAlive => (StatusCode::CONFLICT, "owner-alive", "The request is still running"),
            Self::Completed => (StatusCode::CONFLICT, "already-completed", "This was done already"),
            Self::Changed => (StatusCode::CONFLICT, "record-changed", "The record changed meanwhile"),
            Self::Unreadable => (StatusCode::SERVICE_UNAVAILABLE, "record-unreadable", "The record cannot be read"),
            Self::Store => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "The store does not answer"),
        }
    }
}
