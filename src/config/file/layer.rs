//! The keys that `[[route]]` and `[defaults]` share, as read, before one overrides the other.

use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Uri, header};

use super::declare::layer;
use super::fallback::SHORTEST_LEASE;
use super::item::Item;
use super::origin::origin;
use super::replay_auth;
use super::report::ByteRange;
use super::section::Section;
use super::selector::{ignored, selector};
use super::setting::Setting;
use crate::rule::words;
use crate::rule::{
    AuthServer, Delivery, JsonPointer, KeyFormat, Mode, OnConcurrent, OnMismatch, OnStoreError, OnUnknown, Policy,
    Preset, Selector, StatusSet, WARNINGS,
};

layer! {
    /// The keys that both tables share.
    pub(super) struct Layer {
        keys {
            preset: Preset = Item::word;
            methods: Vec<Method> = methods;
            mode: Mode = Item::word;
            key: Vec<Selector> = key;
            on_missing_key: MissingKey = Item::word;
            fingerprint_window: Duration = |item| item.duration(SHORTEST_WINDOW);
            key_max_length: usize = |item| item.count(1..=4096);
            key_format: KeyFormat = Item::word;
            refuse_expired_keys: bool = Item::boolean;
            scope: Vec<Selector> = |item| item.one_or_more(selector).map(values);
            fingerprint: FingerprintChoice = Item::word;
            fingerprint_ignore: Vec<JsonPointer> = |item| item.list(ignored).map(values);
            ignore_query: Vec<String> = |item| item.list(parameter).map(values);
            on_mismatch: OnMismatch = Item::word;
            on_concurrent: OnConcurrent = Item::word;
            wait_timeout: Duration = |item| item.duration(Duration::ZERO);
            max_waiters: usize = |item| item.count(0..=1_000_000);
            policy: Policy = Item::word;
            store: Vec<(StatusSet, ByteRange)> = |item| item.list(status);
            release: Vec<(StatusSet, ByteRange)> = |item| item.list(status);
            hold: Vec<(StatusSet, ByteRange)> = |item| item.list(status);
            on_unknown: OnUnknown = Item::word;
            hold_for: Duration = |item| item.duration(SHORTEST_LEASE);
            lease: Duration = |item| item.duration(SHORTEST_LEASE);
            retention: Duration = |item| item.duration(SHORTEST_LEASE);
            max_request_body: u64 = |item| item.size_above_zero("every request with a body would get 413");
            max_response_body: u64 = Item::size;
            response: Delivery = Item::word;
            replay_set_cookie: bool = Item::boolean;
            replay_omit: Vec<HeaderName> = |item| item.list(omitted).map(values);
            replay_auth: (AuthServer, PathAndQuery) = replay_auth::location;
            replay_auth_cache: Duration = replay_auth::cache;
            on_error: OnStoreError = Item::word;
            cors_origins: Vec<HeaderValue> = |item| item.list(origin).map(values);
            message: String = message;
            help: String = help;
            accept: Vec<&'static str> = |item| item.list(accepted).map(values);
        }
        preset {
            target_in_name: bool;
        }
    }
}

words! {
    /// `on_missing_key`, without the window.
    pub(super) enum MissingKey {
        Forward = "forward",
        Reject = "reject",
        Fingerprint = "fingerprint",
    }
}

words! {
    /// `fingerprint`, without what it ignores.
    pub(super) enum FingerprintChoice {
        Auto = "auto",
        Raw = "raw",
        Json = "json",
        Form = "form",
        None = "none",
    }
}

const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

fn values<T>(list: Vec<(T, ByteRange)>) -> Vec<T> {
    list.into_iter().map(|(value, _)| value).collect()
}

fn methods(item: &Item<'_>) -> Option<Vec<Method>> {
    let methods = item.one_or_more(method)?;
    if methods.is_empty() {
        return item.refuse("methods is an empty list", "name at least one: methods = [\"POST\"]");
    }
    Some(values(methods))
}

fn method(item: &Item<'_>) -> Option<Method> {
    let text = item.text()?;
    let advice = "methods are any of \"POST\", \"PUT\", \"PATCH\", \"DELETE\"";
    match text.value.as_str() {
        "POST" => Some(Method::POST),
        "PUT" => Some(Method::PUT),
        "PATCH" => Some(Method::PATCH),
        "DELETE" => Some(Method::DELETE),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" => {
            item.refuse(format!("{text} changes nothing, so it is safe to repeat as it is"), advice)
        }
        other if other.bytes().any(|byte| byte.is_ascii_lowercase()) => {
            item.refuse(format!("{text} is not a method: methods are written in capitals"), advice)
        }
        _ => item.refuse(format!("{text} is not a method that can be guarded"), advice),
    }
}

fn key(item: &Item<'_>) -> Option<Vec<Selector>> {
    let parts = item.one_or_more(selector)?;
    if parts.is_empty() {
        let advice = "say where the key is: key = \"header:Idempotency-Key\"";
        return item.refuse("key is an empty list: every request would be the same one", advice);
    }
    Some(values(parts))
}

/// An entry of `ignore_query`: the name of a parameter, decoded.
fn parameter(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if !text.value.is_empty() && !text.value.contains(['&', '=', '?']) {
        return Some(text.value);
    }
    item.refuse(format!("{text} is not the name of a parameter"), "name it without its value: [\"signature\"]")
}

/// A header field that replays omit.
fn omitted(item: &Item<'_>) -> Option<HeaderName> {
    let text = item.text()?;
    let Ok(name) = HeaderName::from_bytes(text.value.as_bytes()) else {
        return item.refuse(format!("{text} names no header field"), "for example \"Server-Timing\"");
    };
    if [header::CONTENT_ENCODING, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(&name) {
        let advice = "leave it out: without it, the stored body cannot be read";
        return item.refuse(format!("{text} says how the body of a replay is to be read"), advice);
    }
    Some(name)
}

/// An entry of `store`, `release` or `hold`, with its place.
fn status(item: &Item<'_>) -> Option<StatusSet> {
    let advice = "a status is \"200\" to \"599\", a class \"2xx\" to \"5xx\"";
    if let Some(number) = item.bare_number() {
        let message = format!("a status is written in quotes, and this is the number {number}");
        return item.refuse(message, format!("write \"{number}\"; {advice}"));
    }
    let text = item.text()?;
    match StatusSet::parse(&text.value) {
        Some(set) => Some(set),
        None => item.refuse(format!("{text} is neither a status nor a class of them"), advice),
    }
}

/// The name of a warning that the operator accepts.
fn accepted(item: &Item<'_>) -> Option<&'static str> {
    item.choice(&WARNINGS.map(|name| (name, name)))
}

fn message(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if text.value.trim().is_empty() {
        return item.refuse("message is empty", "leave it out for the built-in sentences");
    }
    Some(text.value)
}

/// It is sent in a `Link` field, between angle brackets (RFC 8288, 3).
fn help(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let advice = "it is an address of the web: \"https://docs.example.com/idempotency\", or a path: \"/docs\"";
    let is_plain = text.value.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"\\^`{|}".contains(&byte));
    let is_address = match text.value.parse::<Uri>() {
        Ok(uri) => match uri.scheme_str() {
            Some(scheme) => matches!(scheme, "http" | "https"),
            None => text.value.starts_with('/') && !text.value.starts_with("//"),
        },
        Err(_) => false,
    };
    if is_plain && is_address { Some(text.value) } else { item.refuse(format!("help cannot be {text}"), advice) }
}
