//! Reading one selector out of a request.

use std::borrow::Cow;

use http::{HeaderValue, header};

use super::body::{Body, Declared, Media};
use super::decimal::Decimal;
use super::form::FormField;
use super::json::{DuplicateMember, JsonValue};
use super::jwt::Claims;
use super::{
    BodyFault, Digest, KeyError, KeyFault, Request, calendar, cookie, form, format, header as grammar, origin,
};
use crate::rule::{JsonPointer, KeyFormat, Period, Selector, Unverified};
use crate::uri::normalise_value;

/// One part of a key or scope.
#[cfg_attr(test, derive(Debug, Clone, PartialEq))]
pub(super) enum KeyPart<'a> {
    Absent,
    /// A string: a key in a header, a cookie, a form's field, a JSON string, a piece of the path.
    Text(Cow<'a, [u8]>),
    /// A JSON number, as it was written.
    Number(Cow<'a, str>),
    /// A JSON boolean.
    Bool(bool),
    /// All lines of a header, all cookies or all query parameters of one name, for a scope: opaque.
    Lines(Vec<Cow<'a, [u8]>>),
    /// A claim that is a list or an object.
    Composite(JsonValue<'static>),
    /// All `Authorization` lines, where they hold no token that is believed and has the claim: a caller of its own, and
    /// never one that a claim names.
    Unverified(Vec<Cow<'a, [u8]>>),
}

/// What a selector is read for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// A part of the key; it has a grammar.
    Key { max_length: usize, format: KeyFormat },
    /// A part of the scope; any value will do.
    Scope,
}

/// The part, as far as the head can tell it; `None` when it takes the body.
pub(super) fn in_head<'a>(
    selector: &Selector,
    role: Role,
    request: &Request<'a>,
    declared: Declared<'_>,
    claims: &Claims<'_>,
) -> Result<Option<KeyPart<'a>>, KeyError> {
    let headers = request.headers;
    let part = match selector {
        Selector::Header(name) => {
            let lines = headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
            let key = if role.must_be_quoted() { quoted_key } else { header_key };
            one_or_all(lines, role, key, as_it_is)
        }
        Selector::Cookie(name) => one_or_all(cookie::values(headers, name), role, cookie_key, as_it_is),
        Selector::Query(name) if form::has_lookalikes(request.query.unwrap_or_default().as_bytes(), name) => {
            Err(KeyFault::Lookalike)
        }
        Selector::Query(name) => one_or_all(query_values(request.query, name), role, unescaped, unescaped),
        Selector::Path(name) => Ok(request.params.get(name).map(normalise_value).map_or(KeyPart::Absent, KeyPart::of)),
        Selector::Host => Ok(origin::host(request).map_or(KeyPart::Absent, KeyPart::of)),
        Selector::Jwt(claim) => Ok(by_claim(selector, claim, role, request, claims)?),
        Selector::Ip => Ok(origin::client(request).map_or(KeyPart::Absent, |client| KeyPart::of(client.to_string()))),
        Selector::Date(period) => Ok(calendar::bucket(*period, request.now).map_or(KeyPart::Absent, KeyPart::of)),
        Selector::Json(_) | Selector::Form(_) => return from_body(selector, declared),
    };
    let part = part.and_then(|part| fits(selector, &part, role).map(|()| part));
    part.map(Some).map_err(|why| why.of(selector))
}

/// The part that takes the body, once the body is there.
pub(super) fn in_body<'b>(selector: &Selector, role: Role, body: &'b Body<'_>) -> Result<KeyPart<'b>, KeyError> {
    let part = match selector {
        // The head has told.
        Selector::Header(_) | Selector::Cookie(_) | Selector::Query(_) | Selector::Path(_) => KeyPart::Absent,
        Selector::Host | Selector::Jwt(_) | Selector::Ip | Selector::Date(_) => KeyPart::Absent,
        Selector::Json(pointer) => {
            body.is_read_alike().map_err(|why| why.of(selector))?;
            let Some(json) = body.json() else {
                return match body.declared.media {
                    Media::Json if !body.is_empty() => Err(BodyFault::NotJson.of(selector)),
                    Media::Json | Media::Form | Media::Multipart | Media::Stream | Media::Other => Ok(KeyPart::Absent),
                };
            };
            if json.has_lookalikes(pointer) {
                return Err(BodyFault::Lookalike.of(selector));
            }
            match json.find(pointer).map_err(|_| BodyFault::Duplicate.of(selector))? {
                None | Some(JsonValue::Null) => KeyPart::Absent,
                Some(JsonValue::Bool(value)) => KeyPart::Bool(*value),
                Some(JsonValue::Number(text)) => KeyPart::Number(Cow::Borrowed(text)),
                Some(JsonValue::String(text)) => KeyPart::Text(Cow::Borrowed(text.as_bytes())),
                Some(JsonValue::Array(_) | JsonValue::Object(_)) => return Err(KeyFault::NotScalar.of(selector)),
            }
        }
        Selector::Form(name) => {
            body.is_read_alike().map_err(|why| why.of(selector))?;
            match body.form().ok_or_else(|| BodyFault::NotForm.of(selector))?.field(name) {
                FormField::Absent => KeyPart::Absent,
                FormField::Once(value) => KeyPart::Text(Cow::Borrowed(value)),
                FormField::Repeated => return Err(BodyFault::Duplicate.of(selector)),
                FormField::Lookalike => return Err(BodyFault::Lookalike.of(selector)),
                FormField::Charset => return Err(BodyFault::Charset.of(selector)),
                FormField::File => return Err(KeyFault::File.of(selector)),
            }
        }
    };
    fits(selector, &part, role).map_err(|why| why.of(selector))?;
    Ok(part)
}

/// That an encoded body is of no use, and that one of some media types has no such part, the head tells. JSON is looked
/// for under any other: many clients declare it as something else, or as nothing.
fn from_body<'a>(selector: &Selector, declared: Declared<'_>) -> Result<Option<KeyPart<'a>>, KeyError> {
    let may_have = match (selector, declared.media) {
        (_, Media::Stream) => false,
        (Selector::Form(_), media) => matches!(media, Media::Form | Media::Multipart),
        (_, media) => media != Media::Multipart,
    };
    if declared.several_types {
        return Err(BodyFault::Types.of(selector));
    }
    match (declared.encoded, may_have) {
        (true, _) => Err(BodyFault::Encoded.of(selector)),
        (false, true) => Ok(None),
        (false, false) => Ok(Some(KeyPart::Absent)),
    }
}

