//! The form guard's tag in pages that pass.

use super::body::injection::Injection;
use super::body::response::{ProxyResponse, ResponseBody};
use super::fields::Fields;
use super::head::Head;
use crate::form_guard::{self, FormGuard, Untouched};
use crate::key::RequestedTarget;
use crate::metrics::{FormGuardResult, Metrics};

/// A request for a path whose pages have the tag.
pub(super) struct PageRequest<'a> {
    form_guard: &'a FormGuard,
    host: Option<&'a str>,
    /// It asks for the page with the tag, and not for a part of it or for data.
    takes: bool,
}

impl<'a> PageRequest<'a> {
    /// Prepares the head of a request for such a page.
    pub(super) fn of(form_guard: &'a FormGuard, asked: &'a RequestedTarget<'_>, head: &mut Head) -> Option<Self> {
        if !form_guard.has_page(&head.method, asked.path()) {
            return None;
        }
        let (host, takes) = (asked.host(), FormGuard::takes(&head.headers));
        if takes {
            form_guard.ask_for_page(host, &mut head.headers);
            head.fields = head.fields | Fields::ACCEPT_ENCODING;
        }
        Some(Self { form_guard, host, takes })
    }

    /// The answer, with the tag if it may have it.
    pub(super) fn answer(&self, answer: ProxyResponse, metrics: &Metrics) -> ProxyResponse {
        let mut answer = if self.takes { inject(self.form_guard, answer, self.host, metrics) } else { answer };
        form_guard::varies(answer.headers_mut());
        answer
    }
}

/// Puts the tag into the answer, if that is a page which may have it.
fn inject(form_guard: &FormGuard, answer: ProxyResponse, host: Option<&str>, metrics: &Metrics) -> ProxyResponse {
    let (mut parts, body) = answer.into_parts();
    let inserter = match form_guard.put_into(parts.status, &mut parts.headers, host) {
        Ok(inserter) => inserter,
        Err(why) => {
            let result = match why {
                Untouched::NoPage => None,
                Untouched::Charset => Some(FormGuardResult::Charset),
                Untouched::Encoded => Some(FormGuardResult::Encoded),
                Untouched::NoTransform => Some(FormGuardResult::NoTransform),
                Untouched::Policy => Some(FormGuardResult::Policy),
            };
            if let Some(result) = result {
                metrics.form_guard(result);
            }
            None
        }
    };
    let body = match inserter {
        Some(inserter) => {
            metrics.form_guard(FormGuardResult::Injected);
            ResponseBody::Injected(Box::new(body), Box::new(Injection::new(inserter)))
        }
        None => body,
    };
    ProxyResponse::from_parts(parts, body)
}
