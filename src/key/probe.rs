//! The question of a probe: values of the first request in the path that its route names.

use std::borrow::Cow;
use std::fmt;

use super::body::Body;
use super::jwt::Claims;
use super::select::{self, KeyPart, Role};
use super::{KeyError, Request};
use crate::rule::{ProbePath, ProbePiece, Rule, Selector};
use crate::uri::{has_dot_segment, percent_decode, push_component};

/// The values of a request that its question names.
#[derive(Clone, PartialEq, Eq)]
pub struct ProbeValues {
    /// Each with its name in the configuration: `key`, `json:/order`.
    values: Vec<(String, Vec<u8>)>,
    is_the_same_for_repeats: bool,
}

/// Why the backend cannot be asked about a request. It does not show the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoProbe {
    /// Its scope and payload are its key.
    #[error("the request has no key")]
    NoKey,
    /// A value cannot stand in a path.
    #[error("{value} {why}")]
    Value {
        /// As in the configuration: `{key}`.
        value: String,
        /// What is wrong with it.
        why: ValueFault,
    },
    /// A value and what stands beside it are a dot segment.
    #[error("with its values, the path has a segment of dots")]
    DotSegment,
    /// The whole is too long.
    #[error("with its values, the path is longer than {LONGEST} bytes")]
    TooLong,
}

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueFault {
    /// The request does not have it.
    #[error("is not there")]
    Absent,
    /// It is there more than once, or a reader may take another one for it.
    #[error("is not one value")]
    Ambiguous,
    /// It has no characters.
    #[error("is empty")]
    Empty,
    /// It would lead to another path (RFC 3986, 3.3).
    #[error("is . or ..")]
    Dots,
    /// Control characters.
    #[error("has control characters")]
    Control,
    /// It is not UTF-8.
    #[error("is not text")]
    NotText,
}

/// What every server must take (RFC 9110, 4.1).
const LONGEST: usize = 8000;

impl ProbeValues {
    /// Those of a first request, as they were kept with its record.
    pub fn kept(values: Vec<(String, Vec<u8>)>) -> Self {
        Self { values, is_the_same_for_repeats: true }
    }

    /// Each with its name.
    pub fn all(&self) -> &[(String, Vec<u8>)] {
        &self.values
    }

    /// Whether every request with the same key, scope and target has the same values. If not, only those of the first
    /// request count.
    pub fn are_the_same_for_repeats(&self) -> bool {
        self.is_the_same_for_repeats
    }

    /// Path and query of the question.
    pub fn in_path(&self, path: &ProbePath) -> Result<String, NoProbe> {
        let mut target = String::new();
        for piece in path.pieces() {
            let Some(name) = piece.value_name() else {
                if let ProbePiece::Literal(text) = piece {
                    target.push_str(text);
                }
                continue;
            };
            let fault = |why| NoProbe::Value { value: piece.to_string(), why };
            let value = self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
            let value = value.ok_or(ValueFault::Absent).and_then(|value| text(value));
            push_component(&mut target, value.map_err(fault)?);
        }
        if has_dot_segment(&target) {
            return Err(NoProbe::DotSegment);
        }
        if target.len() > LONGEST {
            return Err(NoProbe::TooLong);
        }
        Ok(target)
    }
}

/// A value that can stand in a path.
fn text(value: &[u8]) -> Result<&str, ValueFault> {
    match str::from_utf8(value).map_err(|_| ValueFault::NotText)? {
        "" => Err(ValueFault::Empty),
        "." | ".." => Err(ValueFault::Dots),
        text if text.chars().any(char::is_control) => Err(ValueFault::Control),
        text => Ok(text),
    }
}

/// The key is one of the values.
impl fmt::Debug for ProbeValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeValues(…)")
    }
}

/// The parts of a request that are read already.
#[derive(Clone, Copy)]
pub(super) struct ReadParts<'p, 'b> {
    pub(super) key: &'p [KeyPart<'p>],
    pub(super) scope: &'p [KeyPart<'p>],
    pub(super) body: &'p Body<'b>,
}

/// The values of this request.
pub(super) fn values(
    path: &ProbePath,
    rule: &Rule,
    request: &Request<'_>,
    parts: ReadParts<'_, '_>,
) -> Result<ProbeValues, NoProbe> {
    let (mut values, mut is_the_same_for_repeats) = (Vec::<(String, Vec<u8>)>::new(), true);
    for piece in path.pieces() {
        let (name, selector, known) = match (piece, piece.value_name()) {
            (ProbePiece::Literal(_), _) | (_, None) => continue,
            (_, Some(name)) if values.iter().any(|(known, _)| *known == name) => continue,
            (ProbePiece::Key, Some(name)) => (name, rule.key.first(), parts.key.first()),
            (ProbePiece::Value(selector), Some(name)) => (name, Some(selector), read_before(selector, rule, parts)),
        };
        let fault = |why| NoProbe::Value { value: piece.to_string(), why };
        let read_now;
        let part = match (known, selector) {
            (Some(part), _) => part,
            (None, Some(selector)) => {
                read_now = read(selector, request, parts.body).map_err(fault)?;
                &read_now
            }
            (None, None) => return Err(fault(ValueFault::Absent)),
        };
        let is_path = matches!(selector, Some(Selector::Path(_)));
        // One number has several spellings, and they are the same key.
        is_the_same_for_repeats &= (known.is_some() || is_path) && !matches!(part, KeyPart::Number(_));
        values.push((name, value(part, is_path).map_err(fault)?.into_owned()));
    }
    let values = ProbeValues { values, is_the_same_for_repeats };
    // What cannot be asked for is not kept.
    values.in_path(path).map(|_| values)
}