/// What a claim names. Where there is a line and no such claim, the lines themselves name a caller, in a scope only: a key
/// must be what the issuer vouches for.
fn by_claim<'a>(
    selector: &Selector,
    claim: &JsonPointer,
    role: Role,
    request: &Request<'a>,
    claims: &Claims<'_>,
) -> Result<KeyPart<'a>, KeyError> {
    let is_verified = match claims {
        Claims::Absent => return Ok(KeyPart::Absent),
        Claims::Unverified => false,
        Claims::Verified(claims) => match claims.find(claim) {
            Ok(Some(JsonValue::Bool(value))) => return Ok(KeyPart::Bool(*value)),
            Ok(Some(JsonValue::Number(text))) => return Ok(KeyPart::Number(Cow::Owned(text.clone().into_owned()))),
            Ok(Some(JsonValue::String(text))) => return Ok(KeyPart::of(text.clone().into_owned())),
            // Readers differ in which of two members of one name they take.
            Ok(Some(value @ (JsonValue::Array(_) | JsonValue::Object(_)))) if !claims.has_duplicates() => {
                return Ok(KeyPart::Composite(value.to_owned()));
            }
            Ok(Some(JsonValue::Array(_) | JsonValue::Object(_) | JsonValue::Null) | None) | Err(DuplicateMember) => {
                true
            }
        },
    };
    let unverified = request.trust.jwt.as_ref().map_or(Unverified::OwnCaller, |jwt| jwt.unverified);
    match (unverified, role) {
        (Unverified::Reject, Role::Scope) => Err(KeyError::Token { selector: selector.clone() }),
        (Unverified::Reject, Role::Key { .. }) if !is_verified => Err(KeyError::Token { selector: selector.clone() }),
        (Unverified::OwnCaller, Role::Scope) => {
            let lines = request.headers.get_all(header::AUTHORIZATION).into_iter();
            Ok(KeyPart::Unverified(lines.map(|line| Cow::Borrowed(line.as_bytes())).collect()))
        }
        (Unverified::OwnCaller | Unverified::Reject, Role::Key { .. }) => Ok(KeyPart::Absent),
    }
}

