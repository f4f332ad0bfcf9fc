//! The form guard's tag in pages that pass.

use super::body::injection::Injection;
use super::body::response::{ProxyResponse, ResponseBody};
use crate::form_guard::{FormGuard, Untouched};
use crate::metrics::{FormGuardResult, Metrics};

/// Puts the tag into the answer, if that is a page which may have it.
pub(super) fn inject(
    form_guard: &FormGuard,
    answer: ProxyResponse,
    host: Option<&str>,
    metrics: &Metrics,
) -> ProxyResponse {
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
