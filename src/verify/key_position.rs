//! Where the key goes in a request.

use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::rule::{JsonPointer, Selector};

/// A place that clients put a key in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPosition {
    /// A header field.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    Query(String),
    /// A member of a JSON body.
    Json(JsonPointer),
    /// A field of a form.
    Form(String),
}

/// The parts of a request that a key may be in.
#[derive(Debug, Clone)]
pub(super) struct RequestParts {
    pub(super) target: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What is put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyValue {
    Absent,
    One(String),
    Two(String, String),
}

/// Why the key cannot be put there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyPositionError {
    /// A selector of what the client does not choose.
    #[error("a client does not choose {0}: name where it puts its key, as header:NAME or json:/pointer")]
    NotChosen(Selector),
    /// The body is not JSON, or has no object there.
    #[error("the body has no JSON object that {0} can be a member of: give one with -d")]
    NoObject(JsonPointer),
    /// The body is not a form.
    #[error("the body is no form that could have the field {0}: give one with -d FIELD=VALUE")]
    NoForm(String),
    /// The other body has no place for it.
    #[error("--other-data has no place for the key, which goes into {0}: give a body that has one")]
    OtherBody(String),
    /// The value cannot be sent there.
    #[error("the key cannot be put into {0}")]
    Unfit(String),
}

impl TryFrom<Selector> for KeyPosition {
    type Error = KeyPositionError;

    fn try_from(selector: Selector) -> Result<Self, KeyPositionError> {
        match selector {
            Selector::Header(name) => Ok(Self::Header(name)),
            Selector::Cookie(name) => Ok(Self::Cookie(name)),
            Selector::Query(name) => Ok(Self::Query(name)),
            Selector::Json(pointer) => Ok(Self::Json(pointer)),
            Selector::Form(field) => Ok(Self::Form(field)),
            other @ (Selector::Path(_) | Selector::Host | Selector::Jwt(_) | Selector::Ip | Selector::Date(_)) => {
                Err(KeyPositionError::NotChosen(other))
            }
        }
    }
}

impl fmt::Display for KeyPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "the header {name}"),
            Self::Cookie(name) => write!(f, "the cookie {name}"),
            Self::Query(name) => write!(f, "the parameter {name} of the query"),
            Self::Json(pointer) => write!(f, "{pointer} of the JSON body"),
            Self::Form(field) => write!(f, "the field {field} of the form"),
        }
    }
}

impl KeyPosition {
    /// Puts the key there, in place of one that is there.
    pub(super) fn put(&self, key: &KeyValue, parts: &mut RequestParts) -> Result<(), KeyPositionError> {
        let keys: Vec<&str> = match key {
            KeyValue::Absent => vec![],
            KeyValue::One(key) => vec![key],
            KeyValue::Two(one, other) => vec![one, other],
        };
        match self {
            Self::Header(name) => {
                parts.headers.remove(name);
                for key in keys {
                    parts.headers.append(name, value(key, self)?);
                }
            }
            Self::Cookie(name) => put_cookies(name, &keys, &mut parts.headers, self)?,
            Self::Query(name) => {
                let query = parts.target.query().unwrap_or_default();
                let query = form_of(query.as_bytes(), name, &keys);
                let text = if query.is_empty() {
                    parts.target.path().to_owned()
                } else {
                    format!("{}?{query}", parts.target.path())
                };
                parts.target = text.parse().map_err(|_| self.unfit())?;
            }
            Self::Form(field) => {
                if !is_form(&parts.headers) {
                    return Err(KeyPositionError::NoForm(field.clone()));
                }
                parts.body = form_of(&parts.body, field, &keys).into();
            }
            Self::Json(pointer) => parts.body = json_of(&parts.body, pointer, &keys)?,
        }
        Ok(())
    }

    fn unfit(&self) -> KeyPositionError {
        KeyPositionError::Unfit(self.to_string())
    }
}

pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
}

fn value(text: &str, position: &KeyPosition) -> Result<HeaderValue, KeyPositionError> {
    HeaderValue::from_str(text).map_err(|_| position.unfit())
}

fn put_cookies(
    name: &str,
    keys: &[&str],
    headers: &mut HeaderMap,
    position: &KeyPosition,
) -> Result<(), KeyPositionError> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let given: Vec<String> = lines.flat_map(|line| line.split(';')).map(|pair| pair.trim().to_owned()).collect();
    let is_own = |pair: &String| pair.split_once('=').is_some_and(|(own, _)| own == name);
    let others = given.into_iter().filter(|pair| !pair.is_empty() && !is_own(pair));
    let pairs: Vec<String> = others.chain(keys.iter().map(|key| format!("{name}={key}"))).collect();
    headers.remove(COOKIE);
    if !pairs.is_empty() {
        headers.insert(COOKIE, value(&pairs.join("; "), position)?);
    }
    Ok(())
}

/// The pairs, with these values of `name` at their end.
fn form_of(pairs: &[u8], name: &str, values: &[&str]) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    out.extend_pairs(form_urlencoded::parse(pairs).filter(|(own, _)| own != name));
    values.iter().for_each(|value| {
        out.append_pair(name, value);
    });
    out.finish()
}

