//! `[route.probe]`

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, header};

use super::declare::keys;
use super::item::Item;
use super::report::{ByteRange, FileReport};
use super::section::Section;
use super::selector;
use super::setting::Setting;
use crate::rule::{
    JsonPointer, OnUnknown, PathPattern, ProbeAnswer, ProbePath, ProbePiece, ProbeRule, ProbeSign, ProbeWitness,
    Selector, StatusSet, is_per_hop, is_same_field,
};
use crate::units::HumanDuration;
use crate::uri::{escaped_byte, has_dot_segment};

keys! {
    /// The keys of `[route.probe]` that are not tables.
    struct ProbeKeys {
        path: ProbePath = path;
        authorization: HeaderValue = authorization;
        after: Duration = |item| item.duration(SHORTEST);
        timeout: Duration = |item| item.duration(SHORTEST);
        answer: ProbeAnswer = Item::word;
    }
}

const SHORTEST: Duration = Duration::from_millis(1);

/// `[route.probe]` as read from the file.
pub(super) struct ProbeTable {
    span: Option<ByteRange>,
    keys: ProbeKeys,
    found: SignTable,
    absent: SignTable,
}

/// `found` or `absent`.
struct SignTable {
    span: Option<ByteRange>,
    status: Setting<Vec<(StatusSet, ByteRange)>>,
    json: Setting<JsonPointer>,
    /// Of `absent` only.
    json_empty: Setting<JsonPointer>,
    header: Setting<HeaderName>,
}

/// Settings of the route that the probe depends on.
pub(super) struct ProbedRoute<'a> {
    pub(super) path: Option<&'a String>,
    pub(super) key: &'a Setting<Vec<Selector>>,
    pub(super) on_unknown: Option<OnUnknown>,
    pub(super) hold_for: &'a Setting<Duration>,
    pub(super) retention: &'a Setting<Duration>,
}

impl ProbeTable {
    pub(super) fn read(section: Section<'_>) -> Self {
        let table = Self {
            span: section.span(),
            keys: ProbeKeys::read(&section),
            found: SignTable::read(section.section("found"), false),
            absent: SignTable::read(section.section("absent"), true),
        };
        section.finish();
        table
    }

    /// `Some(None)` where the route has no such table.
    pub(super) fn build(self, route: &ProbedRoute<'_>, report: &FileReport<'_>) -> Option<Option<Arc<ProbeRule>>> {
        let Self { span: Some(span), keys, found, absent } = self else { return Some(None) };
        let ProbeKeys { path, authorization, after, timeout, answer } = keys;
        let (after, timeout) = (after.or(Duration::from_secs(30)), timeout.or(Duration::from_secs(2)));
        if route.on_unknown == Some(OnUnknown::Retry) {
            let message = "a probe is for outcomes that stay unknown, and on_unknown is \"retry\": a repeat runs again \
                           without it";
            report.add(Some(span.clone()), message, "on_unknown = \"hold\", or leave [route.probe] out");
        }
        absence_can_count(&after, route, report);
        if let Setting::Absent = path {
            let advice = "say what to ask: path = \"/orders?idempotency_key={key}\"";
            report.add(Some(span.clone()), "probe.path is missing", advice);
        }
        values_can_be_read(&path, route, report);
        let found = found.sign("found", FOUND, &span, report);
        let absent = absent.sign("absent", ABSENT, &span, report);
        let (found, absent) = found.zip(absent)?;
        are_apart(&found, &absent, &span, report);
        Some(Some(Arc::new(ProbeRule {
            path: path.take()?,
            authorization: authorization.optional()?,
            found,
            absent,
            after: after.take()?,
            timeout: timeout.take()?,
            answer: answer.or(ProbeAnswer::AlreadyCompleted).take()?,
        })))
    }
}

/// An absence is seen `after` the end of the attempt, and as long after that once more. (Where the owner was lost it takes
/// longer still: `check` has a note of that.)
fn absence_can_count(after: &Setting<Duration>, route: &ProbedRoute<'_>, report: &FileReport<'_>) {
    let (name, hold) = match route.hold_for {
        Setting::Absent => ("retention", route.retention),
        given => ("hold_for", given),
    };
    let (Some(each), Some(longest)) = (after.get(), hold.get()) else { return };
    let twice = each.saturating_mul(2);
    if *longest > twice {
        return;
    }
    let (span, of_hold, of_after) = match after.span() {
        Some(span) => (Some(span), format!(", {}", report.origin(hold)), String::new()),
        None => (hold.span(), String::new(), format!(", {}", report.origin(after))),
    };
    let (each, twice, longest) = (HumanDuration(*each), HumanDuration(twice), HumanDuration(*longest));
    report.add(
        span,
        format!("{name} ({longest}{of_hold}) is not longer than twice probe.after ({each}{of_after})"),
        format!(
            "an absence is seen twice, probe.after apart, and the key would be free before that: {name} longer than \
             \"{twice}\", or a shorter probe.after"
        ),
    );
}

