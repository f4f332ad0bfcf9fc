//! JSON by value (RFC 8259).

mod plain;

use std::borrow::Cow;
use std::fmt;

use json_event_parser::{JsonEvent, SliceJsonParser};

use super::Digest;
use super::decimal::Decimal;
use super::lookalike::is_member_lookalike;
use crate::rule::JsonPointer;

/// Deeper nesting is an error, so that code that walks or drops a [`JsonValue`] may recurse.
const MAX_DEPTH: usize = 128;

/// A whole document.
#[derive(Debug)]
#[cfg_attr(test, derive(PartialEq))]
pub(super) struct Json<'a> {
    root: JsonValue<'a>,
    has_duplicates: bool,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq))]
pub(super) enum JsonValue<'a> {
    Null,
    Bool(bool),
    /// As written.
    Number(Cow<'a, str>),
    String(Cow<'a, str>),
    Array(Vec<JsonValue<'a>>),
    /// Sorted by the bytes of the names.
    Object(Vec<Member<'a>>),
}

type Member<'a> = (Cow<'a, str>, JsonValue<'a>);

/// A member on the path of a pointer occurs more than once, so that its value is ambiguous.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DuplicateMember;

/// An array or object that is not closed yet.
enum OpenContainer<'a> {
    Array(Vec<JsonValue<'a>>),
    Object(Vec<Member<'a>>, Option<Cow<'a, str>>),
}

impl<'a> Json<'a> {
    /// `None` for what is not JSON. The reason is not kept: it could quote the body.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        plain::parse(text).or_else(|| Self::parse_events(text))
    }

    fn parse_events(text: &'a [u8]) -> Option<Self> {
        let mut parser = SliceJsonParser::new(text);
        let mut has_duplicates = false;
        let mut open: Vec<OpenContainer<'a>> = Vec::new();
        let root = loop {
            let value = match parser.parse_next().ok()? {
                JsonEvent::Null => JsonValue::Null,
                JsonEvent::Boolean(value) => JsonValue::Bool(value),
                JsonEvent::Number(text) => JsonValue::Number(text),
                JsonEvent::String(text) => JsonValue::String(text),
                JsonEvent::StartArray | JsonEvent::StartObject if open.len() == MAX_DEPTH => return None,
                JsonEvent::StartArray => {
                    open.push(OpenContainer::Array(Vec::new()));
                    continue;
                }
                JsonEvent::StartObject => {
                    open.push(OpenContainer::Object(Vec::new(), None));
                    continue;
                }
                JsonEvent::ObjectKey(key) => {
                    let Some(OpenContainer::Object(_, name)) = open.last_mut() else { return None };
                    *name = Some(key);
                    continue;
                }
                JsonEvent::EndArray | JsonEvent::EndObject => match open.pop()? {
                    OpenContainer::Array(values) => JsonValue::Array(values),
                    OpenContainer::Object(members, _) => {
                        let (value, duplicates) = object(members);
                        has_duplicates |= duplicates;
                        value
                    }
                },
                JsonEvent::Eof => return None,
            };
            match open.last_mut() {
                None => break value,
                Some(OpenContainer::Array(values)) => values.push(value),
                Some(OpenContainer::Object(members, name)) => members.push((name.take()?, value)),
            }
        };
        matches!(parser.parse_next(), Ok(JsonEvent::Eof)).then_some(Self { root, has_duplicates })
    }

    /// Whether any object in it has two members of one name. Parsers differ in which one they take.
    pub(super) fn has_duplicates(&self) -> bool {
        self.has_duplicates
    }

    /// The value at a pointer (RFC 6901, 4); `None` where there is none.
    pub(super) fn find(&self, pointer: &JsonPointer) -> Result<Option<&JsonValue<'a>>, DuplicateMember> {
        let mut value = &self.root;
        for token in pointer.tokens() {
            let next = match value {
                JsonValue::Object(members) => member(members, token)?,
                JsonValue::Array(values) => index(token).and_then(|index| values.get(index)),
                JsonValue::Null | JsonValue::Bool(_) | JsonValue::Number(_) | JsonValue::String(_) => None,
            };
            match next {
                Some(next) => value = next,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }

    /// Whether there is another member that backends may take for one on the path of the pointer.
    pub(super) fn has_lookalikes(&self, pointer: &JsonPointer) -> bool {
        let mut value = &self.root;
        for token in pointer.tokens() {
            let next = match value {
                JsonValue::Object(members) => {
                    if members.iter().any(|(found, _)| found != token && is_member_lookalike(found, token)) {
                        return true;
                    }
                    member(members, token).ok().flatten()
                }
                JsonValue::Array(values) => index(token).and_then(|index| values.get(index)),
                JsonValue::Null | JsonValue::Bool(_) | JsonValue::Number(_) | JsonValue::String(_) => None,
            };
            let Some(next) = next else { return false };
            value = next;
        }
        false
    }

    /// Adds the document's value, without the values at the pointers. White space, the order of members, and the spelling of
    /// strings and numbers make no difference.
    pub(super) fn add_to(&self, digest: &mut Digest, ignored: &[JsonPointer]) {
        let ignored: Vec<_> = ignored.iter().map(JsonPointer::tokens).collect();
        add_value(&self.root, digest, &ignored);
    }
}

impl JsonValue<'_> {
    /// A copy that does not borrow from the document.
    pub(super) fn to_owned(&self) -> JsonValue<'static> {
        let text = |text: &Cow<'_, str>| Cow::Owned(text.clone().into_owned());
        match self {
            Self::Null => JsonValue::Null,
            Self::Bool(value) => JsonValue::Bool(*value),
            Self::Number(number) => JsonValue::Number(text(number)),
            Self::String(string) => JsonValue::String(text(string)),
            Self::Array(values) => JsonValue::Array(values.iter().map(JsonValue::to_owned).collect()),
            Self::Object(members) => {
                JsonValue::Object(members.iter().map(|(name, value)| (text(name), value.to_owned())).collect())
            }
        }
    }

    /// Adds the value, as [`Json::add_to`] does.
    pub(super) fn add_to(&self, digest: &mut Digest) {
        add_value(self, digest, &[]);
    }
}

/// For display.
impl fmt::Display for JsonValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(text) => f.write_str(text),
            Self::String(text) => write!(f, "{text:?}"),
            Self::Array(values) => {
                f.write_str("[")?;
                for (at, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if at == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (at, (name, value)) in members.iter().enumerate() {
                    write!(f, "{}{name:?}:{value}", if at == 0 { "" } else { "," })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// The object, and whether two of its members have one name.
fn object(mut members: Vec<Member<'_>>) -> (JsonValue<'_>, bool) {
    members.sort_unstable_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    let has_duplicates = members.windows(2).any(|pair| pair[0].0 == pair[1].0);
    (JsonValue::Object(members), has_duplicates)
}

fn member<'v, 'a>(members: &'v [Member<'a>], name: &str) -> Result<Option<&'v JsonValue<'a>>, DuplicateMember> {
    let start = members.partition_point(|(found, _)| found.as_bytes() < name.as_bytes());
    let mut found = members[start..].iter().take_while(|(found, _)| found == name);
    match (found.next(), found.next()) {
        (first, None) => Ok(first.map(|(_, value)| value)),
        (_, Some(_)) => Err(DuplicateMember),
    }
}

/// RFC 6901, 4: digits without leading zeros.
fn index(token: &str) -> Option<usize> {
    let is_index = token == "0" || !token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit());
    is_index.then(|| token.parse().ok()).flatten()
}

/// Every value begins with its type, which is never 0, and every name with its length plus 1. A 0 ends an array or object.
/// So the encoding of a document is unique and is never a prefix of another.
fn add_value(value: &JsonValue<'_>, digest: &mut Digest, ignored: &[&[String]]) {
    match value {
        JsonValue::Null => digest.tag(1),
        JsonValue::Bool(value) => digest.tag(2 + u8::from(*value)),
        JsonValue::Number(text) => {
            digest.tag(4);
            Decimal::parse(text).add_to(digest);
        }
        JsonValue::String(text) => {
            digest.tag(5);
            digest.part(text.as_bytes());
        }
        JsonValue::Array(values) => {
            digest.tag(6);
            for (at, value) in values.iter().enumerate() {
                if let Some(ignored) = step(ignored, |token| index(token) == Some(at)) {
                    add_value(value, digest, &ignored);
                }
            }
            digest.tag(0);
        }
        JsonValue::Object(members) => {
            digest.tag(7);
            for (name, value) in members {
                if let Some(ignored) = step(ignored, |token| token == name) {
                    digest.count(name.len() + 1);
                    digest.bytes(name.as_bytes());
                    add_value(value, digest, &ignored);
                }
            }
            digest.tag(0);
        }
    }
}

/// The rest of the pointers below one member; `None` when one of them ends there.
fn step<'p>(ignored: &[&'p [String]], is_here: impl Fn(&str) -> bool) -> Option<Vec<&'p [String]>> {
    let mut inwards = Vec::new();
    for pointer in ignored {
        match pointer.split_first() {
            Some((token, [])) if is_here(token) => return None,
            Some((token, rest)) if is_here(token) => inwards.push(rest),
            Some(_) | None => {}
        }
    }
    Some(inwards)
}

#[cfg(test)]
mod tests;
