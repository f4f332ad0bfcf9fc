use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};

use super::*;
use crate::rule::{JsonPointer, PathParams, RouteTarget, Routes};

const KEY: Role = Role::Key { max_length: 8, format: KeyFormat::Any };

fn json(pointer: &str) -> Selector {
    Selector::Json(JsonPointer::parse(pointer).expect("a pointer"))
}

fn head(selector: &Selector, role: Role, lines: &[(&'static str, &'static [u8])]) -> Result<Option<String>, KeyError> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).expect("a value"));
    }
    let params = PathParams::default();
    let request = Request::plain(&Method::POST, &headers, &params);
    asked(selector, role, &request)
}

fn asked(selector: &Selector, role: Role, request: &Request<'_>) -> Result<Option<String>, KeyError> {
    let part = in_head(selector, role, request, Declared::of(request.headers), &Claims::Absent)?;
    Ok(part.map(|part| format!("{part:?}")))
}

fn body(selector: &Selector, role: Role, bytes: &[u8]) -> Result<String, KeyError> {
    let media = if let Selector::Json(_) = selector { Media::Json } else { Media::Form };
    declared_as(media, selector, role, bytes)
}

fn declared_as(media: Media, selector: &Selector, role: Role, bytes: &[u8]) -> Result<String, KeyError> {
    let body = Body::new(Declared { media, content_type: None, several_types: false, encoded: false }, bytes);
    in_body(selector, role, &body).map(|part| format!("{part:?}"))
}

fn text(text: &str) -> String {
    format!("{:?}", KeyPart::Text(Cow::Borrowed(text.as_bytes())))
}

fn all(lines: &[&[u8]]) -> String {
    format!("{:?}", KeyPart::Lines(lines.iter().copied().map(Cow::Borrowed).collect()))
}

fn key_fault<T>(selector: &Selector, why: KeyFault) -> Result<T, KeyError> {
    Err(why.of(selector))
}

