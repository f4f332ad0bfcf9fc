//! The request that is played, and what differs from it.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;

use super::case::{LONG, SentKey, Variation, VerifyCase};
use super::judge::KeyForm;
use super::key_position::{KeyPosition, KeyPositionError, KeyValue, RequestParts, is_form};
use crate::random::random;
use crate::rule::JsonPointer;

/// What is played, and how.
#[derive(Debug, Clone)]
pub struct VerifyRequest {
    /// The method.
    pub method: Method,
    /// The absolute URL.
    pub url: Uri,
    /// The header, without the key.
    pub headers: HeaderMap,
    /// The content.
    pub body: Bytes,
    /// Where the key goes.
    pub key: KeyPosition,
    /// The fields by which another caller is known.
    pub other_caller: Vec<(HeaderName, HeaderValue)>,
    /// Other content, where it is given.
    pub other_body: Option<Bytes>,
    /// Another path, where it is given.
    pub other_target: Option<PathAndQuery>,
    /// Where effects are counted.
    pub count: Option<CountRequest>,
    /// How long to wait for an answer.
    pub timeout: Duration,
}

/// Where the API counts effects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountRequest {
    /// Path and query of a GET.
    pub target: PathAndQuery,
    /// Where the number or the list is in its JSON; the whole is a list if absent.
    pub at: Option<JsonPointer>,
}

/// A body with one value changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AlteredBody {
    pub(super) body: Bytes,
    /// Which value.
    pub(super) what: String,
}

/// The keys of one case.
pub(super) struct CaseKeys {
    first: String,
    second: String,
    fresh: String,
}

impl VerifyRequest {
    /// Whether the key can be put where it should go, in the other body, too.
    pub fn check(&self) -> Result<(), KeyPositionError> {
        let key = KeyValue::One("key".to_owned());
        self.with(&key, Variation::AsGiven)?;
        match self.with(&key, Variation::Body) {
            Ok(_) => Ok(()),
            Err(_) => Err(KeyPositionError::OtherBody(self.key.to_string())),
        }
    }

    /// Why a case is left out.
    pub(super) fn why_not(&self, case: VerifyCase) -> Option<&'static str> {
        let in_header = matches!(self.key, KeyPosition::Header(_));
        match case {
            VerifyCase::OtherCaller if self.other_caller.is_empty() => {
                Some("there is no other caller: give one with --other-caller 'Authorization: ...'")
            }
            VerifyCase::OtherBody if self.altered().is_none() => {
                Some("there is no value in the body that could be changed: give another body with --other-data")
            }
            VerifyCase::QuotedKey if !in_header => Some("only a key in a header is quoted"),
            _ => None,
        }
    }

    /// The other body.
    pub(super) fn altered(&self) -> Option<AlteredBody> {
        match &self.other_body {
            Some(body) => Some(AlteredBody { body: body.clone(), what: "as given".to_owned() }),
            None if is_form(&self.headers) => altered_form(&self.body, &self.key),
            None => altered_json(&self.body, &self.key),
        }
    }

    /// Path and query of the other target.
    pub(super) fn target_of(&self, variation: Variation) -> PathAndQuery {
        let own = || self.url.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        match (variation, &self.other_target) {
            (Variation::Target, Some(other)) => other.clone(),
            (Variation::Target, None) => {
                let own = own();
                let joint = if own.query().is_some() { '&' } else { '?' };
                let text = format!("{}{joint}onlyonce-verify=1", own.as_str());
                text.parse().unwrap_or(own)
            }
            (Variation::AsGiven | Variation::Body | Variation::Caller, _) => own(),
        }
    }

    fn parts(&self, variation: Variation, altered: Option<&AlteredBody>) -> RequestParts {
        let mut headers = self.headers.clone();
        if variation == Variation::Caller {
            for (name, _) in &self.other_caller {
                headers.remove(name);
            }
            headers.extend(self.other_caller.iter().cloned());
        }
        let body = match altered {
            Some(altered) if variation == Variation::Body => altered.body.clone(),
            _ => self.body.clone(),
        };
        RequestParts { target: self.target_of(variation), headers, body }
    }

    /// One request of a case.
    pub(super) fn with(&self, key: &KeyValue, variation: Variation) -> Result<RequestParts, KeyPositionError> {
        let altered = if variation == Variation::Body { self.altered() } else { None };
        let mut parts = self.parts(variation, altered.as_ref());
        self.key.put(key, &mut parts)?;
        Ok(parts)
    }
}

