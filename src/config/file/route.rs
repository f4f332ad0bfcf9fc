//! One `[[route]]` over `[defaults]`, checked: a [`Rule`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::item::Item;
use super::layer::{FingerprintChoice, Layer, MissingKey};
use super::probe::{ProbeTable, ProbedRoute};
use super::report::{ByteRange, FileReport};
use super::section::Section;
use super::setting::Setting;
use super::{fallback, host, jwt, path, preset, replay_auth};
use crate::rule::{
    Delivery, Disposition, FingerprintMode, JsonPointer, KeyFormat, Mode, OnConcurrent, OnMismatch, OnMissingKey,
    OnStoreError, OnUnknown, PathPattern, Policy, PolicyTable, Preset, Rule, Selector, StatusSet, is_same_field,
};
use crate::units::HumanDuration;

/// A `[[route]]` as read from the file.
pub(super) struct RouteTable {
    /// The header.
    pub(super) span: Option<ByteRange>,
    pub(super) name: Setting<String>,
    pub(super) path: Setting<String>,
    host: Setting<String>,
    layer: Layer,
    probe: ProbeTable,
}

/// Settings outside of routes that a route depends on.
pub(super) struct Bounds<'a> {
    pub(super) attempt_timeout: &'a Setting<Duration>,
    /// `store.on_error`
    pub(super) on_error: &'a Setting<OnStoreError>,
    /// There is a `[jwt]`.
    pub(super) reads_tokens: bool,
    /// Pages have the form guard's script.
    pub(super) form_guard: bool,
    /// Where requests arrive.
    pub(super) listening: Vec<SocketAddr>,
    /// How a `replay_auth` is reached over TLS.
    pub(super) auth_tls: replay_auth::AuthTls<'a>,
}

impl RouteTable {
    pub(super) fn read(section: Section<'_>) -> Self {
        let name = "give the route a name of its own: name = \"create-order\"";
        let path = "say what it guards: path = \"/orders\"";
        let table = Self {
            span: section.span(),
            name: section.required("name", name, self::name),
            path: section.required("path", path, path::path),
            host: section.read("host", host::host),
            layer: Layer::read(&section),
            probe: ProbeTable::read(section.section("probe")),
        };
        section.finish();
        table
    }

    /// The route's own `wait_timeout`.
    pub(super) fn longest_wait(&self) -> Option<Duration> {
        self.layer.wait_timeout.given().copied()
    }

    /// The rule that results from this route and `defaults`. Problems are reported.
    pub(super) fn rule(self, defaults: &Layer, bounds: &Bounds<'_>, report: &FileReport<'_>) -> Option<Rule> {
        let settings = EffectiveSettings::of(&self.layer, defaults, bounds.attempt_timeout);
        self.check(&settings, bounds, report);
        self.build(settings, bounds, report)
    }

    /// Reports settings that do not fit together.
    fn check(&self, settings: &EffectiveSettings, bounds: &Bounds<'_>, report: &FileReport<'_>) {
        let EffectiveSettings { merged, window, .. } = settings;
        let (lease, retention, hold_for) = (&merged.lease, &merged.retention, &merged.hold_for);
        report.ordered(("retention", retention), ("lease", lease), "a record must outlive its owner's silence");
        report.ordered(("hold_for", hold_for), ("lease", lease), "an outcome is unknown only after the lease");
        report.ordered(("retention", retention), ("hold_for", hold_for), "a record is gone after its retention");
        if matches!(merged.on_missing_key.get(), Some(MissingKey::Fingerprint)) {
            let why = "the window is a part of the retention";
            report.ordered(("retention", retention), ("fingerprint_window", window), why);
        }
        let why = "no attempt lasts longer, so there is nothing more to wait for";
        let wait_timeout = ("wait_timeout", &merged.wait_timeout);
        report.ordered(("upstream.attempt_timeout", bounds.attempt_timeout), wait_timeout, why);
        window_counts(&self.layer.fingerprint_window, &merged.on_missing_key, report);
        can_wait(&merged.on_concurrent, &merged.wait_timeout, &merged.max_waiters, report);
        one_kind_of_body(&merged.key, &merged.scope, report);
        names_are_apart(&merged.key, &merged.scope, report);
        for parts in [&merged.key, &merged.scope] {
            parameters_exist(parts, self.name.get(), self.path.get(), report);
            buckets_are_kept(parts, retention, report);
            jwt::selectors_can_be_read(bounds.reads_tokens, parts, report);
        }
        format_can_be_told(&self.layer.key_format, &merged.key, report);
        age_can_be_told(&self.layer.refuse_expired_keys, &merged.key, report);
    }