fn json_of(body: &[u8], pointer: &JsonPointer, keys: &[&str]) -> Result<Bytes, KeyPositionError> {
    let none = || KeyPositionError::NoObject(pointer.clone());
    let mut json: Value = serde_json::from_slice(body).map_err(|_| none())?;
    let (last, parents) = pointer.tokens().split_last().ok_or_else(none)?;
    let object = |json: &mut Value| -> Option<()> {
        let mut place = json;
        for token in parents {
            place = match place {
                Value::Array(elements) => elements.get_mut(token.parse::<usize>().ok()?)?,
                other => other.as_object_mut()?.get_mut(token)?,
            };
        }
        let members = place.as_object_mut()?;
        match keys.first() {
            Some(key) => members.insert(last.clone(), Value::String((*key).to_owned())),
            None => members.remove(last),
        };
        Some(())
    };
    object(&mut json).ok_or_else(none)?;
    let text = json.to_string();
    match keys {
        // The other key comes before the first, as a second member of the same name.
        [first, other, ..] => {
            let member = |key: &str| format!("{}:{}", Value::from(last.as_str()), Value::from(key));
            let twice = format!("{},{}", member(other), member(first));
            Ok(text.replacen(&member(first), &twice, 1).into())
        }
        _ => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(target: &str, media: &'static str, body: &str) -> RequestParts {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(COOKIE, HeaderValue::from_static("session=1; k=old"));
        RequestParts { target: target.parse().expect("a target"), headers, body: body.to_owned().into() }
    }

    const FORM: &str = "application/x-www-form-urlencoded";

    fn put(position: &KeyPosition, key: &KeyValue) -> RequestParts {
        let mut parts = match position {
            KeyPosition::Form(_) => parts("/o?a=1", FORM, "item=a+b&k=old"),
            _ => parts("/o?a=1&k=old", "application/json", r#"{"order":{"k":"old"},"list":[{}],"item":"book"}"#),
        };
        position.put(key, &mut parts).expect("it can be put there");
        parts
    }

    fn one() -> KeyValue {
        KeyValue::One("new".into())
    }

    fn two() -> KeyValue {
        KeyValue::Two("new".into(), "other".into())
    }

    fn json(pointer: &str) -> KeyPosition {
        KeyPosition::Json(JsonPointer::parse(pointer).expect("a pointer"))
    }

    #[test]
    fn a_key_takes_the_place_of_one_that_is_there() {
        let query = KeyPosition::Query("k".into());
        assert_eq!(put(&query, &one()).target.as_str(), "/o?a=1&k=new");
        assert_eq!(put(&query, &two()).target.as_str(), "/o?a=1&k=new&k=other");
        assert_eq!(put(&query, &KeyValue::Absent).target.as_str(), "/o?a=1");

        let form = KeyPosition::Form("k".into());
        assert_eq!(put(&form, &one()).body, "item=a+b&k=new");
        assert_eq!(put(&form, &two()).body, "item=a+b&k=new&k=other");
        assert_eq!(put(&form, &KeyValue::Absent).body, "item=a+b");

        let cookie = KeyPosition::Cookie("k".into());
        assert_eq!(put(&cookie, &one()).headers[COOKIE], "session=1; k=new");
        assert_eq!(put(&cookie, &two()).headers[COOKIE], "session=1; k=new; k=other");
        assert_eq!(put(&cookie, &KeyValue::Absent).headers[COOKIE], "session=1");

        let header = KeyPosition::Header(HeaderName::from_static("idempotency-key"));
        let lines = |parts: &RequestParts| parts.headers.get_all("idempotency-key").iter().count();
        assert_eq!([&one(), &two(), &KeyValue::Absent].map(|key| lines(&put(&header, key))), [1, 2, 0]);

        assert_eq!(put(&json("/order/k"), &one()).body, r#"{"item":"book","list":[{}],"order":{"k":"new"}}"#);
        assert_eq!(put(&json("/list/0/k"), &one()).body, r#"{"item":"book","list":[{"k":"new"}],"order":{"k":"old"}}"#);
        assert_eq!(
            put(&json("/order/k"), &two()).body,
            r#"{"item":"book","list":[{}],"order":{"k":"other","k":"new"}}"#
        );
        assert_eq!(put(&json("/order/k"), &KeyValue::Absent).body, r#"{"item":"book","list":[{}],"order":{}}"#);
    }

    #[test]
    fn where_there_is_no_place_it_says_what_would_be_right() {
        let mut form = parts("/o", FORM, "a=1");
        let error = json("/k").put(&one(), &mut form).expect_err("no JSON").to_string();
        assert!(error.contains("JSON object") && error.contains("-d"), "{error}");
        let mut json_body = parts("/o", "application/json", "[]");
        assert!(json("/k").put(&one(), &mut json_body).is_err());
        assert!(KeyPosition::Form("k".into()).put(&one(), &mut json_body).is_err());
        let error = KeyPosition::try_from(Selector::Ip).expect_err("not chosen").to_string();
        assert!(error.contains("does not choose ip"), "{error}");
    }
}