impl CaseKeys {
    /// `first` and `second` are the keys of the control.
    pub(super) fn new(first: &str, second: &str) -> Self {
        Self { first: first.to_owned(), second: second.to_owned(), fresh: new_key() }
    }

    /// What is sent as a key.
    pub(super) fn value(&self, key: SentKey, form: KeyForm) -> KeyValue {
        let sent = |key: &str| KeyValue::One(form.of(key));
        match key {
            SentKey::Absent => KeyValue::Absent,
            SentKey::First => sent(&self.first),
            SentKey::Second => sent(&self.second),
            SentKey::Fresh => sent(&self.fresh),
            SentKey::Other => sent(&new_key()),
            SentKey::Requoted => KeyValue::One(form.other().of(&self.first)),
            SentKey::UpperCase => sent(&self.first.to_ascii_uppercase()),
            SentKey::Two => KeyValue::Two(form.of(&new_key()), form.of(&self.fresh)),
            SentKey::Empty => sent(""),
            SentKey::Long(last) => {
                let mut long = self.fresh.clone();
                while long.len() < LONG - 1 {
                    long.push('x');
                }
                long.push(last);
                sent(&long)
            }
        }
    }
}

impl KeyForm {
    fn of(self, key: &str) -> String {
        match self {
            Self::Bare => key.to_owned(),
            Self::Quoted => format!("\"{key}\""),
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Bare => Self::Quoted,
            Self::Quoted => Self::Bare,
        }
    }
}

/// A random UUID (RFC 9562, 5.4) that has a letter, so that there is another one in upper case.
pub(super) fn new_key() -> String {
    loop {
        let mut bytes: [u8; 16] = random();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex = format!("{:032x}", u128::from_be_bytes(bytes));
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        if hex.bytes().any(|digit| digit.is_ascii_lowercase()) {
            return parts.join("-");
        }
    }
}

/// A number becomes the next one; any other text becomes longer by one character.
fn next_text(text: &str) -> String {
    match text.parse::<u64>() {
        Ok(number) if !text.starts_with('0') => number.saturating_add(1).to_string(),
        _ => format!("{text}2"),
    }
}

fn altered_form(body: &[u8], key: &KeyPosition) -> Option<AlteredBody> {
    let mut pairs: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
    let is_key = |name: &str| matches!(key, KeyPosition::Form(field) if field == name);
    let changeable = |(name, value): &(String, String)| !is_key(name) && !value.is_empty();
    let numeric = |(_, value): &(String, String)| value.parse::<u64>().is_ok();
    let at = pairs.iter().position(|pair| changeable(pair) && numeric(pair));
    let at = at.or_else(|| pairs.iter().position(changeable))?;
    pairs[at].1 = next_text(&pairs[at].1);
    let what = format!("the field {}", pairs[at].0);
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
    Some(AlteredBody { body: body.into(), what })
}

fn altered_json(body: &[u8], key: &KeyPosition) -> Option<AlteredBody> {
    let mut json: Value = serde_json::from_slice(body).ok()?;
    let own = match key {
        KeyPosition::Json(pointer) => pointer.to_string(),
        _ => String::new(),
    };
    let mut leaves = Vec::new();
    collect(&json, String::new(), &mut leaves);
    leaves.retain(|(pointer, _)| *pointer != own);
    let number = leaves.iter().find(|(_, is_number)| *is_number);
    let (pointer, _) = number.or_else(|| leaves.first())?.clone();
    let place = json.pointer_mut(&pointer)?;
    *place = match &*place {
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number.saturating_add(1)),
            (None, Some(number), _) => Value::from(number + 1),
            (None, None, Some(number)) => Value::from(number + 1.0),
            (None, None, None) => return None,
        },
        Value::String(text) => Value::String(next_text(text)),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(AlteredBody { body: json.to_string().into(), what: pointer })
}

/// The pointers of numbers and strings, and whether it is a number.
fn collect(json: &Value, pointer: String, leaves: &mut Vec<(String, bool)>) {
    match json {
        Value::Number(_) => leaves.push((pointer, true)),
        Value::String(text) if !text.is_empty() => leaves.push((pointer, false)),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
        Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(at, element)| collect(element, format!("{pointer}/{at}"), leaves));
        }
        Value::Object(members) => members.iter().for_each(|(name, member)| {
            let name = name.replace('~', "~0").replace('/', "~1");
            collect(member, format!("{pointer}/{name}"), leaves);
        }),
    }
}