    fn build(self, settings: EffectiveSettings, bounds: &Bounds<'_>, report: &FileReport<'_>) -> Option<Rule> {
        let EffectiveSettings { preset, below, merged, window } = settings;
        let fingerprint = fingerprint(&self.layer, &below, bounds.form_guard, report);
        let overrides = overrides(&self.layer, &below, report);
        let (location, cache) = (merged.replay_auth.clone(), merged.replay_auth_cache.clone());
        let own_cache = &self.layer.replay_auth_cache;
        let replay_auth = replay_auth::of_route(location, cache, own_cache, bounds, report);
        if matches!(merged.scope, Setting::Absent) {
            report.add(self.span, "scope is missing: it says whose key a key is", SCOPE);
        }

        let policy = merged.policy.or(Policy::Standard).take();
        let on_unknown = merged.on_unknown.or(match policy {
            Some(Policy::Lenient) => OnUnknown::Retry,
            Some(Policy::Standard | Policy::Strict) | None => OnUnknown::Hold,
        });
        let probed = ProbedRoute {
            path: self.path.get(),
            key: &merged.key,
            on_unknown: on_unknown.get().copied(),
            hold_for: &merged.hold_for,
            retention: &merged.retention,
        };
        let probe = self.probe.build(&probed, report);
        let scope = merged.scope.take()?;
        let by_cookie = scope.iter().any(|selector| matches!(selector, Selector::Cookie(_)));
        let retention_given = !matches!(merged.retention, Setting::Default(_));
        let retention = merged.retention.take()?;
        Some(Rule {
            name: Arc::from(self.name.take()?),
            path: self.path.take()?,
            methods: merged.methods.or(vec![Method::POST]).take()?,
            host: self.host.optional()?,
            mode: merged.mode.or(Mode::Enforce).take()?,
            preset: preset.optional()?,
            key: merged.key.take()?,
            on_missing_key: match merged.on_missing_key.or(MissingKey::Forward).take()? {
                MissingKey::Forward => OnMissingKey::Forward,
                MissingKey::Reject => OnMissingKey::Reject,
                MissingKey::Fingerprint => OnMissingKey::Fingerprint(window.take()?),
            },
            key_max_length: merged.key_max_length.or(255).take()?,
            key_format: merged.key_format.or(KeyFormat::Any).take()?,
            refuse_expired_keys: merged.refuse_expired_keys.or(false).take()?,
            scope,
            fingerprint: fingerprint?,
            ignore_query: merged.ignore_query.or(Vec::new()).take()?,
            target_in_name: merged.target_in_name.or(false).take()?,
            on_mismatch: merged.on_mismatch.or(OnMismatch::Reject).take()?,
            on_concurrent: merged.on_concurrent.take()?,
            wait_timeout: merged.wait_timeout.take()?,
            max_waiters: merged.max_waiters.take()?,
            policy: PolicyTable::new(policy?, &overrides?),
            on_unknown: on_unknown.take()?,
            hold_for: merged.hold_for.or(retention).take()?,
            lease: merged.lease.take()?,
            retention,
            retention_given,
            max_request_body: merged.max_request_body.or(1 << 20).take()?,
            max_response_body: merged.max_response_body.or(1 << 20).take()?,
            response: merged.response.or(Delivery::Buffer).take()?,
            replay_set_cookie: merged.replay_set_cookie.or(by_cookie).take()?,
            replay_omit: merged.replay_omit.or(replay_omit()).take()?,
            replay_auth: replay_auth?,
            on_error: merged.on_error.over(bounds.on_error).take()?,
            cors_origins: merged.cors_origins.or(Vec::new()).take()?,
            message: merged.message.optional()?,
            help: merged.help.optional()?,
            probe: probe?,
            accept: merged.accept.or(Vec::new()).take()?,
        })
    }
}

/// The settings of a route as they apply: over those of its preset and of `[defaults]`.
struct EffectiveSettings {
    preset: Setting<Preset>,
    /// What the route's own settings lie over.
    below: Layer,
    /// Both together. Defaults on which others depend are filled in.
    merged: Layer,
    window: Setting<Duration>,
}

