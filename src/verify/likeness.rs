//! Whether a second answer is the first one, and what a refusal tells its client. Pure.

use http::header::{
    AGE, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE,
    DATE, ETAG, EXPIRES, LAST_MODIFIED, LINK, LOCATION, RETRY_AFTER, SERVER, SET_COOKIE, TRAILER, TRANSFER_ENCODING,
    VARY, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::answer::{AnswerClass, ApiAnswer, ClientOutcome};
use super::case::{ReplayPart, SeenRefusal};
use super::judge::KeySupport;
use super::verdict::Judgement;

/// Fields of the connection, of the moment, or of the request.
const OF_THE_EXCHANGE: [HeaderName; 11] =
    [AGE, CONNECTION, CONTENT_LENGTH, DATE, EXPIRES, SERVER, SET_COOKIE, TRAILER, TRANSFER_ENCODING, VARY, VIA];

/// Fields that tell of the result.
const OF_THE_RESULT: [HeaderName; 8] =
    [CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, ETAG, LAST_MODIFIED, LINK];

/// What came, and the verdict on one part of the second answer.
pub(super) fn replayed(
    part: ReplayPart,
    first: &ApiAnswer,
    second: Option<&ClientOutcome>,
    support: KeySupport,
) -> (String, Judgement) {
    let nothing = |why: &str| ("no replay".to_owned(), Judgement::not_known(why));
    let Some(second) = second.and_then(ClientOutcome::answer) else {
        return nothing("the second request got no answer");
    };
    match support {
        KeySupport::Ignored => return nothing("the API does not heed the key: the same request twice ran twice"),
        KeySupport::Heeded | KeySupport::NotKnown => {}
    }
    if second.class() != AnswerClass::Success {
        return nothing("the second request was refused");
    }
    match part {
        ReplayPart::Status => status(first, second),
        ReplayPart::Body => body(first, second),
        ReplayPart::Location => location(first, second),
        ReplayPart::Fields => fields(first, second),
    }
}

fn status(first: &ApiAnswer, second: &ApiAnswer) -> (String, Judgement) {
    let came = format!("{}, then {}", first.status.as_u16(), second.status.as_u16());
    let judgement = match first.status == second.status {
        true => Judgement::pass("the same"),
        false => Judgement::warn("another one: a client may take it for another result"),
    };
    (came, judgement)
}

fn body(first: &ApiAnswer, second: &ApiAnswer) -> (String, Judgement) {
    let came = format!("{} bytes, then {} bytes", first.body.len(), second.body.len());
    let json = |answer: &ApiAnswer| serde_json::from_slice::<Value>(&answer.body).ok();
    let judgement = if first.body == second.body {
        Judgement::pass("the same bytes")
    } else if json(first).is_some() && json(first) == json(second) {
        Judgement::pass("the same JSON, in other bytes")
    } else {
        Judgement::warn("another one: the client does not get the result of the first request")
    };
    (came, judgement)
}

fn location(first: &ApiAnswer, second: &ApiAnswer) -> (String, Judgement) {
    let (one, other) = (first.headers.get(LOCATION), second.headers.get(LOCATION));
    let shown = |there: bool| if there { "one" } else { "none" };
    let came = format!("{}, then {}", shown(one.is_some()), shown(other.is_some()));
    let judgement = match (one, other) {
        (None, None) => Judgement::not_known("the first answer has none"),
        (None, Some(_)) => Judgement::warn("the second has one that the first had not"),
        (Some(_), None) => Judgement::warn("it is lost: a client that follows it fails"),
        (Some(one), Some(other)) if one == other => Judgement::pass("the same"),
        (Some(_), Some(_)) => Judgement::warn("another one"),
    };
    (came, judgement)
}

fn fields(first: &ApiAnswer, second: &ApiAnswer) -> (String, Judgement) {
    let counts = |name: &&HeaderName| !OF_THE_EXCHANGE.contains(name) && **name != LOCATION;
    let all = |headers: &HeaderMap, name: &HeaderName| -> Vec<HeaderValue> {
        headers.get_all(name).into_iter().cloned().collect()
    };
    let names: Vec<&HeaderName> = first.headers.keys().filter(counts).collect();
    let lost: Vec<&str> =
        names.iter().filter(|name| !second.headers.contains_key(**name)).map(|name| name.as_str()).collect();
    let changed: Vec<&str> = names
        .iter()
        .filter(|name| OF_THE_RESULT.contains(name) && second.headers.contains_key(**name))
        .filter(|name| all(&first.headers, name) != all(&second.headers, name))
        .map(|name| name.as_str())
        .collect();
    let marked = if second.says_replayed() { "; it says that it is a replay" } else { "" };
    let counting = if names.len() == 1 { "field that counts" } else { "fields that count" };
    let came = format!("{} {counting}{marked}", names.len());
    let judgement = match (lost.as_slice(), changed.as_slice()) {
        ([], []) => Judgement::pass("all there, and the same where they tell of the result"),
        (lost, []) => Judgement::warn(format!("not there: {}", lost.join(", "))),
        ([], changed) => Judgement::warn(format!("changed: {}", changed.join(", "))),
        (lost, changed) => Judgement::warn(format!("not there: {}; changed: {}", lost.join(", "), changed.join(", "))),
    };
    (came, judgement)
}

/// Whether a refusal is what clients can act on.
pub(super) fn refusal(refusal: SeenRefusal, answer: Option<&ApiAnswer>) -> (String, Judgement) {
    let Some(answer) = answer else {
        let which = match refusal {
            SeenRefusal::InFlight => "409",
            SeenRefusal::Reused => "refusal of a used key",
        };
        return ("none".to_owned(), Judgement::not_known(format!("no {which} was seen")));
    };
    let media = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no Content-Type");
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let document: Option<Value> = serde_json::from_slice(&answer.body).ok().filter(Value::is_object);
    let mut missing = Vec::new();
    if media != "application/problem+json" || document.is_none() {
        missing.push("it is no problem document");
    }
    // Once the first has ended, a retry succeeds: when, only the server can guess.
    if refusal == SeenRefusal::InFlight && !answer.headers.contains_key(RETRY_AFTER) {
        missing.push("no Retry-After");
    }
    if !links_to_documentation(answer, document.as_ref()) {
        missing.push("no link to documentation");
    }
    let came = format!("{}, {}", answer.status.as_u16(), super::judge::shortened(&media));
    let judgement = match missing.as_slice() {
        [] => Judgement::pass("all there"),
        missing => Judgement::warn(missing.join("; ")),
    };
    (came, judgement)
}

fn links_to_documentation(answer: &ApiAnswer, document: Option<&Value>) -> bool {
    let is_url = |text: &str| text.starts_with("https://") || text.starts_with("http://");
    let in_document = document.and_then(Value::as_object).is_some_and(|members| {
        members.values().any(|value| match value {
            Value::String(text) => text.split_whitespace().any(is_url),
            Value::Object(inner) => inner.values().filter_map(Value::as_str).any(is_url),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => false,
        })
    });
    let links = answer.headers.get_all(LINK).into_iter().filter_map(|value| value.to_str().ok());
    in_document || links.into_iter().any(|link| ["help", "describedby", "about"].iter().any(|rel| link.contains(rel)))
}
