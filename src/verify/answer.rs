//! What came of one request.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

/// An answer of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiAnswer {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its header.
    pub(super) headers: HeaderMap,
    /// Its content.
    pub(super) body: Bytes,
}

/// What a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientOutcome {
    /// An answer.
    Answered(ApiAnswer),
    /// It closed the connection. An answer that had come by then is evidence, though no client has it.
    GaveUp(Option<ApiAnswer>),
    /// No answer, for this reason.
    Failed(String),
}

/// What a status says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerClass {
    /// It was done.
    Success,
    /// Refused for what the request says.
    Refused,
    /// Not done here: the request is sent elsewhere, or nothing has changed.
    Redirected,
    /// Refused for who sends it.
    Denied,
    /// There is no such resource or method.
    Missing,
    /// Refused for the load; nothing was done.
    Busy,
    /// A failure, which may have had an effect.
    Failure,
}

impl ApiAnswer {
    pub(super) fn class(&self) -> AnswerClass {
        match self.status.as_u16() {
            200..=303 => AnswerClass::Success,
            401 | 403 | 407 => AnswerClass::Denied,
            404 | 405 => AnswerClass::Missing,
            429 => AnswerClass::Busy,
            304..=399 => AnswerClass::Redirected,
            // The request may have been at work when its time was over, or its client gone.
            408 | 499 => AnswerClass::Failure,
            400..=499 => AnswerClass::Refused,
            _ => AnswerClass::Failure,
        }
    }

    pub(super) fn is_success(&self) -> bool {
        self.class() == AnswerClass::Success
    }

    /// Whether it says of itself that it is a replay.
    pub(super) fn says_replayed(&self) -> bool {
        // Stripe and onlyonce; spellings of others.
        const FIELDS: [&str; 4] =
            ["idempotent-replayed", "idempotency-replayed", "x-idempotent-replayed", "x-idempotency-replayed"];
        FIELDS.iter().any(|name| self.headers.get(*name).is_some_and(|value| value.as_bytes() == b"true"))
    }

    /// Whether the same request may be answered otherwise a little later.
    pub(super) fn asks_to_come_again(&self) -> bool {
        matches!(self.status.as_u16(), 409 | 423 | 425 | 429 | 503)
    }

    /// Whether it tells a client that another request with the same key is at work.
    pub(super) fn says_in_flight(&self) -> bool {
        match self.status.as_u16() {
            409 | 423 | 425 => true,
            429 | 503 => self.speaks_of_keys(),
            _ => false,
        }
    }

    /// Whether it is refused because there is no room for one more, whatever its key is.
    pub(super) fn is_for_load(&self) -> bool {
        matches!(self.status.as_u16(), 429 | 503) && !self.speaks_of_keys()
    }

    /// Whether its content names the key, as `idempotency_key_in_use` does.
    fn speaks_of_keys(&self) -> bool {
        let letters = self.body.iter().filter(|byte| byte.is_ascii_alphabetic());
        let letters: Vec<u8> = letters.map(u8::to_ascii_lowercase).collect();
        letters.windows(b"idempotencykey".len()).any(|window| window == b"idempotencykey")
    }

    /// How long to wait by `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
    pub(super) fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let seconds = text.parse().ok().map(Duration::from_secs);
        seconds.or_else(|| Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()))
    }
}

impl ClientOutcome {
    /// The answer, also one that the client did not wait for.
    pub(super) fn evidence(&self) -> Option<&ApiAnswer> {
        match self {
            Self::Answered(answer) | Self::GaveUp(Some(answer)) => Some(answer),
            Self::GaveUp(None) | Self::Failed(_) => None,
        }
    }

    /// The answer that the client has.
    pub(super) fn answer(&self) -> Option<&ApiAnswer> {
        match self {
            Self::Answered(answer) => Some(answer),
            Self::GaveUp(_) | Self::Failed(_) => None,
        }
    }
}

/// In words, as `201, then 409`.
pub(super) fn in_words(outcomes: &[ClientOutcome]) -> String {
    let one = |outcome: &ClientOutcome| match outcome {
        ClientOutcome::Answered(answer) if answer.says_replayed() => format!("{} (a replay)", answer.status.as_u16()),
        ClientOutcome::Answered(answer) => answer.status.as_u16().to_string(),
        ClientOutcome::GaveUp(None) => "no answer before the client left".to_owned(),
        ClientOutcome::GaveUp(Some(answer)) => format!("{} that the client did not wait for", answer.status.as_u16()),
        ClientOutcome::Failed(why) => why.clone(),
    };
    let all: Vec<String> = outcomes.iter().map(one).collect();
    if all.len() < 5 {
        return all.join(", then ");
    }
    let mut counted: Vec<(usize, &str)> = Vec::new();
    for word in &all {
        match counted.iter_mut().find(|(_, known)| known == word) {
            Some((count, _)) => *count += 1,
            None => counted.push((1, word)),
        }
    }
    counted.sort_by_key(|(_, word)| *word);
    let times = |count: usize| if count == 1 { "once".to_owned() } else { format!("{count} times") };
    counted.iter().map(|(count, word)| format!("{} {word}", times(*count))).collect::<Vec<_>>().join(", ")
}