impl EffectiveSettings {
    fn of(own: &Layer, defaults: &Layer, attempt_timeout: &Setting<Duration>) -> Self {
        // A preset comes directly after the table that names it.
        let preset = own.preset.over(&defaults.preset);
        let filled_in = preset.get().map(|preset| preset::layer(*preset)).unwrap_or_default();
        let below = match &own.preset {
            Setting::Absent => defaults.over(&filled_in),
            Setting::Wrong(_) | Setting::Given(..) | Setting::Preset(_) | Setting::Default(_) => {
                filled_in.over(defaults)
            }
        };
        let mut merged = own.over(&below);
        merged.key = merged.key.or(vec![Selector::Header(HeaderName::from_static("idempotency-key"))]);
        let window = fallback::window(&merged);
        let (lease, retention) = (fallback::lease(&merged), fallback::retention(&merged, &merged.key));
        let wait_timeout = fallback::wait(&merged, attempt_timeout);
        (merged.lease, merged.retention, merged.wait_timeout) = (lease, retention, wait_timeout);
        merged.max_waiters = merged.max_waiters.or(100);
        let on_concurrent = default_on_concurrent(&merged.key, &merged.wait_timeout, &merged.max_waiters);
        merged.on_concurrent = merged.on_concurrent.or(on_concurrent);
        Self { preset, below, merged, window }
    }
}

const SCOPE: &str = "it tells two callers with the same key apart. Choose one:\n  \
                     scope = [\"header:Authorization\"]   # the header that names the caller\n  \
                     scope = []                         # one space of keys for all callers";

/// Fields that are only true for the first answer.
fn replay_omit() -> Vec<HeaderName> {
    [http::header::AGE, HeaderName::from_static("server-timing")].into()
}

/// The name is a metrics label, and a part of each record's name.
fn name(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let name = text.value.as_str();
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if name == "unmatched" {
        let message = "the name \"unmatched\" is taken: metrics count what no route matches under it";
        return item.refuse(message, "choose another name");
    }
    if (1..=64).contains(&name.len()) && name.chars().all(inner) && !name.starts_with(['.', '_', '-']) {
        return Some(text.value);
    }
    item.refuse(
        format!("{text} cannot be a route's name"),
        "1 to 64 of a-z 0-9 . _ - are right, the first a letter or digit: \"create-order\"",
    )
}

/// A browser shows the answer to the last click, so that a second click on a form waits for the answer to the first.
fn default_on_concurrent(
    key: &Setting<Vec<Selector>>,
    wait_timeout: &Setting<Duration>,
    max_waiters: &Setting<usize>,
) -> OnConcurrent {
    let is_of_form = key.get().is_some_and(|parts| parts.iter().any(|part| matches!(part, Selector::Form(_))));
    let may_wait = wait_timeout.get().is_none_or(|timeout| !timeout.is_zero()) && max_waiters.get() != Some(&0);
    if is_of_form && may_wait { OnConcurrent::Wait } else { OnConcurrent::Reject }
}

/// The window is that of requests without a key. One that is the default changes nothing, wherever it is given.
fn window_counts(window: &Setting<Duration>, on_missing_key: &Setting<MissingKey>, report: &FileReport<'_>) {
    let other = match on_missing_key.get() {
        Some(MissingKey::Fingerprint) => return,
        Some(MissingKey::Reject) => MissingKey::Reject,
        Some(MissingKey::Forward) | None => MissingKey::Forward,
    };
    if window.given().is_some_and(|window| *window != fallback::WINDOW) {
        report.add(
            window.span(),
            format!("fingerprint_window has no effect where on_missing_key is \"{other}\""),
            "leave it out, or take the body for the key where there is none: on_missing_key = \"fingerprint\"",
        );
    }
}

fn can_wait(
    on_concurrent: &Setting<OnConcurrent>,
    wait_timeout: &Setting<Duration>,
    max_waiters: &Setting<usize>,
    report: &FileReport<'_>,
) {
    if on_concurrent.get() != Some(&OnConcurrent::Wait) {
        return;
    }
    let advice = "give it room to wait, or say on_concurrent = \"reject\"";
    if wait_timeout.get().is_some_and(Duration::is_zero) {
        report.add(wait_timeout.span(), "repeats are to wait (on_concurrent), but for no time at all", advice);
    }
    if max_waiters.get() == Some(&0) {
        report.add(max_waiters.span(), "repeats are to wait (on_concurrent), but none of them may", advice);
    }
}