#[test]
fn a_key_in_a_header_has_one_line_and_a_grammar() {
    let selector = Selector::Header(HeaderName::from_static("k"));
    let read = |values: &[&'static [u8]]| head(&selector, KEY, &values.iter().map(|v| ("k", *v)).collect::<Vec<_>>());
    assert_eq!(read(&[]), Ok(Some("Absent".into())));
    assert_eq!(read(&[b"abc"]), Ok(Some(text("abc"))));
    assert_eq!(read(&[b"\"abc\";x"]), Ok(Some(text("abc"))));
    assert_eq!(read(&[b"\"12345678\""]), Ok(Some(text("12345678"))));
    assert_eq!(read(&[b"123456789"]), key_fault(&selector, KeyFault::TooLong(8)));
    for blank in [b"".as_slice(), b" \t", b"\"\"", b"\"  \""] {
        assert_eq!(read(&[blank]), key_fault(&selector, KeyFault::Blank));
    }
    for wrong in [b"a b".as_slice(), b"\xc3\xa9", b"\"a", b"a, b", b"a\tb"] {
        assert_eq!(read(&[wrong]), key_fault(&selector, KeyFault::Characters));
    }
    assert_eq!(read(&[b"abc", b"abc"]), key_fault(&selector, KeyFault::Several));
}

#[test]
fn a_key_may_have_to_be_quoted() {
    let selector = Selector::Header(HeaderName::from_static("k"));
    let role = Role::Key { max_length: 8, format: KeyFormat::Quoted };
    let read = |value: &'static [u8]| head(&selector, role, &[("k", value)]);
    assert_eq!(read(b" \"abc\";x=1 "), Ok(Some(text("abc"))));
    for bare in [b"abc".as_slice(), b"", b"a\"b\""] {
        assert_eq!(read(bare), key_fault(&selector, KeyFault::Unquoted));
    }
    assert_eq!(read(b"\"\""), key_fault(&selector, KeyFault::Blank));
    assert_eq!(head(&selector, role, &[]), Ok(Some("Absent".into())));
}

#[test]
fn a_scope_in_a_header_is_opaque() {
    let selector = Selector::Header(HeaderName::from_static("k"));
    let read = |lines: &[(&'static str, &'static [u8])]| head(&selector, Role::Scope, lines);
    let lines = |lines: &[&'static [u8]]| Ok(Some(all(lines)));
    assert_eq!(read(&[("other", b"x")]), Ok(Some("Absent".into())));
    assert_eq!(read(&[("k", b"")]), lines(&[b""]));
    assert_eq!(
        read(&[("k", b"\"Bearer\" \xff, and much longer than a key")]),
        lines(&[b"\"Bearer\" \xff, and much longer than a key"])
    );
    assert_eq!(read(&[("k", b"a"), ("k", b"b")]), lines(&[b"a", b"b"]));
}

#[test]
fn a_key_in_a_cookie_is_the_only_one_of_its_name() {
    let selector = Selector::Cookie("k".into());
    let read = |line: &'static [u8]| head(&selector, KEY, &[("cookie", line)]);
    assert_eq!(read(b"a=1; k=x, y; b=2"), Ok(Some(text("x, y"))));
    assert_eq!(read(b"k=\"x\""), Ok(Some(text("x"))));
    assert_eq!(read(b"K=x"), Ok(Some("Absent".into())));
    assert_eq!(read(b"k="), key_fault(&selector, KeyFault::Blank));
    assert_eq!(read(b"k=\xff"), key_fault(&selector, KeyFault::Characters));
    assert_eq!(read(b"k=1;k=1"), key_fault(&selector, KeyFault::Several));
    assert_eq!(read(b"k=123456789"), key_fault(&selector, KeyFault::TooLong(8)));

    let both = Ok(Some(all(&[b"\"1\"", b"2"])));
    assert_eq!(head(&selector, Role::Scope, &[("cookie", b"k=\"1\";k=2")]), both);
}

#[test]
fn a_query_parameter_is_a_part() {
    let selector = Selector::Query("k".into());
    let read = |role, query: Option<&str>| {
        let (headers, params) = (HeaderMap::new(), PathParams::default());
        let request = Request { query, ..Request::plain(&Method::POST, &headers, &params) };
        asked(&selector, role, &request)
    };
    for role in [KEY, Role::Scope] {
        for query in ["K=1", "k[]=1&k=1", "a=1;k=1", "k=1;a=1"] {
            assert_eq!(read(role, Some(query)), key_fault(&selector, KeyFault::Lookalike), "{query}");
        }
    }
    for absent in [None, Some(""), Some("kk=2"), Some("%zz=1&%=2"), Some("a=1;b=2")] {
        assert_eq!(read(KEY, absent), Ok(Some("Absent".into())));
        assert_eq!(read(Role::Scope, absent), Ok(Some("Absent".into())));
    }
    assert_eq!(read(KEY, Some("a=1&%6b=x+%79")), Ok(Some(text("x y"))));
    assert_eq!(read(KEY, Some("k")), key_fault(&selector, KeyFault::Blank));
    assert_eq!(read(KEY, Some("k=1&k=1")), key_fault(&selector, KeyFault::Several));
    assert_eq!(read(KEY, Some("k=123456789")), key_fault(&selector, KeyFault::TooLong(8)));
    assert_eq!(read(Role::Scope, Some("k=%41&b=1&k")), Ok(Some(all(&[b"A", b""]))));
    for role in [KEY, Role::Scope] {
        assert_eq!(read(role, Some("k=%zz")), key_fault(&selector, KeyFault::Escape));
    }
}

#[test]
fn path_host_address_and_date_are_parts() {
    let config = "[upstream]\nurl = \"http://127.0.0.1:1\"\n[store]\nurl = \"memory:\"\n[[route]]\nname = \"r\"\n\
                      path = \"/{tenant}/{*rest}\"\nscope = []\n";
    let routes: Routes = crate::config::parse("test.toml", config, &|_| None).expect("a configuration").routes;
    let path = "/a%2Fb/c/d";
    let target = RouteTarget { method: &Method::POST, overriding: &[], host: None, path, normal: path };
    let found = routes.find(&target).expect("a route");
    let headers = HeaderMap::new();
    let request = Request {
        host: Some("api.test"),
        path,
        peer: Some([192, 0, 2, 1].into()),
        now: std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(31 * 24 * 60 * 60),
        ..Request::plain(&Method::POST, &headers, &found.params)
    };
    for (selector, part) in [
        (Selector::Path("tenant".into()), "a%2Fb"),
        (Selector::Path("rest".into()), "c/d"),
        (Selector::Host, "api.test"),
        (Selector::Ip, "192.0.2.1"),
        (Selector::Date(Period::Day), "1970-02-01"),
        (Selector::Date(Period::Month), "1970-02"),
        (Selector::Date(Period::Year), "1970"),
    ] {
        for role in [Role::Key { max_length: 255, format: KeyFormat::Any }, Role::Scope] {
            assert_eq!(asked(&selector, role, &request), Ok(Some(text(part))), "{selector}");
        }
    }
    let nowhere = Request { host: None, peer: None, ..request };
    for selector in [Selector::Host, Selector::Ip] {
        assert_eq!(asked(&selector, KEY, &nowhere), Ok(Some("Absent".into())));
    }
}

#[test]
fn the_head_tells_whether_the_body_matters() {
    const FORM: &[u8] = b"application/x-www-form-urlencoded";
    const PARTS: &[u8] = b"multipart/form-data; boundary=x";
    let (json, form) = (json("/k"), Selector::Form("k".into()));
    let declared = |selector: &Selector, media| head(selector, KEY, &[("content-type", media)]);
    for (selector, media) in [
        (&json, &b"application/json"[..]),
        (&json, FORM),
        (&json, b"text/plain;charset=UTF-8"),
        (&json, b"application/octet-stream"),
        (&form, FORM),
        (&form, PARTS),
    ] {
        assert_eq!(declared(selector, media), Ok(None));
    }
    assert_eq!(head(&json, KEY, &[]), Ok(None));
    assert_eq!(head(&form, KEY, &[]), Ok(Some("Absent".into())));
    for (selector, other) in [
        (&json, PARTS),
        (&json, b"multipart/mixed; boundary=x"),
        (&json, b"image/png"),
        (&form, b"multipart/mixed; boundary=x"),
        (&form, b"application/json"),
        (&form, b"video/mp4"),
    ] {
        assert_eq!(declared(selector, other), Ok(Some("Absent".into())));
    }
    for media in [&b"application/json"[..], FORM, PARTS, b"image/png", b"text/plain"] {
        let encoded = [("content-type", media), ("content-encoding", b"gzip".as_slice())];
        for selector in [&json, &form] {
            assert_eq!(head(selector, KEY, &encoded), Err(BodyFault::Encoded.of(selector)));
        }
    }
}

#[test]
fn a_json_scalar_is_a_part() {
    let selector = json("/k");
    for role in [KEY, Role::Scope] {
        let read = |text: &str| body(&selector, role, text.as_bytes());
        assert_eq!(read(r#"{"k":"a\u0062"}"#), Ok(text("ab")));
        assert_eq!(read(r#"{"k":1.50}"#), Ok("Number(\"1.50\")".into()));
        assert_eq!(read(r#"{"k":true}"#), Ok("Bool(true)".into()));
        for lookalike in [r#"{"K":1}"#, r#"{"k":1,"K":1}"#] {
            assert_eq!(read(lookalike), Err(BodyFault::Lookalike.of(&selector)));
        }
        for absent in [r#"{"k":null}"#, "{}", "[]", "1", r#"{"kk":1}"#] {
            assert_eq!(read(absent), Ok("Absent".into()));
        }
        for composite in [r#"{"k":{}}"#, r#"{"k":[1]}"#] {
            assert_eq!(read(composite), key_fault(&selector, KeyFault::NotScalar));
        }
        for broken in [" ", "{", r#"{"k":1,}"#, "k=1"] {
            assert_eq!(read(broken), Err(BodyFault::NotJson.of(&selector)));
        }
        for empty in ["", "\u{feff}"] {
            assert_eq!(read(empty), Ok("Absent".into()));
        }
        assert_eq!(read("\u{feff}{\"k\":\"a\"}"), Ok(text("a")));
        // What was not declared as JSON is JSON where it parses.
        for media in [Media::Form, Media::Other] {
            let read = |text: &str| declared_as(media, &selector, role, text.as_bytes());
            assert_eq!(read(r#"{"k":"a"}"#), Ok(text("a")));
            assert_eq!(read(r#"{"k":1,"k":1}"#), Err(BodyFault::Duplicate.of(&selector)));
            for other in ["", "{", "k=1", "k=%"] {
                assert_eq!(read(other), Ok("Absent".into()));
            }
        }
        assert_eq!(read(r#"{"k":1,"k":1}"#), Err(BodyFault::Duplicate.of(&selector)));
        assert_eq!(read(r#"{"x":1,"x":1,"k":1}"#), Ok("Number(\"1\")".into()));
    }
    assert_eq!(body(&selector, KEY, br#"{"k":""}"#), key_fault(&selector, KeyFault::Blank));
    assert_eq!(body(&selector, Role::Scope, br#"{"k":""}"#), Ok(text("")));
    assert_eq!(body(&selector, KEY, br#"{"k":123456789}"#), key_fault(&selector, KeyFault::TooLong(8)));
    let nested = body(&json("/a/k"), KEY, br#"{"a":{"k":1},"a":{"k":1}}"#);
    assert_eq!(nested, Err(BodyFault::Duplicate.of(&json("/a/k"))));
}

#[test]
fn a_form_field_is_a_part() {
    let selector = Selector::Form("k".into());
    assert_eq!(body(&selector, KEY, b"a=1&k=x+%79"), Ok(text("x y")));
    assert_eq!(body(&selector, KEY, b"a=1"), Ok("Absent".into()));
    assert_eq!(body(&selector, KEY, b"k"), key_fault(&selector, KeyFault::Blank));
    assert_eq!(body(&selector, Role::Scope, b"k"), Ok(text("")));
    assert_eq!(body(&selector, KEY, b"k=1&k=1"), Err(BodyFault::Duplicate.of(&selector)));
    assert_eq!(body(&selector, KEY, b"k=1&a=%"), Err(BodyFault::NotForm.of(&selector)));
}

#[test]
fn no_error_quotes_the_request() {
    let selector = json("/k");
    for secret in [r#"{"k":"hunter2hunter2"}"#, r#"{"k":["hunter2"]}"#, r#"{"k":hunter2"#] {
        let error = body(&selector, KEY, secret.as_bytes()).expect_err("an error").to_string();
        assert!(error.contains("json:/k") && !error.contains("hunter2"), "{error}");
    }
}
