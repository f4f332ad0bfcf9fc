//! What the form guard's script is told: a verb in a field of the head, and words for people in the body.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::{Code, Problem};

/// In a request, the key of the form guard's script; in an answer, what the script is to do: `wait SECONDS`, `go URL`,
/// `page` (ask again, as a navigation), `done`, or `say` (what the body says).
pub const FORM: HeaderName = HeaderName::from_static("onlyonce-form");

/// The same in a request of `onlyonce.fetch`, whose page reads the answer itself.
pub const FETCH: HeaderName = HeaderName::from_static("onlyonce-fetch");

pub(super) const SAY: HeaderValue = HeaderValue::from_static("say");

/// The words and the button of a refusal.
#[derive(Serialize)]
pub(super) struct Offer<'a> {
    detail: Cow<'a, str>,
    /// The label of the button. `None`: another try is of no use.
    offer: Option<&'static str>,
    /// The button sends it under a new key: the person takes it for another intent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    anew: bool,
}

const AGAIN: Option<&str> = Some("Try again");
const AS_NEW: Option<&str> = Some("Send it as a new one");

impl Problem {
    /// What the script does with this answer.
    pub(super) fn verb(&self) -> HeaderValue {
        let seconds = match self.code {
            Code::InFlight => self.retry_after.unwrap_or(1).max(1),
            // The attempt goes on.
            Code::UpstreamTimeout if self.should_retry() => 1,
            _ => return SAY,
        };
        HeaderValue::try_from(format!("wait {seconds}")).unwrap_or(SAY)
    }

    pub(super) fn offer(&self) -> Offer<'_> {
        let (words, offer, anew) = match self.code {
            Code::InFlight => ("One moment, please: this is still being worked on.", AGAIN, false),
            Code::KeyReused | Code::KeyReusedConflict => {
                ("This was already sent, with other content. Nothing was done this time.", AS_NEW, true)
            }
            Code::OutcomeUnknown => (
                "We cannot tell whether this went through. Check whether it is there before you send it again.",
                AS_NEW,
                true,
            ),
            Code::AlreadyCompleted => ("This was already done, and it was not done a second time.", None, false),
            Code::KeyExpired => {
                ("This form is too old. Check whether what you sent is there. If it is not:", AS_NEW, true)
            }
            Code::MissingKey | Code::InvalidKey | Code::InvalidBody | Code::BadRequest | Code::TargetTooLong => {
                ("This could not be sent. Nothing was done.", AGAIN, false)
            }
            Code::MethodNotAllowed | Code::NotImplemented | Code::ExpectationFailed => {
                ("This could not be sent. Nothing was done.", None, false)
            }
            Code::InvalidToken => ("Please sign in again. Nothing was done.", AGAIN, false),
            Code::RequestTooLarge => {
                ("This is too large. Nothing was done. Send less, or a smaller file.", None, false)
            }
            Code::RequestTimeout => ("Your connection was too slow: this did not arrive whole.", AGAIN, false),
            Code::StoreUnavailable | Code::Overloaded | Code::UpstreamUnreachable => {
                ("This was not sent on. Please try again in a moment.", AGAIN, false)
            }
            Code::RecordUnreadable => {
                ("It may have been done before, and that cannot be shown just now. Please ask us.", None, false)
            }
            Code::UpstreamFailed | Code::UpstreamTimeout => {
                ("This may have gone through all the same. Check whether it is there.", AGAIN, false)
            }
        };
        Offer { detail: self.message.as_deref().unwrap_or(words).into(), offer, anew }
    }
}

/// The body that takes the place of the backend's, where that cannot be shown.
pub fn backend_answered(status: StatusCode) -> Bytes {
    let offer = if status.is_client_error() || status.is_server_error() {
        let words = if status.is_client_error() { "This was not accepted" } else { "Something went wrong" };
        Offer { detail: format!("{words} ({}).", status.as_u16()).into(), offer: AGAIN, anew: false }
    } else {
        Offer { detail: "This was done.".into(), offer: None, anew: false }
    };
    // A struct of strings serializes to JSON.
    serde_json::to_vec(&offer).unwrap_or_default().into()
}