/// Two fields that a backend may treat as one cannot both be selectors.
fn names_are_apart(key: &Setting<Vec<Selector>>, scope: &Setting<Vec<Selector>>, report: &FileReport<'_>) {
    let names = |parts: &Setting<Vec<Selector>>| {
        let parts = parts.get().cloned().unwrap_or_default().into_iter();
        parts.filter_map(|selector| if let Selector::Header(name) = selector { Some(name) } else { None })
    };
    let all: Vec<_> = names(key).map(|name| (name, key)).chain(names(scope).map(|name| (name, scope))).collect();
    for (at, (name, setting)) in all.iter().enumerate() {
        if let Some((other, _)) = all[..at].iter().find(|(other, _)| other != name && is_same_field(other, name)) {
            let message = format!("header:{name} and header:{other} are one header to many backends");
            let advice = "CGI, PHP, WSGI and Rack read - and _ in names as the same: name one of them";
            report.add(setting.span().or(key.span()).or(scope.span()), message, advice);
        }
    }
}

/// A body is JSON or a form: a key with parts in both would always be missing.
fn one_kind_of_body(key: &Setting<Vec<Selector>>, scope: &Setting<Vec<Selector>>, report: &FileReport<'_>) {
    let Some(parts) = key.get() else { return };
    let scope_parts = scope.get().map_or(&[][..], Vec::as_slice);
    let all = || parts.iter().chain(scope_parts);
    let json = all().any(|selector| matches!(selector, Selector::Json(_)));
    let form = all().any(|selector| matches!(selector, Selector::Form(_)));
    if json && form {
        let advice = "take all parts from json:, or all from form:";
        report.add(key.span().or(scope.span()), "no body is both JSON and a form", advice);
    }
}

/// One of several parts may be the id of an old object, so that its age says nothing about the request. A default that has
/// no effect on a route is not an error.
fn age_can_be_told(refuse: &Setting<bool>, key: &Setting<Vec<Selector>>, report: &FileReport<'_>) {
    if refuse.get() == Some(&true) && key.get().is_some_and(|parts| parts.len() > 1) {
        let message = format!("refuse_expired_keys has no effect on a key of several parts ({})", report.origin(key));
        report.add(refuse.span(), message, "leave it out, or name the one part that is a UUIDv7 or ULID as the key");
    }
}

/// With several parts that clients choose, it is not clear which one has the format. Other parts have their own format.
fn format_can_be_told(format: &Setting<KeyFormat>, key: &Setting<Vec<Selector>>, report: &FileReport<'_>) {
    let (Some(wanted), Some(parts)) = (format.given(), key.get()) else { return };
    let message = match wanted {
        KeyFormat::Any => return,
        KeyFormat::Quoted if parts.iter().any(|part| matches!(part, Selector::Header(_))) => return,
        KeyFormat::Quoted => "only a key in a header can be quoted, and no part of this one is in a header",
        KeyFormat::Uuid | KeyFormat::Ulid => match parts.iter().filter(|part| part.is_chosen_by_client()).count() {
            1 => return,
            0 => "no part of this key is chosen by the client, so it has no format",
            _ => "this key has several parts, and key_format does not say which of them",
        },
    };
    report.add(format.span(), format!("{message} ({})", report.origin(key)), "leave key_format out");
}

/// A `path:` selector names a parameter of the route's own path.
fn parameters_exist(
    parts: &Setting<Vec<Selector>>,
    route: Option<&String>,
    path: Option<&String>,
    report: &FileReport<'_>,
) {
    let (Some(selectors), Some(route), Some(path)) = (parts.get(), route, path) else { return };
    let params: Vec<&str> = PathPattern::parse(path).iter().flat_map(PathPattern::names).collect();
    for selector in selectors {
        let Selector::Path(name) = selector else { continue };
        if params.contains(&name.as_str()) {
            continue;
        }
        let advice = match params.as_slice() {
            [] => format!("that path has none; one is written in braces: \"/tenants/{{{name}}}/orders\""),
            [only] => format!("that path has one: \"path:{only}\""),
            all => {
                let all: Vec<String> = all.iter().map(|param| format!("\"path:{param}\"")).collect();
                format!("that path has {}", all.join(", "))
            }
        };
        let message = format!("\"path:{name}\" names no parameter of the path of the route \"{route}\"");
        report.add(parts.span(), message, advice);
    }
}

/// A record that is gone before its bucket ends lets the same key run twice in one bucket.
fn buckets_are_kept(parts: &Setting<Vec<Selector>>, retention: &Setting<Duration>, report: &FileReport<'_>) {
    let (Some(selectors), Some(kept)) = (parts.get(), retention.get()) else { return };
    for selector in selectors {
        let Selector::Date(period) = selector else { continue };
        if period.longest() > *kept {
            let (longest, kept) = (HumanDuration(period.longest()), HumanDuration(*kept));
            let message =
                format!("a {period} ({selector}) is longer than retention ({kept}, {})", report.origin(retention));
            let advice = format!("records are to last as long as the {period}: retention = \"{longest}\" at least");
            report.add(parts.span(), message, advice);
        }
    }
}