/// A key stands in one place only. A scope is whatever there is, in its order.
fn one_or_all<'a>(
    mut values: impl Iterator<Item = &'a [u8]>,
    role: Role,
    key: Read,
    scope: Read,
) -> Result<KeyPart<'a>, KeyFault> {
    match role {
        Role::Key { .. } => match (values.next(), values.next()) {
            (None, _) => Ok(KeyPart::Absent),
            (Some(value), None) => key(value).map(KeyPart::Text),
            (Some(_), Some(_)) => Err(KeyFault::Several),
        },
        Role::Scope => {
            let values: Vec<_> = values.map(scope).collect::<Result<_, _>>()?;
            Ok(if values.is_empty() { KeyPart::Absent } else { KeyPart::Lines(values) })
        }
    }
}

impl Role {
    fn must_be_quoted(self) -> bool {
        matches!(self, Self::Key { format: KeyFormat::Quoted, .. })
    }
}

/// What a value stands for.
type Read = for<'v> fn(&'v [u8]) -> Result<Cow<'v, [u8]>, KeyFault>;

fn as_it_is(value: &[u8]) -> Result<Cow<'_, [u8]>, KeyFault> {
    Ok(Cow::Borrowed(value))
}

fn header_key(line: &[u8]) -> Result<Cow<'_, [u8]>, KeyFault> {
    Ok(match grammar::key(line)? {
        Cow::Borrowed(key) => Cow::Borrowed(key.as_bytes()),
        Cow::Owned(key) => Cow::Owned(key.into_bytes()),
    })
}

fn quoted_key(line: &[u8]) -> Result<Cow<'_, [u8]>, KeyFault> {
    if line.trim_ascii().starts_with(b"\"") { header_key(line) } else { Err(KeyFault::Unquoted) }
}

/// Browsers send, and servers take, more than RFC 6265 allows in a cookie.
fn cookie_key(value: &[u8]) -> Result<Cow<'_, [u8]>, KeyFault> {
    let value = cookie::unquote(value);
    let is_visible = value.iter().all(|byte| matches!(byte, 0x20..=0x7E));
    if is_visible { Ok(Cow::Borrowed(value)) } else { Err(KeyFault::Characters) }
}

/// The values of all parameters of this name, as they came. A name that cannot be decoded is another one.
fn query_values<'a>(query: Option<&'a str>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let is_named = move |found: &[u8]| form::decode(found).is_some_and(|found| *found == *name.as_bytes());
    let pairs = form::pairs(query.unwrap_or_default().as_bytes());
    pairs.filter(move |(found, _)| is_named(found)).map(|(_, value)| value)
}

fn unescaped(value: &[u8]) -> Result<Cow<'_, [u8]>, KeyFault> {
    form::decode(value).ok_or(KeyFault::Escape)
}

