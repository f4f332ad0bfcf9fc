//! Reading one selector out of a request.

use std::borrow::Cow;

use http::{HeaderValue, header};

use super::body::{Body, Declared, Media};
use super::decimal::Decimal;
use super::form::Field;
use super::json::{Duplicate, Value};
use super::jwt::Claims;
use super::{
    BodyFault, Digest, KeyError, KeyFault, Request, calendar, cookie, form, format, header as grammar, normalise_value,
    origin,
};
use crate::config::{JsonPointer, KeyFormat, Period, Selector, Unverified};

/// One part of a key or scope.
#[cfg_attr(test, derive(Debug, Clone, PartialEq))]
pub(super) enum Part<'a> {
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
    Composite(Value<'static>),
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
) -> Result<Option<Part<'a>>, KeyError> {
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
        Selector::Path(name) => Ok(request.params.get(name).map(normalise_value).map_or(Part::Absent, Part::of)),
        Selector::Host => Ok(origin::host(request).map_or(Part::Absent, Part::of)),
        Selector::Jwt(claim) => Ok(by_claim(selector, claim, role, request, claims)?),
        Selector::Ip => Ok(origin::client(request).map_or(Part::Absent, |client| Part::of(client.to_string()))),
        Selector::Date(period) => Ok(calendar::bucket(*period, request.now).map_or(Part::Absent, Part::of)),
        Selector::Json(_) | Selector::Form(_) => return from_body(selector, declared),
    };
    let part = part.and_then(|part| fits(selector, &part, role).map(|()| part));
    part.map(Some).map_err(|why| why.of(selector))
}

/// The part that takes the body, once the body is there.
pub(super) fn in_body<'b>(selector: &Selector, role: Role, body: &'b Body<'_>) -> Result<Part<'b>, KeyError> {
    let part = match selector {
        // The head has told.
        Selector::Header(_) | Selector::Cookie(_) | Selector::Query(_) | Selector::Path(_) => Part::Absent,
        Selector::Host | Selector::Jwt(_) | Selector::Ip | Selector::Date(_) => Part::Absent,
        Selector::Json(pointer) => {
            body.is_read_alike().map_err(|why| why.of(selector))?;
            let Some(json) = body.json() else {
                return match body.declared.media {
                    Media::Json if !body.is_empty() => Err(BodyFault::NotJson.of(selector)),
                    Media::Json | Media::Form | Media::Multipart | Media::Stream | Media::Other => Ok(Part::Absent),
                };
            };
            if json.has_lookalikes(pointer) {
                return Err(BodyFault::Lookalike.of(selector));
            }
            match json.find(pointer).map_err(|_| BodyFault::Duplicate.of(selector))? {
                None | Some(Value::Null) => Part::Absent,
                Some(Value::Bool(value)) => Part::Bool(*value),
                Some(Value::Number(text)) => Part::Number(Cow::Borrowed(text)),
                Some(Value::String(text)) => Part::Text(Cow::Borrowed(text.as_bytes())),
                Some(Value::Array(_) | Value::Object(_)) => return Err(KeyFault::NotScalar.of(selector)),
            }
        }
        Selector::Form(name) => {
            body.is_read_alike().map_err(|why| why.of(selector))?;
            match body.form().ok_or_else(|| BodyFault::NotForm.of(selector))?.field(name) {
                Field::Absent => Part::Absent,
                Field::Once(value) => Part::Text(Cow::Borrowed(value)),
                Field::Repeated => return Err(BodyFault::Duplicate.of(selector)),
                Field::Lookalike => return Err(BodyFault::Lookalike.of(selector)),
                Field::Charset => return Err(BodyFault::Charset.of(selector)),
                Field::File => return Err(KeyFault::File.of(selector)),
            }
        }
    };
    fits(selector, &part, role).map_err(|why| why.of(selector))?;
    Ok(part)
}