impl CountRequest {
    /// The count in the body of the answer.
    pub(super) fn read(&self, body: &[u8]) -> Result<u64, String> {
        let json: Value = serde_json::from_slice(body).map_err(|_| "its answer is no JSON".to_owned())?;
        let found = match &self.at {
            Some(pointer) => {
                json.pointer(&pointer.to_string()).ok_or_else(|| format!("its answer has no {pointer}"))?
            }
            None => &json,
        };
        match found {
            Value::Array(elements) => Ok(u64::try_from(elements.len()).unwrap_or(u64::MAX)),
            Value::Number(number) => number.as_u64().ok_or_else(|| "the number is no count".to_owned()),
            Value::String(text) => text.parse().map_err(|_| "the text there is no number".to_owned()),
            Value::Null | Value::Bool(_) | Value::Object(_) => match self.at {
                Some(_) => Err("neither a number nor a list is there".to_owned()),
                None => {
                    Err("its answer is no list: say where the number or the list is, as --at json:/total".to_owned())
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> KeyPosition {
        KeyPosition::Header(HeaderName::from_static("idempotency-key"))
    }

    #[test]
    fn one_value_of_a_body_is_changed_and_never_the_key() {
        let json = |body: &str, key: &KeyPosition| {
            altered_json(body.as_bytes(), key).map(|altered| String::from_utf8(altered.body.to_vec()).expect("UTF-8"))
        };
        assert_eq!(json(r#"{"item":"book"}"#, &header()).as_deref(), Some(r#"{"item":"book2"}"#));
        assert_eq!(
            json(r#"{"item":"book","n":[{"x":3}]}"#, &header()).as_deref(),
            Some(r#"{"item":"book","n":[{"x":4}]}"#)
        );
        assert_eq!(json(r#"{"amount":1.5}"#, &header()).as_deref(), Some(r#"{"amount":2.5}"#));
        assert_eq!(json(r#"{"amount":-1}"#, &header()).as_deref(), Some(r#"{"amount":0}"#));
        assert_eq!(json("{}", &header()), None);
        assert_eq!(json("", &header()), None);
        let key = KeyPosition::Json(JsonPointer::parse("/k").expect("a pointer"));
        assert_eq!(json(r#"{"k":1}"#, &key), None);
        assert_eq!(json(r#"{"k":1,"l":"a"}"#, &key).as_deref(), Some(r#"{"k":1,"l":"a2"}"#));

        let form = |body: &str| altered_form(body.as_bytes(), &KeyPosition::Form("k".into()));
        assert_eq!(form("customer=Ada&amount=120").expect("a body").body, "customer=Ada&amount=121");
        assert_eq!(form("k=1&customer=Ada").expect("a body").body, "k=1&customer=Ada2");
        assert_eq!(form("k=1"), None);
    }

    #[test]
    fn a_count_is_a_number_or_the_length_of_a_list() {
        let read = |body: &str, at: Option<&str>| {
            let at = at.and_then(JsonPointer::parse);
            CountRequest { target: PathAndQuery::from_static("/orders"), at }.read(body.as_bytes())
        };
        assert_eq!(read("[1,2]", None), Ok(2));
        assert_eq!(read(r#"{"total":7}"#, Some("/total")), Ok(7));
        assert_eq!(read(r#"{"total":"7"}"#, Some("/total")), Ok(7));
        assert_eq!(read(r#"{"data":[1,2,3]}"#, Some("/data")), Ok(3));
        assert!(read(r#"{"data":[]}"#, None).is_err_and(|why| why.contains("--at json:/total")));
        assert!(read(r#"{"data":[]}"#, Some("/total")).is_err_and(|why| why.contains("no /total")));
        assert!(read("<html>", None).is_err_and(|why| why.contains("no JSON")));
        assert!(read(r#"{"total":1.5}"#, Some("/total")).is_err());
    }

    #[test]
    fn keys_are_random_uuids_with_a_letter() {
        let (one, other) = (new_key(), new_key());
        assert_ne!(one, other);
        assert_eq!((one.len(), one.as_bytes()[14]), (36, b'4'));
        assert_ne!(one, one.to_ascii_uppercase());
        let keys = CaseKeys::new(&one, &other);
        assert_eq!(keys.value(SentKey::Requoted, KeyForm::Bare), KeyValue::One(format!("\"{one}\"")));
        assert_eq!(keys.value(SentKey::Requoted, KeyForm::Quoted), KeyValue::One(one.clone()));
        let KeyValue::One(long) = keys.value(SentKey::Long('a'), KeyForm::Bare) else { panic!("one key") };
        assert_eq!(long.len(), LONG);
    }
}