const FOUND: &str = "say which answer means that the request took effect:\n  \
                     found = { status = [\"200\"], json = \"/data/0/id\" }";
const ABSENT: &str = "say which answer means that it did not:\n  \
                      absent = { status = [\"200\"], json_empty = \"/data\" }";

impl SignTable {
    fn read(section: Section<'_>, of_absence: bool) -> Self {
        let table = Self {
            span: section.span(),
            status: section.read("status", |item| item.list(status)),
            json: section.read("json", pointer),
            json_empty: if of_absence { section.read("json_empty", emptiable) } else { Setting::Absent },
            header: section.read("header", witness),
        };
        section.finish();
        table
    }

    fn sign(self, name: &str, advice: &str, probe: &ByteRange, report: &FileReport<'_>) -> Option<ProbeSign> {
        let Self { span, status, json, json_empty, header } = self;
        let Some(span) = span else {
            report.add(Some(probe.clone()), format!("probe.{name} is missing"), advice);
            return None;
        };
        if matches!(status, Setting::Absent) || status.get().is_some_and(Vec::is_empty) {
            let place = status.span().unwrap_or(span);
            report.add(Some(place), format!("probe.{name} names no status"), advice);
            return None;
        }
        let json = json.optional()?.map(ProbeWitness::Json);
        let json_empty = json_empty.optional()?.map(ProbeWitness::JsonEmpty);
        let header = header.optional()?.map(ProbeWitness::Header);
        let witnesses = [json, json_empty, header].into_iter().flatten().collect();
        Some(ProbeSign { status: status.take()?.into_iter().map(|(set, _)| set).collect(), witnesses })
    }
}

/// Where no witness tells the two apart, their statuses must.
fn are_apart(found: &ProbeSign, absent: &ProbeSign, span: &ByteRange, report: &FileReport<'_>) {
    let holds = |one: &StatusSet, other: &StatusSet| match (one, other) {
        (StatusSet::Class(class), StatusSet::Status(status)) | (StatusSet::Status(status), StatusSet::Class(class)) => {
            status / 100 == *class
        }
        (one, other) => one == other,
    };
    let all_of = |these: &[ProbeWitness], others: &[ProbeWitness]| these.iter().all(|one| others.contains(one));
    let is_same = all_of(&found.witnesses, &absent.witnesses) || all_of(&absent.witnesses, &found.witnesses);
    let shared = found.status.iter().find(|one| absent.status.iter().any(|other| holds(one, other)));
    if let Some(status) = shared.filter(|_| is_same) {
        report.add(
            Some(span.clone()),
            format!("an answer with the status {status} may mean both found and absent"),
            "name what tells them apart:\n  found = { status = [\"200\"], json = \"/data/0/id\" }\n  \
             absent = { status = [\"200\"], json_empty = \"/data\" }",
        );
    }
}

