use http::HeaderMap;
use http::header::ACCEPT;

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
