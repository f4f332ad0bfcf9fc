//! JSON by value (RFC 8259).

mod plain;

use std::borrow::Cow;
use std::fmt;

use json_event_parser::{JsonEvent, SliceJsonParser};

use super::Digest;
use super::decimal::Decimal;
use super::lookalike::is_member_lookalike;
use crate::config::JsonPointer;

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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::{DigestKey, DigestKind};

    fn pointer(text: &str) -> JsonPointer {
        JsonPointer::parse(text).expect("a pointer")
    }

    fn digest(text: &str, ignored: &[&str]) -> [u8; 16] {
        let mut digest = DigestKey::from_bytes([7; 32]).digest(DigestKind::Reading);
        let ignored: Vec<_> = ignored.iter().map(|text| pointer(text)).collect();
        Json::parse(text.as_bytes()).unwrap_or_else(|| panic!("not JSON: {text}")).add_to(&mut digest, &ignored);
        digest.finish()
    }

    #[test]
    fn spelling_does_not_count() {
        for (one, other) in [
            (r#"{"a":1,"b":[true,null]}"#, "\u{feff} { \"b\" : [ true , null ],\n\t\"a\" : 1.0 }\r\n"),
            (r#""\u0041\/\ud83d\ude00""#, r#""A/😀""#),
            ("[1e2, 0.5, -0]", "[100, 5e-1, 0]"),
            (r#"{"\u0061":{"z":1,"y":2}}"#, r#"{"a":{"y":2,"z":1}}"#),
        ] {
            assert_eq!(digest(one, &[]), digest(other, &[]), "{one} {other}");
        }
    }

    #[test]
    fn every_value_counts() {
        let different = [
            "1",
            "\"1\"",
            "true",
            "false",
            "\"true\"",
            "null",
            "\"null\"",
            "0",
            "\"\"",
            "[]",
            "{}",
            "[[]]",
            "[1,2]",
            "[2,1]",
            "[[1],2]",
            "[[1,2]]",
            "[1,[2]]",
            "[null]",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":null}"#,
            r#"{"a":{}}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":{},"b":1}"#,
            r#"{"A":1}"#,
            r#"["a",1]"#,
            "9007199254740993",
            "9007199254740992",
            "-1",
            "1e1",
            "\"Ä\"",
            "\"A\u{308}\"",
        ];
        for (i, one) in different.iter().enumerate() {
            for other in &different[i + 1..] {
                assert_ne!(digest(one, &[]), digest(other, &[]), "{one} {other}");
            }
        }
    }

    #[test]
    fn ignored_members_are_left_out() {
        for (one, other, ignored) in [
            (r#"{"t":1,"a":2}"#, r#"{"a":2,"t":[9]}"#, "/t"),
            (r#"{"t":1,"a":2}"#, r#"{"a":2}"#, "/t"),
            (r#"{"m":{"t":1,"a":2}}"#, r#"{"m":{"t":2,"a":2}}"#, "/m/t"),
            (r#"[{"t":1},{"t":2}]"#, r#"[{"t":7},{"t":2}]"#, "/0/t"),
            (r#"{"a/b":{"~":1}}"#, r#"{"a/b":{"~":2}}"#, "/a~1b/~0"),
            ("[1,2]", "[3,2]", "/0"),
        ] {
            assert_eq!(digest(one, &[ignored]), digest(other, &[ignored]), "{one} {other}");
        }
        for (one, other, ignored) in [
            (r#"{"m":{"t":1}}"#, r#"{"m":{"t":2}}"#, "/t"),
            (r#"{"t":1,"a":2}"#, r#"{"t":1,"a":3}"#, "/t"),
            (r#"{"t":{"u":1,"v":1}}"#, r#"{"t":{"u":1,"v":2}}"#, "/t/u"),
            ("[1,2]", "[1,3]", "/01"),
            ("[1,2]", "[1,3]", "/-"),
        ] {
            assert_ne!(digest(one, &[ignored]), digest(other, &[ignored]), "{one} {other}");
        }
    }

    #[test]
    fn pointers_find_values() {
        let json = Json::parse(br#"{"a":{"b":[10,{"c":"x"}]},"":1,"n":null,"d":{"e":1,"e":2},"f":1}"#).expect("JSON");
        let number = |text: &str| match json.find(&pointer(text)) {
            Ok(Some(JsonValue::Number(text))) => Some(text.to_string()),
            _ => None,
        };
        assert_eq!(number("/a/b/0").as_deref(), Some("10"));
        assert_eq!(number("/").as_deref(), Some("1"));
        assert_eq!(number("/f").as_deref(), Some("1"));
        assert!(matches!(json.find(&pointer("/a/b/1/c")), Ok(Some(JsonValue::String(text))) if text == "x"));
        assert!(matches!(json.find(&pointer("/n")), Ok(Some(JsonValue::Null))));
        assert!(matches!(json.find(&pointer("/d")), Ok(Some(JsonValue::Object(_)))));
        for absent in ["/x", "/a/b/2", "/a/b/-", "/a/b/00", "/a/b/+1", "/a/b/", "/f/x", "/n/x", "/d/x"] {
            assert!(matches!(json.find(&pointer(absent)), Ok(None)), "{absent}");
        }
        assert!(matches!(json.find(&pointer("/d/e")), Err(DuplicateMember)));
        assert!(json.has_duplicates());
    }

    #[test]
    fn duplicates_are_noticed_however_they_are_spelled() {
        let has_duplicates = |text: &str| Json::parse(text.as_bytes()).expect("JSON").has_duplicates();
        assert!(has_duplicates(r#"{"a":1,"b":2,"\u0061":1}"#));
        assert!(has_duplicates(r#"[{"x":[{"a":1,"a":1}]}]"#));
        assert!(!has_duplicates(r#"{"a":{"a":1},"b":{"a":1}}"#));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "[",
            "]",
            "[1",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "1 2",
            "{} {}",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "NaN",
            "nul",
            "truex",
            "'a'",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "[1 2]",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
            "{1:2}",
            "/**/1",
            "\u{0}",
            "[}",
            "{]",
            ",",
            ":",
        ] {
            assert!(Json::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(Json::parse(b"\"\xff\"").is_none());
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert!(Json::parse(nested(MAX_DEPTH).as_bytes()).is_some());
        assert!(Json::parse(nested(MAX_DEPTH + 1).as_bytes()).is_none());
        for unit in ["[", "{\"a\":", "[{\"a\":"] {
            assert!(Json::parse(unit.repeat(100_000).as_bytes()).is_none());
        }
    }

    /// Of few names and texts, so that documents that nearly meet are common.
    fn value() -> impl Strategy<Value = JsonValue<'static>> {
        let text = || prop_oneof![Just(""), Just("a"), Just("\0"), Just("\u{1}a"), Just("aa")].prop_map(Cow::Borrowed);
        // In canonical form, each in one way only.
        let number = prop_oneof![
            Just("0"),
            Just("1"),
            Just("-1"),
            Just("10"),
            Just("0.1"),
            Just("11"),
            Just("1e99999999999999999999999999999999999999999")
        ];
        let leaf = prop_oneof![
            Just(JsonValue::Null),
            any::<bool>().prop_map(JsonValue::Bool),
            number.prop_map(|text| JsonValue::Number(Cow::Borrowed(text))),
            text().prop_map(JsonValue::String),
        ];
        leaf.prop_recursive(3, 12, 3, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(JsonValue::Array),
                proptest::collection::btree_map(text(), inner, 0..3)
                    .prop_map(|members| JsonValue::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8192))]

        #[test]
        fn different_documents_never_meet(one in value(), other in value()) {
            let digest = |value: &JsonValue<'_>| {
                let mut digest = DigestKey::from_bytes([7; 32]).digest(DigestKind::Body);
                value.add_to(&mut digest);
                digest.finish()
            };
            prop_assert_eq!(digest(&one) == digest(&other), one == other);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Json::parse(&text);
        }

        #[test]
        fn what_is_nearly_json_is_read_or_refused(text in "([\\[\\]{},:0-9eE.+\"\\\\ a-]|\\\\u|\"a\":|d8|dc00|true|null){0,40}") {
            let _ = Json::parse(text.as_bytes());
        }

        /// The judge of what is JSON is an independent reader.
        #[test]
        fn readers_agree(text in "([\\[\\]{},:0-9e.\" -]|\"a\":|\"b\":|true|null){0,12}") {
            let ours = Json::parse(text.as_bytes()).is_some();
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(ours, theirs, "{}", text);
        }
    }
}