/// The values that the path names are there, and tell one request from another.
fn values_can_be_read(path: &Setting<ProbePath>, route: &ProbedRoute<'_>, report: &FileReport<'_>) {
    let Some(pieces) = path.get().map(ProbePath::pieces) else { return };
    let parts = route.key.get().map_or(&[][..], Vec::as_slice);
    if pieces.contains(&ProbePiece::Key) && parts.len() > 1 {
        let named = |part: &&Selector| matches!(part, Selector::Json(_) | Selector::Path(_) | Selector::Header(_));
        let named: Vec<String> = parts.iter().filter(named).map(|part| format!("{{{part}}}")).collect();
        let message = format!("{{key}} is one value, and this key has several parts ({})", report.origin(route.key));
        let advice = match named.is_empty() {
            true => "name values by {json:/pointer}, {path:NAME} or {header:NAME}".to_owned(),
            false => format!("name its parts: {}", named.join(", ")),
        };
        report.add(path.span(), message, advice);
    }
    let params: Vec<&str> =
        route.path.and_then(|path| PathPattern::parse(path)).iter().flat_map(PathPattern::names).collect();
    for piece in pieces {
        let ProbePiece::Value(Selector::Path(name)) = piece else { continue };
        if !params.contains(&name.as_str()) && route.path.is_some() {
            let message = format!("{{path:{name}}} names no parameter of the route's path");
            let advice = match params.as_slice() {
                [] => "that path has none".to_owned(),
                all => {
                    let all: Vec<String> = all.iter().map(|param| format!("{{path:{param}}}")).collect();
                    format!("that path has {}", all.join(", "))
                }
            };
            report.add(path.span(), message, advice);
        }
    }
    let tells_apart = |piece: &ProbePiece| match piece {
        ProbePiece::Literal(_) => false,
        ProbePiece::Key => true,
        ProbePiece::Value(selector @ Selector::Path(_)) => parts.contains(selector),
        ProbePiece::Value(_) => true,
    };
    if !pieces.iter().any(tells_apart) {
        report.add(
            path.span(),
            "probe.path asks the same for different requests",
            "have it name the request, by {key}, {json:/pointer} or {header:NAME}: \"/orders?idempotency_key={key}\"",
        );
    }
}

const VALUES: &str = "values of the first request are {key}, {json:/pointer}, {path:NAME} and {header:NAME}";

fn path(item: &Item<'_>) -> Option<ProbePath> {
    let text = item.text()?;
    let read = match ProbePath::parse(&text.value, piece) {
        Ok(read) => read,
        Err(None) => return item.refuse(format!("the braces in {text} do not fit"), VALUES),
        Err(Some(wrong)) => {
            let (message, advice) = wrong.told(&text.quote(&wrong.inner));
            return item.refuse(message, advice);
        }
    };
    // A value takes the place of one letter.
    let example: String = read
        .pieces()
        .iter()
        .map(|piece| match piece {
            ProbePiece::Literal(text) => text.as_str(),
            ProbePiece::Key | ProbePiece::Value(_) => "v",
        })
        .collect();
    let is_escape = |text: &str, at: usize| escaped_byte(text.as_bytes(), at).is_some();
    let is_escaped = |piece: &ProbePiece| match piece {
        // A value never completes an escape.
        ProbePiece::Literal(text) => text.match_indices('%').all(|(at, _)| is_escape(text, at)),
        ProbePiece::Key | ProbePiece::Value(_) => true,
    };
    let is_path = example.starts_with('/')
        && read.pieces().iter().all(is_escaped)
        && !example.starts_with("//")
        && !has_dot_segment(&example)
        && !example.contains('#')
        && example.is_ascii()
        && PathAndQuery::try_from(example.as_str()).is_ok();
    if is_path {
        return Some(read);
    }
    let advice = if example.contains("://") {
        "the backend of the route is asked, so it is the path alone: \"/orders?idempotency_key={key}\""
    } else {
        "a path of the backend begins with a slash, and what has a meaning in a URL is percent-encoded in it: \
         \"/orders?idempotency_key={key}\""
    };
    item.refuse(format!("{text} is not a path that can be asked for"), advice)
}

/// What stands in braces and is no value.
struct NotAValue {
    inner: String,
    why: PlaceholderFault,
}

enum PlaceholderFault {
    Unknown,
    /// It would be sent, and kept, as a part of a path.
    Credential,
    Wrong(String),
}

impl NotAValue {
    fn told(&self, inner: &str) -> (String, String) {
        match &self.why {
            PlaceholderFault::Unknown => {
                (format!("{inner} is no value of a request that a probe can name"), VALUES.to_owned())
            }
            PlaceholderFault::Credential => (
                format!("{inner} is a credential, which has no place in a path"),
                "to ask with a credential of its own: probe.authorization = \"env:PROBE_TOKEN\"; to name the caller: a field that \
                 identifies it and lets nobody in, such as one that your gateway sets"
                    .to_owned(),
            ),
            PlaceholderFault::Wrong(advice) => (format!("{inner} names no value of a request"), advice.clone()),
        }
    }
}