/// That an encoded body is of no use, and that one of some media types has no such part, the head tells. JSON is looked
/// for under any other: many clients declare it as something else, or as nothing.
fn from_body<'a>(selector: &Selector, declared: Declared<'_>) -> Result<Option<Part<'a>>, KeyError> {
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
        (false, false) => Ok(Some(Part::Absent)),
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
) -> Result<Part<'a>, KeyError> {
    let is_verified = match claims {
        Claims::Absent => return Ok(Part::Absent),
        Claims::Unverified => false,
        Claims::Verified(claims) => match claims.find(claim) {
            Ok(Some(Value::Bool(value))) => return Ok(Part::Bool(*value)),
            Ok(Some(Value::Number(text))) => return Ok(Part::Number(Cow::Owned(text.clone().into_owned()))),
            Ok(Some(Value::String(text))) => return Ok(Part::of(text.clone().into_owned())),
            // Readers differ in which of two members of one name they take.
            Ok(Some(value @ (Value::Array(_) | Value::Object(_)))) if !claims.has_duplicates() => {
                return Ok(Part::Composite(value.to_owned()));
            }
            Ok(Some(Value::Array(_) | Value::Object(_) | Value::Null) | None) | Err(Duplicate) => true,
        },
    };
    let unverified = request.trust.jwt.as_ref().map_or(Unverified::OwnCaller, |jwt| jwt.unverified);
    match (unverified, role) {
        (Unverified::Reject, Role::Scope) => Err(KeyError::Token { selector: selector.clone() }),
        (Unverified::Reject, Role::Key { .. }) if !is_verified => Err(KeyError::Token { selector: selector.clone() }),
        (Unverified::OwnCaller, Role::Scope) => {
            let lines = request.headers.get_all(header::AUTHORIZATION).into_iter();
            Ok(Part::Unverified(lines.map(|line| Cow::Borrowed(line.as_bytes())).collect()))
        }
        (Unverified::OwnCaller | Unverified::Reject, Role::Key { .. }) => Ok(Part::Absent),
    }
}

/// A key stands in one place only. A scope is whatever there is, in its order.
fn one_or_all<'a>(
    mut values: impl Iterator<Item = &'a [u8]>,
    role: Role,
    key: Read,
    scope: Read,
) -> Result<Part<'a>, KeyFault> {
    match role {
        Role::Key { .. } => match (values.next(), values.next()) {
            (None, _) => Ok(Part::Absent),
            (Some(value), None) => key(value).map(Part::Text),
            (Some(_), Some(_)) => Err(KeyFault::Several),
        },
        Role::Scope => {
            let values: Vec<_> = values.map(scope).collect::<Result<_, _>>()?;
            Ok(if values.is_empty() { Part::Absent } else { Part::Lines(values) })
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

fn fits(selector: &Selector, part: &Part<'_>, role: Role) -> Result<(), KeyFault> {
    let Role::Key { max_length, format } = role else { return Ok(()) };
    let format = if selector.is_chosen_by_client() { format } else { KeyFormat::Any };
    let text = match part {
        Part::Text(text) => Cow::Borrowed(&**text),
        Part::Number(text) => Cow::Borrowed(text.as_bytes()),
        Part::Composite(value) => Cow::Owned(value.to_string().into_bytes()),
        Part::Bool(_) => return format::check(b"", format),
        Part::Absent | Part::Lines(_) | Part::Unverified(_) => return Ok(()),
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

impl<'a> Part<'a> {
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
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, Method};

    use super::*;
    use crate::config::{JsonPointer, PathParams, Routes, Target};

    const KEY: Role = Role::Key { max_length: 8, format: KeyFormat::Any };

    fn json(pointer: &str) -> Selector {
        Selector::Json(JsonPointer::parse(pointer).expect("a pointer"))
    }

    fn head(
        selector: &Selector,
        role: Role,
        lines: &[(&'static str, &'static [u8])],
    ) -> Result<Option<String>, KeyError> {
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
        format!("{:?}", Part::Text(Cow::Borrowed(text.as_bytes())))
    }

    fn all(lines: &[&[u8]]) -> String {
        format!("{:?}", Part::Lines(lines.iter().copied().map(Cow::Borrowed).collect()))
    }

    fn key_fault<T>(selector: &Selector, why: KeyFault) -> Result<T, KeyError> {
        Err(why.of(selector))
    }

    #[test]
    fn a_key_in_a_header_has_one_line_and_a_grammar() {
        let selector = Selector::Header(HeaderName::from_static("k"));
        let read =
            |values: &[&'static [u8]]| head(&selector, KEY, &values.iter().map(|v| ("k", *v)).collect::<Vec<_>>());
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
        let target = Target { method: &Method::POST, overriding: &[], host: None, path, normal: path };
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
}
