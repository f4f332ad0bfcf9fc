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