fn fits(selector: &Selector, part: &KeyPart<'_>, role: Role) -> Result<(), KeyFault> {
    let Role::Key { max_length, format } = role else { return Ok(()) };
    let format = if selector.is_chosen_by_client() { format } else { KeyFormat::Any };
    let text = match part {
        KeyPart::Text(text) => Cow::Borrowed(&**text),
        KeyPart::Number(text) => Cow::Borrowed(text.as_bytes()),
        KeyPart::Composite(value) => Cow::Owned(value.to_string().into_bytes()),
        KeyPart::Bool(_) => return format::check(b"", format),
        KeyPart::Absent | KeyPart::Lines(_) | KeyPart::Unverified(_) => return Ok(()),
    };
    if text.len() > max_length {
        Err(KeyFault::TooLong(max_length))
    } else if is_blank(&text) {
        Err(KeyFault::Blank)
    } else {
        format::check(&text, format)
    }
}

/// Nothing but white space, of any script.
fn is_blank(text: &[u8]) -> bool {
    !matches!(text.first(), Some(0x21..=0x7E)) && String::from_utf8_lossy(text).trim().is_empty()
}

impl<'a> KeyPart<'a> {
    fn of(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// A string, and nothing else.
    pub(super) fn as_text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::Number(_) | Self::Bool(_) => None,
            Self::Lines(_) | Self::Composite(_) | Self::Unverified(_) => None,
        }
    }

    /// Adds where the part was read, its type, and its value: parts that differ in any of these never meet.
    pub(super) fn add_to(&self, digest: &mut Digest, selector: &Selector) {
        match selector {
            Selector::Header(name) => add_text(digest, 1, name.as_str().as_bytes()),
            Selector::Cookie(name) => add_text(digest, 2, name.as_bytes()),
            Selector::Json(pointer) => add_pointer(digest, 3, pointer),
            Selector::Form(name) => add_text(digest, 4, name.as_bytes()),
            Selector::Query(name) => add_text(digest, 5, name.as_bytes()),
            Selector::Path(name) => add_text(digest, 6, name.as_bytes()),
            Selector::Host => digest.tag(7),
            Selector::Ip => digest.tag(8),
            Selector::Date(Period::Day) => digest.tag(9),
            Selector::Date(Period::Month) => digest.tag(10),
            Selector::Date(Period::Year) => digest.tag(11),
            Selector::Jwt(claim) => add_pointer(digest, 12, claim),
        }
        match self {
            Self::Absent => digest.tag(0),
            Self::Text(text) => add_text(digest, 1, text),
            Self::Number(text) => {
                digest.tag(2);
                Decimal::parse(text).add_to(digest);
            }
            Self::Bool(value) => digest.tag(3 + u8::from(*value)),
            Self::Lines(lines) => add_lines(digest, 5, lines),
            Self::Unverified(lines) => add_lines(digest, 6, lines),
            Self::Composite(value) => {
                digest.tag(7);
                value.add_to(digest);
            }
        }
    }

    /// For log lines, where control characters have no place.
    pub(super) fn text(&self) -> String {
        let text = match self {
            Self::Absent => return String::new(),
            Self::Text(text) => String::from_utf8_lossy(text),
            Self::Number(text) => Cow::Borrowed(&**text),
            Self::Bool(value) => return value.to_string(),
            Self::Composite(value) => Cow::Owned(value.to_string()),
            Self::Lines(lines) | Self::Unverified(lines) => {
                Cow::Owned(lines.iter().map(|line| String::from_utf8_lossy(line)).collect())
            }
        };
        let escaped = |c: char| c.is_control().then(|| c.escape_default()).into_iter().flatten();
        text.chars().flat_map(|c| escaped(c).chain((!c.is_control()).then_some(c))).collect()
    }
}

fn add_pointer(digest: &mut Digest, tag: u8, pointer: &JsonPointer) {
    digest.tag(tag);
    digest.count(pointer.tokens().len());
    pointer.tokens().iter().for_each(|token| digest.part(token.as_bytes()));
}

fn add_lines(digest: &mut Digest, tag: u8, lines: &[Cow<'_, [u8]>]) {
    digest.tag(tag);
    digest.count(lines.len());
    lines.iter().for_each(|line| digest.part(line));
}

fn add_text(digest: &mut Digest, tag: u8, text: &[u8]) {
    digest.tag(tag);
    digest.part(text);
}

#[cfg(test)]
mod tests;
