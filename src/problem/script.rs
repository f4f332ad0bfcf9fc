//! Answers to the form guard's script: a verb in a header field, and words for people in the body.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::{Code, Problem};

/// In a request, the key of the form guard's script, and a comma behind it where it was sent before; in an answer, what the
/// script is to do: `wait SECONDS`, `go URL`, `go` (ask again, as a navigation), `send` (the same, and the answer is not in
/// the record), or `say` (what the body says).
pub const SCRIPT_FORM: HeaderName = HeaderName::from_static("onlyonce-form");

/// The same in a request of `onlyonce.fetch`, whose page reads the answer itself.
pub const SCRIPT_FETCH: HeaderName = HeaderName::from_static("onlyonce-fetch");

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
    /// It is answered: a field that changes begins another intent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    done: bool,
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

    /// `has_own_key`: the page has made the key, so that the script cannot make another one.
    pub(super) fn offer(&self, has_own_key: bool) -> Offer<'_> {
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
                ("This form is too old. Check whether what you sent is there before you send it again.", AS_NEW, true)
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
            Code::ReplayRefused => (
                "This was sent before, and its answer cannot be shown just now. Please try again in a moment.",
                AGAIN,
                false,
            ),
            Code::RecordUnreadable => {
                ("It may have been done before, and that cannot be shown just now. Please ask us.", None, false)
            }
            Code::UpstreamFailed | Code::UpstreamTimeout => {
                ("This may have gone through all the same. Check whether it is there.", AGAIN, false)
            }
        };
        let done = self.code == Code::AlreadyCompleted;
        let detail = match &self.message {
            Some(message) => message.as_ref().into(),
            None if anew && has_own_key => format!("{words} For a new one, load this page again.").into(),
            None => words.into(),
        };
        if anew && has_own_key {
            return Offer { detail, offer: None, anew: false, done };
        }
        Offer { detail, offer, anew, done }
    }
}

/// The body that takes the place of the answer of an authorization service: the caller may not see what is recorded. What
/// was sent is not answered by that, and stays the same intent.
pub fn replay_denied(status: StatusCode) -> Bytes {
    let detail = match status {
        StatusCode::UNAUTHORIZED => "Please sign in again. This was sent before, and nothing was done a second time.",
        _ => "You may not see the answer to this any more. Nothing was done a second time.",
    };
    let offer = Offer { detail: detail.into(), offer: AGAIN, anew: false, done: false };
    json(&offer)
}

/// The body that takes the place of the backend's, where that cannot be shown. `is_page`: the backend's is one, which may
/// say anything.
pub fn backend_answered(status: StatusCode, is_page: bool) -> Bytes {
    let number = status.as_u16();
    let (detail, offer, done) = match number {
        200..=299 if is_page => {
            ("The answer is a page that cannot be shown here. Check whether it went through.".into(), None, true)
        }
        200..=299 => ("This was done.".into(), None, true),
        400..=499 => (format!("This was not accepted ({number}).").into(), AGAIN, true),
        _ => (format!("Something went wrong ({number}).").into(), AGAIN, false),
    };
    let offer = Offer { detail, offer, anew: false, done };
    json(&offer)
}

fn json(offer: &Offer) -> Bytes {
    serde_json::to_vec(offer).expect("strings and truth values are JSON").into()
}