fn piece(inner: &str) -> Result<ProbePiece, NotAValue> {
    let fault = |why| NotAValue { inner: inner.to_owned(), why };
    let kind = inner.split_once(':').map(|(kind, _)| kind);
    match (inner, kind) {
        ("key", _) => Ok(ProbePiece::Key),
        (_, Some("json" | "path" | "header")) => match selector::parse(inner) {
            Ok(Selector::Header(name)) if is_credential(&name) => Err(fault(PlaceholderFault::Credential)),
            Ok(selector) => Ok(ProbePiece::Value(selector)),
            Err(_) => Err(fault(PlaceholderFault::Wrong(VALUES.to_owned()))),
        },
        _ => Err(fault(PlaceholderFault::Unknown)),
    }
}

/// By its name: a path stands in logs of the backend, and values are kept.
fn is_credential(name: &HeaderName) -> bool {
    let of_name = ["authorization", "cookie", "token", "secret", "api-key", "apikey", "password", "signature", "jwt"];
    CREDENTIALS.iter().any(|known| is_same_field(known, name))
        || of_name.iter().any(|part| name.as_str().contains(part))
}

const CREDENTIALS: [HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// The value of the field, with its scheme (RFC 9110, 11.6.2). What has none is a bearer token (RFC 6750, 2.1).
fn authorization(item: &Item<'_>) -> Option<HeaderValue> {
    let text = item.text()?;
    let value = match text.value.split_once(' ') {
        Some((scheme, credentials)) => {
            let is_right = HeaderName::from_bytes(scheme.as_bytes()).is_ok() && !credentials.trim().is_empty();
            is_right.then(|| text.value.clone())
        }
        None => (!text.value.is_empty()).then(|| format!("Bearer {}", text.value)),
    };
    let value = value.filter(|value| value.is_ascii()).and_then(|value| HeaderValue::try_from(value).ok());
    let Some(mut value) = value else {
        return item.refuse(
            format!("{} is not the value of an Authorization field", item.name()),
            "it is a token, or a scheme and what goes with it: \"Basic …\"; best \"env:PROBE_TOKEN\"",
        );
    };
    value.set_sensitive(true);
    Some(value)
}

/// Statuses that gateways, login pages and overloaded servers answer with, whatever the application knows.
const SAYS_NOTHING: [u16; 7] = [401, 403, 407, 408, 421, 425, 429];

fn status(item: &Item<'_>) -> Option<StatusSet> {
    let advice = "a status is \"200\" or \"404\", a class \"2xx\"";
    if let Some(number) = item.bare_number() {
        let message = format!("a status is written in quotes, and this is the number {number}");
        return item.refuse(message, format!("write \"{number}\"; {advice}"));
    }
    let text = item.text()?;
    match StatusSet::parse(&text.value) {
        Some(set @ (StatusSet::Class(2) | StatusSet::Status(200..300))) => Some(set),
        Some(StatusSet::Class(3) | StatusSet::Status(300..400)) => item.refuse(
            format!("{text} is a redirect, which is not followed: a login page is one, too"),
            "ask for the path that it leads to",
        ),
        Some(StatusSet::Status(status @ 400..500)) if !SAYS_NOTHING.contains(&status) => {
            Some(StatusSet::Status(status))
        }
        Some(StatusSet::Class(4)) => item.refuse(
            format!("{text} holds statuses that say nothing about the request, as 401 and 429"),
            "name those that do: \"404\", \"410\"",
        ),
        Some(_) => item.refuse(
            format!("{text} says nothing about the request: whoever is asked may answer so at any time"),
            advice,
        ),
        None => item.refuse(format!("{text} is neither a status nor a class of them"), advice),
    }
}

fn pointer(item: &Item<'_>) -> Option<JsonPointer> {
    selector::ignored(item)
}

/// The member that is empty, or, with an empty pointer, the whole answer: some searches answer with a bare list.
fn emptiable(item: &Item<'_>) -> Option<JsonPointer> {
    let text = item.text()?;
    if text.value.is_empty() { Some(JsonPointer::whole()) } else { pointer(item) }
}

fn witness(item: &Item<'_>) -> Option<HeaderName> {
    let text = item.text()?;
    let advice = "for example \"X-Order-Id\": one that the application sends with this answer, and no gateway";
    let Ok(name) = HeaderName::from_bytes(text.value.as_bytes()) else {
        return item.refuse(format!("{text} names no header field"), advice);
    };
    const OF_EVERY_ANSWER: [HeaderName; 6] = [
        header::DATE,
        header::SERVER,
        header::VIA,
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
    ];
    if is_per_hop(&name) || OF_EVERY_ANSWER.contains(&name) {
        return item.refuse(format!("{text} stands in answers of any gateway"), advice);
    }
    Some(name)
}
