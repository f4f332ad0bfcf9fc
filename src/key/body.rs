use std::cell::OnceCell;

use http::{HeaderMap, HeaderName, header};

use super::{form::Form, json::Json};

/// What the head says of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) media: Media,
    /// It has a `Content-Encoding` other than `identity` (RFC 9110, 8.4): its bytes are not the media type's.
    pub(super) encoded: bool,
}

/// How a body can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// `application/json`, or any type with the suffix `+json` (RFC 6839, 3.1).
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
    /// By its bytes only.
    Other,
}

/// A body, parsed when somebody asks, and once.
pub(super) struct Body<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) declared: Declared,
    json: OnceCell<Option<Json<'b>>>,
    form: OnceCell<Option<Form<'b>>>,
}

impl Declared {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let coding = |name: &[u8]| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity");
        let encoded = headers
            .get_all(header::CONTENT_ENCODING)
            .into_iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .any(|name| coding(name.trim_ascii()));
        Self { media: Media::of(headers), encoded }
    }
}

impl Media {
    /// Parameters and case do not count (RFC 9110, 8.3.1). Two `Content-Type` lines declare nothing: nobody knows
    /// which of them the backend believes.
    fn of(headers: &HeaderMap) -> Self {
        let Some(value) = only_line(headers, &header::CONTENT_TYPE) else { return Self::Other };
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let Some(slash) = essence.iter().position(|byte| *byte == b'/') else { return Self::Other };
        let (kind, subtype) = (&essence[..slash], &essence[slash + 1..]);
        let is = |name: &[u8]| kind.eq_ignore_ascii_case(b"application") && subtype.eq_ignore_ascii_case(name);
        let has_suffix = subtype.last_chunk().is_some_and(|suffix: &[u8; 5]| suffix.eq_ignore_ascii_case(b"+json"));
        if is(b"json") || has_suffix {
            Self::Json
        } else if is(b"x-www-form-urlencoded") {
            Self::Form
        } else {
            Self::Other
        }
    }
}

fn only_line<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).into_iter();
    lines.next().filter(|_| lines.next().is_none()).map(http::HeaderValue::as_bytes)
}

impl<'b> Body<'b> {
    pub(super) fn new(declared: Declared, bytes: &'b [u8]) -> Self {
        Self { bytes, declared, json: OnceCell::new(), form: OnceCell::new() }
    }

    /// The body as JSON, whatever it was declared as; `None` where it is not.
    pub(super) fn json(&self) -> Option<&Json<'b>> {
        self.json.get_or_init(|| Some(self.bytes).filter(|_| !self.declared.encoded).and_then(Json::parse)).as_ref()
    }

    /// The body as a form, whatever it was declared as; `None` where it is not.
    pub(super) fn form(&self) -> Option<&Form<'b>> {
        self.form.get_or_init(|| Some(self.bytes).filter(|_| !self.declared.encoded).and_then(Form::parse)).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn declared(lines: &[(HeaderName, &'static str)]) -> Declared {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        Declared::of(&headers)
    }

    #[test]
    fn media_types_are_told_apart() {
        for (value, media) in [
            ("application/json", Media::Json),
            ("Application/JSON ; charset=utf-8", Media::Json),
            ("application/vnd.api+json;x=\"a;b\"", Media::Json),
            ("image/x+JSON", Media::Json),
            ("application/x-www-form-urlencoded", Media::Form),
            ("application/X-WWW-Form-Urlencoded;charset=UTF-8", Media::Form),
            ("text/json", Media::Other),
            ("application/jsonp", Media::Other),
            ("application/x-ndjson", Media::Other),
            ("multipart/form-data; boundary=x", Media::Other),
            ("json", Media::Other),
            ("", Media::Other),
        ] {
            assert_eq!(declared(&[(header::CONTENT_TYPE, value)]).media, media, "{value}");
        }
        assert_eq!(declared(&[]).media, Media::Other);
        let twice = [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_TYPE, "application/json")];
        assert_eq!(declared(&twice).media, Media::Other);
    }

    #[test]
    fn identity_is_no_encoding() {
        for (value, encoded) in [("gzip", true), ("identity", false), ("Identity, br", true), ("", false), (",", false)]
        {
            assert_eq!(declared(&[(header::CONTENT_ENCODING, value)]).encoded, encoded, "{value}");
        }
        let lines = [(header::CONTENT_ENCODING, "identity"), (header::CONTENT_ENCODING, "zstd")];
        assert!(declared(&lines).encoded);
    }
}