/// A part of the key or the scope. Repeats have the same.
fn read_before<'p>(selector: &Selector, rule: &Rule, parts: ReadParts<'p, '_>) -> Option<&'p KeyPart<'p>> {
    let at = |selectors: &[Selector]| selectors.iter().position(|one| one == selector);
    let of_key = at(&rule.key).and_then(|at| parts.key.get(at));
    of_key.or_else(|| at(&rule.scope).and_then(|at| parts.scope.get(at)))
}

fn read<'b>(selector: &Selector, request: &Request<'b>, body: &'b Body<'_>) -> Result<KeyPart<'b>, ValueFault> {
    let ambiguous = |_: KeyError| ValueFault::Ambiguous;
    match select::in_head(selector, Role::Scope, request, body.declared, &Claims::Absent).map_err(ambiguous)? {
        Some(part) => Ok(part),
        None => select::in_body(selector, Role::Scope, body).map_err(ambiguous),
    }
}

fn value<'a>(part: &'a KeyPart<'_>, is_path: bool) -> Result<Cow<'a, [u8]>, ValueFault> {
    Ok(match part {
        KeyPart::Absent => return Err(ValueFault::Absent),
        // The value of a parameter of the path is in its encoded form.
        KeyPart::Text(text) if is_path => Cow::Owned(percent_decode(text).ok_or(ValueFault::NotText)?),
        KeyPart::Text(text) => Cow::Borrowed(text),
        KeyPart::Number(text) => Cow::Borrowed(text.as_bytes()),
        KeyPart::Bool(value) => Cow::Borrowed(if *value { b"true" } else { b"false" }),
        KeyPart::Lines(lines) => match &lines[..] {
            [line] => Cow::Borrowed(line),
            [] => return Err(ValueFault::Absent),
            _ => return Err(ValueFault::Ambiguous),
        },
        KeyPart::Composite(_) | KeyPart::Unverified(_) => return Err(ValueFault::Ambiguous),
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};
    use proptest::prelude::*;

    use super::super::{DigestKey, KeyOutcome, read as read_request};
    use super::*;
    use crate::config;
    use crate::rule::RouteTarget;

    const JSON: (&str, &str) = ("content-type", "application/json");

    type Asked = Result<(String, bool), NoProbe>;

    /// The question about this request of a route with these keys, and whether repeats have the same.
    fn asked(keys: &str, path: &str, requested: &str, lines: &[(&str, &str)], body: &[u8]) -> Asked {
        let text = format!(
            "upstream.url = \"http://127.0.0.1:1\"\nstore.url = \"memory:\"\n[[route]]\nname = \"orders\"\n\
             path = \"/t/{{tenant}}/{{*rest}}\"\nscope = []\n{keys}\n[route.probe]\npath = {path:?}\n\
             found = {{ status = [\"200\"], json = \"/id\" }}\nabsent = {{ status = [\"404\"] }}"
        );
        let config = config::parse("test", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        let method = Method::POST;
        let target = RouteTarget { method: &method, overriding: &[], host: None, path: requested, normal: requested };
        let found = config.routes.find(&target).expect("a route");
        let request = Request { path: requested, ..Request::plain(&method, &headers, &found.params) };
        let read = read_request(found.rule, &DigestKey::from_bytes([1; 32]), request, body);
        let probe = match read.unwrap_or_else(|error| panic!("{error}")) {
            KeyOutcome::Operation(operation) => operation.probe.expect("the route has a probe").values,
            KeyOutcome::Missing(selector) => panic!("{selector} is missing"),
        };
        let path = &found.rule.probe.as_ref().expect("a probe").path;
        probe.and_then(|values| Ok((values.in_path(path)?, values.are_the_same_for_repeats())))
    }

    fn by_key(key: &str) -> Asked {
        asked("", "/orders?k={key}", "/t/a/b", &[("idempotency-key", key)], b"")
    }

    fn no(value: &str, why: ValueFault) -> Asked {
        Err(NoProbe::Value { value: value.to_owned(), why })
    }

    #[test]
    fn values_are_encoded_but_for_unreserved_characters() {
        for (key, target) in [
            ("abc-._~09", "/orders?k=abc-._~09"),
            ("\"a b\"", "/orders?k=a%20b"),
            ("a/../b?c#d&e=%20+", "/orders?k=a%2F..%2Fb%3Fc%23d%26e%3D%2520%2B"),
            ("...", "/orders?k=..."),
        ] {
            assert_eq!(by_key(key), Ok((target.to_owned(), true)));
        }
        for key in [".", ".."] {
            assert_eq!(by_key(key), no("{key}", ValueFault::Dots));
        }
    }

    #[test]
    fn values_of_every_kind_are_read_and_only_those_of_key_scope_and_path_are_the_same_for_repeats() {
        let key = ("idempotency-key", "k");
        let body = br#"{"id":7,"no":{"a":"b c"},"yes":true,"none":null,"list":[1],"empty":"","two":1,"two":2}"#;
        let ask = |keys: &str, path: &str, lines: &[(&str, &str)]| asked(keys, path, "/t/%C3%A9/x/y%2Fz", lines, body);
        let ok = |target: &str, same| Ok((target.to_owned(), same));
        let plain = [key, JSON];
        assert_eq!(ask("", "/o/{json:/id}/{json:/no/a}?y={json:/yes}", &plain), ok("/o/7/b%20c?y=true", false));
        assert_eq!(ask("", "/{path:tenant}/{path:rest}?k={key}", &plain), ok("/%C3%A9/x%2Fy%2Fz?k=k", true));
        assert_eq!(ask("key = \"json:/no/a\"", "/o?{json:/no/a}", &[JSON]), ok("/o?b%20c", true));
        assert_eq!(ask("key = \"json:/id\"", "/o?{key}", &[JSON]), ok("/o?7", false), "7.0 is the same key");
        let tenant = [key, JSON, ("x-tenant", "t 1")];
        assert_eq!(ask("", "/o?{header:X-Tenant}", &tenant), ok("/o?t%201", false));
        let twice = [key, JSON, ("x-tenant", "t"), ("x-tenant", "t")];
        assert_eq!(ask("", "/o?{header:X-Tenant}", &twice), no("{header:x-tenant}", ValueFault::Ambiguous));
        assert_eq!(ask("", "/o?{header:X-Tenant}", &plain), no("{header:x-tenant}", ValueFault::Absent));
        let tab = [key, JSON, ("x-tenant", "a\tb")];
        assert_eq!(ask("", "/o?{header:X-Tenant}", &tab), no("{header:x-tenant}", ValueFault::Control));
        for (pointer, why) in [
            ("/none", ValueFault::Absent),
            ("/nothing", ValueFault::Absent),
            ("/list", ValueFault::Ambiguous),
            ("/two", ValueFault::Ambiguous),
            ("/empty", ValueFault::Empty),
        ] {
            let value = format!("{{json:{pointer}}}");
            let path = format!("/o?{value}");
            assert_eq!(ask("", &path, &plain), no(&value, why));
        }
        let long = "x".repeat(255);
        let path = format!("/{}?{{key}}", "y".repeat(7800));
        assert_eq!(ask("", &path, &[("idempotency-key", &long), JSON]), Err(NoProbe::TooLong));
    }

    #[test]
    fn a_value_makes_no_dot_segment_with_what_stands_beside_it() {
        let ask =
            |path: &str, value: &str| asked("key_format = \"any\"", path, "/t/a/b", &[("idempotency-key", value)], b"");
        for (path, value) in [("/o/.{key}", "."), ("/o/{key}.", "."), ("/o/.{key}/x", ".")] {
            assert_eq!(ask(path, value), no("{key}", ValueFault::Dots));
        }
        assert_eq!(ask("/o/{key}{key}", "a"), Ok(("/o/aa".to_owned(), true)));
    }

    #[test]
    fn without_a_key_nothing_is_asked() {
        let keys = "on_missing_key = \"fingerprint\"\nlease = \"1s\"";
        assert_eq!(asked(keys, "/o?{key}", "/t/a/b", &[], b"x"), Err(NoProbe::NoKey));
    }

    proptest! {
        /// Whatever the value is, it is one value at the backend, and stays where it was put.
        #[test]
        fn a_value_cannot_leave_its_place(value in any::<Vec<u8>>(), before in "[a-z./]{0,4}", behind in "[a-z./]{0,4}") {
            let path = ProbePath::parse(&format!("/o/{before}{{key}}{behind}?q={{key}}&z=1"), |_| {
                Ok::<_, ()>(ProbePiece::Key)
            });
            let values = ProbeValues::kept(vec![("key".to_owned(), value.clone())]);
            if let Ok(target) = values.in_path(&path.expect("braces that fit")) {
                prop_assert!(target.bytes().all(|byte| byte.is_ascii_graphic()));
                let (asked, query) = target.split_once('?').expect("a query");
                prop_assert!(!asked.split('/').any(|segment| segment == "." || segment == ".."));
                let inside = query.strip_prefix("q=").and_then(|rest| rest.strip_suffix("&z=1")).expect("the rest");
                prop_assert!(!inside.contains(['&', '=', '#', '+', '/', '?']));
                prop_assert_eq!(percent_decode(inside.as_bytes()), Some(value.clone()));
                let text = str::from_utf8(&value).expect("text");
                prop_assert!(!text.is_empty() && !text.chars().any(char::is_control));
            }
        }
    }
}
