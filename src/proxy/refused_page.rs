//! Pages with which a backend refuses a form: the form again, with what is wrong in it.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

/// In a head: an answer that is a page may be kept although it is a refusal, because the navigation that shows it repeats
/// the request.
#[derive(Clone, Copy)]
pub(super) struct KeepsPages;

/// Whether an answer is a page that refuses what was sent.
pub(super) fn is_refused_page(status: StatusCode, headers: &HeaderMap) -> bool {
    status.is_client_error() && is_html(headers)
}

pub(super) fn is_html(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|media| media.as_bytes().to_ascii_lowercase().starts_with(b"text/html"))
}
