//! What one `[[route]]` or `[defaults]` says, key by key, before the two are laid over one another.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Uri, header};

use super::super::{
    Delivery, JsonPointer, KeyFormat, Mode, OnConcurrent, OnMismatch, OnStoreError, OnUnknown, Policy, Preset,
    Selector, StatusSet, WARNINGS,
};
use super::fallback::SHORTEST_LEASE;
use super::item::Item;
use super::origin::origin;
use super::report::ByteRange;
use super::section::Section;
use super::selector::{ignored, selector};
use super::setting::Setting;

/// The keys that both tables share.
#[derive(Default)]
pub(super) struct Layer {
    pub(super) preset: Setting<Preset>,
    pub(super) methods: Setting<Vec<Method>>,
    pub(super) mode: Setting<Mode>,
    pub(super) key: Setting<Vec<Selector>>,
    pub(super) on_missing_key: Setting<MissingKey>,
    pub(super) fingerprint_window: Setting<Duration>,
    pub(super) key_max_length: Setting<usize>,
    pub(super) key_format: Setting<KeyFormat>,
    pub(super) refuse_expired_keys: Setting<bool>,
    pub(super) scope: Setting<Vec<Selector>>,
    pub(super) fingerprint: Setting<FingerprintChoice>,
    pub(super) fingerprint_ignore: Setting<Vec<JsonPointer>>,
    pub(super) ignore_query: Setting<Vec<String>>,
    /// Of presets only.
    pub(super) target_in_name: Setting<bool>,
    pub(super) on_mismatch: Setting<OnMismatch>,
    pub(super) on_concurrent: Setting<OnConcurrent>,
    pub(super) wait_timeout: Setting<Duration>,
    pub(super) max_waiters: Setting<usize>,
    pub(super) policy: Setting<Policy>,
    pub(super) store: Setting<Vec<(StatusSet, ByteRange)>>,
    pub(super) release: Setting<Vec<(StatusSet, ByteRange)>>,
    pub(super) hold: Setting<Vec<(StatusSet, ByteRange)>>,
    pub(super) on_unknown: Setting<OnUnknown>,
    pub(super) hold_for: Setting<Duration>,
    pub(super) lease: Setting<Duration>,
    pub(super) retention: Setting<Duration>,
    pub(super) max_request_body: Setting<u64>,
    pub(super) max_response_body: Setting<u64>,
    pub(super) response: Setting<Delivery>,
    pub(super) replay_set_cookie: Setting<bool>,
    pub(super) replay_omit: Setting<Vec<HeaderName>>,
    pub(super) on_error: Setting<OnStoreError>,
    pub(super) cors_origins: Setting<Vec<HeaderValue>>,
    pub(super) message: Setting<String>,
    pub(super) help: Setting<String>,
    pub(super) accept: Setting<Vec<&'static str>>,
}

/// `on_missing_key`, without the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingKey {
    Forward,
    Reject,
    Fingerprint,
}

/// `fingerprint`, without what it ignores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FingerprintChoice {
    Auto,
    Raw,
    Json,
    Form,
    None,
}

const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

impl Layer {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            preset: section.read("preset", preset),
            methods: section.read("methods", methods),
            mode: section.read("mode", mode),
            key: section.read("key", key),
            on_missing_key: section.read("on_missing_key", on_missing_key),
            fingerprint_window: section.read("fingerprint_window", |item| item.duration(SHORTEST_WINDOW)),
            key_max_length: section.read("key_max_length", |item| item.count(1..=4096)),
            key_format: section.read("key_format", key_format),
            refuse_expired_keys: section.read("refuse_expired_keys", Item::boolean),
            scope: section.read("scope", |item| item.one_or_more(selector).map(values)),
            fingerprint: section.read("fingerprint", fingerprint),
            fingerprint_ignore: section.read("fingerprint_ignore", |item| item.list(ignored).map(values)),
            ignore_query: section.read("ignore_query", |item| item.list(parameter).map(values)),
            target_in_name: Setting::Absent,
            on_mismatch: section.read("on_mismatch", on_mismatch),
            on_concurrent: section.read("on_concurrent", on_concurrent),
            wait_timeout: section.read("wait_timeout", |item| item.duration(Duration::ZERO)),
            max_waiters: section.read("max_waiters", |item| item.count(0..=1_000_000)),
            policy: section.read("policy", policy),
            store: section.read("store", |item| item.list(status)),
            release: section.read("release", |item| item.list(status)),
            hold: section.read("hold", |item| item.list(status)),
            on_unknown: section.read("on_unknown", on_unknown),
            hold_for: section.read("hold_for", |item| item.duration(SHORTEST_LEASE)),
            lease: section.read("lease", |item| item.duration(SHORTEST_LEASE)),
            retention: section.read("retention", |item| item.duration(SHORTEST_LEASE)),
            max_request_body: section.read("max_request_body", Item::size),
            max_response_body: section.read("max_response_body", Item::size),
            response: section.read("response", response),
            replay_set_cookie: section.read("replay_set_cookie", Item::boolean),
            replay_omit: section.read("replay_omit", |item| item.list(omitted).map(values)),
            on_error: section.read("on_error", on_error),
            cors_origins: section.read("cors_origins", |item| item.list(origin).map(values)),
            message: section.read("message", message),
            help: section.read("help", help),
            accept: section.read("accept", |item| item.list(accepted).map(values)),
        }
    }

    /// What this layer says, and for the rest what `below` says.
    pub(super) fn over(&self, below: &Self) -> Self {
        Self {
            preset: self.preset.over(&below.preset),
            methods: self.methods.over(&below.methods),
            mode: self.mode.over(&below.mode),
            key: self.key.over(&below.key),
            on_missing_key: self.on_missing_key.over(&below.on_missing_key),
            fingerprint_window: self.fingerprint_window.over(&below.fingerprint_window),
            key_max_length: self.key_max_length.over(&below.key_max_length),
            key_format: self.key_format.over(&below.key_format),
            refuse_expired_keys: self.refuse_expired_keys.over(&below.refuse_expired_keys),
            scope: self.scope.over(&below.scope),
            fingerprint: self.fingerprint.over(&below.fingerprint),
            fingerprint_ignore: self.fingerprint_ignore.over(&below.fingerprint_ignore),
            ignore_query: self.ignore_query.over(&below.ignore_query),
            target_in_name: self.target_in_name.over(&below.target_in_name),
            on_mismatch: self.on_mismatch.over(&below.on_mismatch),
            on_concurrent: self.on_concurrent.over(&below.on_concurrent),
            wait_timeout: self.wait_timeout.over(&below.wait_timeout),
            max_waiters: self.max_waiters.over(&below.max_waiters),
            policy: self.policy.over(&below.policy),
            store: self.store.over(&below.store),
            release: self.release.over(&below.release),
            hold: self.hold.over(&below.hold),
            on_unknown: self.on_unknown.over(&below.on_unknown),
            hold_for: self.hold_for.over(&below.hold_for),
            lease: self.lease.over(&below.lease),
            retention: self.retention.over(&below.retention),
            max_request_body: self.max_request_body.over(&below.max_request_body),
            max_response_body: self.max_response_body.over(&below.max_response_body),
            response: self.response.over(&below.response),
            replay_set_cookie: self.replay_set_cookie.over(&below.replay_set_cookie),
            replay_omit: self.replay_omit.over(&below.replay_omit),
            on_error: self.on_error.over(&below.on_error),
            cors_origins: self.cors_origins.over(&below.cors_origins),
            message: self.message.over(&below.message),
            help: self.help.over(&below.help),
            accept: self.accept.over(&below.accept),
        }
    }
}