/// Fields in which frameworks hide a token against forged requests: Django, Rails, Laravel, Express, Symfony, ASP.NET.
/// Some have another value each time that a page is loaded.
const FORGERY_TOKENS: [&str; 8] = [
    "/csrfmiddlewaretoken",
    "/authenticity_token",
    "/_token",
    "/_csrf",
    "/csrf_token",
    "/_csrf_token",
    "/csrf",
    "/__RequestVerificationToken",
];

/// A form that the script sends again after its page was loaded again is the same form with another token.
fn default_ignore(key: &Setting<Vec<Selector>>, form_guard: bool) -> Vec<JsonPointer> {
    let is_of_form = key.get().is_some_and(|parts| parts.iter().any(|part| matches!(part, Selector::Form(_))));
    if !(is_of_form && form_guard) {
        return Vec::new();
    }
    FORGERY_TOKENS.iter().filter_map(|name| JsonPointer::parse(name)).collect()
}

fn fingerprint(route: &Layer, defaults: &Layer, form_guard: bool, report: &FileReport<'_>) -> Option<FingerprintMode> {
    let merged = route.fingerprint.over(&defaults.fingerprint).or(FingerprintChoice::Auto);
    let tokens = default_ignore(&route.key.over(&defaults.key), form_guard);
    let ignore = route.fingerprint_ignore.over(&defaults.fingerprint_ignore).or(tokens);
    let comparison = *merged.get()?;
    let pointers = ignore.get()?;
    // A default without effect on this route's comparison is not an error.
    let otherwise = route.fingerprint.span().is_some() || matches!(merged, Setting::Preset(_));
    let inherited = otherwise && route.fingerprint_ignore.span().is_none();
    if matches!(comparison, FingerprintChoice::Raw | FingerprintChoice::Form | FingerprintChoice::None)
        && !pointers.is_empty()
        && ignore.span().is_some()
        && !inherited
    {
        let message = format!("fingerprint_ignore has no effect with this fingerprint ({})", report.origin(&merged));
        let advice = "members and fields can be left out of what is read only: fingerprint = \"auto\" or \"json\"";
        report.add(ignore.span(), message, advice);
    }
    let ignore = pointers.clone();
    Some(match comparison {
        FingerprintChoice::Auto => FingerprintMode::Auto { ignore },
        FingerprintChoice::Json => FingerprintMode::Json { ignore },
        FingerprintChoice::Raw => FingerprintMode::Raw,
        FingerprintChoice::Form => FingerprintMode::Form,
        FingerprintChoice::None => FingerprintMode::None,
    })
}

/// The three lists as one. The route's entries come first and override the same entry of the defaults.
fn overrides(route: &Layer, defaults: &Layer, report: &FileReport<'_>) -> Option<Vec<(StatusSet, Disposition)>> {
    let mut own = lists(route, report)?;
    let below = lists(defaults, report)?;
    // A list of the route replaces the same list of the defaults.
    let replaced = |disposition| match disposition {
        Disposition::Store => route.store.span().is_some(),
        Disposition::Release => route.release.span().is_some(),
        Disposition::Hold => route.hold.span().is_some(),
    };
    own.extend(below.into_iter().filter(|(_, disposition)| !replaced(*disposition)));
    Some(own)
}

fn lists(layer: &Layer, report: &FileReport<'_>) -> Option<Vec<(StatusSet, Disposition)>> {
    let lists = [
        ("store", &layer.store, Disposition::Store),
        ("release", &layer.release, Disposition::Release),
        ("hold", &layer.hold, Disposition::Hold),
    ];
    let mut seen: Vec<(StatusSet, Disposition, &str, &ByteRange)> = Vec::new();
    for (list, setting, disposition) in lists {
        if let Setting::Wrong(_) = setting {
            return None;
        }
        for (set, span) in setting.get().into_iter().flatten() {
            if let Some((_, _, other, first)) = seen.iter().find(|(earlier, ..)| earlier == set) {
                let message = format!("\"{set}\" is in {list} and in {other} (line {})", report.line(first));
                report.add(Some(span.clone()), message, "leave it in one of them");
            }
            seen.push((*set, disposition, list, span));
        }
    }
    Some(seen.into_iter().map(|(set, disposition, ..)| (set, disposition)).collect())
}
