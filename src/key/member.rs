use http::HeaderMap;

use super::body::{Body, Declared, Media};
use super::json::JsonValue;
use crate::rule::JsonPointer;

/// A JSON answer of the backend, in which members are looked for.
pub struct JsonAnswer<'a>(Body<'a>);

/// Why an answer cannot be read as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotJson {
    /// It is declared as something else, or is compressed.
    #[error("it is not declared as JSON")]
    MediaType,
    /// It does not parse.
    #[error("it is not JSON")]
    Invalid,
}

/// What a member of a JSON answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonMember {
    /// Not there, or there twice.
    Absent,
    /// `[]` or `{}`.
    Empty,
    /// `null`, `""`, `false` or zero. These are evidence of nothing: a search that fails says `"data": null`, too.
    Nought,
    /// Anything else.
    Something,
}

impl<'a> JsonAnswer<'a> {
    /// An answer with these header lines and this body.
    pub fn parse(headers: &'a HeaderMap, body: &'a [u8]) -> Result<Self, NotJson> {
        let declared = Declared::of(headers);
        if declared.media != Media::Json || declared.encoded || declared.several_types {
            return Err(NotJson::MediaType);
        }
        let body = Body::new(declared, body);
        if body.is_read_alike().is_err() {
            return Err(NotJson::MediaType);
        }
        if body.json().is_none() { Err(NotJson::Invalid) } else { Ok(Self(body)) }
    }

    /// The member at this pointer.
    pub fn member(&self, pointer: &JsonPointer) -> JsonMember {
        match self.0.json().and_then(|json| json.find(pointer).ok().flatten()) {
            None => JsonMember::Absent,
            Some(JsonValue::Null) => JsonMember::Nought,
            Some(JsonValue::Bool(value)) => {
                if *value {
                    JsonMember::Something
                } else {
                    JsonMember::Nought
                }
            }
            Some(JsonValue::Number(text)) => {
                let digits = text.split(['e', 'E']).next().unwrap_or_default();
                let is_zero = !digits.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
                if is_zero { JsonMember::Nought } else { JsonMember::Something }
            }
            Some(JsonValue::String(text)) if text.is_empty() => JsonMember::Nought,
            Some(JsonValue::Array(values)) if values.is_empty() => JsonMember::Empty,
            Some(JsonValue::Object(members)) if members.is_empty() => JsonMember::Empty,
            Some(JsonValue::String(_) | JsonValue::Array(_) | JsonValue::Object(_)) => JsonMember::Something,
        }
    }
}