fn values<T>(list: Vec<(T, ByteRange)>) -> Vec<T> {
    list.into_iter().map(|(value, _)| value).collect()
}

fn preset(item: &Item<'_>) -> Option<Preset> {
    item.choice(&Preset::ALL.map(|preset| (preset.name(), preset)), &[])
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

fn mode(item: &Item<'_>) -> Option<Mode> {
    item.choice(&[("enforce", Mode::Enforce), ("observe", Mode::Observe), ("off", Mode::Off)], &[])
}

fn key(item: &Item<'_>) -> Option<Vec<Selector>> {
    let parts = item.one_or_more(selector)?;
    if parts.is_empty() {
        let advice = "say where the key is: key = \"header:Idempotency-Key\"";
        return item.refuse("key is an empty list: every request would be the same one", advice);
    }
    Some(values(parts))
}

fn key_format(item: &Item<'_>) -> Option<KeyFormat> {
    use KeyFormat::{Any, Quoted, Ulid, Uuid};
    item.choice(&[("any", Any), ("uuid", Uuid), ("ulid", Ulid), ("quoted", Quoted)], &[])
}

/// An entry of `ignore_query`: the name of a parameter, decoded.
fn parameter(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if !text.value.is_empty() && !text.value.contains(['&', '=', '?']) {
        return Some(text.value);
    }
    item.refuse(format!("{text} is not the name of a parameter"), "name it without its value: [\"signature\"]")
}

fn on_missing_key(item: &Item<'_>) -> Option<MissingKey> {
    use MissingKey::{Fingerprint, Forward, Reject};
    item.choice(&[("forward", Forward), ("reject", Reject), ("fingerprint", Fingerprint)], &[])
}

fn fingerprint(item: &Item<'_>) -> Option<FingerprintChoice> {
    use FingerprintChoice::{Auto, Form, Json, None, Raw};
    item.choice(&[("auto", Auto), ("raw", Raw), ("json", Json), ("form", Form), ("none", None)], &[])
}

fn on_mismatch(item: &Item<'_>) -> Option<OnMismatch> {
    use OnMismatch::{Conflict, Reject, Replay};
    item.choice(&[("reject", Reject), ("conflict", Conflict), ("replay", Replay)], &[])
}

fn on_concurrent(item: &Item<'_>) -> Option<OnConcurrent> {
    item.choice(&[("reject", OnConcurrent::Reject), ("wait", OnConcurrent::Wait)], &[])
}

fn policy(item: &Item<'_>) -> Option<Policy> {
    use Policy::{Lenient, Standard, Strict};
    item.choice(&[("standard", Standard), ("strict", Strict), ("lenient", Lenient)], &[])
}

fn response(item: &Item<'_>) -> Option<Delivery> {
    item.choice(&[("buffer", Delivery::Buffer), ("stream", Delivery::Stream)], &[])
}

/// `on_error`, of a route or of the store.
pub(super) fn on_error(item: &Item<'_>) -> Option<OnStoreError> {
    item.choice(&[("reject", OnStoreError::Reject), ("forward", OnStoreError::Forward)], &[])
}

/// A header field that replays leave out.
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

fn on_unknown(item: &Item<'_>) -> Option<OnUnknown> {
    item.choice(&[("hold", OnUnknown::Hold), ("retry", OnUnknown::Retry)], &[])
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

/// The name of a warning that is meant so.
fn accepted(item: &Item<'_>) -> Option<&'static str> {
    item.choice(&WARNINGS.map(|name| (name, name)), &[])
}

fn message(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if text.value.trim().is_empty() {
        return item.refuse("message is empty", "leave it out for the built-in sentences");
    }
    Some(text.value)
}

/// It stands in a header field, between angle brackets (RFC 8288, 3).
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
